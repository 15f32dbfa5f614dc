"""Scores of discrete actions: their softmax and their mask."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rltransfer.policies.output import MASKED, upcast

LOSING = -20.0
"""The logit of an available action that a policy never takes; that of the action it takes is 0.

Its probability, e^-20, vanishes next to 1 in float32, but a temperature can soften it, and no
objective treats the action as masked.
"""


def one_hot_logits(action: Tensor, available: Tensor) -> Tensor:
    """Logits of a policy that always takes one action.    (..., num_actions)

    Args:
        action: This action, with the logit 0; that of the others is `LOSING`.    (..., 1)
        available: Which actions are not masked.    (..., num_actions)
    """
    logits = torch.full(available.shape, LOSING, device=available.device)
    return logits.masked_fill(~available, MASKED).scatter(-1, action, 0.0)


def log_policy(scores: Tensor, temperature: float) -> Tensor:
    """Log softmax(scores / temperature) over the available actions.    (..., num_actions)

    Args:
        scores: Logits or Q-values; `MASKED` for masked actions.    (..., num_actions)
        temperature: tau; below 1 sharpens, above 1 softens.
    """
    return F.log_softmax(upcast(scores) if temperature == 1 else tempered(scores, temperature), -1)


def tempered(scores: Tensor, temperature: float) -> Tensor:
    """Scores / temperature, shifted so that the best is 0.    (..., num_actions)

    At any temperature, available and masked actions remain far apart.
    """
    scores = upcast(scores)
    scaled = (scores - scores.amax(-1, keepdim=True)) / temperature
    return scaled.clamp(min=MASKED / 4).masked_fill(is_masked(scores), MASKED)


def is_masked(scores: Tensor) -> Tensor:
    """Which actions are masked, whatever `MASKED` was rounded to.    (..., num_actions)"""
    return scores <= MASKED / 2


def mask_infinite(scores: Tensor) -> Tensor:
    """Scores with `MASKED` for all masked actions, e.g. minus infinity.    (..., num_actions)"""
    return scores.masked_fill(is_masked(scores), MASKED)


Q_VALUE_TEMPERATURE = 0.01
"""Rusu 2015, section 4: sharpens, because the gaps between Q-values are small."""
