"""Objectives on what lies beneath what two policies say: features, attention, gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from rltransfer.errors import InputError, unknown
from rltransfer.objectives.divergences import direction, relative_distances, squared_error
from rltransfer.objectives.objective import Term, in_text
from rltransfer.policies.linear import Linear
from rltransfer.policies.output import PolicyOutput, upcast

MAPS = ("linear", "conv")


class FeatureMap(nn.Module):
    """A linear map for each task from the student's features to the teacher's.

    Args:
        inputs: The student's features or channels.
        outputs: The teacher's.
        num_tasks: How many maps.
        conv: Whether the map is a 1x1 convolution over feature maps.
    """

    def __init__(self, inputs: int, outputs: int, num_tasks: int, conv: bool) -> None:
        super().__init__()
        self.shape = (num_tasks, outputs)
        self.layer: nn.Module
        if conv:
            self.layer = nn.Conv2d(inputs, num_tasks * outputs, 1)
        else:
            self.layer = Linear(inputs, num_tasks * outputs)

    def forward(self, features: Tensor, task: Tensor | None) -> Tensor:
        """Returns what the teacher's features should be.    (batch, outputs, ...)

        Args:
            features: The student's.              (batch, inputs, ...)
            task: Index of each sample's task.    (batch,)
        """
        mapped: Tensor = self.layer(features)
        of_tasks: Tensor = mapped.unflatten(1, self.shape)
        if task is None or self.shape[0] == 1:
            return of_tasks[:, 0]
        return of_tasks[torch.arange(len(task), device=task.device), task]


@in_text
@dataclass(frozen=True)
class FeatureRegression(Term):
    """||f(h_S) - h_T||^2: the student's features predict the teacher's by a map f that learns too.

    There is a map for each task. The error is summed over features; over the places of feature
    maps it is averaged. Where teachers have different numbers of features, the rest is zero.

    Source: Parisotto 2015 (arXiv 1511.06342), section 3.2, of the last hidden layer; Romero 2015
    (FitNets, arXiv 1412.6550), eq. 3, of convolutions. Differs from FitNets: the error is not
    halved, places are averaged, and the map is 1x1.
    """

    map: Literal["linear", "conv"] = "linear"
    """linear: of the last hidden layer; conv: of the last convolution, by a 1x1 convolution, which
    takes labels of many numbers a step."""
    name: ClassVar[str] = "feature_regression"
    learns: ClassVar[str] = "features"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.map not in MAPS:
            raise unknown("map of features", str(self.map), MAPS)

    @property
    def needs(self) -> frozenset[str]:
        """The last hidden layer, or the last convolution."""
        return frozenset({self._field})

    @property
    def _field(self) -> str:
        return "features" if self.map == "linear" else "maps"

    def to_learn(self, student: PolicyOutput, teacher: PolicyOutput, num_tasks: int) -> FeatureMap:
        """Returns the maps."""
        own, wanted = getattr(student, self._field), getattr(teacher, self._field)
        if self.map == "linear":
            return FeatureMap(own.shape[-1], wanted.shape[-1], num_tasks, conv=False)
        _check_places(self, own, wanted)
        return FeatureMap(own.shape[-3], wanted.shape[-3], num_tasks, conv=True)

    def score(
        self,
        student: PolicyOutput,
        teacher: PolicyOutput,
        task: Tensor | None,
        learned: nn.Module | None,
    ) -> Tensor:
        """Returns the squared error of each sample.    (...)"""
        assert learned is not None
        own, wanted = getattr(student, self._field), getattr(teacher, self._field)
        axes = 1 if self.map == "linear" else 3
        flat = own.flatten(0, -axes - 1)
        mapped = learned(flat, None if task is None else task.flatten())
        error = (upcast(mapped) - upcast(wanted.reshape(mapped.shape))).square().sum(1)
        if self.map == "conv":
            error = error.mean((1, 2))
        scores: Tensor = error.unflatten(0, own.shape[:-axes])
        return scores


@in_text
@dataclass(frozen=True)
class AttentionTransfer(Term):
    """||q_S - q_T||^2 with q = A / ||A|| and A the sum over channels of squared activations.

    Of the last convolution, whose maps must be of one size in both networks, of whatever number of
    channels. The error is summed over places.

    Source: Zagoruyko & Komodakis 2017 (arXiv 1612.03928), section 3.1, p = 2. Differs from the
    paper: the distance is squared, as in its authors' code, with a gradient of zero at equality.
    """

    name: ClassVar[str] = "attention_transfer"
    learns: ClassVar[str] = "features"

    @property
    def needs(self) -> frozenset[str]:
        """The attention maps."""
        return frozenset({"attention"})

    def to_learn(self, student: PolicyOutput, teacher: PolicyOutput, num_tasks: int) -> None:
        """Checks that the maps are of one size."""
        assert student.attention is not None and teacher.attention is not None
        _check_places(self, student.attention, teacher.attention)

    def score(
        self,
        student: PolicyOutput,
        teacher: PolicyOutput,
        task: Tensor | None,
        learned: nn.Module | None,
    ) -> Tensor:
        """Returns the squared distance of each sample.    (...)"""
        assert student.attention is not None and teacher.attention is not None
        own, wanted = student.attention.flatten(-2), teacher.attention.flatten(-2)
        return squared_error(direction(wanted), direction(own))


@in_text
@dataclass(frozen=True)
class RepresentationalDistance(Term):
    """(d_S - d_T)^2 over the pairs of a batch, d the squared distance of two samples' features.

    Distances are of samples of one task and are divided by their mean over the batch's pairs, so
    that networks of any width and scale compare. The mean goes over all pairs of a task, those of
    a sample with itself among them.

    Source: McClure & Kriegeskorte 2016 (arXiv 1511.03979). Differs from the paper: the features
    are those of the last hidden layer, and every pair of the batch counts.
    """

    name: ClassVar[str] = "representational_distance"
    learns: ClassVar[str] = "features"

    @property
    def needs(self) -> frozenset[str]:
        """The last hidden layers."""
        return frozenset({"features"})

    def score(
        self,
        student: PolicyOutput,
        teacher: PolicyOutput,
        task: Tensor | None,
        learned: nn.Module | None,
    ) -> Tensor:
        """Returns each sample's mean over its pairs.    (...)"""
        assert student.features is not None and teacher.features is not None
        leading = student.features.shape[:-1]
        own, wanted = (
            upcast(features).flatten(0, -2) for features in (student.features, teacher.features)
        )
        alike = torch.ones(len(own), len(own), dtype=own.dtype, device=own.device)
        if task is not None:
            flat = task.flatten()
            alike = (flat.unsqueeze(0) == flat.unsqueeze(1)).to(own.dtype)
        error = (relative_distances(own, alike) - relative_distances(wanted, alike)).square()
        scores: Tensor = (error.sum(1) / alike.sum(1)).unflatten(0, leading)
        return scores


@in_text
@dataclass(frozen=True)
class JacobianMatching(Term):
    """||j_S / ||j_S|| - j_T / ||j_T|| ||^2, j the gradient of one output by the observation.

    The output is the one that is largest for the teacher. The teacher's gradient is a label as
    large as the observation in float32.

    Source: Srinivas & Fleuret 2018 (arXiv 1803.00443), eq. 10, with the largest output alone.
    """

    name: ClassVar[str] = "jacobian_matching"
    learns: ClassVar[str] = "features"

    @property
    def needs(self) -> frozenset[str]:
        """The gradients."""
        return frozenset({"jacobian"})

    def score(
        self,
        student: PolicyOutput,
        teacher: PolicyOutput,
        task: Tensor | None,
        learned: nn.Module | None,
    ) -> Tensor:
        """Returns the squared distance of each sample.    (...)"""
        assert student.jacobian is not None and teacher.jacobian is not None
        return squared_error(direction(teacher.jacobian), direction(student.jacobian))


def _check_places(term: Term, own: Tensor, wanted: Tensor) -> None:
    """Checks that two feature maps are of one height and width."""
    if own.shape[-2:] != wanted.shape[-2:]:
        sizes = [" x ".join(map(str, maps.shape[-2:])) for maps in (own, wanted)]
        raise InputError(
            f"{type(term).__name__} compares feature maps of one size, but the student's last "
            f"convolution says {sizes[0]} and the teacher's {sizes[1]}: take a student with the "
            "teacher's encoder."
        )
