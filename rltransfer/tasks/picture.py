"""Pictures of a task: its image observation, or a rendered environment."""

from __future__ import annotations

import colorsys
import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from numpy.typing import NDArray

from rltransfer.machine.generators import seeded_global_generators
from rltransfer.tasks.env_layer import EnvMaker
from rltransfer.tasks.families import family_of
from rltransfer.tasks.gymnasium_env import find_spec
from rltransfer.tasks.task import OBSERVATION_TRANSFORM, Task

Picture = NDArray[np.uint8]
"""(height, width, 3)"""

SMALLEST, LARGEST = 160, 400
"""Smaller pictures are enlarged, larger ones reduced, by a whole factor."""

NO_WINDOW = {
    "SDL_VIDEODRIVER": "dummy",
    "SDL_AUDIODRIVER": "dummy",
    "PYGAME_HIDE_SUPPORT_PROMPT": "1",
}
"""Environment variables with which pygame opens no window, plays nothing and prints nothing."""


def draw(image: NDArray[Any], space: spaces.Box, frame_stack: int = 0) -> Picture:
    """Draws an image observation.

    One channel is grey, three are colours. Of stacked frames, the last one is drawn. The channels
    of any other image get a colour each; where several are not zero, their colours are mixed.

    Args:
        image: (channels, height, width)
        space: Its space, with the bounds of its values.
        frame_stack: Number of frames along the first axis; 0 for no stack.
    """
    values = image.astype(np.float64)
    low, high = float(space.low.min()), float(space.high.max())
    if not np.isfinite([low, high]).all():
        low, high = values.min(), values.max()
    values = (values - low) / max(high - low, 1e-12)
    if frame_stack:
        values = values[-(len(values) // frame_stack) :]
    if len(values) == 1:
        values = np.repeat(values, 3, 0)
    elif len(values) != 3:
        hues = [colorsys.hsv_to_rgb(index / len(values), 0.8, 1.0) for index in range(len(values))]
        values = np.tensordot(np.array(hues).T, values, 1)
    return _fitted((values.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0))


def render(task: Task, seed: int) -> Picture | None:
    """The rendered start of an episode of a Gymnasium environment; None if it cannot be rendered.

    Makes one environment, in this process, which opens no window. Environments of families, those
    with a `render_mode` of their own and those that need a process of their own are left out. The
    state of the global generators is the same afterwards.

    Args:
        task: The task.
        seed: Seeds the episode.
    """
    own = ("image_layout", OBSERVATION_TRANSFORM)
    kwargs = {name: value for name, value in task.kwargs.items() if name not in own}
    in_workers = kwargs.pop("vectorization_mode", "sync") == "async"
    if family_of(task) is not None or in_workers or "render_mode" in kwargs:
        return None
    # Whatever an environment raises: a run goes on without a picture.
    with contextlib.suppress(Exception), seeded_global_generators(seed), _quiet():
        spec = find_spec(task)
        found = spec.entry_point
        creator = load_env_creator(found) if isinstance(found, str) else found
        if "rgb_array" not in getattr(creator, "metadata", {}).get("render_modes", ()):
            return None
        env = EnvMaker(spec, {**kwargs, "render_mode": "rgb_array"}, os.getpid())()
        try:
            if hasattr(env.unwrapped, "mujoco_renderer") and not _has_gl():
                return None
            _, failure = env.reset(seed=seed)
            pixels: Any = None if failure else env.render()
        finally:
            env.close()
        if isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 3:
            return _fitted(pixels[:, :, :3]) if pixels.shape[2] in (3, 4) else None
    return None


def _fitted(pixels: Picture) -> Picture:
    """The picture, enlarged or reduced."""
    longest = max(pixels.shape[:2])
    step = -(-longest // LARGEST)
    factor = max(SMALLEST // longest, 1)
    return pixels[::step, ::step].repeat(factor, 0).repeat(factor, 1)


def _has_gl() -> bool:
    """Whether MuJoCo may render: on Linux, with a display or a renderer that needs none.

    Without either it prints errors, after a second.
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.platform != "linux" or chosen in ("egl", "osmesa") or bool(shown)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides warnings, and windows of pygame."""
    before = {name: os.environ.get(name) for name in NO_WINDOW}
    os.environ.update(NO_WINDOW)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
