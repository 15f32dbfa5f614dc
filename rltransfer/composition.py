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
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from rltransfer.divergence import is_illegal
from rltransfer.errors import InputError, check_number, unknown
from rltransfer.observation import Observation
from rltransfer.policy_output import ILLEGAL, LABELS, PolicyOutput, asked
from rltransfer.serialization import plain, to_json
from rltransfer.task import Suite
from rltransfer.teacher_base import TaskSpaces, Teacher
from rltransfer.teacher_spec import TeacherSpec

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
        self.members = tuple(members)
        self.options: dict[str, Any] = plain(options)
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
                words.append(f"{name}={in_words(value)}")
        return f"{type(self).__name__}({', '.join(words)})"

    def _again(self, members: Sequence[Teacher]) -> Self:
        """Returns the same composition of other members, with random states and counts anew."""
        return type(self)(members, **self.options)

    def to(self, device: torch.device) -> Teacher:
        """Moves every member, and begins its own generator anew on the device."""
        self.members = tuple(member.to(device) for member in self.members)
        if self.generator is not None:
            seed = self.generator.initial_seed()
            self.generator = torch.Generator(device).manual_seed(seed)
        return self

    def fitted(self, suite: Suite, own_spaces: Sequence[TaskSpaces]) -> Teacher:
        """Fits every member to every task."""
        return self._again([member.fitted(suite, own_spaces) for member in self.members])

    def generators(self) -> Sequence[torch.Generator]:
        """Returns its own generator and its members', each once."""
        own = [] if self.generator is None else [self.generator]
        for member in self.members:
            own += [one for one in member.generators() if all(one is not two for two in own)]
        return own

    def state_dict(self) -> dict[str, Any]:
        """Returns its own random state and its members' states."""
        state: dict[str, Any] = {str(i): one.state_dict() for i, one in enumerate(self.members)}
        if self.generator is not None:
            state["generator"] = self.generator.get_state()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to what `state_dict` returned."""
        for index, member in enumerate(self.members):
            member.load_state_dict(state[str(index)])
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
                name: in_words(value) if callable(value) else to_json(value)
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


def in_words(value: Any) -> str:
    """Returns an option as it is written: a function by its name, everything else as in Python."""
    if isinstance(value, functools.partial):
        return f"{in_words(value.func)} with some arguments"
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


def _joined_features(outputs: Sequence[PolicyOutput]) -> Tensor | None:
    """Returns the features of all members, where they are asked for and all have some."""
    features = [one.features for one in outputs if one.features is not None]
    if not asked("features") or len(features) < len(outputs):
        return None
    return torch.cat(features, -1)


def _check_list(name: str, members: Sequence[Teacher]) -> None:
    """Checks that the members are several, not one that stands by itself.

    Raises:
        InputError: It is one.
    """
    if isinstance(members, str) or not isinstance(members, Sequence):
        raise InputError(f"The teachers of {name} stand in a list: {name}([one, another]).")


def _checked_weights(
    name: str, weights: Sequence[float] | None, members: Sequence[Teacher]
) -> tuple[float, ...] | None:
    """Returns the weights as a tuple.

    Raises:
        InputError: There are not as many as teachers, or one is not finite and above 0; or the
            teachers are not in a list.
    """
    _check_list(name, members)
    count = len(members)
    if weights is None:
        return None
    checked: tuple[float, ...] = plain(weights)
    if not isinstance(checked, tuple):
        raise InputError(f"The weights of {name} are {weights!r}: each teacher has a number.")
    if len(checked) != count:
        raise InputError(f"{name} has {count} teachers but {len(checked)} weights: give each one.")
    for weight in checked:
        check_number(f"A weight of {name}", weight, "finite and above 0")
    return checked


class Ensemble(Composition):
    """The mean of several teachers; its features are theirs side by side.

    Args:
        members: The teachers: all with logits, all with Q-values, all Gaussian, or all
            deterministic.
        weights: Weight of each; the same for all if None. Only their ratios matter.
        of: Whether policies over discrete actions are averaged by their probabilities, a mixture,
            or by their logits. Q-values are averaged as they are. Gaussians become the one Gaussian
            with the mixture's mean and variance.
    """

    def __init__(
        self,
        members: Sequence[Teacher],
        weights: Sequence[float] | None = None,
        of: Mean = "probabilities",
    ) -> None:
        checked = _checked_weights("Ensemble", weights, members)
        if of not in get_args(Mean):
            raise unknown("mean of an Ensemble,", of, get_args(Mean))
        super().__init__(members, weights=checked, of=of)
        self.of: Mean = of
        weighed = checked or (1.0,) * len(members)
        self.shares = [weight / sum(weighed) for weight in weighed]

    def __call__(self, observation: Observation, task: Tensor) -> PolicyOutput:
        """Returns the mean; a single member's own bits."""
        outputs = [member(observation, task) for member in self.members]
        if len(outputs) == 1:
            return outputs[0]
        mixed = mixture(labels_of(outputs), self.shares, self.of)
        mixed.features = _joined_features(outputs)
        return mixed


class ProductOfExperts(Composition):
    """The normalised product of several policies, each to the power of its weight.

    Its features are theirs side by side.

    Discrete: log p = sum_i weight_i * log p_i, but for a constant. Gaussian: each precision counts
    weight_i times, and the mean is that of the means, weighted by the precisions.

    Source: Hinton 1999 (Products of experts).

    Args:
        members: The policies: all with logits, or all Gaussian.
        weights: The powers; 1 for all if None.
    """

    def __init__(self, members: Sequence[Teacher], weights: Sequence[float] | None = None) -> None:
        checked = _checked_weights("ProductOfExperts", weights, members)
        super().__init__(members, weights=checked)
        self.weights = checked or (1.0,) * len(members)

    def __call__(self, observation: Observation, task: Tensor) -> PolicyOutput:
        """Returns the product; a single member's own bits where its weight is 1."""
        outputs = [member(observation, task) for member in self.members]
        if self.weights == (1.0,):
            return outputs[0]
        product = self._product(outputs)
        product.features = _joined_features(outputs)
        return product

    def _product(self, outputs: Sequence[PolicyOutput]) -> PolicyOutput:
        """Returns the product of what the members say."""
        said = labels_of(outputs)
        if "q_values" in said or ("mean" in said and "log_std" not in said):
            raise InputError(
                "ProductOfExperts multiplies probabilities, but its teachers say "
                f"{' and '.join(said)} only: take Ensemble, or Boltzmann(teacher) of Q-values."
            )
        if "logits" in said:
            logs = [F.log_softmax(one.float(), -1) for one in said["logits"]]
            product = _weighted(logs, self.weights)
            return PolicyOutput(logits=_agreed(product, said["logits"]))
        precisions = [(-2 * log_std).exp() for log_std in said["log_std"]]
        pulls = [m * precision for m, precision in zip(said["mean"], precisions, strict=True)]
        precision = _weighted(precisions, self.weights)
        mean = _weighted(pulls, self.weights) / precision
        return PolicyOutput(mean=mean, log_std=-0.5 * precision.log())
