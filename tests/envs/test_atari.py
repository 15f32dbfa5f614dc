"""The family of ale-py's games against ale-py itself."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from rltransfer.envs.atari import FAMILY, _games
from rltransfer.errors import InputError
from rltransfer.tasks.families import task_ids
from rltransfer.tasks.host_env import HostVectorEnv
from rltransfer.tasks.making import make_vector_env
from rltransfer.tasks.task import Task

CPU = torch.device("cpu")
BREAKOUT = "ALE/Breakout-v5"


def make(game: str, num_envs: int = 2, **kwargs: Any) -> HostVectorEnv:
    env = FAMILY.make(Task(game, kwargs), num_envs, CPU)
    assert isinstance(env, HostVectorEnv)
    return env


def random_actions(env: HostVectorEnv, steps: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(
        0, int(env.single_action_space.n), (steps, env.num_envs), generator=generator
    )


def test_family_loads_no_emulator_until_it_makes_a_game() -> None:
    code = (
        "import sys; from rltransfer.envs.atari import FAMILY; "
        "from rltransfer.tasks.task import Task;"
        "FAMILY.register(); FAMILY.suites(); assert FAMILY.accepts(Task('ALE/Pong-v5'));"
        "assert not FAMILY.accepts(Task('CartPole-v1')); sys.exit('ale_py' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_game_is_the_one_that_gymnasium_makes_by_the_same_id() -> None:
    env = make(BREAKOUT, 3)
    bare = gymnasium.make_vec(BREAKOUT, 3, autoreset_mode=AutoresetMode.SAME_STEP)
    assert env.single_observation_space == bare.single_observation_space
    assert env.single_action_space == bare.single_action_space
    assert np.array_equal(env.reset(seed=7)[0].numpy(), bare.reset(seed=7)[0])
    ends = 0
    for actions in random_actions(env, 200):
        observation, reward, terminated, truncated, info = env.step(actions)
        expected, rewards, terminations, truncations, infos = bare.step(actions.numpy())
        assert observation.dtype == torch.uint8 and reward.dtype == torch.float32
        assert np.array_equal(observation.numpy(), expected)
        assert np.array_equal(reward.numpy(), rewards.astype(np.float32))
        assert np.array_equal(terminated.numpy(), terminations)
        assert np.array_equal(truncated.numpy(), truncations)
        assert np.array_equal(info["lives"], infos["lives"])
        for row in np.flatnonzero(terminations):
            ends += 1
            assert np.array_equal(info["final_obs"][row].numpy(), infos["final_obs"][row])
    assert ends >= 2


def test_frames_are_stacked_oldest_first_and_black_before_the_start() -> None:
    env = make(BREAKOUT, 2)
    assert env.frame_stack == 4 and env.overlaps
    before = env.reset(seed=0)[0].numpy()
    assert (before[:, :3] == 0).all() and (before[:, 3] > 0).any()
    ends = 0
    for actions in random_actions(env, 200):
        observation, _, terminated, truncated, info = env.step(actions)
        after, done = observation.numpy(), (terminated | truncated).numpy()
        assert np.array_equal(after[~done][:, :3], before[~done][:, 1:])
        if done.any():
            ends += 1
            # The old episode's last stack goes on from the one before, the new one's starts black.
            final = info["final_obs"].numpy()[done]
            assert np.array_equal(final[:, :3], before[done][:, 1:]) and (final[:, 3] > 0).any()
            assert (after[done][:, :3] == 0).all() and (after[done][:, 3] > 0).any()
        before = after
    assert ends >= 2


def test_single_frame_is_no_stack() -> None:
    env = make(BREAKOUT, 1, stack_num=1)
    assert env.frame_stack == 0
    assert env.reset(seed=0)[0].shape == (1, 1, 84, 84)


def test_episode_of_too_many_frames_is_truncated() -> None:
    env = make("ALE/Pong-v5", 2, max_num_frames_per_episode=40)
    env.reset(seed=0)
    # 40 frames are 10 steps of 4.
    for step, actions in enumerate(random_actions(env, 25), start=1):
        _, _, terminated, truncated, info = env.step(actions)
        assert not terminated.any()
        assert truncated.tolist() == [step % 10 == 0] * 2
        assert ("final_obs" in info) == (step % 10 == 0)


def test_evaluated_task_has_whole_games_and_rewards_as_they_are() -> None:
    task = Task("ALE/Qbert-v5", {"episodic_life": True, "frameskip": 5})
    evaluated = FAMILY.evaluation_task(task)
    options = {"episodic_life": False, "reward_clipping": False, "frameskip": 5}
    assert evaluated == Task("ALE/Qbert-v5", options)
    trained, tested = make("ALE/Qbert-v5"), make("ALE/Qbert-v5", reward_clipping=False)
    trained.reset(seed=0)
    tested.reset(seed=0)
    highest = 0.0
    for actions in random_actions(trained, 120):
        clipped, reward = trained.step(actions)[1].clone(), tested.step(actions)[1]
        assert torch.equal(clipped, reward.clamp(-1, 1))
        highest = max(highest, float(reward.max()))
    # A hop onto a new cube is worth 25.
    assert highest >= 25.0


def test_lost_life_is_terminal_where_lives_are_episodes() -> None:
    whole, lives = make(BREAKOUT, 1), make(BREAKOUT, 1, episodic_life=True)
    whole.reset(seed=0)
    lives.reset(seed=0)
    for actions in random_actions(whole, 200):
        _, _, ended, _, info = whole.step(actions)
        _, _, terminated, truncated, _ = lives.step(actions)
        assert not ended.any() and not truncated.any()
        # The same game up to its first lost life: five lives become four.
        assert bool(terminated) == (int(info["lives"][0]) == 4)
        if terminated:
            return
    pytest.fail("No life was lost in 200 random steps.")


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    one, two = make(BREAKOUT, 4, num_threads=1), make(BREAKOUT, 4, num_threads=2)
    assert torch.equal(one.reset(seed=3)[0], two.reset(seed=3)[0])
    for actions in random_actions(one, 150):
        for a, b in zip(one.step(actions)[:4], two.step(actions)[:4], strict=True):
            assert np.array_equal(a.numpy(), b.numpy())


def test_seed_decides_the_episodes() -> None:
    env = make(BREAKOUT, 2)

    def play(seed: int) -> Tensor:
        observations = [env.reset(seed=seed)[0]]
        observations += [env.step(actions)[0] for actions in random_actions(env, 40)]
        return torch.stack(observations)

    first = play(0)
    assert torch.equal(play(0), first)
    assert not torch.equal(play(5), first)


def test_largest_seed_is_taken() -> None:
    env = make("ALE/Pong-v5", 2)
    # Seed + 1 would not fit into ale-py's 31 bits.
    env.reset(seed=2**31 - 1)


def test_action_that_the_game_does_not_know_is_refused() -> None:
    env = make("ALE/Freeway-v5", 2)
    env.reset(seed=0)
    with pytest.raises(InputError, match="The action 3 for environment 1 of 'ALE/Freeway-v5'"):
        env.step(torch.tensor([0, 3]))
    env.step(torch.tensor([0, 2]))


def test_environment_is_closed_while_a_step_goes_on() -> None:
    env = make("ALE/Pong-v5", 2)
    env.reset(seed=0)
    env.send(torch.tensor([0, 0]))
    env.close()


def test_continuous_game_is_stepped() -> None:
    env = make(BREAKOUT, 2, continuous=True)
    env.reset(seed=0)
    # 9 is beyond the stick's reach: it is clipped, ale-py gets 1, pi and 1.
    observation = env.step(torch.full((2, 3), 9.0))[0]
    assert observation.shape == (2, 4, 84, 84)


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        (Task("ALE/Pnog-v5"), "no task 'ALE/Pnog-v5': did you mean 'ALE/Pong-v5'"),
        (Task("ALE/Pong-v4"), "no task 'ALE/Pong-v4': did you mean 'ALE/Pong-v5'"),
        (Task(BREAKOUT, {"frame_skip": 4}), "no keyword argument 'frame_skip': .* frameskip, rep"),
        (Task(BREAKOUT, {"stack_num": 0}), "'stack_num' of .* is 0: .* whole number of at least 1"),
        (Task(BREAKOUT, {"frameskip": True}), "'frameskip' of .* is True: .* whole number"),
        (Task(BREAKOUT, {"noop_max": -1}), "'noop_max' of .* is -1: .* at least 0"),
        (Task(BREAKOUT, {"grayscale": 1}), "'grayscale' of .* is 1: it must be true or false"),
        (
            Task(BREAKOUT, {"repeat_action_probability": 1.5}),
            "'repeat_action_probability' of .* is 1.5: it must be a number from 0 to 1",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_sentence(task: Task, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        FAMILY.make(task, 2, CPU)


@pytest.mark.parametrize("name", ["PongNoFrameskip-v4", "Pong-v0"])
def test_old_name_is_refused_with_the_new_one(name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' is an old id of ale-py: use 'ALE/Pong-v5'"):
        make_vector_env(Task(name), 2, CPU)
    assert name not in task_ids() and "ALE/Pong-v5" in task_ids()


def test_old_name_is_known_before_ale_py_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    games, spec = _games, gymnasium.registry["Pong-v4"]

    def load() -> dict[str, str]:
        gymnasium.registry["Pong-v4"] = spec
        return games()

    monkeypatch.delitem(gymnasium.registry, "Pong-v4")
    monkeypatch.setattr("rltransfer.envs.atari._games", load)
    with pytest.raises(InputError, match="use 'ALE/Pong-v5'"):
        make_vector_env(Task("Pong-v4"), 2, CPU)


def test_suites_hold_games_that_there_are() -> None:
    known = FAMILY.task_ids()
    assert len(known) >= 100 and "ALE/MsPacman-v5" in known
    suites = {suite.name: suite for suite in FAMILY.suites()}
    assert {name: len(suite) for name, suite in suites.items()} == {
        "atari-pd10": 10,
        "atari-pd3": 3,
        "pong-soup": 8,
    }
    for suite in suites.values():
        assert all(task.id in known for task in suite)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("frameskip", 2),
        ("repeat_action_probability", 0.0),
        ("noop_max", 1),
        ("use_fire_reset", False),
        ("maxpool", False),
        ("grayscale", False),
        ("img_height", 42),
        ("img_width", 42),
        ("full_action_space", True),
    ],
)
def test_every_option_changes_what_is_seen(option: str, value: Any) -> None:
    plain, other = make(BREAKOUT, 1), make(BREAKOUT, 1, **{option: value})

    def play(env: HostVectorEnv) -> Tensor:
        seen = [env.reset(seed=1)[0]]
        seen += [env.step(torch.tensor([step // 3 % 4]))[0] for step in range(30)]
        return torch.stack(seen)

    before, after = play(plain), play(other)
    assert before.shape != after.shape or not torch.equal(before, after)
