"""Each image transform by hand, on bytes, on floats and on images of two values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import rltransfer as rt
from rltransfer.errors import InputError
from rltransfer.tasks.families import find_suite
from rltransfer.tasks.image_transforms import NOISE, TRANSFORMS, ImageSpec
from rltransfer.tasks.making import make_vector_env
from rltransfer.tasks.task import OBSERVATION_TRANSFORM as OPTION
from rltransfer.tasks.transforms import TransformedVectorEnv
from rltransfer.tasks.vector_env import VectorEnv

CPU = torch.device("cpu")
PONG = "ALE/Pong-v5"
BREAKOUT = "rltransfer/MinAtar-Breakout-v0"


def spec_of(images: Tensor, low: float = 0.0, high: float = 255.0) -> ImageSpec:
    channels, height, width = images.shape[2:]
    return ImageSpec(channels, height, width, images.dtype, low, high, "T-v0")


def applied(name: str, rows: list[list[float]], dtype: torch.dtype = torch.uint8, **bounds: float):
    images = torch.tensor(rows, dtype=dtype)[None, None, None]
    made = TRANSFORMS[name](spec_of(images, **bounds))(images)
    assert made.shape == images.shape and made.dtype == images.dtype
    return made[0, 0, 0].tolist()


PICTURE = [[1, 2, 3], [4, 5, 5], [5, 5, 5]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("flip_horizontal", [[3, 2, 1], [5, 5, 4], [5, 5, 5]]),
        ("flip_vertical", [[5, 5, 5], [4, 5, 5], [1, 2, 3]]),
        ("shift", [[5, 5, 5], [3, 1, 2], [5, 4, 5]]),
        ("invert", [[254, 253, 252], [251, 250, 250], [250, 250, 250]]),
        ("black", [[1, 2, 3], [4, 0, 0], [0, 0, 0]]),
        ("white", [[1, 2, 3], [4, 255, 255], [255, 255, 255]]),
    ],
)
def test_bytes_by_hand(name: str, expected: list[list[int]]) -> None:
    assert applied(name, PICTURE) == expected


def test_zoom_scales_and_moves() -> None:
    rows = [[100.0] * 8] * 8
    found = torch.tensor(applied("zoom", rows))
    assert (found[:2] == 0).all() and (found[:, :2] == 0).all()
    assert (found[2:, 2:] == 100).all()
    # A single bright pixel remains, as bright as its weight: nothing is skipped.
    for row in range(8):
        one = torch.zeros(8, 8)
        one[row, 3] = 200
        assert torch.tensor(applied("zoom", one.tolist())).sum() > 50


def test_noise_is_frozen_has_its_size_and_stays_within_the_bounds() -> None:
    images = torch.full((3, 4, 1, 84, 84), 128, dtype=torch.uint8)
    noise = TRANSFORMS["noise"](spec_of(images))
    found = noise(images)
    assert torch.equal(found, noise(images)) and torch.equal(found[0, 0], found[2, 3])
    added = found[0, 0, 0].double() - 128
    assert abs(added.std() - NOISE * 255) < 0.5 and abs(added.mean()) < 1
    again = TRANSFORMS["noise"](spec_of(images))(images)
    assert torch.equal(found, again)
    bright = noise(torch.full_like(images, 250))
    assert bright.max() == 255 and bright.min() > 100


def test_noise_of_two_values_inverts_some_pixels() -> None:
    images = torch.zeros(2, 1, 4, 10, 10, dtype=torch.uint8)
    images[:, :, 1] = 1
    found = TRANSFORMS["noise"](spec_of(images, high=1))(images)
    changed = (found != images)[0, 0]
    assert set(found.unique().tolist()) == {0, 1}
    assert 0.02 < changed.float().mean() < 0.09
    assert torch.equal(found[0], found[1]) and not torch.equal(changed[0], changed[1])


def test_small_numbers() -> None:
    """A range of 2, a height of 16 and three channels."""
    images = torch.zeros(1, 1, 1, 40, 40)
    found = TRANSFORMS["noise"](spec_of(images, low=-1.0, high=1.0))(images)
    assert abs(found.std() - NOISE * 2) < 0.01
    tall = torch.arange(16.0).view(1, 1, 1, 16, 1).expand(1, 1, 1, 16, 16)
    # A tenth of 16 is 1.6, and so 2 rows.
    moved = TRANSFORMS["shift"](spec_of(tall))(tall)
    assert moved[0, 0, 0, :, 0].tolist() == [14, 15, *range(14)]
    channels = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3, 1, 1)
    rotated = TRANSFORMS["rotate_channels"](spec_of(channels))(channels)
    assert rotated.flatten().tolist() == [3, 1, 2]


def test_floats_keep_their_numbers() -> None:
    rows = [[-1.0, 0.25], [0.5, 0.5]]
    bounds = {"low": -1.0, "high": 1.0}
    assert applied("invert", rows, torch.float32, **bounds) == [[1.0, -0.25], [-0.5, -0.5]]
    assert applied("white", [[0.5] * 3] * 3, torch.float32, **bounds) == [[1.0] * 3] * 3
    assert applied("black", [[0.5] * 3] * 3, torch.float32, **bounds) == [[-1.0] * 3] * 3


@pytest.mark.parametrize("name", ["invert", "noise", "black", "white", "zoom"])
def test_unbounded_images_are_refused(name: str) -> None:
    images = torch.zeros(1, 1, 1, 9, 9)
    with pytest.raises(InputError, match=f"'T-v0' are unbounded: leave out '{name}'"):
        TRANSFORMS[name](spec_of(images, high=math.inf))


def test_zoom_refuses_two_values() -> None:
    with pytest.raises(InputError, match="are 0 or 1: leave out 'zoom'"):
        make_vector_env(rt.Task(BREAKOUT, {OPTION: "zoom"}), 1, CPU)


@pytest.mark.parametrize("name", sorted({*TRANSFORMS} - {"zoom"}))
def test_minatar_takes_every_other_one(name: str) -> None:
    plain = make_vector_env(rt.Task(BREAKOUT), 2, CPU)
    env = make_vector_env(rt.Task(BREAKOUT, {OPTION: name}), 2, CPU)
    assert env.capturable
    before, after = plain.reset(seed=3)[0].clone(), env.reset(seed=3)[0]
    places = {after.data_ptr()}
    assert name == "black" or not torch.equal(before, after)
    for _ in range(4):
        after, reward, *_ = env.step(torch.ones(2, dtype=torch.int64))
        places.add(after.data_ptr())
        _, expected, *_ = plain.step(torch.ones(2, dtype=torch.int64))
        assert env.single_observation_space.contains(after[0].numpy())
        assert torch.equal(reward, expected)
    # A captured step writes to the tensors that the capture saw.
    assert len(places) == 1


def test_several_in_their_order() -> None:
    env = make_vector_env(rt.Task(BREAKOUT, {OPTION: "flip_vertical+noise"}), 1, CPU)
    plain = make_vector_env(rt.Task(BREAKOUT), 1, CPU)
    found, image = env.reset(seed=1)[0], plain.reset(seed=1)[0]
    shown = image.unflatten(1, (1, -1))
    noise = TRANSFORMS["noise"](spec_of(shown, high=1))
    assert torch.equal(found, noise(shown.flip(-2)).flatten(1, 2))
    assert not torch.equal(found, noise(shown).flip(-2).flatten(1, 2))


class Blinking(VectorEnv):
    """Two stacked frames: an empty one, which stands for none, and one of brightness 100."""

    def __init__(self) -> None:
        self.num_envs, self.device, self.frame_stack = 1, CPU, 2
        self.single_observation_space = spaces.Box(0, 255, (2, 9, 9), np.uint8)
        self.single_action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        images = torch.zeros(1, 2, 9, 9, dtype=torch.uint8)
        images[:, 1] = 100
        return images, {}

    def send(self, actions: Tensor) -> None:
        raise NotImplementedError

    def recv(self):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("name", "shown"), [("invert", 155), ("white", 255), ("black", 0), ("flip_vertical", 100)]
)
def test_frames_before_the_start_stay_black(name: str, shown: int) -> None:
    """The replay buffer rebuilds them as black."""
    observation, _ = TransformedVectorEnv(Blinking(), [name], "T-v0").reset()
    assert observation[0, 0].unique().tolist() == [0]
    assert observation[0, 1].unique().tolist() == [shown]


def test_noise_leaves_frames_before_the_start_black() -> None:
    observation, _ = TransformedVectorEnv(Blinking(), ["noise"], "T-v0").reset()
    assert not observation[0, 0].any() and len(observation[0, 1].unique()) > 10


@pytest.mark.parametrize("name", ["noise", "black", "white", "zoom", "flip_horizontal"])
def test_the_pong_soup_on_the_emulator(name: str) -> None:
    plain = make_vector_env(rt.Task(PONG), 2, CPU)
    env = make_vector_env(rt.Task(PONG, {OPTION: name}), 2, CPU)
    for one in (plain, env):
        one.reset(seed=5)
    actions = torch.tensor([2, 3])
    for _ in range(6):
        before, expected, *_ = plain.step(actions)
        after, reward, *_ = env.step(actions)
    assert torch.equal(expected, reward)
    background = before[0, -1].median()
    share = (before[0, -1] == background).float().mean()
    assert share > 0.5
    match name:
        case "black" | "white":
            value = 0 if name == "black" else 255
            assert (after[0, -1] == value).float().mean() >= share
            assert torch.equal(after[0, -1] == value, before[0, -1] == background)
        case "zoom":
            assert (after[0, :, :21] == 0).all() and (after[0, -1, 21:, 21:] > 0).any()
        case "flip_horizontal":
            assert torch.equal(after, before.flip(-1))
        case _:
            assert (after[0, -1].double() - before[0, -1].double()).std() > 20
    plain.close()
    env.close()


def test_the_soups_are_suites() -> None:
    for name, task_id in (("minatar-soup", BREAKOUT), ("pong-soup", PONG)):
        tasks = find_suite(name).tasks
        assert {task.id for task in tasks} == {task_id} and len(tasks) == 8
        assert not tasks[0].kwargs
        for task in tasks:
            make_vector_env(task, 1, CPU).close()
