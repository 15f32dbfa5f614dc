"""Pictures of a run's tasks at its start."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from gymnasium import spaces

from rltransfer.rollouts.engine import RolloutEngine
from rltransfer.tasks.picture import Picture, draw, render

LONGEST_SECONDS = 0.25
"""Environments that take longer to make are not rendered, and the rest of a suite after this."""


def task_pictures(
    engine: RolloutEngine, seed: int, seconds_per_env: float | None
) -> Iterator[tuple[str, Picture]]:
    """Yields the names of tasks with their pictures.

    An image observation is drawn. Other tasks are rendered, which takes another environment of
    each.

    Args:
        engine: The environments of training, before the first step.
        seed: Seeds the rendered episodes.
        seconds_per_env: How long an environment took to make; None if no others may be made.
    """
    suite = engine.suite
    # What closes one environment may close the windows of another.
    windows = any("render_mode" in task.kwargs for task in suite)
    renders = not windows and seconds_per_env is not None and seconds_per_env < LONGEST_SECONDS
    began = time.monotonic()
    for index, (name, task) in enumerate(zip(suite.names(), suite, strict=True)):
        picture: Picture | None = None
        with contextlib.suppress(Exception):  # whatever an environment shows, its run goes on
            picture = _observed(engine, index)
        if picture is None and renders and time.monotonic() - began < LONGEST_SECONDS:
            picture = render(task, seed)
        if picture is not None:
            yield name, picture


def _observed(engine: RolloutEngine, index: int) -> Picture | None:
    """The drawn observation of a task's first environment; None without an image."""
    shown = engine.current_observation(index)
    for name, space in engine.spaces.own[index].observation.spaces.items():
        if isinstance(space, spaces.Box) and len(space.shape) == 3:
            env = next(one.env for one in engine.env_slices if one.task == index)
            return draw(shown[name].cpu().numpy(), space, env.frame_stack)
    return None
