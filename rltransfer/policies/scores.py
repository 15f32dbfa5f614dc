"""Scores of discrete actions: their softmax, and the actions that are masked."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rltransfer.policies.output import ILLEGAL, upcast


def log_policy(scores: Tensor, temperature: float) -> Tensor:
    """Returns log softmax(scores / temperature) over the legal actions.    (..., num_actions)

    Args:
        scores: Logits or Q-values; `ILLEGAL` where an action is illegal.    (..., num_actions)
        temperature: tau; below 1 sharpens, above 1 softens.
    """
    return F.log_softmax(upcast(scores) if temperature == 1 else tempered(scores, temperature), -1)


def tempered(scores: Tensor, temperature: float) -> Tensor:
    """Returns scores / temperature but for a constant, the best being 0.    (..., num_actions)

    No temperature brings a legal action near to an illegal one, or the other way round.

    Args:
        scores: Logits or Q-values; `ILLEGAL` where an action is illegal.    (..., num_actions)
        temperature: tau; below 1 sharpens, above 1 softens.
    """
    scores = upcast(scores)
    scaled = (scores - scores.amax(-1, keepdim=True)) / temperature
    return scaled.clamp(min=ILLEGAL / 4).masked_fill(is_illegal(scores), ILLEGAL)


def is_illegal(scores: Tensor) -> Tensor:
    """Tells which actions are illegal, whatever `ILLEGAL` was rounded to.    (..., num_actions)"""
    return scores <= ILLEGAL / 2


def marked_illegal(scores: Tensor) -> Tensor:
    """Returns scores with `ILLEGAL` for minus infinity, and whatever else tells an illegal action.

    Args:
        scores: Logits or Q-values.    (..., num_actions)
    """
    return scores.masked_fill(is_illegal(scores), ILLEGAL)


Q_VALUE_TEMPERATURE = 0.01
"""Rusu 2015, section 4: sharpens, as gaps between Q-values are small."""
