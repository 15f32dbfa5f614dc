"""Zips of policies that observe a dictionary: their labels are Stable-Baselines3's own."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import TQC, RecurrentPPO
from sb3_models import MOVES, THREE, VECTOR, close, saved, trained
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import rltransfer as rt
from rltransfer.errors import InputError
from rltransfer.importers.sb3_zip import load_zip
from rltransfer.policies.network import Network
from rltransfer.tasks.observation import Observation

KEYS = spaces.Dict(
    [
        ("observation", spaces.Box(-2.0, 2.0, (4,), np.float64)),
        ("achieved_goal", spaces.Box(-np.inf, np.inf, (2,), np.float32)),
        ("grid", spaces.Box(-1.0, 1.0, (2, 3), np.float32)),
        ("mode", spaces.Discrete(5)),
    ]
)
"""Gymnasium keeps the order of a list, which here is not that of the alphabet."""


RETURN_TOLERANCE = 1e-4
"""The environments sum actions that differ in their last digits."""


def seen_by(space: spaces.Dict, count: int = 16) -> tuple[dict[str, Any], Observation]:
    """Random observations of a dictionary: for Stable-Baselines3, and as tasks show them."""
    space.seed(3)
    samples = [space.sample() for _ in range(count)]
    theirs = {key: np.stack([one[key] for one in samples]) for key in space.spaces}
    ours = {key: torch.from_numpy(values) for key, values in theirs.items()}
    for key, part in space.spaces.items():
        if isinstance(part, spaces.Discrete):
            ours[key] = torch.nn.functional.one_hot(ours[key].long(), int(part.n)).float()
    return theirs, ours


@pytest.mark.parametrize("algorithm", [A2C, DDPG, DQN, PPO, SAC, TD3, TQC])
def test_every_algorithm_acts_as_in_its_own_library(
    algorithm: type[BaseAlgorithm], tmp_path: Path
) -> None:
    acted = THREE if algorithm is DQN else MOVES
    model = trained(algorithm, KEYS, acted, "MultiInputPolicy", net_arch=[16, 8])
    loaded = load_zip(saved(model, tmp_path))
    theirs, ours = seen_by(KEYS)
    expected, _ = model.predict(theirs, deterministic=True)
    output = loaded(ours)
    close(output.greedy().float(), torch.as_tensor(expected).float())
    assert loaded.groups == tuple(KEYS.spaces) and loaded.inputs.shape == (4 + 2 + 6 + 5,)
    assert loaded.preprocessing()["groups"] == list(KEYS.spaces)
    network = loaded.architecture()
    assert network is not None and network.hidden == (16, 8)


def test_a_value_and_logits_are_those_of_ppo(tmp_path: Path) -> None:
    model = trained(PPO, KEYS, THREE, "MultiInputPolicy", share_features_extractor=False)
    loaded = load_zip(saved(model, tmp_path))
    theirs, ours = seen_by(KEYS)
    with torch.no_grad():
        tensors, _ = model.policy.obs_to_tensor(theirs)
        policy: Any = model.policy
        logits = policy.get_distribution(tensors).distribution.logits
        value = policy.predict_values(tensors).squeeze(-1)
    output = loaded(ours)
    assert output.logits is not None
    close(output.logits.log_softmax(-1), logits)
    close(output.value, value)


def test_a_recurrent_policy_reads_the_keys_before_its_lstm(tmp_path: Path) -> None:
    model = trained(RecurrentPPO, KEYS, MOVES, "MultiInputLstmPolicy", lstm_hidden_size=8)
    loaded = load_zip(saved(model, tmp_path))
    theirs, ours = seen_by(KEYS)
    assert isinstance(model, RecurrentPPO)
    expected, _ = model.predict(theirs, episode_start=np.ones(16, bool), deterministic=True)
    output = loaded(ours, state=None, start=torch.ones(16, dtype=torch.bool))
    close(output.greedy(), expected)


def rewritten(path: Path, text: str) -> Path:
    """The zip with another text of its dictionary of observations, as other versions write it."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(files["data"])
    data["observation_space"] = {":type:": "<class 'gym.spaces.dict.Dict'>", "spaces": text}
    files["data"] = json.dumps(data).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_the_text_of_old_versions_of_gym_is_read(tmp_path: Path) -> None:
    model = trained(PPO, KEYS, THREE, "MultiInputPolicy")
    theirs, ours = seen_by(KEYS)
    path = rewritten(
        saved(model, tmp_path),
        "OrderedDict([('observation', Box([-2. -2. -2. -2.], [2. 2.\n 2. 2.], (4,), float64)), "
        "('achieved_goal', Box(-inf, inf, (2,), float32)), "
        "('grid', Box([[-1. -1. -1.]\n [-1. -1. -1.]], 1.0, (2, 3), float32)), "
        "('mode', Discrete(5))])",
    )
    expected, _ = model.predict(theirs, deterministic=True)
    assert load_zip(path)(ours).greedy().tolist() == expected.tolist()


class Reach(gymnasium.Env[Any, Any]):
    """A point that shall reach a goal; the reward is minus the distance.

    Each environment plays the same episodes one after the other, whatever its seed.
    """

    observation_space = spaces.Dict(
        observation=spaces.Box(-np.inf, np.inf, (3,), np.float64),
        achieved_goal=spaces.Box(-np.inf, np.inf, (2,), np.float64),
        desired_goal=spaces.Box(-np.inf, np.inf, (2,), np.float64),
    )
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    episode = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode += 1
        self.place = 5 * np.sin([self.episode, 2.0 * self.episode])
        self.goal = 5 * np.cos([3.0 * self.episode, self.episode])
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place = self.place + 0.5 * action  # a new array
        reward = self.compute_reward(self.place, self.goal, {})
        return self._seen(), float(reward), False, False, {}

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        return -np.linalg.norm(achieved - desired, axis=-1).astype(np.float32)

    def _seen(self) -> dict[str, Any]:
        observation = np.array([*self.place, 3.0])
        return {
            "observation": observation,
            "achieved_goal": self.place.copy(),
            "desired_goal": self.goal.copy(),
        }


gymnasium.register("DictReach-v0", Reach, max_episode_steps=12)


@pytest.fixture(scope="module")
def reach(tmp_path_factory: pytest.TempPathFactory) -> tuple[SAC, VecNormalize, Path]:
    """A model that SAC and HER trained on normalised observations, its statistics and its zip."""
    env = VecNormalize(
        DummyVecEnv([lambda: gymnasium.make("DictReach-v0")]), norm_reward=False, clip_obs=1.2,
        norm_obs_keys=["observation", "desired_goal"],
    )  # fmt: skip
    model = SAC(
        "MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, learning_starts=24,
        buffer_size=200, batch_size=16, policy_kwargs={"net_arch": [16, 16]}, device="cpu", seed=0,
    )  # fmt: skip
    model.learn(60)
    path = tmp_path_factory.mktemp("reach") / "reach.zip"
    model.save(path)
    env.save(str(path.with_name("reach.vecnormalize.pkl")))
    return model, env, path


def test_a_zip_of_her_acts_as_in_its_own_library(reach: tuple[SAC, VecNormalize, Path]) -> None:
    """With VecNormalize for two of its three keys, whose statistics are next to the zip."""
    model, env, path = reach
    theirs, ours = seen_by(Reach.observation_space)
    expected, _ = model.predict(env.normalize_obs(theirs), deterministic=True)
    bare, _ = model.predict(theirs, deterministic=True)
    assert np.abs(bare - expected).max() > 0.01  # the statistics matter
    teacher = rt.load_teacher(path)
    close(teacher(ours, torch.zeros(16, dtype=torch.int64)).greedy(), expected)
    assert "reach.vecnormalize.pkl" in " ".join(teacher.notes())


def test_a_zip_of_her_plays_the_episodes_of_its_own_library(
    reach: tuple[SAC, VecNormalize, Path],
) -> None:
    model, env, path = reach
    own = gymnasium.make("DictReach-v0")
    returns = []
    for _ in range(3):
        seen, _ = own.reset()
        total, done = 0.0, False
        while not done:
            action, _ = model.predict(env.normalize_obs(seen), deterministic=True)
            seen, reward, terminated, truncated, _ = own.step(action)
            total, done = total + float(reward), terminated or truncated
        returns.append(total)
    found = rt.evaluate(path, "DictReach-v0", episodes=3, num_envs=1, device="cpu")
    assert found["DictReach-v0"].returns == pytest.approx(returns, rel=RETURN_TOLERANCE)


def test_a_student_reads_the_groups_that_it_names(
    reach: tuple[SAC, VecNormalize, Path], tmp_path: Path
) -> None:
    """Also fewer than its teacher, whose keys are the task's groups."""
    *_, path = reach
    method = rt.agents.PolicyDistillation(
        teacher=str(path),
        student=Network(hidden=(8,), groups=("observation", "desired_goal")),
        num_envs=4,
        batch_size=32,
    )
    rt.train(
        method, suite="DictReach-v0", total_steps=400, run_dir=tmp_path / "run", episodes=2,
        evaluate_episodes=0, device="cpu", quiet=True,
    )  # fmt: skip
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert set(config["teacher"]["spec"]["observation_space"]["dict"]) == set(
        Reach.observation_space
    )


def test_the_command_that_is_advised_names_the_groups(
    reach: tuple[SAC, VecNormalize, Path],
) -> None:
    found = rt.summarize_teacher(reach[2], "DictReach-v0", 2, num_envs=2, device="cpu")
    assert "--groups achieved_goal desired_goal observation" in found.command


def dictionary(**changes: spaces.Space[Any]) -> spaces.Dict:
    """The observations of `Reach` with some groups changed."""
    return spaces.Dict({**Reach.observation_space.spaces, **changes})


REFUSED: dict[str, tuple[spaces.Dict, str]] = {
    "no groups": (
        spaces.Dict(policy=VECTOR),
        "it reads the group 'observation', but the task shows 'policy'; rename a group with "
        "Adapted(teacher, observation={'observation': NAME, 'achieved_goal': NAME, ",
    ),
    "another shape": (
        dictionary(desired_goal=spaces.Box(-1.0, 1.0, (3,), np.float32)),
        "it observes float64[3] and float64[2] and float64[2] and acts in float32[2], but the task "
        "shows float64[3] and float64[2] and float32[3] and takes float32[2]",
    ),
    "bytes": (
        dictionary(observation=spaces.Box(0, 255, (3,), np.uint8)),
        "but the task shows uint8[3] and float64[2] and float64[2]",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_tasks_with_other_groups_are_refused(
    case: str, reach: tuple[SAC, VecNormalize, Path]
) -> None:
    observed, sentence = REFUSED[case]
    with pytest.raises(InputError, match=re.escape(sentence)):
        load_zip(reach[2]).fitted("a task", observed, Reach.action_space)


def test_statistics_of_other_keys_or_shapes_are_refused(
    reach: tuple[SAC, VecNormalize, Path], tmp_path: Path
) -> None:
    *_, path = reach
    plain = saved(trained(PPO, VECTOR, THREE), tmp_path)
    statistics = path.with_name("reach.vecnormalize.pkl")
    with pytest.raises(InputError, match=r"statistics of observations 'observation' .*does not ob"):
        load_zip(plain, statistics)
    other = trained(PPO, dictionary(desired_goal=VECTOR), THREE, "MultiInputPolicy")
    with pytest.raises(InputError, match=r"'desired_goal' of the shape \[2\], but .*float32\[5\]"):
        load_zip(saved(other, tmp_path), statistics)
