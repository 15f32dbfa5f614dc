"""Compositions of one teacher: perturbed, sharpened or softened, or with dropout."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import torch
from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError, check_number
from rltransfer.options import to_builtin, whole_number
from rltransfer.policies.output import EMPTY, LABELS, MASKED, Needs, PolicyOutput
from rltransfer.policies.policy import Policy
from rltransfer.policies.scores import Q_VALUE_TEMPERATURE, is_masked, tempered
from rltransfer.tasks.observation import Observation
from rltransfer.tasks.task import Task
from rltransfer.teachers.composition import Composition, mixture
from rltransfer.teachers.policy_teacher import PolicyTeacher
from rltransfer.teachers.teacher import Teacher


class Wrapper(Composition):
    """A composition of one teacher."""

    def __init__(self, teacher: Teacher, **options: Any) -> None:
        super().__init__([teacher], **options)

    def _again(self, members: Sequence[Teacher]) -> Self:
        (teacher,) = members
        return type(self)(teacher, **self.options)

    def bounds_in(self, task: Task) -> spaces.Box | None:
        """Those of its teacher."""
        return self.members[0].bounds_in(task)

    def bounds_advice(self) -> str:
        """That of its teacher."""
        return self.members[0].bounds_advice()

    def _scores(self, output: PolicyOutput) -> tuple[str, Tensor]:
        """The name and value of the logits, or of the Q-values where there are no logits.

        Raises:
            InputError: Actions are continuous.
        """
        if output.logits is None and output.q_values is None:
            raise InputError(
                f"{type(self).__name__} needs logits or Q-values, but the actions of "
                f"{self.members[0].source} are continuous: use a teacher over discrete actions."
            )
        return "q_values" if output.logits is None else "logits", output.preferences()


class Noisy(Wrapper):
    """A teacher whose logits or Q-values are perturbed: z (1 + xi), xi ~ N(0, sigma^2) for each.

    Source: Sau & Balasubramanian 2016 (arXiv 1610.09650).

    Args:
        teacher: Over discrete actions.
        sigma: Standard deviation of the noise, relative to each score.
        alpha: Fraction of observations whose scores are perturbed.
    """

    draws = True

    def __init__(self, teacher: Teacher, sigma: float, alpha: float = 1.0) -> None:
        check_number("The sigma of Noisy", to_builtin(sigma), "finite and at least 0")
        check_number("The alpha of Noisy", to_builtin(alpha), "from 0 to 1")
        super().__init__(teacher, sigma=sigma, alpha=alpha)
        self.sigma = sigma
        self.alpha = alpha

    def forward(self, observation: Observation, task: Tensor, needs: Needs = EMPTY) -> PolicyOutput:
        """The perturbed output of the teacher."""
        output = self.members[0](observation, task, needs)
        name, scores = self._scores(output)
        xi = self.sigma * torch.empty_like(scores).normal_(generator=self.generator)
        drawn = torch.rand(len(scores), 1, generator=self.generator, device=scores.device)
        noisy = scores * (1 + xi * (drawn < self.alpha))
        masked: dict[str, Any] = {name: noisy.masked_fill(is_masked(scores), MASKED)}
        return dataclasses.replace(output, **masked)


class Boltzmann(Wrapper):
    """The policy softmax(scores / temperature) of a teacher's Q-values or logits.

    It combines teachers with Q-values and teachers with policies, e.g. in `PerTask`.

    Source: Parisotto 2015 (arXiv 1511.06342), section 3.

    Args:
        teacher: Over discrete actions.
        temperature: tau; below 1 sharpens, above 1 softens.
    """

    def __init__(self, teacher: Teacher, temperature: float = Q_VALUE_TEMPERATURE) -> None:
        check_number("The temperature of Boltzmann", to_builtin(temperature), "finite and above 0")
        super().__init__(teacher, temperature=temperature)
        self.temperature = temperature

    def forward(self, observation: Observation, task: Tensor, needs: Needs = EMPTY) -> PolicyOutput:
        """The policy."""
        output = self.members[0](observation, task, needs)
        _, scores = self._scores(output)
        logits = tempered(scores, self.temperature)
        return dataclasses.replace(output, logits=logits, q_values=None)


class MonteCarloDropout(Wrapper):
    """The mean of a policy over random masks on its last hidden layer.

    For discrete actions it is the mean of the probabilities, as in the paper. For a Q-network it is
    the mean of the Q-values, whose expectation equals the Q-values without dropout. For a Gaussian
    it has the mean and variance of the mixture. The policy can be trained without dropout.

    Source: Rota Bulo, Porzi & Kontschieder 2016 (Dropout distillation, ICML).

    Args:
        teacher: A policy trained by rltransfer (run directory or zoo). Zips, functions and
            compositions are refused, as their last hidden layer is unknown or not unique, and so
            are policies with an architecture of their method.
        samples: Number of masks for each observation.
        p: Fraction of the features that each mask drops; the others are scaled by 1 / (1 - p).
    """

    draws = True

    def __init__(self, teacher: Teacher, samples: int, p: float) -> None:
        if not isinstance(teacher, PolicyTeacher):
            raise InputError(
                "MonteCarloDropout needs a policy trained by rltransfer (run directory or zoo); "
                f"got {getattr(teacher, 'source', teacher)}. In a composition, wrap the individual "
                "policies."
            )
        if type(teacher.module) is not Policy:
            raise InputError(
                f"MonteCarloDropout drops features of one last hidden layer, but {teacher.source} "
                f"is a {type(teacher.module).__name__}: use a teacher that another method trained."
            )
        if teacher.module.state_size:
            raise InputError(
                f"MonteCarloDropout drops features of one observation, but {teacher.source} is "
                "recurrent: use a teacher without a GRU."
            )
        samples = whole_number("The number of samples of MonteCarloDropout", samples, "at least 1")
        check_number("The number of samples of MonteCarloDropout", samples, "at most 10,000")
        check_number("The p of MonteCarloDropout", to_builtin(p), "at least 0 and below 1")
        super().__init__(teacher, samples=samples, p=p)
        self.samples = samples
        self.p = p

    def forward(self, observation: Observation, task: Tensor, needs: Needs = EMPTY) -> PolicyOutput:
        """The mean over the masks."""
        teacher = self.members[0]
        assert isinstance(teacher, PolicyTeacher)
        groups, index = teacher.inputs(observation, task)
        features = teacher.module.encoder(groups, index)
        size = (len(task), self.samples, features.shape[-1])
        kept = features.new_empty(size).bernoulli_(1 - self.p, generator=self.generator)
        dropped = (features.unsqueeze(1) * (kept / (1 - self.p))).flatten(0, 1)
        # The samples of a row are adjacent, so that the tasks stay sorted.
        index = index.unsqueeze(1).expand(-1, self.samples).flatten()
        output = teacher.cropped(teacher.module._act(dropped, index))
        labels = {
            name: getattr(output, name).unflatten(0, (-1, self.samples)).unbind(1)
            for name in LABELS
            if getattr(output, name) is not None
        }
        return mixture(labels, [1 / self.samples] * self.samples)
