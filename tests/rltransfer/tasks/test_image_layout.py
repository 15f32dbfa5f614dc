"""Images of every layout become images with their channels first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import rltransfer as rt
from rltransfer.errors import InputError
from rltransfer.policies.encoder import Encoder
from rltransfer.policies.network import Network
from rltransfer.policies.policy import PolicySpec
from rltransfer.rollouts.engine import RolloutEngine
from rltransfer.tasks.gymnasium_env import make_host_env
from rltransfer.tasks.image_layout import ImageBox, image_layout_of
from rltransfer.tasks.observation import grouped
from rltransfer.tasks.task import Task

CPU = torch.device("cpu")


def bytes_of(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


class Picture(gymnasium.Env[Any, Any]):
    """Shows the same numbers from 0 upwards, in an array of any shape."""

    def __init__(self, shape: tuple[int, ...], high: int = 255) -> None:
        self.observation_space = spaces.Box(0, high, shape, np.uint8)
        self.action_space = spaces.Discrete(2)
        self.shown = (np.arange(np.prod(shape)) % 256).astype(np.uint8).reshape(shape)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.shown, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.shown, 0.0, True, False, {}


gymnasium.register("layout-test/Picture-v0", Picture)


def picture(*shape: int, **kwargs: Any) -> Task:
    return Task("layout-test/Picture-v0", {"shape": list(shape), **kwargs})


@pytest.mark.parametrize(
    ("shown", "shape", "axes"),
    [
        ((96, 96, 3), (3, 96, 96), (2, 0, 1)),
        ((210, 160, 3), (3, 210, 160), (2, 0, 1)),
        ((48, 48, 1), (1, 48, 48), (2, 0, 1)),
        ((8, 8, 17), (17, 8, 8), (2, 0, 1)),
        ((48, 40), (1, 48, 40), (0, 1)),
        ((4, 96, 90, 3), (12, 96, 90), (0, 3, 1, 2)),
        ((4, 3, 96, 90), (12, 96, 90), (0, 1, 2, 3)),
    ],
)
def test_layout_is_recognised(
    shown: tuple[int, ...], shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    env = make_host_env(picture(*shown), 2, CPU)
    assert env.single_observation_space == bytes_of(*shape)
    expected = np.arange(np.prod(shown)).astype(np.uint8).reshape(shown).transpose(axes)
    observation, _ = env.reset(seed=0)
    assert torch.equal(observation[1], torch.from_numpy(expected.reshape(shape)))
    final = env.step(torch.zeros(2, dtype=torch.int64))[-1]["final_obs"]
    assert torch.equal(final, observation)
    # A function as a teacher sees what the environment shows.
    space = env.single_observation_space
    assert isinstance(space, ImageBox)
    assert torch.equal(
        space.layout.as_shown(observation)[1],
        torch.arange(np.prod(shown)).to(torch.uint8).view(shown),
    )


@pytest.mark.parametrize("shape", [(3, 96, 96), (4, 10, 10), (17, 8, 8), (7, 7, 7), (9,), (4, 4)])
def test_what_need_not_be_turned_is_as_it_is_shown(shape: tuple[int, ...]) -> None:
    assert image_layout_of(bytes_of(*shape), None, "game") is None
    assert make_host_env(picture(*shape), 1, CPU).single_observation_space == bytes_of(*shape)


def test_two_or_four_axes_of_floats_are_vectors() -> None:
    for shape in ((48, 48), (4, 20, 20, 3)):
        assert image_layout_of(spaces.Box(0.0, 1.0, shape, np.float32), None, "game") is None


def test_ambiguous_layout_is_refused_with_the_option_that_settles_it() -> None:
    with pytest.raises(InputError, match=r"\[8, 10, 8\], .* image_layout=channels_first, "):
        make_host_env(picture(8, 10, 8), 1, CPU)
    for layout, shape in (
        ("channels_first", (8, 10, 8)), ("channels_last", (8, 8, 10)), ("none", (640,)),
    ):  # fmt: skip
        env = make_host_env(picture(8, 10, 8, image_layout=layout), 1, CPU)
        assert env.single_observation_space == bytes_of(*shape)
        assert env.reset(seed=0)[0].shape == (1, *shape)
    with pytest.raises(InputError, match=r"image_layout of .* is 'CHW': it must be channels_first"):
        make_host_env(picture(8, 10, 8, image_layout="CHW"), 1, CPU)


@pytest.mark.parametrize("encoder", ["auto", "nature"])
def test_encoder_convolves_height_and_width(encoder: Any) -> None:
    env = make_host_env(picture(96, 96, 3), 1, CPU)
    space = grouped(env.single_observation_space)
    network = Encoder(Network(encoder=encoder), space)
    assert network.layers[0].in_channels == 3
    # 96 -> (96 - 8) // 4 + 1 = 23 -> (23 - 4) // 2 + 1 = 10 -> 8.
    assert network.layers[7].in_features == 64 * 8 * 8
    assert network({"policy": env.reset(seed=0)[0]}).shape == (1, 512)


def test_suite_pads_channels_and_never_rows() -> None:
    suite = rt.Suite.of(picture(48, 48, 3), picture(48, 48, 1))
    engine = RolloutEngine(suite, 1, CPU, seed=0)
    assert engine.spaces.observation_space["policy"].shape == (3, 48, 48)
    engine.close()
    with pytest.raises(
        InputError, match=r"observe 'policy' as uint8\[3, 48, 48\] and uint8\[3, 40"
    ):
        RolloutEngine(rt.Suite.of(picture(48, 48, 3), picture(40, 48, 3)), 1, CPU, seed=0)


def seen_by_a_function(*tasks: Task) -> list[tuple[int, ...]]:
    shapes = []

    def function(observation: rt.Observation, task: torch.Tensor) -> rt.PolicyOutput:
        shapes.append(tuple(observation["policy"].shape))
        return rt.PolicyOutput(logits=torch.zeros(len(task), 2))

    engine = RolloutEngine(rt.Suite.of(*tasks), 1, CPU, seed=0)
    teacher = rt.CallableTeacher(function).fitted(engine.spaces)
    space = engine.spaces.observation_space["policy"]
    teacher({"policy": torch.zeros(len(tasks), *space.shape or ())}, torch.arange(len(tasks)))
    engine.close()
    return shapes


def test_function_sees_images_as_the_environments_show_them() -> None:
    assert seen_by_a_function(picture(48, 40, 3)) == [(1, 48, 40, 3)]
    # One layout for all rows: with their channels first if the environments differ.
    assert seen_by_a_function(picture(48, 40, 3), picture(3, 48, 40)) == [(2, 3, 48, 40)]


def test_torchscript_reads_images_as_shown_or_with_channels_first(tmp_path: Path) -> None:
    class Means(torch.nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.layer = torch.nn.Conv2d(channels, 2, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.layer(images.float()).mean((2, 3))

    class Turning(Means):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.layer(images.float().permute(0, 3, 1, 2)).mean((2, 3))

    engine = RolloutEngine(rt.Suite.of(picture(12, 10, 3)), 1, CPU, seed=0)
    observation = {"policy": engine.env_slices[0].env.reset(seed=0)[0]}
    for number, kind in enumerate((Means, Turning)):
        module = kind(3)
        path = tmp_path / f"{number}.pt"
        torch.jit.save(torch.jit.script(module), path)
        teacher = rt.load_teacher(path).fitted(engine.spaces)
        found = teacher(observation, torch.zeros(1, dtype=torch.int64)).logits
        expected = module.layer(observation["policy"].float()).mean((2, 3))
        torch.testing.assert_close(found, expected)
    engine.close()


def test_images_of_each_task_are_scaled_by_their_own_bound() -> None:
    suite = rt.Suite.of(picture(10, 10, 1), picture(10, 10, 1, high=1))
    engine = RolloutEngine(suite, 1, CPU, seed=0)
    spec = PolicySpec.of_suite(Network(), engine.spaces)
    engine.close()
    assert spec.image_bounds == (255.0, 1.0) and spec.asks_for_task
    assert PolicySpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    shown = {"policy": torch.ones(2, 1, 10, 10, dtype=torch.uint8)}
    inputs = spec.build().encoder.inputs(shown, torch.tensor([0, 1]))
    assert inputs[:, 0, 0, 0].tolist() == pytest.approx([1 / 255, 1.0])


def test_atari_in_colour_is_an_image() -> None:
    pytest.importorskip("ale_py")
    suite = rt.Suite.of(Task("ALE/Pong-v5", {"grayscale": False, "stack_num": 2}))
    engine = RolloutEngine(suite, 1, CPU, seed=0)
    assert engine.spaces.observation_space["policy"].shape == (6, 84, 84)
    assert [one.env.frame_stack for one in engine.env_slices] == [0]
    engine.close()
