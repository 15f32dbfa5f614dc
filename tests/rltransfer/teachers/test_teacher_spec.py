"""Every teacher has a specification, the same after JSON; options stand behind a source."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import stable_baselines3
import torch
from fitting import fitted_teacher
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

import rltransfer as rt
from rltransfer.agents import PPO, PolicyDistillation
from rltransfer.errors import InputError
from rltransfer.files.hashing import tensors_sha256
from rltransfer.importers.source import split_source
from rltransfer.runs.config import RunOptions, read_config
from rltransfer.runs.run import Run
from rltransfer.tasks.task import Suite
from rltransfer.teachers.spec import TeacherSpec
from rltransfer.teachers.teacher import ModuleTeacher
from rltransfer.teachers.zoo import zoo_cards

CPU = torch.device("cpu")
CARTPOLE, PENDULUM = Suite.of("CartPole-v1"), Suite.of("Pendulum-v1")
BREAKOUT = "rltransfer/MinAtar-Breakout-v0"
QUICK = {"total_steps": 40, "episodes": 2, "evaluate_episodes": 0, "quiet": True}
SMALL = {"num_envs": 4, "rollout_length": 10, "batch_size": 40}

FULL = TeacherSpec(
    source="hf:owner/name/model.zip@v1",
    kind="stable-baselines3",
    sha256="ab" * 32,
    origin={"repo": "owner/name", "file": "model.zip", "revision": "1" * 40},
    observation_space=spaces.Dict({"policy": spaces.Box(-np.inf, 3.0, (4,), np.float32)}),
    action_space=spaces.Discrete(2),
    preprocessing={"scale": 1 / 255, "normalizer": {"sha256": "cd" * 32}, "frame_stack": 4},
    recorded_return={"CartPole-v1": 500.0},
)
BARE = TeacherSpec(source="a function", kind="callable")
TREE = TeacherSpec(source="x", kind="Ensemble", options={"weights": [1, 2]}, members=(FULL, BARE))


@pytest.mark.parametrize("spec", [FULL, BARE, TREE])
def test_json_says_everything(spec: TeacherSpec) -> None:
    assert TeacherSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_another_version_is_refused() -> None:
    newer = {**FULL.to_json(), "version": 2}
    with pytest.raises(InputError, match="has the version 2: this rltransfer reads version 1"):
        TeacherSpec.from_json(newer)


@pytest.mark.parametrize(
    "change", [{"kind": None}, {"colour": "red"}, {"action_space": {"discrete": "many"}}]
)
def test_what_is_not_whole_is_refused(change: dict[str, object]) -> None:
    data = {**FULL.to_json(), **change}
    with pytest.raises(InputError, match=r"model.zip@v1' is incomplete"):
        TeacherSpec.from_json({name: value for name, value in data.items() if value is not None})


def spec_of(teacher: rt.Teacher, suite: Suite) -> TeacherSpec:
    """The specification of a teacher that is fitted to a suite, after JSON."""
    fitted = fitted_teacher(teacher, suite, CPU)
    spec = TeacherSpec.from_json(json.loads(json.dumps(fitted.spec().to_json())))
    assert spec == fitted.spec()
    if not spec.members:
        assert fitted.describe()["spec"] == spec.to_json()
    return spec


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def trained(run_dir: Path) -> Run:
    return rt.train(PPO(**SMALL), suite="CartPole-v1", run_dir=run_dir, **QUICK)


def test_of_a_run(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    spec = spec_of(rt.load_teacher(tmp_path / "run"), CARTPOLE)
    assert (spec.source, spec.kind) == (str(tmp_path / "run"), "run")
    (weights,) = (tmp_path / "run").glob("checkpoints/*/policy.safetensors")
    assert spec.sha256 == sha256(weights)
    assert spec.observation_space["policy"].shape == (4,)
    assert spec.action_space == spaces.Discrete(2)
    normalizer = run.agent.policy.encoder.normalizer
    statistics = normalizer.mean.numpy().tobytes() + normalizer.variance.numpy().tobytes()
    assert spec.preprocessing == {
        "groups": ["policy"], "scale": 1.0, "channels": None, "frame_stack": 0,
        "normalizer": {"kind": "mean and variance", "clip": 10.0, "epsilon": 1e-8,
                       "sha256": hashlib.sha256(statistics).hexdigest()},
    }  # fmt: skip
    returns = run.result["tasks"]["CartPole-v1"]["return_mean"]
    assert spec.recorded_return == {"CartPole-v1": returns}
    # While a run goes on nobody knows what it will end with.
    (tmp_path / "run" / "result.json").unlink()
    assert rt.load_teacher(tmp_path / "run").spec().recorded_return == {}


def test_frames_and_bytes_of_a_run_on_atari(tmp_path: Path) -> None:
    pong = Suite.of("ALE/Pong-v5")
    run = Run("ppo", PPO(**SMALL), pong, RunOptions(device="cpu"), tmp_path / "run", quiet=True)
    run.begin(resume=False)
    run.save()
    run.engine.close()
    spec = rt.load_teacher(tmp_path / "run").spec()
    assert spec.observation_space["policy"] == spaces.Box(0, 255, (4, 84, 84), np.uint8)
    assert spec.preprocessing == {
        "groups": ["policy"], "scale": 1 / 255, "channels": "first", "frame_stack": 4,
        "normalizer": None,
    }  # fmt: skip


def test_of_the_zoo() -> None:
    spec = spec_of(rt.load_teacher(f"zoo:{BREAKOUT}"), Suite.of(BREAKOUT))
    (card,) = (card for card in zoo_cards() if card.task.id == BREAKOUT)
    assert (spec.source, spec.kind) == (f"zoo:{BREAKOUT}", "zoo")
    assert spec.recorded_return == {BREAKOUT: card.data["return_mean"]}
    assert spec.sha256 == sha256(card.stem.with_suffix(".safetensors"))
    assert spec.preprocessing["channels"] == "first" and spec.preprocessing["scale"] == 1.0


@pytest.fixture(scope="module")
def zips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zips")
    env = VecNormalize(DummyVecEnv([lambda: gymnasium.make("CartPole-v1")]))
    env.reset()
    env.step(np.array([0]))
    stable_baselines3.PPO("MlpPolicy", env, device="cpu").save(folder / "ppo.zip")
    env.save(str(folder / "vec_normalize.pkl"))
    return folder


def test_of_a_zip(zips: Path) -> None:
    path, statistics = zips / "ppo.zip", zips / "vec_normalize.pkl"
    spec = spec_of(rt.load_teacher(path, statistics), CARTPOLE)
    assert spec.source == f"load_teacher('{path}', vecnormalize='{statistics}')"
    assert (spec.kind, spec.sha256) == ("stable-baselines3", sha256(path))
    assert spec.observation_space["policy"] == spaces.Box(-np.inf, np.inf, (4,), np.float32)
    assert spec.action_space == spaces.Discrete(2)
    assert spec.preprocessing["normalizer"] == {
        "kind": "VecNormalize", "sha256": sha256(statistics),
    }  # fmt: skip
    assert spec.recorded_return == {}
    # Not fitted, the zip still says its own.
    assert rt.load_teacher(path).spec().action_space == spaces.Discrete(2)


def test_of_a_zip_that_sees_images(tmp_path: Path) -> None:
    class Pictures(gymnasium.Env[np.ndarray, np.int64]):
        observation_space = spaces.Box(0, 255, (4, 40, 40), np.uint8)
        action_space = spaces.Discrete(3)

    stable_baselines3.DQN("CnnPolicy", Pictures(), device="cpu", buffer_size=1).save(
        tmp_path / "dqn.zip"
    )
    spec = rt.load_teacher(tmp_path / "dqn.zip").spec()
    assert spec.observation_space["policy"] == Pictures.observation_space
    assert spec.preprocessing == {
        "algorithm": "DQN", "scale": 1 / 255, "channels": "first", "normalizer": None,
    }  # fmt: skip


def test_of_an_actor_of_rsl_rl(tmp_path: Path) -> None:
    mean, std = torch.tensor([[0.1, 0.2, 0.3]]), torch.tensor([[1.0, 2.0, 3.0]])
    layers = nn.Sequential(nn.Linear(3, 5), nn.ELU(), nn.Linear(5, 1)).state_dict()
    tensors = {f"actor.{name}": tensor for name, tensor in layers.items()}
    beside = {"_mean": mean, "_std": std}
    path = tmp_path / "model_9.pt"
    torch.save({"model_state_dict": tensors, "obs_norm_state_dict": beside}, path)
    spec = spec_of(rt.load_teacher(path), PENDULUM)
    assert (spec.source, spec.kind, spec.sha256) == (str(path), "rsl_rl", sha256(path))
    assert spec.observation_space["policy"].shape == (3,) and spec.action_space.shape == (1,)
    statistics = hashlib.sha256(mean.numpy().tobytes() + std.numpy().tobytes()).hexdigest()
    assert spec.preprocessing["normalizer"]["sha256"] == statistics
    assert rt.load_teacher(path).spec().observation_space is None


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_of_a_program(tmp_path: Path) -> None:
    path = tmp_path / "linear.pt"
    torch.jit.save(torch.jit.script(nn.Linear(4, 2)), path)
    spec = spec_of(rt.load_teacher(f"{path}?scale=0.5"), CARTPOLE)
    assert (spec.source, spec.kind) == (f"{path}?scale=0.5", "torchscript")
    assert spec.sha256 == sha256(path)
    assert spec.preprocessing == {"groups": ["policy"], "scale": 0.5}
    assert spec.action_space == spaces.Discrete(2)


def test_of_a_function() -> None:
    teacher = rt.CallableTeacher(lambda seen, task: rt.PolicyOutput(), "left or right")
    assert teacher.spec() == TeacherSpec(source="left or right", kind="callable")
    spec = spec_of(teacher, CARTPOLE)
    assert spec.observation_space["policy"].shape == (4,)
    assert (spec.action_space, spec.sha256) == (spaces.Discrete(2), None)
    # Of tasks that differ no one space is that of all.
    both = Suite.of("CartPole-v1", "Acrobot-v1")
    assert spec_of(teacher, both).observation_space is None
    assert teacher.spec().action_space is None


def test_of_whatever_else_labels() -> None:
    class Linear(ModuleTeacher):
        def forward(self, observation, task, needs=frozenset()):
            return rt.PolicyOutput(logits=self.module(observation["policy"]))

    spec = spec_of(Linear(nn.Linear(4, 2), "a layer", "ab" * 32, 10), CARTPOLE)
    assert spec == TeacherSpec(source="a layer", kind="Linear", sha256="ab" * 32)


def test_of_a_composition(zips: Path) -> None:
    zoo = rt.load_teacher(f"zoo:{BREAKOUT}")
    plain = rt.load_teacher(zips / "ppo.zip")
    function = rt.CallableTeacher(lambda seen, task: rt.PolicyOutput(), "a function")
    made = rt.PerTask(
        {
            "CartPole-v1": rt.Ensemble([plain, function], weights=(1, 2), of="logits"),
            BREAKOUT: rt.Adapted(zoo, observation=lambda seen: seen, action=(0, 1, 2, 3, 4, 5)),
        }
    )
    spec = TeacherSpec.from_json(json.loads(json.dumps(made.spec().to_json())))
    assert spec == made.spec()
    assert (spec.kind, spec.options) == ("PerTask", {"tasks": ["CartPole-v1", BREAKOUT]})
    ensemble, adapted = spec.members
    assert (ensemble.kind, ensemble.options) == ("Ensemble", {"weights": [1, 2], "of": "logits"})
    assert ensemble.members == (plain.spec(), function.spec())
    assert adapted.options["observation"] == "the function <lambda>"
    assert adapted.options["action"] == [0, 1, 2, 3, 4, 5]
    assert adapted.members == (zoo.spec(),)
    assert spec.observation_space is None and spec.sha256 is None


def test_statistics_are_told_apart_by_their_values() -> None:
    one = tensors_sha256([torch.tensor([1.0, 2.0]), torch.tensor([3.0])])
    assert one == tensors_sha256([torch.tensor([1.0]), torch.tensor([2.0, 3.0])])
    assert one != tensors_sha256([torch.tensor([1.0, 2.0]), torch.tensor([4.0])])


def distilled(run_dir: Path, teacher: object, **options: object) -> Run:
    statistics = options.pop("vecnormalize", None)
    method = PolicyDistillation(teacher=teacher, vecnormalize=statistics, **SMALL)
    return rt.train(method, suite="CartPole-v1", run_dir=run_dir, **QUICK, **options)


def test_a_run_is_gone_on_with_whatever_an_earlier_version_did_not_say(tmp_path: Path) -> None:
    for name in ("a", "b"):
        trained(tmp_path / name)
    text = f"Ensemble('{tmp_path / 'a'}', '{tmp_path / 'b'}')"
    distilled(tmp_path / "run", text)
    config = read_config(tmp_path / "run")
    members = config["teacher"]["members"]
    assert members[0]["spec"]["recorded_return"]["CartPole-v1"] > 0
    # What is measured may become known, or be forgotten.
    (tmp_path / "a" / "result.json").unlink()
    distilled(tmp_path / "run", text, resume=True)
    for member in members:
        del member["spec"]
    del config["frame_stack"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    distilled(tmp_path / "run", text, resume=True)
    # What it did say must still be so.
    members[1]["sha256"] = "0" * 64
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="another sha256"):
        distilled(tmp_path / "run", text, resume=True)


def test_a_run_is_not_gone_on_with_by_other_statistics(zips: Path, tmp_path: Path) -> None:
    statistics = tmp_path / "vec_normalize.pkl"
    statistics.write_bytes((zips / "vec_normalize.pkl").read_bytes())
    given = {"teacher": str(zips / "ppo.zip"), "vecnormalize": statistics}
    distilled(tmp_path / "run", **given)
    distilled(tmp_path / "run", **given, resume=True)
    env = VecNormalize(DummyVecEnv([lambda: gymnasium.make("CartPole-v1")]), epsilon=0.5)
    env.save(str(statistics))
    with pytest.raises(InputError, match="another sha256"):
        distilled(tmp_path / "run", **given, resume=True)


def test_options_stand_behind_a_source() -> None:
    assert split_source("runs/a") == ("runs/a", {})
    assert split_source("a.pt?activation=tanh&group=policy&group=privileged") == (
        "a.pt",
        {"activation": ["tanh"], "group": ["policy", "privileged"]},
    )
    for bad in ("a.pt?tanh", "a.pt?activation=tanh&"):
        with pytest.raises(InputError, match="write NAME=VALUE"):
            split_source(bad)


def test_a_file_may_have_a_question_mark(tmp_path: Path) -> None:
    path = tmp_path / "a?b=c.pt"
    path.touch()
    assert split_source(str(path)) == (str(path), {})
