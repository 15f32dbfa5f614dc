"""Teachers built from teachers. A composition is a teacher, so compositions nest.

docs/compositions.md lists them, in `adapted.py`, `ensembles.py`, `per_task.py`, `transformed.py`
and `vote.py`.

Actions that a task masks stay masked: their score is `MASKED` in every label, and unavailable
dimensions of a continuous action are 0. Members may mask different actions. An `Ensemble` of
probabilities gives a masked action zero weight from that member, `Vote` ignores that member, and
every other composition masks it. If nothing is left, the result is uniform over the actions that
any member allows.

Randomness comes from a generator on the device. A run seeds it and saves its state in checkpoints.
A composition of teachers with a source has a source too, its text: see `text.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.files.serialization import to_json
from rltransfer.machine.devices import restore_generator
from rltransfer.options import to_builtin
from rltransfer.policies.network import Network
from rltransfer.policies.output import LABELS, MASKED, PolicyOutput
from rltransfer.policies.scores import is_masked
from rltransfer.tasks.suite_spaces import SuiteSpaces
from rltransfer.teachers.spec import TeacherSpec
from rltransfer.teachers.teacher import Teacher

Mean = Literal["probabilities", "logits"]


class Composition(Teacher):
    """A teacher built from others.

    Args:
        members: The teachers.
        options: The other arguments of the constructor, as written in text.

    Raises:
        InputError: Members are not in a list, there is none, or one is not a teacher.
    """

    draws = False
    """Whether it draws random numbers itself."""
    counters: tuple[str, ...] = ()
    """Its buffers that labelling changes, by name: checkpoints contain them."""

    def __init__(self, members: Sequence[Teacher], **options: Any) -> None:
        name = type(self).__name__
        if isinstance(members, str) or not isinstance(members, Sequence):
            raise InputError(f"{name} takes its teachers in a list: {name}([one, another]).")
        if not members:
            raise InputError(f"{name} was given no teacher: it needs at least one.")
        for member in members:
            if not isinstance(member, Teacher):
                raise InputError(
                    f"{name} was given {member!r}, which is not a teacher: load a path with "
                    "`load_teacher`."
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
        """The composition as it is written, without options that have their default."""
        defaults = inspect.signature(type(self)).parameters
        words = [member.quoted() for member in self.members]
        for name, value in self.options.items():
            if value != defaults[name].default:
                words.append(f"{name}={repr_option(value)}")
        return f"{type(self).__name__}({', '.join(words)})"

    def _again(self, members: Sequence[Teacher]) -> Self:
        """The same composition of other members, with new random states and counters."""
        return type(self)(members, **self.options)

    @property
    def members(self) -> tuple[Teacher, ...]:
        """The teachers that it is built from."""
        return cast("tuple[Teacher, ...]", tuple(self._members))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves the teacher; on another device its generator restarts from its seed."""
        super()._apply(fn, recurse)
        if self.generator is not None:
            device = fn(torch.empty(0, device=self.generator.device)).device
            if device != self.generator.device:
                seed = self.generator.initial_seed()
                self.generator = torch.Generator(device).manual_seed(seed)
        return self

    def fitted(self, spaces: SuiteSpaces) -> Teacher:
        """Fits every member to every task."""
        return self._again([member.fitted(spaces) for member in self.members])

    def begin_step(self, start: Tensor, task: Tensor) -> None:
        """Tells all members."""
        for member in self.members:
            member.begin_step(start, task)

    def notes(self) -> tuple[str, ...]:
        """The notes of all members, each once."""
        return tuple(dict.fromkeys(note for one in self.members for note in one.notes()))

    def network(self) -> Network | None:
        """The architecture of its largest member, if all differ only in their width."""
        known = [member.network() for member in self.members]
        if any(one is None for one in known) or len({_plain(one) for one in known if one}) > 1:
            return None
        return max((one for one in known if one), key=lambda one: one.width)

    def generators(self) -> Sequence[torch.Generator]:
        """Its own generator and those of its members, each once."""
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
            restore_generator(self.generator, state["generator"])

    def figures(self) -> dict[str, float]:
        """The figures of all members, numbered if there are several members."""
        several = len(self.members) > 1
        return {
            f"{name}/{index}" if several else name: value
            for index, member in enumerate(self.members)
            for name, value in member.figures().items()
        }

    def describe_figures(self) -> dict[str, str]:
        """The descriptions of all members."""
        every = [member.describe_figures() for member in self.members]
        return {name: text for one in every for name, text in one.items()}

    def spec(self) -> TeacherSpec:
        """Its kind and options, and the specification of every member."""
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
        """The text of the composition and the description of every member."""
        return {
            "source": self.source,
            "num_parameters": self.num_parameters,
            "members": [member.describe() for member in self.members],
        }

    def quoted(self) -> str:
        """Its text, without quotes."""
        return self.source


def _plain(network: Network) -> Network:
    """A network without what its observations and tasks determine, and without its width."""
    return dataclasses.replace(
        network, width=1.0, heads="shared", groups=Network.groups, statistics="shared"
    )


def repr_option(value: Any) -> str:
    """An option as it is written: a function by its name, everything else as in Python."""
    if isinstance(value, functools.partial):
        return f"{repr_option(value.func)} with some arguments"
    if callable(value):
        return f"the function {getattr(value, '__name__', type(value).__name__)}"
    return repr(value)


def labels_of(outputs: Sequence[PolicyOutput]) -> dict[str, list[Tensor]]:
    """The labels in several outputs, by name, padded to the longest as in `LABELS`.

    If one output of continuous actions is deterministic, all of them count as deterministic.

    Raises:
        InputError: Some outputs have a label that others do not have.
    """
    outputs = of_one_kind(outputs)
    if any(one.low is not None for one in outputs):
        outputs = [_bounded(one) for one in outputs]
    labels: dict[str, list[Tensor]] = {}
    for name, filler in LABELS.items():
        values = [value for one in outputs if (value := getattr(one, name)) is not None]
        if values and len(values) < len(outputs):
            raise InputError(
                f"The teachers cannot be mixed: some output {name} and others do not. Use teachers "
                "of one kind, e.g. Boltzmann(teacher) for one with Q-values."
            )
        if values:
            width = max(value.shape[-1] for value in values)
            labels[name] = [F.pad(v, (0, width - v.shape[-1]), value=filler) for v in values]
    return labels


def of_one_kind(outputs: Sequence[PolicyOutput]) -> Sequence[PolicyOutput]:
    """The outputs; those of continuous actions without distributions if one has none."""
    means = all(one.mean is not None for one in outputs)
    if not means or all(one.log_std is not None for one in outputs):
        return outputs
    return [
        dataclasses.replace(one, mean=one.greedy(), log_std=None, low=None, high=None)
        for one in outputs
    ]


def _bounded(output: PolicyOutput) -> PolicyOutput:
    """The output with the widest bounds, if it is continuous and has none."""
    if output.mean is None or output.low is not None:
        return output
    high = torch.full_like(output.mean, torch.finfo(output.mean.dtype).max)
    return dataclasses.replace(output, low=-high, high=high)


def tightest(labels: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    """The bounds that all outputs keep; empty if there are none.    (..., action_dim) each

    Args:
        labels: See `labels_of`.
    """
    if "low" not in labels:
        return {}
    low, high = torch.stack([*labels["low"]]).amax(0), torch.stack([*labels["high"]]).amin(0)
    return {"low": low, "high": high}


def mixture(
    labels: Mapping[str, Sequence[Tensor]], weights: Sequence[float], of: Mean = "probabilities"
) -> PolicyOutput:
    """The weighted mean of several outputs.

    Args:
        labels: See `labels_of`.    (..., num_actions) or (..., action_dim) each
        weights: Weight of each output; they sum to 1.
        of: What is averaged of policies over discrete actions. Q-values are averaged as they are.
            Gaussians become one Gaussian with the mean and variance of the mixture.
    """
    mixed = PolicyOutput(**tightest(labels))
    if "logits" in labels:
        mean = _mean_of_probabilities if of == "probabilities" else _mean_of_scores
        mixed.logits = mean(labels["logits"], weights)
    if "q_values" in labels:
        mixed.q_values = _mean_of_scores(labels["q_values"], weights)
    if "mean" in labels:
        mixed.mean = weighted(labels["mean"], weights)
    if "log_std" in labels:
        assert mixed.mean is not None
        # The variance of the mixture: the mean of the variances plus the spread of the means.
        spread = [
            (2 * log_std).exp() + (mean - mixed.mean).square()
            for mean, log_std in zip(labels["mean"], labels["log_std"], strict=True)
        ]
        mixed.log_std = 0.5 * weighted(spread, weights).log()
    return mixed


def weighted(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted sum."""
    total = weights[0] * values[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = total + weight * value
    return total


def _mean_of_probabilities(logits: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The logarithm of the mean of probabilities; masks what all teachers mask."""
    parts = [
        F.log_softmax(one.float(), -1) + math.log(weight)
        for one, weight in zip(logits, weights, strict=True)
    ]
    masked = torch.stack([is_masked(one) for one in logits]).all(0)
    return torch.stack(parts).logsumexp(0).masked_fill(masked, MASKED)


def _mean_of_scores(scores: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The mean of logits or Q-values; masks what any teacher masks."""
    return agreed(weighted(scores, weights), scores)


def agreed(mixed: Tensor, scores: Sequence[Tensor]) -> Tensor:
    """Mixed scores without the actions that any teacher masks.

    If nothing is left, the actions that any teacher allows are equal.

    Args:
        mixed: The mixture of the scores.      (..., num_actions)
        scores: The scores of each teacher.    (..., num_actions) each
    """
    masked = torch.stack([is_masked(one) for one in scores])
    by_any, by_all = masked.any(0), masked.all(0)
    nothing_left = by_any.all(-1, keepdim=True)
    equal = torch.zeros_like(mixed).masked_fill(by_all, MASKED)
    return torch.where(nothing_left, equal, mixed.masked_fill(by_any, MASKED))
