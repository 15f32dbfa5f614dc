"""MinAtar's environments as environments: ids, seeds, resets, copies of the state, devices."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.utils.env_checker import check_env
from torch import Tensor

from rltransfer.envs.minatar import vector_env as vector_env_module
from rltransfer.envs.minatar.family import FAMILY
from rltransfer.envs.minatar.ids import GAMES
from rltransfer.envs.minatar.single import MinAtarEnv
from rltransfer.envs.minatar.vector_env import MinAtarVectorEnv
from rltransfer.errors import InputError
from rltransfer.tasks.task import Task

CPU = torch.device("cpu")
CHANNELS = {"asterix": 4, "breakout": 4, "freeway": 7, "seaquest": 10, "space_invaders": 6}
MINIMAL = {"asterix": 5, "breakout": 3, "freeway": 3, "seaquest": 6, "space_invaders": 4}
NOTHING, LEFT, UP, RIGHT, DOWN, FIRE = range(6)

FAMILY.register()


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets torch's number of threads, and back again."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device that there is."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return torch.device(request.param)


def make(game: str, num_envs: int = 16, **options: Any) -> MinAtarVectorEnv:
    """The environments with all six actions."""
    return MinAtarVectorEnv(game, num_envs, minimal_actions=False, **options)


def play(env: MinAtarVectorEnv, steps: int, seed: int = 0) -> list[Tensor]:
    """Copies of all that some steps return, of the same actions whenever the seed is the same."""
    generator = torch.Generator().manual_seed(seed)
    seen = []
    for _ in range(steps):
        # Drawn row by row, so that an environment's actions do not depend on how many there are.
        actions = torch.randint(0, 6, (64,), generator=generator)[: env.num_envs]
        observation, reward, terminated, _, info = env.step(actions.to(env.device))
        final = info["final_obs"] * terminated[:, None, None, None]
        seen += [tensor.clone().cpu() for tensor in (observation, reward, terminated, final)]
    return seen


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    """Tells whether two lists of tensors are the same."""
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# Ids, families, faces.


def test_family_registers_its_ids_once() -> None:
    before = dict(gymnasium.registry)
    FAMILY.register()
    assert gymnasium.registry == before
    assert len(FAMILY.task_ids()) == 10
    assert all(task_id in gymnasium.registry for task_id in FAMILY.task_ids())
    actions = {"MinAtar-Breakout-v0": 6, "MinAtar-Breakout-v1": 3, "MinAtarMinimal-Breakout-v0": 3}
    for task_id, count in actions.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            env = gymnasium.make(f"rltransfer/{task_id}")
        assert env.action_space == gymnasium.spaces.Discrete(count)


def test_suites_hold_the_five_games_in_order() -> None:
    names = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
    suites = {suite.name: [task.id for task in suite] for suite in FAMILY.suites()}
    assert suites == {
        "minatar": [f"rltransfer/MinAtar-{name}-v0" for name in names],
        "minatar-minimal": [f"rltransfer/MinAtar-{name}-v1" for name in names],
        "minatar-soup": ["rltransfer/MinAtar-Breakout-v0"] * 8,
    }


def test_family_makes_what_it_accepts() -> None:
    task = Task("rltransfer/MinAtar-Breakout-v1", {"sticky_action_prob": 0.0})
    assert FAMILY.accepts(task)
    assert not FAMILY.accepts(Task("ALE/Breakout-v5"))
    assert FAMILY.evaluation_task(task) == task
    env = FAMILY.make(task, 3, CPU)
    assert env.num_envs == 3
    assert env.single_action_space == gymnasium.spaces.Discrete(3)
    assert not env.truncates
    assert env.frame_stack == 0


@pytest.mark.parametrize("game", GAMES)
def test_spaces(game: str) -> None:
    shape = (CHANNELS[game], 10, 10)
    for minimal, actions in ((False, 6), (True, MINIMAL[game])):
        env = MinAtarVectorEnv(game, 2, minimal_actions=minimal)
        assert env.single_observation_space == gymnasium.spaces.Box(0, 1, shape, np.uint8)
        assert env.single_action_space == gymnasium.spaces.Discrete(actions)
        assert env.observation_space.shape == (2, *shape)
        assert env.action_space == gymnasium.spaces.MultiDiscrete([actions, actions])
        assert env.reset(seed=0)[0][0].numpy() in env.single_observation_space


@pytest.mark.parametrize("task_id", FAMILY.task_ids())
def test_gymnasium_accepts_the_environment(task_id: str) -> None:
    check_env(gymnasium.make(task_id, render_mode="rgb_array").unwrapped)


def test_make_vec_returns_tensors(device: torch.device) -> None:
    env = gymnasium.make_vec("rltransfer/MinAtar-Seaquest-v1", num_envs=8, device=device)
    observation, info = env.reset(seed=0)
    assert info == {}
    observation, reward, terminated, truncated, info = env.step(torch.zeros(8, device=device))
    for tensor, dtype, shape in (
        (observation, torch.uint8, (8, 10, 10, 10)),
        (reward, torch.float32, (8,)),
        (terminated, torch.bool, (8,)),
        (truncated, torch.bool, (8,)),
        (info["final_obs"], torch.uint8, (8, 10, 10, 10)),
    ):
        assert (tensor.dtype, tuple(tensor.shape)) == (dtype, shape)
        assert tensor.device.type == device.type


def test_nothing_is_printed_and_warp_is_loaded_late() -> None:
    code = """
import sys
import rltransfer.envs.minatar.family as minatar
assert "warp" not in sys.modules
minatar.FAMILY.register()
assert "warp" not in sys.modules
import gymnasium
env = gymnasium.make_vec("rltransfer/MinAtar-Breakout-v1", num_envs=2)
env.reset(seed=0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_stable_baselines3_trains_on_it() -> None:
    from stable_baselines3 import PPO

    env = gymnasium.make("rltransfer/MinAtar-Breakout-v1")
    model = PPO("MlpPolicy", env, n_steps=128, batch_size=64, n_epochs=1, seed=0, device="cpu")
    model.learn(256)
    assert model.num_timesteps == 256


# Randomness.


@pytest.mark.parametrize("game", GAMES)
def test_seed_says_all(game: str) -> None:
    env, other = make(game), make(game)
    env.reset(seed=5)
    first = play(env, 80)
    env.reset(seed=5)
    other.reset(seed=5)
    assert equal(play(env, 80), first)
    assert equal(play(other, 80), first)
    other.reset(seed=6)
    assert not equal(play(other, 80), first)


def test_reset_without_a_seed_goes_on_with_the_streams() -> None:
    env = make("freeway", 4)
    first = env.reset(seed=5)[0].clone()
    env.step(torch.zeros(4))
    # The cars' speeds are drawn anew, and differ in some car of each of the four.
    second = env.reset()[0].clone()
    assert (first != second).flatten(1).any(1).all()
    env.reset(seed=5)
    env.step(torch.zeros(4))
    assert torch.equal(env.reset()[0], second)


def test_environments_differ_among_themselves() -> None:
    env = make("freeway", 8)
    observation, _ = env.reset(seed=0)
    assert len(observation.flatten(1).unique(dim=0)) == 8


def test_an_environment_does_not_depend_on_the_others(
    threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Env i of 5 and of 13, and of 13 in three uneven parts on three threads, play the same."""
    few, many = make("asterix", 5), make("asterix", 13)
    monkeypatch.setattr(vector_env_module, "_ENVS_PER_THREAD", 4)
    threads(3)
    parted = make("asterix", 13)
    assert len(parted._launches) == 3
    for env in (few, many, parted):
        env.reset(seed=1)
    seen = play(many, 200)
    assert any(tensor.any() for tensor in seen[2::4])
    assert equal(play(parted, 200), seen)
    assert equal(play(few, 200), [tensor[:5] for tensor in seen])
    parted.close()
    with pytest.raises(ClosedEnvironmentError):
        parted.step(torch.zeros(13))


# State.


@pytest.mark.parametrize("game", GAMES)
def test_state_goes_back_exactly(game: str, device: torch.device) -> None:
    env = make(game, device=device)
    env.reset(seed=0)
    play(env, 60)
    state = env.state_dict()
    observation = state["observation"].clone()
    first = play(env, 60, seed=1)
    assert not torch.equal(env.state_dict()["observation"], observation)
    # The copies are not overwritten by steps, and another environment goes on from them.
    assert torch.equal(state["observation"], observation)
    other = make(game, device=device)
    other.load_state_dict(state)
    assert equal(play(other, 60, seed=1), first)
    env.load_state_dict(state)
    assert equal(play(env, 60, seed=1), first)


def test_foreign_state_is_refused() -> None:
    env = make("breakout", 4)
    for state in (make("breakout", 5).state_dict(), make("asterix", 4).state_dict(), {}):
        with pytest.raises(InputError, match="of other environments"):
            env.load_state_dict(state)


# Resets.


def test_reset_mask_resets_those_alone(device: torch.device) -> None:
    env = make("seaquest", 6, device=device)
    first = env.reset(seed=0)[0].clone()
    for _ in range(10):
        env.step(torch.full((6,), DOWN, device=device))
    before = env.state_dict()
    mask = torch.tensor([True, False, False, True, False, True], device=device)
    observation, _ = env.reset(options={"reset_mask": mask})
    assert torch.equal(observation[mask], first[mask])
    assert torch.equal(observation[~mask], before["observation"][~mask])
    after = env.state_dict()
    for name in before:
        assert torch.equal(after[name][~mask], before[name][~mask])


def test_an_ended_episode_is_followed_by_the_next() -> None:
    """Breakout, the ball from (0, 3) or (9, 3), the paddle moved to the left.

    The ball is at row 3 + t after t steps, at column t or 9 - t, and comes to row 9 with the sixth:
    from column 5 to 6 or from 4 to 3, where the paddle is not, so the episode ends.
    """
    env = make("breakout", 8, sticky_action_prob=0.0)
    first = env.reset(seed=0)[0].clone()
    for _ in range(5):
        *_, terminated, _, _ = env.step(torch.full((8,), LEFT))
        assert not terminated.any()
    observation, reward, terminated, truncated, info = env.step(torch.full((8,), LEFT))
    assert terminated.all()
    assert not truncated.any()
    assert not reward.any()
    # Rows and columns of the ball (channel 1) and of its trail (channel 2).
    for before, after, final in zip(first, observation, info["final_obs"], strict=True):
        from_right = bool(before[1, 3, 9])
        assert final[1].nonzero().tolist() == [[9, 3 if from_right else 6]]
        assert final[2].nonzero().tolist() == [[8, 4 if from_right else 5]]
        assert after[1].nonzero().tolist() in ([[3, 0]], [[3, 9]])
        assert torch.equal(after[2], after[1])
        assert after[3].sum() == 30


def test_one_environment_waits_for_its_reset() -> None:
    env = MinAtarEnv("breakout", minimal_actions=True, sticky_action_prob=0.0)
    with pytest.raises(ResetNeeded):
        env.step(np.int64(0))
    env.reset(seed=0)
    for _ in range(6):
        observation, _, terminated, truncated, _ = env.step(np.int64(LEFT))
    assert terminated
    assert not truncated
    assert observation[1, 9].any()
    with pytest.raises(ResetNeeded):
        env.step(np.int64(0))
    observation, _ = env.reset()
    assert observation[1, 3].any()
    assert not env.step(np.int64(0))[2]
    # Reset in mid-episode: the ball is back in row 3.
    assert env.reset()[0][1, 3].any()


def test_one_environment_plays_as_the_first_of_many() -> None:
    one, many = MinAtarEnv("freeway", minimal_actions=False), make("freeway", 4)
    observation, _ = one.reset(seed=3)
    seed = int(np.random.Generator(np.random.PCG64(np.random.SeedSequence(3))).integers(1 << 62))
    expected, _ = many.reset(seed=seed)
    assert np.array_equal(observation, expected[0].numpy())
    for _ in range(50):
        observation, *_ = one.step(np.int64(UP))
        expected, *_ = many.step(torch.full((4,), UP))
        assert np.array_equal(observation, expected[0].numpy())


def test_picture_shows_the_cells() -> None:
    env = MinAtarEnv("breakout", minimal_actions=True, render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture is not None
    assert (picture.shape, picture.dtype) == ((160, 160, 3), np.uint8)
    # The paddle's cell (4, 9) is coloured, the cell beside it is black.
    assert picture[9 * 16 + 8, 4 * 16 + 8].any()
    assert not picture[9 * 16 + 8, 5 * 16 + 8].any()


# Options and actions.


def test_always_sticky_does_nothing_for_ever() -> None:
    """The last action is "nothing" at first, and is done again each time."""
    env = make("breakout", 4, sticky_action_prob=1.0)
    env.reset(seed=0)
    for _ in range(50):
        observation, *_ = env.step(torch.full((4,), LEFT))
        assert observation[:, 0, 9, 4].all()


def test_never_sticky_does_as_told() -> None:
    env = make("breakout", 4, sticky_action_prob=0.0)
    env.reset(seed=0)
    for column in (3, 2, 1, 0, 0):
        observation, *_ = env.step(torch.full((4,), LEFT))
        assert observation[:, 0, 9, column].all()


def test_sticky_actions_are_as_frequent_as_told() -> None:
    """Right is done instead of left where the last action, right, sticks: binomial, 3 sigma."""
    env = make("space_invaders", 4000, sticky_action_prob=0.25)
    env.reset(seed=0)
    state = env.state_dict()
    state["last_actions"].fill_(RIGHT)
    env.load_state_dict(state)
    observation, *_ = env.step(torch.full((4000,), LEFT))
    # The cannon starts in column 5.
    stuck = observation[:, 0, 9, 6].float().mean().item()
    assert observation[:, 0, 9, 4].sum() == 4000 * (1 - stuck)
    assert abs(stuck - 0.25) < 3 * (0.25 * 0.75 / 4000) ** 0.5


def test_ramping_makes_asterix_harder() -> None:
    """102 steps after the start the ramp's timer is up: the eleventh thing comes a step sooner."""
    ramping, steady = (make("asterix", 64, difficulty_ramping=ramps) for ramps in (True, False))
    for env in (ramping, steady):
        env.reset(seed=0)
    assert equal(play(ramping, 100), play(steady, 100))
    assert not equal(play(ramping, 100), play(steady, 100))


def test_minimal_actions_are_those_of_the_game() -> None:
    """Breakout's are nothing, left, right: 0, 1, 3."""
    full, minimal = make("breakout", 8), MinAtarVectorEnv("breakout", 8, minimal_actions=True)
    full.reset(seed=0)
    minimal.reset(seed=0)
    meant = torch.tensor([NOTHING, LEFT, RIGHT])
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        actions = torch.randint(0, 3, (8,), generator=generator)
        assert torch.equal(minimal.step(actions)[0], full.step(meant[actions])[0])


@pytest.mark.parametrize("wrong", [-1, 6, 1 << 40, -(1 << 63)])
def test_an_action_that_is_not_there_does_nothing(wrong: int) -> None:
    env, other = make("space_invaders", 4), make("space_invaders", 4)
    env.reset(seed=0)
    other.reset(seed=0)
    for _ in range(30):
        env.step(torch.full((4,), wrong))
        other.step(torch.full((4,), NOTHING))
    assert equal(list(env.state_dict().values()), list(other.state_dict().values()))


# Bad input.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"game": "breakut"}, "did you mean 'breakout'"),
        ({"num_envs": 0}, "num_envs is 0"),
        ({"sticky_action_prob": 1.5}, "sticky_action_prob is 1.5"),
        ({"sticky_action_prob": float("nan")}, "sticky_action_prob is nan"),
        ({"sticky_action_prob": "often"}, "sticky_action_prob is 'often'"),
        ({"difficulty_ramping": "yes"}, "difficulty_ramping is 'yes'"),
        ({"device": "toaster"}, "no device 'toaster'"),
        ({"device": "meta"}, "no device 'meta'"),
        ({"device": "cuda:77"}, "no device 'cuda:77'"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MinAtarVectorEnv(**{"game": "breakout", "num_envs": 2, "minimal_actions": True, **options})


def test_bad_tasks_are_named() -> None:
    with pytest.raises(InputError, match="did you mean 'rltransfer/MinAtar-Breakout-v0'"):
        FAMILY.make(Task("rltransfer/MinAtar-Breakot-v0"), 2, CPU)
    with pytest.raises(InputError, match="did you mean 'sticky_action_prob'"):
        FAMILY.make(Task("rltransfer/MinAtar-Breakout-v0", {"sticky_action": 0.1}), 2, CPU)


def test_bad_calls_are_named() -> None:
    env = make("breakout", 4)
    with pytest.raises(InputError, match=r"shape \(3,\): it must be \(4,\)"):
        env.step(torch.zeros(3))
    with pytest.raises(InputError, match="seed is -1"):
        env.reset(seed=-1)
    with pytest.raises(InputError, match="'reset_mask'"):
        env.reset(options={"mask": torch.ones(4)})
    with pytest.raises(InputError, match=r"bool tensor of shape \(4,\)"):
        env.reset(options={"reset_mask": torch.ones(4)})
    with pytest.raises(InputError, match="'rgb_array'"):
        MinAtarEnv("breakout", minimal_actions=True, render_mode="human")


# CUDA.


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("game", GAMES)
def test_cuda_plays_as_the_cpu_does(game: str) -> None:
    cpu, cuda = make(game, 64), make(game, 64, device="cuda")
    cpu.reset(seed=0)
    cuda.reset(seed=0)
    assert equal(play(cpu, 500), play(cuda, 500))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_cuda_graph_replays_a_step() -> None:
    env, other = make("breakout", 64, device="cuda"), make("breakout", 64)
    env.reset(seed=0)
    other.reset(seed=0)
    actions = torch.zeros(64, dtype=torch.int64, device="cuda")
    state = env.state_dict()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        observation, *_ = env.step(actions)
    env.load_state_dict(state)
    for action in (LEFT, RIGHT, NOTHING, LEFT) * 10:
        actions.fill_(action)
        graph.replay()
        expected, *_ = other.step(torch.full((64,), action))
        assert torch.equal(observation.cpu(), expected)


@pytest.mark.parametrize("game", GAMES)
def test_no_loaded_state_leads_outside_of_the_memory(game: str) -> None:
    """Otherwise the process would end, or other memory would be written."""
    env = make(game, num_envs=8)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        state = env.state_dict()
        for name in ("game", "last_actions", "frame"):
            size = 2 ** (31 if state[name].dtype == torch.int32 else 62)
            state[name].random_(-size, size, generator=generator)
        env.load_state_dict(state)
        play(env, 20)


def test_what_is_not_a_cell_is_not_drawn() -> None:
    env = make("breakout", num_envs=1)
    state = env.state_dict()
    # Bits 50 to 63 of the lower half of the trail: after the last cell, where the bricks begin.
    state["frame"][0, 2, 1] |= -(2**50)
    env.load_state_dict(state)
    observation = env.step(torch.zeros(1, dtype=torch.int64))[0]
    assert observation[0, 3].sum() == 30
