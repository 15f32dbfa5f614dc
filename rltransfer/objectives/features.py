"""Terms on what is beneath the outputs of two policies: features, attention and gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.machine import distributed
from rltransfer.objectives.divergences import direction, relative_distances, squared_error
from rltransfer.objectives.objective import Term
from rltransfer.policies.linear import Linear
from rltransfer.policies.output import PolicyOutput, upcast

SMALLEST_SPREAD = 1e-3
"""Lower bound of a teacher's feature variance, relative to the mean square of its features."""


class FeatureVariance(nn.Module):
    """The variance of the teacher's features in each task, over all minibatches.

    Summed over features, as the error is: constant ones, e.g. dead units, do not count.
    """

    sums: Tensor

    def __init__(self, outputs: int, num_tasks: int) -> None:
        super().__init__()
        # The sum of each feature, of the squares of all, and the number of vectors.
        shape = (num_tasks, outputs + 2)
        self.register_buffer("sums", torch.zeros(shape, dtype=torch.float64))

    def update(self, target: Tensor, task: Tensor) -> None:
        """Counts the features of a minibatch.

        Args:
            target: The teacher's features.           (batch, features, places)
            task: Index of each sample's task.        (batch,)
        """
        target = target.detach().double()
        parts = (target.sum(2), target.square().sum((1, 2))[:, None])
        count = torch.full_like(parts[1], target.shape[2])
        new = torch.zeros_like(self.sums).index_add_(0, task, torch.cat([*parts, count], 1))
        self.sums += distributed.total(new)

    def forward(self, task: Tensor) -> Tensor:
        """The variance in each sample's task, above 0.    (batch,)"""
        count = self.sums[:, -1:].clamp(min=1)
        mean, square = self.sums[:, :-2] / count, self.sums[:, -2] / count[:, 0]
        least = SMALLEST_SPREAD * square + torch.finfo(torch.float32).tiny
        variance = torch.maximum(square - mean.square().sum(1), least)
        return variance[task].float()


class FeatureMap(nn.Module):
    """A linear map for each task from the student's features to the teacher's.

    Args:
        inputs: Number of features or channels of the student.
        outputs: Number of the teacher's.
        num_tasks: Number of maps.
        conv: Whether the map is a 1x1 convolution over feature maps.
        variance: Whether to measure the variance of the teacher's features.
    """

    def __init__(
        self, inputs: int, outputs: int, num_tasks: int, conv: bool, variance: bool = False
    ) -> None:
        super().__init__()
        self.shape = (num_tasks, outputs)
        count = num_tasks * outputs
        self.layer = nn.Conv2d(inputs, count, 1) if conv else Linear(inputs, count)
        self.variance = FeatureVariance(outputs, num_tasks) if variance else None

    def forward(self, features: Tensor, task: Tensor | None) -> Tensor:
        """The prediction of the teacher's features.    (batch, outputs, ...)

        Args:
            features: The student's.              (batch, inputs, ...)
            task: Index of each sample's task.    (batch,)
        """
        mapped: Tensor = self.layer(features)
        of_tasks: Tensor = mapped.unflatten(1, self.shape)
        if task is None or self.shape[0] == 1:
            return of_tasks[:, 0]
        return of_tasks[torch.arange(len(task), device=task.device), task]


@dataclass(frozen=True)
class FeatureRegression(Term):
    """||f(h_S) - h_T||^2: the student's features predict the teacher's by a map f that learns too.

    There is a map for each task. The error is summed over features; over the positions of feature
    maps it is averaged. Where teachers have different numbers of features, the rest is zero.
    `scale="variance"` divides the error by the variance of the teacher's features in the task,
    summed over features: it is then the unexplained fraction, and teachers with large features do
    not outweigh others.

    Source: Parisotto 2015 (arXiv 1511.06342), section 3.2, for the last hidden layer; Romero 2015
    (FitNets, arXiv 1412.6550), eq. 3, for convolutions. Differs from FitNets: the error is not
    halved, positions are averaged, and the map is 1x1.
    """

    map: Literal["linear", "conv"] = "linear"
    """linear: of the last hidden layer; conv: of the last convolution, by a 1x1 convolution, whose
    labels are large."""
    scale: Literal["none", "variance"] = "none"
    """variance: the error relative to the variance of the teacher's features; none: the paper's."""
    name: ClassVar[str] = "feature_regression"
    learns: ClassVar[str] = "features"

    @property
    def needs(self) -> frozenset[str]:
        """The last hidden layers, or the last convolutions."""
        return frozenset({"features" if self.map == "linear" else "maps"})

    def to_learn(self, student: PolicyOutput, teacher: PolicyOutput, num_tasks: int) -> FeatureMap:
        """The maps."""
        (field,) = self.needs
        features, target = getattr(student, field), getattr(teacher, field)
        conv = self.map == "conv"
        if conv:
            _check_places(self, features, target)
        axis = -3 if conv else -1
        scaled = self.scale == "variance"
        return FeatureMap(features.shape[axis], target.shape[axis], num_tasks, conv, scaled)

    def score(
        self,
        student: PolicyOutput,
        teacher: PolicyOutput,
        task: Tensor | None,
        learned: nn.Module | None,
    ) -> Tensor:
        """The squared error of each sample.    (...)"""
        assert isinstance(learned, FeatureMap)
        (field,) = self.needs
        features, target = getattr(student, field), getattr(teacher, field)
        axes = 1 if self.map == "linear" else 3
        flat_task = None if task is None else task.flatten()
        mapped = learned(features.flatten(0, -axes - 1), flat_task)
        target = upcast(target.reshape(mapped.shape))
        error = (upcast(mapped) - target).square().sum(1)
        if self.map == "conv":
            error = error.mean((1, 2))
        if learned.variance is not None:
            only = torch.zeros(len(error), dtype=torch.int64, device=error.device)
            of_task = only if flat_task is None else flat_task
            if learned.training:
                learned.variance.update(
                    target.flatten(2) if axes > 1 else target[..., None], of_task
                )
            error = error / learned.variance(of_task)
        scores: Tensor = error.unflatten(0, features.shape[:-axes])
        return scores


@dataclass(frozen=True)
class AttentionTransfer(Term):
    """||q_S - q_T||^2 with q = A / ||A|| and A the sum over channels of squared activations.

    Of the last convolution, whose maps must have the same size in both networks, with any number of
    channels. The error is summed over positions.

    Source: Zagoruyko & Komodakis 2017 (arXiv 1612.03928), section 3.1, p = 2. Differs from the
    paper: the distance is squared, as in its authors' code, with a gradient of zero at equality.
    """

    name: ClassVar[str] = "attention_transfer"
    learns: ClassVar[str] = "features"
    needs = frozenset({"attention"})

    def to_learn(self, student: PolicyOutput, teacher: PolicyOutput, num_tasks: int) -> None:
        """Checks that the maps have the same size."""
        assert student.attention is not None and teacher.attention is not None
        _check_places(self, student.attention, teacher.attention)

    def score(self, student: PolicyOutput, teacher: PolicyOutput, *_: object) -> Tensor:
        """The squared distance of each sample.    (...)"""
        assert student.attention is not None and teacher.attention is not None
        attention, target = student.attention.flatten(-2), teacher.attention.flatten(-2)
        return squared_error(direction(target), direction(attention))


@dataclass(frozen=True)
class RepresentationalDistance(Term):
    """(d_S - d_T)^2 over the pairs of a batch, d the squared distance of two samples' features.

    Distances are between samples of one task, divided by their mean over the batch's pairs, so that
    networks of any width and scale compare. The mean is over all pairs of a task, those of a sample
    with itself among them.

    Source: McClure & Kriegeskorte 2016 (arXiv 1511.03979). Differs from the paper: the features
    are those of the last hidden layer, and every pair of the batch counts.
    """

    name: ClassVar[str] = "representational_distance"
    learns: ClassVar[str] = "features"
    needs = frozenset({"features"})

    def score(
        self, student: PolicyOutput, teacher: PolicyOutput, task: Tensor | None, *_: object
    ) -> Tensor:
        """Each sample's mean over its pairs.    (...)"""
        assert student.features is not None and teacher.features is not None
        both = (student.features, teacher.features)
        features, target = (upcast(one).flatten(0, -2) for one in both)
        alike = features.new_ones(len(features), len(features))
        if task is not None:
            flat = task.flatten()
            alike = (flat.unsqueeze(0) == flat.unsqueeze(1)).to(features.dtype)
        error = (relative_distances(features, alike) - relative_distances(target, alike)).square()
        scores: Tensor = (error.sum(1) / alike.sum(1)).unflatten(0, both[0].shape[:-1])
        return scores


@dataclass(frozen=True)
class JacobianMatching(Term):
    """||j_S / ||j_S|| - j_T / ||j_T|| ||^2, j the gradient of one output by the observation.

    The output is the one that is largest for the teacher. The teacher's gradient is a label as
    large as the observation in float32.

    Source: Srinivas & Fleuret 2018 (arXiv 1803.00443), eq. 10, with the largest output alone.
    """

    name: ClassVar[str] = "jacobian_matching"
    learns: ClassVar[str] = "features"
    needs = frozenset({"jacobian"})

    def score(self, student: PolicyOutput, teacher: PolicyOutput, *_: object) -> Tensor:
        """The squared distance of each sample.    (...)"""
        assert student.jacobian is not None and teacher.jacobian is not None
        return squared_error(direction(teacher.jacobian), direction(student.jacobian))


def _check_places(term: Term, maps: Tensor, target: Tensor) -> None:
    """Checks that two feature maps have the same height and width.

    Raises:
        InputError: They differ.
    """
    if maps.shape[-2:] != target.shape[-2:]:
        sizes = [" x ".join(map(str, one.shape[-2:])) for one in (maps, target)]
        raise InputError(
            f"{type(term).__name__} compares feature maps of the same size, but the student's last "
            f"convolution outputs {sizes[0]} and the teacher's {sizes[1]}: use a student with the "
            "teacher's encoder."
        )
