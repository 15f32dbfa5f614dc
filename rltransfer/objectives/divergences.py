"""Distances between what two networks say: functions on tensors, each with its direction.

Every function leaves the batch alone; those of distributions sum over actions. What is bfloat16 is
compared in float32.
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
    """Returns KL(softmax(teacher / temperature) || softmax(student)).    (...)

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
    """Returns KL(softmax(student) || softmax(teacher / temperature)).    (...)

    Args:
        teacher: The teacher's logits or Q-values.    (..., num_actions)
        student: The student's logits.                (..., num_actions)
        temperature: tau, on the teacher alone.
    """
    target, guess = log_policy(teacher, temperature), log_policy(student, 1.0)
    return (guess.exp() * (guess - target)).sum(-1)


def jensen_shannon(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Returns (KL(p || m) + KL(q || m)) / 2 in nats, from 0 to ln 2.    (...)

    With p = softmax(teacher / temperature), q = softmax(student) and m = (p + q) / 2.

    Source: Lin 1991, "Divergence measures based on the Shannon entropy", with equal weights.

    Args:
        teacher: The teacher's logits or Q-values.    (..., num_actions)
        student: The student's logits.                (..., num_actions)
        temperature: tau, on the teacher alone.
    """
    target, guess = log_policy(teacher, temperature), log_policy(student, 1.0)
    # log p - log m = ln 2 - log(1 + q / p), which no probability of zero makes infinite.
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
    """Returns KL(N(teacher) || N(student)) of diagonal Gaussians.    (...)

    The temperature multiplies the teacher's variance, as it does for a softmax's density.

    Args:
        teacher_mean: The teacher's mean.                      (..., action_dim)
        teacher_log_std: Logarithm of its standard deviation.  (..., action_dim)
        mean: The student's mean.                              (..., action_dim)
        log_std: Logarithm of its standard deviation.          (..., action_dim)
        temperature: tau.
        padding_mask: Which numbers are left out; none if None.      (..., action_dim)
    """
    target_log_std = teacher_log_std + 0.5 * math.log(temperature)
    variance_ratio = (2 * (target_log_std - log_std)).exp()
    distance = ((upcast(teacher_mean) - upcast(mean)) / log_std.exp()).square()
    apart = 0.5 * (variance_ratio + distance - 1) + log_std - target_log_std
    return (apart if padding_mask is None else apart.masked_fill(padding_mask, 0.0)).sum(-1)


def squared_error(teacher: Tensor, student: Tensor) -> Tensor:
    """Returns the squared distance, summed over the last axis.    (...)

    Source: Rusu 2015, eq. 1.

    Args:
        teacher: Q-values, logits, actions or features.    (..., n)
        student: The same of the student.                  (..., n)
    """
    return (upcast(teacher) - upcast(student)).square().sum(-1)


def huber_error(teacher: Tensor, student: Tensor, delta: float) -> Tensor:
    """Returns e^2 / 2 where |e| <= delta, else delta (|e| - delta / 2), summed.    (...)

    Source: Huber 1964.

    Args:
        teacher: Q-values, logits or actions.    (..., n)
        student: The same of the student.        (..., n)
        delta: Where the square ends and the straight line begins.
    """
    error = F.huber_loss(upcast(student), upcast(teacher), reduction="none", delta=delta)
    return error.sum(-1)


def direction(vector: Tensor) -> Tensor:
    """Returns vectors scaled to length one; those of length zero have no gradient.    (..., n)

    Args:
        vector: Any vectors.    (..., n)
    """
    length: Tensor = torch.linalg.vector_norm(upcast(vector), dim=-1, keepdim=True)
    nowhere = length < TINY
    return upcast(vector).masked_fill(nowhere, 0) / length.masked_fill(nowhere, 1)


def relative_distances(features: Tensor, alike: Tensor) -> Tensor:
    """Returns squared distances between rows, over their mean within the row's group.    (n, n)

    Args:
        features: What is compared.                             (n, num_features)
        alike: 1 where two rows are of one group, 0 elsewhere.  (n, n)
    """
    centered = upcast(features) - upcast(features).mean(0)
    # Products in full precision: what is small is a difference of what is large.
    with torch.autocast(features.device.type, enabled=False):
        products = centered @ centered.T
        squares = products.diagonal()
        apart = (squares.unsqueeze(0) + squares.unsqueeze(1) - 2 * products).clamp(min=0) * alike
        mean = (alike @ apart.sum(1)) / alike.sum(1).square()
    return apart / mean.clamp(min=TINY).unsqueeze(1)
