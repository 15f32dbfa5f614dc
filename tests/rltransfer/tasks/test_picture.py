"""Pictures of tasks: drawn observations and rendered environments, which never fail a run."""

from __future__ import annotations

import os
import random
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from rltransfer.tasks.picture import draw, render
from rltransfer.tasks.task import Task

BYTES: dict[str, Any] = {"low": 0, "high": 255, "dtype": np.uint8}


def test_one_channel_is_grey_and_enlarged() -> None:
    image = np.zeros((1, 10, 20), np.uint8)
    image[0, 2, 3] = 255
    picture = draw(image, spaces.Box(shape=image.shape, **BYTES))
    # 160 // 20 = 8 pixels each.
    assert picture.shape == (80, 160, 3) and picture.dtype == np.uint8
    assert (picture[16:24, 24:32] == 255).all() and picture.sum() == 64 * 3 * 255


def test_three_channels_are_colours_and_large_pictures_are_reduced() -> None:
    image = np.arange(3, dtype=np.uint8).reshape(3, 1, 1).repeat(900, 1).repeat(500, 2)
    picture = draw(image, spaces.Box(shape=image.shape, **BYTES))
    # Every third pixel: 900 / 400, rounded up.
    assert picture.shape == (300, 167, 3)
    assert picture[0, 0].tolist() == [0, 1, 2]


def test_of_stacked_frames_the_last_is_drawn() -> None:
    image = np.zeros((4, 200, 200), np.uint8)
    image[3] = 7
    picture = draw(image, spaces.Box(shape=image.shape, **BYTES), frame_stack=4)
    assert picture.shape == (200, 200, 3) and (picture == 7).all()
    colours = np.zeros((6, 200, 200), np.uint8)
    colours[4] = 9
    picture = draw(colours, spaces.Box(shape=colours.shape, **BYTES), frame_stack=2)
    assert picture[5, 5].tolist() == [0, 9, 0]


def test_other_channels_have_a_colour_each() -> None:
    image = np.zeros((5, 2, 3), np.uint8)
    image[0, 0, 0] = image[3, 0, 1] = image[4, 0, 2] = image[0, 0, 2] = 1
    picture = draw(image, spaces.Box(0, 1, image.shape, np.uint8))[::53, ::53]
    seen = {tuple(pixel) for pixel in picture[0].tolist()}
    assert len(seen) == 3 and (picture[1] == 0).all() and (0, 0, 0) not in seen


def test_values_without_bounds_are_drawn_from_smallest_to_largest() -> None:
    image = np.linspace(-3, 5, 200 * 200, dtype=np.float32).reshape(1, 200, 200)
    picture = draw(image, spaces.Box(-np.inf, np.inf, image.shape, np.float32))
    assert picture[0, 0, 0] == 0 and picture[-1, -1, 0] == 255
    assert (draw(np.zeros_like(image), spaces.Box(-np.inf, np.inf, image.shape)) == 0).all()


class Rendered(gymnasium.Env[Any, Any]):
    """Renders what it is told to; it draws from the global generators."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)
    made: list[str] = []  # noqa: RUF012

    def __init__(self, shows: str = "picture", render_mode: str | None = None) -> None:
        self.shows, self.render_mode = shows, render_mode
        self.made.append(shows)
        if shows == "not made":
            raise RuntimeError("no licence")

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        random.random(), np.random.rand(), torch.rand(1)
        if self.shows == "no reset":
            raise RuntimeError("lost")
        return np.zeros(2, np.float32), {}

    def render(self) -> Any:
        assert os.environ["SDL_VIDEODRIVER"] == "dummy"
        if self.shows == "an error":
            raise OSError("no display")
        if self.shows == "a warning":
            gymnasium.logger.warn("slow")
        shown = {"nothing": None, "a list": [1], "floats": np.zeros((4, 4, 3)), "grey": "no"}
        return shown.get(self.shows, np.full((200, 300, 3), 5, np.uint8))


RENDERED = "tests/Rendered-v0"


@pytest.fixture(autouse=True)
def rendered() -> None:
    Rendered.made.clear()
    if RENDERED not in gymnasium.registry:
        gymnasium.register(RENDERED, entry_point=Rendered)


def states() -> tuple[Any, Any, Any]:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def test_an_environment_is_rendered_and_no_random_state_changes(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
    monkeypatch.delenv("SDL_AUDIODRIVER", raising=False)
    before = states()
    for shows in ("picture", "a warning"):
        picture = render(Task(RENDERED, {"shows": shows}), seed=1)
        assert picture is not None and picture.shape == (200, 300, 3) and (picture == 5).all()
    assert states() == before
    assert os.environ["SDL_VIDEODRIVER"] == "x11" and "SDL_AUDIODRIVER" not in os.environ
    assert not recwarn.list


@pytest.mark.parametrize(
    "shows", ["not made", "no reset", "an error", "nothing", "a list", "floats", "grey"]
)
def test_what_cannot_be_rendered_has_no_picture(shows: str) -> None:
    before = states()
    assert render(Task(RENDERED, {"shows": shows}), seed=1) is None
    assert states() == before


@pytest.mark.parametrize("kwargs", [{"render_mode": "rgb_array"}, {"vectorization_mode": "async"}])
def test_environments_with_a_window_or_a_process_are_not_made_again(kwargs: Any) -> None:
    assert render(Task(RENDERED, kwargs), seed=1) is None
    assert not Rendered.made


def test_families_and_unknown_ids_are_not_rendered() -> None:
    for name in ("rltransfer/MinAtar-Breakout-v0", "tests/Nothing-v0", "no_module:Nothing-v0"):
        assert render(Task(name), seed=1) is None


def test_cartpole_is_rendered() -> None:
    picture = render(Task("CartPole-v1"), seed=1)
    assert picture is not None and picture.shape == (200, 300, 3)
    assert (picture == 255).mean() > 0.5 and (picture == 0).any()  # a black cart on white


def test_mujoco_without_a_display_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)
    assert render(Task("InvertedPendulum-v5"), seed=1) is None
    assert capfd.readouterr() == ("", "")
