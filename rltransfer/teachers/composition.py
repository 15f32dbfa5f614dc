"""Teachers made of teachers; each is a teacher again, so that they nest.

    PerTask                  each labels the rows of its own task: see `per_task.py`
    Ensemble                 mean of probabilities or logits; of Q-values; of Gaussians' moments
    ProductOfExperts         product of probabilities
    Vote                     noisy majority of greedy actions, private: see `vote.py`
    Noisy                    perturbed logits or Q-values: see `wrapper.py`
    Boltzmann                the softmax of Q-values, or of sharper or softer logits
    MonteCarloDropout        mean over dropout masks
    Adapted                  another observation, other actions: see `adapted.py`

An action that is illegal in a task stays so: its score is `ILLEGAL` in every label, and numbers
that a continuous action does not have are 0. Where members disagree, e.g. as one was adapted from a
task with fewer actions, a mean of probabilities takes the action for one that this member never
takes, a vote leaves it to the others, and every other composition takes it for illegal. Where the
members agree on no action, all that one of them takes for legal are left, none before another.

Randomness comes from a generator on the device, which a run seeds and keeps in its checkpoints.
Compositions of teachers that have a source have one too, their text: see `teacher_text.py`.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.files.serialization import to_builtin, to_json
from rltransfer.policies.output import ILLEGAL, LABELS, PolicyOutput
from rltransfer.policies.scores import is_illegal
from rltransfer.tasks.suite_spaces import SuiteSpaces
from rltransfer.teachers.spec import TeacherSpec
from rltransfer.teachers.teacher import Teacher

Mean = Literal["probabilities", "logits"]


class Composition(Teacher):
    """A teacher made of others.

    Args:
        members: The teachers.
        options: What the constructor took beside them, as it is written in text.

    Raises:
        InputError: There is no member, or one is no teacher; or they are not in a list.
    """

    draws = False
    """Whether it draws random numbers itself."""
    counters: tuple[str, ...] = ()
    """Its buffers that labelling changes, by name: checkpoints contain them."""

    def __init__(self, members: Sequence[Teacher], **options: Any) -> None:
        name = type(self).__name__
        _check_list(name, members)
        if not members:
            raise InputError(f"{name} is made of no teacher: it needs at least one.")
        for member in members:
            if not isinstance(member, Teacher):
                raise InputError(
                    f"{name} is made of {member!r}, which is no teacher: `load_teacher` makes one "
                    "of a path."
                )
        super().__init__()
        self._members = nn.ModuleList(members)
        self.options: dict[str, Any] = to_builtin(options)
        self.generator = torch.Generator() if self.draws else None
        self.num_parameters = sum(member.num_parameters for member in members)
        self.loadable = all(member.loadable for member in members)
        self.source = self._text()
        self.seed(0)

    def _text(self) -> str:
        """Returns the composition as it is written, without the options that are the defaults."""
        defaults = inspect.signature(type(self)).parameters
        words = [member.quoted() for member in self.members]
        for name, value in self.options.items():
            if value != defaults[name].default:
                words.append(f"{name}={repr_option(value)}")
        return f"{type(self).__name__}({', '.join(words)})"

    def _again(self, members: Sequence[Teacher]) -> Self:
        """Returns the same composition of other members, with random states and counts anew."""
        return type(self)(members, **self.options)

    @property
    def members(self) -> tuple[Teacher, ...]:
        """The teachers that it is built from."""
        return cast("tuple[Teacher, ...]", tuple(self._members))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves the teacher; on another device its generator restarts from its seed."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.generator is not None:
            device = fn(torch.empty(0, device=self.generator.device)).device
            if device != self.generator.device:
                seed = self.generator.initial_seed()
                self.generator = torch.Generator(device).manual_seed(seed)
        return self

    def fitted(self, spaces: SuiteSpaces) -> Teacher:
        """Fits every member to every task."""
        return self._again([member.fitted(spaces) for member in self.members])

    def generators(self) -> Sequence[torch.Generator]:
        """Returns its own generator and its members', each once."""
        own = [] if self.generator is None else [self.generator]
        for member in self.members:
            own += [one for one in member.generators() if all(one is not two for two in own)]
        return own

    def label_state(self) -> dict[str, Any]:
        """The state of each member by its index, the counters and the random state."""
        state: dict[str, Any] = {str(i): one.label_state() for i, one in enumerate(self.members)}
        # Clones, as labelling adds to the counters in place.
        state |= {name: self.get_buffer(name).clone() for name in self.counters}
        if self.generator is not None:
            state["generator"] = self.generator.get_state()
        return state

    def load_label_state(self, state: dict[str, Any]) -> None:
        """Restores what `label_state` returned."""
        for index, member in enumerate(self.members):
            member.load_label_state(state[str(index)])
        for name in self.counters:
            self.get_buffer(name).copy_(state[name])
        if self.generator is not None:
            self.generator.set_state(state["generator"])

    def figures(self) -> dict[str, float]:
        """Returns the members' figures, numbered where there are several members."""
        several = len(self.members) > 1
        return {
            f"{name}/{index}" if several else name: value
            for index, member in enumerate(self.members)
            for name, value in member.figures().items()
        }

    def spec(self) -> TeacherSpec:
        """Returns its kind and options, and what is known of every member."""
        return TeacherSpec(
            source=self.source,
            kind=type(self).__name__,
            options={
                name: repr_option(value) if callable(value) else to_json(value)
                for name, value in self.options.items()
            },
            members=tuple(member.spec() for member in self.members),
        )

    def describe(self) -> dict[str, Any]:
        """Returns the composition's text and the description of every member."""
        return {
            "source": self.source,
            "num_parameters": self.num_parameters,
            "members": [member.describe() for member in self.members],
        }

    def quoted(self) -> str:
        """Returns its text: compositions stand in others as they are."""
        return self.source


def repr_option(value: Any) -> str:
    """Returns an option as it is written: a function by its name, everything else as in Python."""
    if isinstance(value, functools.partial):
        return f"{repr_option(value.func)} with some arguments"
    if callable(value):
        return f"the function {getattr(value, '__name__', type(value).__name__)}"
    return repr(value)


def labels_of(outputs: Sequence[PolicyOutput]) -> dict[str, list[Tensor]]:
    """Returns what several teachers say, by name, padded to the longest as in `LABELS`.

    What else an output holds is passed on where that makes sense.

    Raises:
        InputError: Some say what others do not.
    """
    said: dict[str, list[Tensor]] = {}
    for name, filler in LABELS.items():
        values = [getattr(output, name) for output in outputs]
        there = [value for value in values if value is not None]
        if there and len(there) < len(values):
            raise InputError(
                f"The teachers cannot be mixed: some say {name} and others do not; "
                "take teachers of one kind, e.g. Boltzmann(teacher) for one with Q-values."
            )
        if there:
            width = max(value.shape[-1] for value in there)
            said[name] = [F.pad(v, (0, width - v.shape[-1]), value=filler) for v in there]
    return said


def mixture(
    said: Mapping[str, Sequence[Tensor]], shares: Sequence[float], of: Mean = "probabilities"
) -> PolicyOutput:
    """Returns the mean of what several teachers say.

    Args:
        said: By name, what each says, (..., num_actions) or (..., action_dim): see `labels_of`.
        shares: Weight of each, together 1.
        of: What is averaged of policies over discrete actions. The mean of Q-values is that of the
            values; that of Gaussians has the mixture's mean and variance.
    """
    mixed = PolicyOutput()
    if "logits" in said:
        mean = _mean_of_probabilities if of == "probabilities" else _mean_of_scores
        mixed.logits = mean(said["logits"], shares)
    if "q_values" in said:
        mixed.q_values = _mean_of_scores(said["q_values"], shares)
    if "mean" in said:
        mixed.mean = _weighted(said["mean"], shares)
    if "log_std" in said:
        assert mixed.mean is not None
        # The mixture's variance: the mean of the variances, and how far the means are apart.
        spread = [
            (2 * log_std).exp() + (mean - mixed.mean).square()
            for mean, log_std in zip(said["mean"], said["log_std"], strict=True)
        ]
        mixed.log_std = 0.5 * _weighted(spread, shares).log()
    return mixed


def _weighted(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Returns the weighted sum."""
    total = weights[0] * values[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = total + weight * value
    return total


def _mean_of_probabilities(logits: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Returns the logarithm of the mean of probabilities; illegal is what is so for all."""
    parts = [
        F.log_softmax(one.float(), -1) + math.log(share)
        for one, share in zip(logits, shares, strict=True)
    ]
    illegal = torch.stack([is_illegal(one) for one in logits]).all(0)
    return torch.stack(parts).logsumexp(0).masked_fill(illegal, ILLEGAL)


def _mean_of_scores(scores: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Returns the mean of logits or Q-values; illegal is what is so for one."""
    return _agreed(_weighted(scores, shares), scores)


def _agreed(mixed: Tensor, scores: Sequence[Tensor]) -> Tensor:
    """Returns mixed scores, illegal what is so for one; all the same where nothing is left.

    Args:
        mixed: What was made of the scores.                     (..., num_actions)
        scores: What each teacher says of the same actions.     (..., num_actions) each
    """
    illegal = torch.stack([is_illegal(one) for one in scores])
    for_one, for_all = illegal.any(0), illegal.all(0)
    at_odds = for_one.all(-1, keepdim=True)
    alike = torch.zeros_like(mixed).masked_fill(for_all, ILLEGAL)
    return torch.where(at_odds, alike, mixed.masked_fill(for_one, ILLEGAL))


def _check_list(name: str, members: Sequence[Teacher]) -> None:
    """Checks that the members are several, not one that stands by itself.

    Raises:
        InputError: It is one.
    """
    if isinstance(members, str) or not isinstance(members, Sequence):
        raise InputError(f"The teachers of {name} stand in a list: {name}([one, another]).")
