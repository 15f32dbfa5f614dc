"""Means and products of several teachers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from rltransfer.errors import InputError, check_choice, check_number
from rltransfer.policies.output import EMPTY, Needs, PolicyOutput
from rltransfer.tasks.observation import Observation
from rltransfer.teachers.composition import (
    Composition,
    Mean,
    agreed,
    labels_of,
    mixture,
    tightest,
    weighted,
)
from rltransfer.teachers.teacher import Teacher


def _joined_features(outputs: Sequence[PolicyOutput], needs: Needs) -> Tensor | None:
    """The concatenated features of all members, where they are needed and all have some."""
    features = [one.features for one in outputs if one.features is not None]
    if "features" not in needs or len(features) < len(outputs):
        return None
    return torch.cat(features, -1)


def _weights(composition: Composition) -> tuple[float, ...]:
    """The weight of each member; 1 for all where none are set.

    Raises:
        InputError: Their number is not that of the members, or one is not finite and above 0.
    """
    name, count = type(composition).__name__, len(composition.members)
    weights = composition.options["weights"]
    if weights is None:
        return (1.0,) * count
    if not isinstance(weights, tuple):
        raise InputError(f"The weights of {name} are {weights!r}: set a number for each teacher.")
    if len(weights) != count:
        raise InputError(
            f"{name} has {count} teachers but {len(weights)} weights: set one for each."
        )
    for weight in weights:
        check_number(f"A weight of {name}", weight, "finite and above 0")
    return weights


class Ensemble(Composition):
    """The mean of several teachers. Its features are theirs, concatenated.

    Args:
        members: The teachers: all with logits, all with Q-values, or all of continuous actions. If
            one of these is deterministic, all count as deterministic: their actions are averaged.
        weights: Weight of each; equal if None. Only their ratios matter.
        of: Whether policies over discrete actions are averaged by their probabilities, a mixture,
            or by their logits. Q-values are averaged as they are. Gaussians become one Gaussian
            with the mean and variance of the mixture.
    """

    def __init__(
        self,
        members: Sequence[Teacher],
        weights: Sequence[float] | None = None,
        of: Mean = "probabilities",
    ) -> None:
        check_choice("mean of an Ensemble,", of, get_args(Mean))
        super().__init__(members, weights=weights, of=of)
        self.of: Mean = of
        unnormalized = _weights(self)
        self.weights = [weight / sum(unnormalized) for weight in unnormalized]

    def forward(self, observation: Observation, task: Tensor, needs: Needs = EMPTY) -> PolicyOutput:
        """The mean; with a single member, its bits."""
        outputs = [member(observation, task, needs) for member in self.members]
        if len(outputs) == 1:
            return outputs[0]
        mixed = mixture(labels_of(outputs), self.weights, self.of)
        mixed.features = _joined_features(outputs, needs)
        return mixed


class ProductOfExperts(Composition):
    """The normalised product of several policies, each to the power of its weight.

    Its features are theirs, concatenated.

    Discrete: log p = sum_i weight_i * log p_i, up to a constant. Gaussian: each precision counts
    weight_i times, and the mean is that of the means, weighted by the precisions.

    Source: Hinton 1999 (Products of experts).

    Args:
        members: The policies: all with logits, or all Gaussian.
        weights: The powers; 1 for all if None.
    """

    def __init__(self, members: Sequence[Teacher], weights: Sequence[float] | None = None) -> None:
        super().__init__(members, weights=weights)
        self.weights = _weights(self)

    def forward(self, observation: Observation, task: Tensor, needs: Needs = EMPTY) -> PolicyOutput:
        """The product; with a single member of weight 1, its bits."""
        outputs = [member(observation, task, needs) for member in self.members]
        if self.weights == (1.0,):
            return outputs[0]
        product = self._product(labels_of(outputs))
        product.features = _joined_features(outputs, needs)
        return product

    def _product(self, labels: dict[str, list[Tensor]]) -> PolicyOutput:
        """The product of the labels of all members; see `labels_of`."""
        if "q_values" in labels or ("mean" in labels and "log_std" not in labels):
            raise InputError(
                "ProductOfExperts multiplies probabilities, but its teachers output only "
                f"{' and '.join(labels)}: use Ensemble, or Boltzmann(teacher) of Q-values."
            )
        if "logits" in labels:
            logs = [F.log_softmax(one.float(), -1) for one in labels["logits"]]
            return PolicyOutput(logits=agreed(weighted(logs, self.weights), labels["logits"]))
        precisions = [(-2 * log_std).exp() for log_std in labels["log_std"]]
        pulls = [m * precision for m, precision in zip(labels["mean"], precisions, strict=True)]
        precision = weighted(precisions, self.weights)
        mean = weighted(pulls, self.weights) / precision
        return PolicyOutput(mean=mean, log_std=-0.5 * precision.log(), **tightest(labels))
