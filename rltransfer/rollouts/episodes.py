"""Returns and lengths of episodes from rewards over time."""

from __future__ import annotations

import torch
from torch import Tensor


def episode_totals(step: Tensor, done: Tensor, running: Tensor) -> Tensor:
    """The sum over each episode at the step that ended it, 0 elsewhere.    (time, rows)

    Args:
        step: The summands.                                                       (time, rows)
        done: Whether the step ended the episode.                                 (time, rows)
        running: The sums of the unfinished episodes before the first step; updated in place to
            those after the last step.                                            (rows,)
    """
    # In float64, as the sum of an episode is a difference of sums over all steps.
    total = step.double().cumsum(0) + running
    time = torch.arange(len(step), device=step.device).unsqueeze(1)
    last_end = torch.where(done, time, -1).cummax(0).values
    until_last_end = total.gather(0, last_end.clamp(min=0)).masked_fill(last_end < 0, 0.0)
    running.copy_(total[-1] - until_last_end[-1])
    before = torch.cat([torch.zeros_like(until_last_end[:1]), until_last_end[:-1]])
    return ((total - before) * done).to(running.dtype)
