"""Small real files of every kind that a command opens, for `__main__.py` to change."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

import rltransfer as rt

VECTOR, VECTORS, MOVES = "attack/Vector-v0", "attack/Vectors-v0", "attack/Moves-v0"
GOALS = "attack/Goals-v0"
"""Two tasks like CartPole, one like Pendulum, and one with goals, with episodes of two steps."""


class Brief(gymnasium.Env[Any, Any]):
    """An episode of two steps with random observations."""

    def __init__(self, size: int, actions: spaces.Space[Any], *, has_goal: bool = False) -> None:
        box = spaces.Box(-1.0, 1.0, (size,), np.float32)
        self.observation_space: spaces.Space[Any] = box
        if has_goal:
            self.observation_space = spaces.Dict(observation=box, goal=box, mode=spaces.Discrete(2))
        self.action_space = actions
        self.time = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return self._seen(), 1.0, self.time == 2, False, {}

    def _seen(self) -> Any:
        space = self.observation_space
        if isinstance(space, spaces.Dict):
            return space.sample()
        return self.np_random.uniform(-1, 1, space.shape).astype(np.float32)


def vector() -> Brief:
    """Four values and two actions."""
    return Brief(4, spaces.Discrete(2))


def moves() -> Brief:
    """Three values and one action dimension."""
    return Brief(3, spaces.Box(-2.0, 2.0, (1,), np.float32))


def goals() -> Brief:
    """A dictionary of observations and two actions."""
    return Brief(3, spaces.Discrete(2), has_goal=True)


class Actor(nn.Module):
    """What exported actors do: normalise, clip, a few layers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.ELU(), nn.Linear(8, 1), nn.Tanh())

    def forward(self, seen: Tensor) -> Tensor:
        """The action.    (rows, 1)"""
        return self.layers(torch.clamp(seen - self.mean, -5.0, 5.0))


class Remembers(nn.Module):
    """A recurrent actor as rsl_rl exports it."""

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.layer = nn.GRU(3, 4, 2), nn.Linear(4, 1)

    def forward(self, seen: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The action and the state after it.    (rows, 1) and (2, rows, 4)"""
        steps, state = self.memory(seen.unsqueeze(0), state)
        return self.layer(steps.squeeze(0)), state


@dataclass
class Seeds:
    """The files, and which task each fits."""

    files: dict[str, bytes] = field(default_factory=dict)
    """The content of each file by its name, whose suffix tells its kind."""
    runs: dict[str, Path] = field(default_factory=dict)
    """Run directories by the name of their method."""

    def named(self, suffix: str) -> list[str]:
        """The names of the files of a kind, sorted."""
        return sorted(name for name in self.files if name.endswith(suffix))


def register() -> None:
    """Registers the tasks."""
    for name, make in ((VECTOR, vector), (VECTORS, vector), (MOVES, moves), (GOALS, goals)):
        if name not in gymnasium.registry:
            gymnasium.register(name, make)


def build(folder: Path) -> Seeds:
    """Builds one of each: a few seconds."""
    register()
    seeds = Seeds()
    quiet = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
    ):
        warnings.simplefilter("ignore")
        _zips(seeds)
        _torch_files(seeds)
        _runs(seeds, folder)
    return seeds


def _zips(seeds: Seeds) -> None:
    from stable_baselines3 import DQN, PPO, SAC
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    small: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu"}
    normalised = VecNormalize(DummyVecEnv([moves]))
    normalised.reset()
    for name, model in {
        "ppo": PPO("MlpPolicy", DummyVecEnv([vector]), n_steps=8, batch_size=8, **small),
        "dqn": DQN("MlpPolicy", DummyVecEnv([vector]), buffer_size=8, **small),
        "goals": PPO("MultiInputPolicy", DummyVecEnv([goals]), n_steps=8, batch_size=8, **small),
        "sac": SAC("MlpPolicy", normalised, buffer_size=8, **small),
    }.items():
        file = io.BytesIO()
        model.save(file)
        seeds.files[f"{name}.zip"] = file.getvalue()
    # The same in the format of torch before 1.6.
    old, file = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(seeds.files["sac.zip"])) as archive:
        tensors = torch.load(io.BytesIO(archive.read("policy.pth")), weights_only=True)
        torch.save(tensors, old, _use_new_zipfile_serialization=False)
        with zipfile.ZipFile(file, "w") as copy:
            copy.writestr("data", archive.read("data"))
            copy.writestr("policy.pth", old.getvalue())
    seeds.files["sac-old.zip"] = file.getvalue()
    pickled = io.BytesIO()
    import pickle

    pickle.dump(normalised, pickled)
    seeds.files["sac.pkl"] = pickled.getvalue()


def _torch_files(seeds: Seeds) -> None:
    layers = {
        "mlp.0.weight": (8, 3),
        "mlp.0.bias": (8,),
        "mlp.2.weight": (1, 8),
        "mlp.2.bias": (1,),
    }
    state: dict[str, Tensor] = {name: torch.zeros(shape) for name, shape in layers.items()}
    state["obs_normalizer._mean"] = torch.zeros(1, 3)
    state["obs_normalizer._std"] = torch.ones(1, 3)
    state["distribution.std_param"] = torch.ones(1)
    checkpoint = {"actor_state_dict": state, "iter": 1, "infos": None}
    third = {
        **{name.replace("mlp", "actor"): tensor for name, tensor in state.items() if "mlp" in name},
        "std": torch.ones(1),
    }
    begin = {"mlp.0": "net.0", "mlp.2": "net.2"}
    plain = {begin[name[:5]] + name[5:]: tensor for name, tensor in state.items() if name in layers}
    statistics = {"running_mean": torch.zeros(3)}
    policy = {
        **{f"net_container{name[3:]}": tensor for name, tensor in plain.items()},
        "log_std_parameter": torch.zeros(1),
    }
    scaler = {**statistics, "running_variance": torch.ones(3)}
    games = {f"a2c_network.actor_mlp{name[3:]}": plain[name] for name in plain if ".0." in name}
    games |= {f"a2c_network.mu{name[5:]}": plain[name] for name in plain if ".2." in name}
    games |= {"a2c_network.sigma": torch.zeros(1), "running_mean_std.running_var": torch.ones(3)}
    games |= {f"running_mean_std.{name}": tensor for name, tensor in statistics.items()}
    actor = nn.ModuleDict(
        {"fc1": nn.Linear(3, 8), "fc2": nn.Linear(8, 8), "fc_mu": nn.Linear(8, 1)}
    ).state_dict()
    actor |= {"action_scale": torch.full((1,), 2.0), "action_bias": torch.zeros(1)}
    for name, saved in {
        "rsl": checkpoint,
        "rsl3": {"model_state_dict": third},
        "plain": {**plain, "log_std": torch.zeros(1)},
        "skrl": {"policy": policy, "state_preprocessor": scaler},
        "games": {"model": games, "last_mean_rewards": 1.0},
        "cleanrl": actor,
        "cleanrl-pair": (actor, plain),
    }.items():
        file = io.BytesIO()
        torch.save(saved, file)
        seeds.files[f"{name}.pt"] = file.getvalue()
    for name, program in {
        "scripted": torch.jit.script(Actor()),
        "recurrent": torch.jit.script(Remembers()),
        "traced": torch.jit.trace(Actor(), torch.zeros(1, 3)),
    }.items():
        file = io.BytesIO()
        torch.jit.save(program, file)
        seeds.files[f"{name}.pt"] = file.getvalue()
    for name, (module, shapes, inputs, outputs) in {
        "actor": (Actor(), [(1, 3)], ["obs"], ["actions"]),
        "remembers": (Remembers(), [(1, 3), (2, 1, 4)], ["obs", "h_in"], ["actions", "h_out"]),
    }.items():
        example = tuple(torch.zeros(shape) for shape in shapes)
        file = io.BytesIO()
        torch.onnx.export(
            module.eval(), example, file, dynamo=False, input_names=inputs, output_names=outputs
        )
        seeds.files[f"{name}.onnx"] = file.getvalue()


def _runs(seeds: Seeds, folder: Path) -> None:
    few: dict[str, Any] = {"total_steps": 64, "episodes": 1, "evaluate_episodes": 1, "quiet": True}
    network = rt.policies.mlp(hidden=(8,))
    teacher = folder / "teacher.zip"
    teacher.write_bytes(seeds.files["ppo.zip"])
    small: dict[str, Any] = {"num_envs": 2, "rollout_length": 8}
    ppo = rt.agents.PPO(network=network, **small)
    grid = rt.agents.PPO(network=rt.policies.conv(channels=(2,), hidden=(8,)), **small)
    student = rt.agents.PolicyDistillation(
        teacher=str(teacher), student=network, memory_steps=64, **small
    )
    for name, method, suite in (
        ("ppo", ppo, VECTOR),
        ("policy-distillation", student, VECTOR),
        ("distral", rt.agents.Distral(network=network, **small), (VECTOR, VECTORS)),
        ("minatar", grid, "rltransfer/MinAtar-Breakout-v0"),
    ):
        rt.train(method, suite=suite, run_dir=folder / name, **few)
        seeds.runs[name] = folder / name


def copied_run(seeds: Seeds, name: str, target: Path) -> Path:
    """A copy of a run with its newest checkpoint."""
    shutil.copytree(seeds.runs[name], target)
    *older, _ = sorted((target / "checkpoints").glob("step-*"))
    for path in older:
        shutil.rmtree(path)
    return target


def offline(folder: Path) -> None:
    """Keeps the library of the Hugging Face hub in a folder and off the network."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(folder), HF_HOME=str(folder))
