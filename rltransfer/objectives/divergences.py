"""Distances between the outputs of two networks: functions on tensors, each with its direction.

Every function keeps the batch's axes; those on distributions sum over actions. bfloat16 is compared
in float32.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from rltransfer.policies.output import upcast
from rltransfer.policies.scores import log_policy

TINY = 1e-12
"""Lengths and mean distances below it count as zero: dividing by them would magnify rounding."""


def categorical_kl(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / temperature) || softmax(student)).    (...)

    The temperature is on the teacher alone; the student's softmax is plain.

    Source: Rusu 2015 (arXiv 1511.06295), eq. 3.

    Args:
        teacher: The teacher's logits or Q-values.    (..., num_actions)
        student: The student's logits.                (..., num_actions)
        temperature: tau; below 1 sharpens the teacher, above 1 softens it.
    """
    target, guess = log_policy(teacher, temperature), log_policy(student, 1.0)
    return (target.exp() * (target - guess)).sum(-1)


def categorical_reverse_kl(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """KL(softmax(student) || softmax(teacher / temperature)); see `categorical_kl`.    (...)"""
    target, guess = log_policy(teacher, temperature), log_policy(student, 1.0)
    return (guess.exp() * (guess - target)).sum(-1)


def jensen_shannon(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """(KL(p || m) + KL(q || m)) / 2 in nats, from 0 to ln 2; see `categorical_kl`.    (...)

    With p = softmax(teacher / temperature), q = softmax(student) and m = (p + q) / 2.

    Source: Lin 1991, "Divergence measures based on the Shannon entropy", with equal weights.
    """
    target, guess = log_policy(teacher, temperature), log_policy(student, 1.0)
    # log p - log m = ln 2 - log(1 + q / p), which stays finite at a probability of zero.
    apart = guess - target
    from_target = math.log(2) - F.softplus(apart)
    from_guess = math.log(2) - F.softplus(-apart)
    return 0.5 * (target.exp() * from_target + guess.exp() * from_guess).sum(-1)


def gaussian_kl(
    teacher_mean: Tensor,
    teacher_log_std: Tensor,
    mean: Tensor,
    log_std: Tensor,
    temperature: float,
    padding_mask: Tensor | None = None,
) -> Tensor:
    """KL(N(teacher) || N(student)) of diagonal Gaussians.    (...)

    The temperature multiplies the teacher's variance, as it does for a softmax's density.

    Args:
        teacher_mean: The teacher's mean.                        (..., action_dim)
        teacher_log_std: Logarithm of its standard deviation.    (..., action_dim)
        mean: The student's mean.                                (..., action_dim)
        log_std: Logarithm of its standard deviation.            (..., action_dim)
        temperature: tau.
        padding_mask: The action dimensions to leave out, if any.    (..., action_dim)
    """
    target_log_std = teacher_log_std + 0.5 * math.log(temperature)
    variance_ratio = (2 * (target_log_std - log_std)).exp()
    distance = ((upcast(teacher_mean) - upcast(mean)) / log_std.exp()).square()
    apart = 0.5 * (variance_ratio + distance - 1) + log_std - target_log_std
    return (apart if padding_mask is None else apart.masked_fill(padding_mask, 0.0)).sum(-1)


def gaussian_reverse_kl(
    teacher_mean: Tensor,
    teacher_log_std: Tensor,
    mean: Tensor,
    log_std: Tensor,
    temperature: float,
    padding_mask: Tensor | None = None,
) -> Tensor:
    """KL(N(student) || N(teacher)) of diagonal Gaussians; see `gaussian_kl`.    (...)"""
    # The temperature multiplies the teacher's variance here too.
    target_log_std = teacher_log_std + 0.5 * math.log(temperature)
    return gaussian_kl(mean, log_std, teacher_mean, target_log_std, 1.0, padding_mask)


def squared_error(teacher: Tensor, student: Tensor) -> Tensor:
    """The squared distance, summed over the last axis.    (...)

    Source: Rusu 2015, eq. 1.

    Args:
        teacher: Q-values, logits, actions or features.    (..., n)
        student: The same of the student.                  (..., n)
    """
    return (upcast(teacher) - upcast(student)).square().sum(-1)


def huber_error(teacher: Tensor, student: Tensor, delta: float) -> Tensor:
    """e^2 / 2 where |e| <= delta, else delta (|e| - delta / 2), summed over the last axis.    (...)

    Source: Huber 1964.

    Args:
        teacher: Q-values, logits or actions.    (..., n)
        student: The same of the student.        (..., n)
        delta: The error at which the quadratic part ends and the linear part begins.
    """
    error = F.huber_loss(upcast(student), upcast(teacher), reduction="none", delta=delta)
    return error.sum(-1)


def direction(vector: Tensor) -> Tensor:
    """Vectors scaled to length one; those of length zero have a gradient of zero.    (..., n)

    Args:
        vector: Any vectors.    (..., n)
    """
    length: Tensor = torch.linalg.vector_norm(upcast(vector), dim=-1, keepdim=True)
    nowhere = length < TINY
    return upcast(vector).masked_fill(nowhere, 0) / length.masked_fill(nowhere, 1)


def relative_distances(features: Tensor, alike: Tensor) -> Tensor:
    """Squared distances between rows, divided by their mean within the row's group.    (n, n)

    Args:
        features: The rows to compare.                              (n, num_features)
        alike: 1 where two rows are in the same group, 0 elsewhere.    (n, n)
    """
    centered = upcast(features) - upcast(features).mean(0)
    # In full precision: small distances are differences of large products.
    with torch.autocast(features.device.type, enabled=False):
        products = centered @ centered.T
        squares = products.diagonal()
        apart = (squares.unsqueeze(0) + squares.unsqueeze(1) - 2 * products).clamp(min=0) * alike
        mean = (alike @ apart.sum(1)) / alike.sum(1).square()
    return apart / mean.clamp(min=TINY).unsqueeze(1)
