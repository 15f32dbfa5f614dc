"""A noisy majority of teachers, which keeps the data of each of them private."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rltransfer.errors import InputError, check_number
from rltransfer.files.serialization import to_builtin
from rltransfer.machine import distributed
from rltransfer.policies.output import ILLEGAL, NOTHING, Needs, PolicyOutput
from rltransfer.policies.scores import is_illegal
from rltransfer.tasks.observation import Observation
from rltransfer.teachers.composition import Composition, labels_of
from rltransfer.teachers.privacy import ORDERS, epsilon_of_moments, laplace_epsilon, vote_moments
from rltransfer.teachers.teacher import Teacher

LOSING = -20.0
"""The logit of a legal action that lost, where the winner's is 0: its probability, e^-20, is lost
beside 1 in float32, but a temperature can soften it and no objective takes it for illegal."""


class Vote(Composition):
    """The winner of a noisy majority vote over the members' best actions, one hot.

    The winner is argmax_a (count(a) + Laplace(noise_scale)). If each member was trained on data of
    its own, each label is (2 / noise_scale, 0)-differentially private for the data of any one
    member; `epsilon` says what all labels together have cost. Every label is counted, those that a
    run's evaluations ask for too, and when it is resumed those that are asked for again. The
    guarantee is about whoever learns from the labels, and holds while nobody knows the run's seed;
    neither the members' features nor their votes are handed on. Votes of several tasks each tell
    their own cost; where the same data has taught members of several, these costs add up.

    Logs: `labels`, how many were given; `epsilon`, the bound that holds whatever was voted;
    `epsilon_of_these_votes`, the smaller one that counts clear votes for less (moments accountant),
    which depends on the votes and so must itself be kept private.

    Source: Papernot 2016 (arXiv 1610.05755), section 2.

    Args:
        members: Over discrete actions, all with logits or all with Q-values.
        noise_scale: Scale of the noise, in votes, the paper's 1 / gamma; 0 for a plain majority
            without any privacy.
        delta: The chance that the guarantee does not hold.
    """

    draws = True
    counters = ("labels", "moments")

    labels: Tensor
    moments: Tensor
    orders: Tensor

    def __init__(self, members: Sequence[Teacher], noise_scale: float, delta: float = 1e-5) -> None:
        check_number("The noise_scale of Vote", to_builtin(noise_scale), "finite and at least 0")
        check_number("The delta of Vote", to_builtin(delta), "above 0 and below 1")
        super().__init__(members, noise_scale=noise_scale, delta=delta)
        self.noise_scale = noise_scale
        self.delta = delta
        orders = torch.tensor(ORDERS, dtype=torch.float64)
        self.register_buffer("labels", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("orders", orders, persistent=False)
        self.register_buffer("moments", torch.zeros_like(orders), persistent=False)

    def forward(
        self, observation: Observation, task: Tensor, needs: Needs = NOTHING
    ) -> PolicyOutput:
        """Returns the winner: logit 0, the others' `LOSING`."""
        said = labels_of([member(observation, task, needs) for member in self.members])
        scores = said.get("logits") or said.get("q_values")
        if scores is None:
            raise InputError(
                "Vote counts discrete actions, but its teachers' actions are continuous: take "
                "Ensemble."
            )
        actions = torch.arange(scores[0].shape[-1], device=task.device)
        counts = torch.stack([one.argmax(-1, keepdim=True) == actions for one in scores]).sum(0)
        legal = torch.stack([~is_illegal(one) for one in scores]).any(0)
        self._account(counts, legal)
        # The difference of two exponential variables is Laplace distributed.
        noise = torch.empty(2, *counts.shape, device=task.device)
        noise.exponential_(generator=self.generator)
        noisy = counts + self.noise_scale * (noise[0] - noise[1])
        winner = noisy.masked_fill(~legal, -math.inf).argmax(-1, keepdim=True)
        logits = torch.full_like(noisy, LOSING).masked_fill(~legal, ILLEGAL)
        return PolicyOutput(logits=logits.scatter(-1, winner, 0.0))

    def _account(self, counts: Tensor, legal: Tensor) -> None:
        """Adds what these votes cost."""
        self.labels += len(counts)
        if self.noise_scale:
            self.moments += vote_moments(counts, legal, self.noise_scale, self.orders).sum(0)

    @property
    def num_labels(self) -> int:
        """Labels given so far, by every process."""
        return int(distributed.total(self.labels))

    def epsilon(self) -> float:
        """Returns what the labels have cost at `delta`, whatever was voted."""
        return laplace_epsilon(self.num_labels, self.noise_scale, self.delta)

    def epsilon_of_these_votes(self) -> float:
        """Returns what the labels have cost at `delta`; itself not private."""
        moments = distributed.total(self.moments)
        return min(self.epsilon(), epsilon_of_moments(moments, self.delta))

    def figures(self) -> dict[str, float]:
        """Returns the labels given, and what they have cost where there is noise."""
        own = {"labels": float(self.num_labels)}
        if self.noise_scale:
            own["epsilon"] = self.epsilon()
            own["epsilon_of_these_votes"] = self.epsilon_of_these_votes()
        return {**super().figures(), **own}

    def describe(self) -> dict[str, Any]:
        """Returns the members, and the guarantee of each label; what is spent is in `figures`."""
        each = 2 / self.noise_scale if self.noise_scale else None
        return {**super().describe(), "epsilon_of_a_label": each, "delta": self.delta}
