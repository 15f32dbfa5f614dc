"""A noisy majority vote of teachers, which keeps the training data of each private."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rltransfer.errors import InputError, check_number
from rltransfer.machine import distributed
from rltransfer.options import to_builtin
from rltransfer.policies.output import EMPTY, MASKED, Needs, PolicyOutput
from rltransfer.policies.scores import is_masked, one_hot_logits
from rltransfer.tasks.observation import Observation
from rltransfer.teachers.composition import Composition
from rltransfer.teachers.privacy import ORDERS, epsilon_of_moments, laplace_epsilon, vote_moments
from rltransfer.teachers.teacher import Teacher

FIGURES = {
    "labels": "Number of labels so far.",
    "epsilon": "Privacy that all labels together cost, the epsilon of differential privacy: a "
    "bound that holds for any votes.",
    "epsilon_of_these_votes": "A smaller bound than epsilon, which counts clear votes less "
    "(moments accountant). It depends on the votes, so it must itself stay private.",
}
"""What a vote logs about itself."""


class Vote(Composition):
    """The winner of a noisy majority vote over the members' best actions, one-hot.

    The winner is argmax_a (count(a) + Laplace(noise_scale)). If the members were trained on
    disjoint data, each label is (2 / noise_scale, 0)-differentially private for the data of any one
    member. `epsilon` is the cost of all labels together:

    - Every label counts, also those of evaluations and those that a resumed run repeats.
    - The guarantee covers whoever learns from the labels, and holds while the seed of the run is
      secret. Neither the features nor the votes of members are passed on.
    - The votes of several tasks report separate costs. If the same data trained members of several
      tasks, these costs add up.

    Logs: `FIGURES`.

    Source: Papernot 2016 (arXiv 1610.05755), section 2.

    Args:
        members: Over discrete actions, with logits or Q-values, which need not be of one kind: only
            greedy actions count.
        noise_scale: Scale of the noise, in votes, the paper's 1 / gamma; 0 for a plain majority
            without privacy. It has no default, as it decides on the privacy.
        delta: The probability that the guarantee does not hold.

    Raises:
        InputError: noise_scale is not set, or a number is out of its range.
    """

    draws = True
    counters = ("labels", "moments")

    labels: Tensor
    moments: Tensor
    orders: Tensor

    def __init__(
        self, members: Sequence[Teacher], noise_scale: float | None = None, delta: float = 1e-5
    ) -> None:
        if noise_scale is None:
            raise InputError(
                "Vote was given no noise_scale: use 0 for a plain majority, or the scale of its "
                "noise in votes, e.g. 20, for privacy."
            )
        check_number("The noise_scale of Vote", to_builtin(noise_scale), "finite and at least 0")
        check_number("The delta of Vote", to_builtin(delta), "above 0 and below 1")
        super().__init__(members, noise_scale=noise_scale, delta=delta)
        self.noise_scale = noise_scale
        self.delta = delta
        orders = torch.tensor(ORDERS, dtype=torch.float64)
        self.register_buffer("labels", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("orders", orders, persistent=False)
        self.register_buffer("moments", torch.zeros_like(orders), persistent=False)

    def forward(self, observation: Observation, task: Tensor, needs: Needs = EMPTY) -> PolicyOutput:
        """The winner with the logit 0, the other available actions with `LOSING`."""
        scores = [self._scores(member, observation, task, needs) for member in self.members]
        width = max(one.shape[-1] for one in scores)
        scores = [F.pad(one, (0, width - one.shape[-1]), value=MASKED) for one in scores]
        actions = torch.arange(scores[0].shape[-1], device=task.device)
        counts = torch.stack([one.argmax(-1, keepdim=True) == actions for one in scores]).sum(0)
        available = torch.stack([~is_masked(one) for one in scores]).any(0)
        self.labels += len(counts)
        if self.noise_scale:
            self.moments += vote_moments(counts, available, self.noise_scale, self.orders).sum(0)
        # The difference of two exponential variables is Laplace distributed.
        noise = torch.empty(2, *counts.shape, device=task.device)
        noise.exponential_(generator=self.generator)
        noisy = counts + self.noise_scale * (noise[0] - noise[1])
        winner = noisy.masked_fill(~available, -math.inf).argmax(-1, keepdim=True)
        return PolicyOutput(logits=one_hot_logits(winner, available))

    @staticmethod
    def _scores(member: Teacher, observation: Observation, task: Tensor, needs: Needs) -> Tensor:
        """The logits or Q-values of a member: only their order counts.    (rows, num_actions)"""
        output = member(observation, task, needs)
        if output.mean is not None:
            raise InputError(
                f"Vote counts discrete actions, but those of {member.source} are continuous: use "
                "Ensemble."
            )
        return output.preferences()

    @property
    def num_labels(self) -> int:
        """The number of labels so far, over all processes."""
        return int(distributed.total(self.labels))

    def epsilon(self) -> float:
        """The cost of the labels at `delta`, for any votes."""
        return laplace_epsilon(self.num_labels, self.noise_scale, self.delta)

    def epsilon_of_these_votes(self) -> float:
        """The cost of the labels at `delta`, for these votes; itself not private."""
        moments = distributed.total(self.moments)
        return min(self.epsilon(), epsilon_of_moments(moments, self.delta))

    def figures(self) -> dict[str, float]:
        """The number of labels, and their cost where there is noise."""
        own = {"labels": float(self.num_labels)}
        if self.noise_scale:
            own["epsilon"] = self.epsilon()
            own["epsilon_of_these_votes"] = self.epsilon_of_these_votes()
        return {**super().figures(), **own}

    def describe_figures(self) -> dict[str, str]:
        """See `FIGURES`."""
        return {**super().describe_figures(), **FIGURES}

    def describe(self) -> dict[str, Any]:
        """The members, and the guarantee of each label; `figures` has the cost so far."""
        each = 2 / self.noise_scale if self.noise_scale else None
        return {**super().describe(), "epsilon_of_a_label": each, "delta": self.delta}
