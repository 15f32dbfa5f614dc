"""The student's network where a user leaves it to the teacher: layers, width, size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import CrossQ
from stable_baselines3 import DQN, PPO
from toy import TASK

import rltransfer as rt
from rltransfer.errors import InputError
from rltransfer.learning.distillation_recipe import format_choices
from rltransfer.learning.student_network import (
    fraction_of,
    like_teacher,
    with_layer_norm,
    with_size,
)
from rltransfer.policies.network import Network, conv, mlp
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.teachers.policy_teacher import PolicyTeacher
from rltransfer.teachers.teacher import Teacher

SMALL: dict[str, Any] = {"total_steps": 40, "episodes": 0, "evaluate_episodes": 0, "quiet": True}
QUICK: dict[str, Any] = {"num_envs": 4, "rollout_length": 10}


def spec_of(network: Network, inputs: int = 6, actions: int = 3) -> PolicySpec:
    seen = spaces.Dict(policy=spaces.Box(-1, 1, (inputs,)))
    return PolicySpec(network, seen, spaces.Discrete(actions))


def teacher_of(network: Network, **sizes: int) -> PolicyTeacher:
    return PolicyTeacher(Policy(spec_of(network, **sizes)), "it", "")


def unknown_teacher() -> Teacher:
    return rt.CallableTeacher(lambda seen, task: rt.PolicyOutput(logits=seen["policy"]))


def learned_from(teacher: str | Teacher, run_dir: Path, task: str, **options: Any) -> Policy:
    method = rt.agents.PolicyDistillation(teacher=teacher, **QUICK, **options)
    return rt.train(method, suite=task, run_dir=run_dir, **SMALL).agent.policy


@pytest.mark.parametrize("algorithm", [PPO, DQN, CrossQ])
def test_the_student_of_a_zip_has_its_layers(algorithm: Any, tmp_path: Path) -> None:
    layers = {"pi": [24, 12], "vf": [8], "qf": [8]}
    arguments = {PPO: layers, DQN: [24, 12], CrossQ: layers}[algorithm]
    task = "Pendulum-v1" if algorithm is CrossQ else "CartPole-v1"
    model = algorithm("MlpPolicy", task, policy_kwargs={"net_arch": arguments})
    model.save(tmp_path / "it.zip")
    activation = "tanh" if algorithm is PPO else "relu"

    student = learned_from(f"{tmp_path / 'it.zip'}", tmp_path / "run", task)
    assert student.spec.network == Network(encoder="mlp", hidden=(24, 12), activation=activation)
    half = learned_from(
        f"{tmp_path / 'it.zip'}", tmp_path / "half", task, student=Network(width=0.5)
    )
    shapes = [one.weight.shape for one in half.modules() if isinstance(one, torch.nn.Linear)]
    assert shapes[1] == (6, 12) and len(shapes) == 3


def test_named_layers_and_settings_of_the_run_stay() -> None:
    teacher = teacher_of(Network(hidden=(24,), activation="tanh", layer_norm=True, width=2.0))
    for named in (mlp((64, 64)), mlp((5,)), Network(hidden=(5,)), conv(channels=(4,))):
        assert like_teacher(named, teacher) == named
    found = like_teacher(Network(width=0.5, heads="per-task", gru=8, activation="relu"), teacher)
    assert found == Network(
        hidden=(24,), layer_norm=True, width=1.0, heads="per-task", gru=8, activation="relu"
    )
    assert like_teacher(Network(), unknown_teacher()) == Network()


def test_convolutions_have_layer_norm() -> None:
    seen = spaces.Dict(
        policy=spaces.Box(0, 255, (4, 10, 10), np.uint8), speed=spaces.Box(-1, 1, (3,))
    )
    for encoder in ("auto", "conv", "grid"):
        assert with_layer_norm(Network(encoder=encoder), seen) == Network(
            encoder=encoder, layer_norm=True
        )
    # Without an image, or without convolutions on it, the layers stay as they are.
    for plain in (Network(groups=("speed",)), mlp((8,)), Network(groups=("missing",))):
        assert with_layer_norm(plain, seen) == plain


def test_layer_norm_is_added_to_no_layers_that_are_named(tmp_path: Path) -> None:
    for number, (network, found) in enumerate(
        [
            (Network(width=0.5), True),
            (Network(), False),
            (conv(channels=(4,), hidden=(8,), width=0.5), False),
        ]
    ):
        student = learned_from(
            "zoo", tmp_path / f"{number}", "rltransfer/MinAtar-Breakout-v0", student=network
        )
        assert student.spec.network.layer_norm is found


def test_teachers_of_several_tasks_must_have_the_same_layers() -> None:
    narrow, wide = teacher_of(mlp((24,))), teacher_of(mlp((24,), width=2.0))
    assert rt.PerTask({"a": narrow, "b": wide}).network() == wide.network()
    assert rt.PerTask({"a": narrow, "b": teacher_of(mlp((25,)))}).network() is None
    assert rt.Ensemble([narrow, unknown_teacher()]).network() is None


@pytest.mark.parametrize("size", ["25%", "100%", "2.5 %", "400%"])
@pytest.mark.parametrize("network", [mlp((64, 64)), mlp((200,)), Network(gru=16)])
def test_a_size_is_a_fraction_of_the_teachers_parameters(size: str, network: Network) -> None:
    teacher = teacher_of(mlp((128, 128)))
    found = with_size(spec_of(network), size, teacher)
    number = Policy(spec_of(found)).num_acting_parameters()
    target = float(size.rstrip("% ")) / 100 * teacher.num_parameters
    # One unit more or less in each layer is the closest that a width can come.
    assert number == pytest.approx(target, rel=0.15)
    for factor in (0.97, 1.03):
        other = Network(**{**vars(found), "width": found.width * factor})
        other_number = Policy(spec_of(other)).num_acting_parameters()
        assert abs(number - target) <= abs(other_number - target)


def test_the_whole_size_is_the_teachers_own_width() -> None:
    teacher = teacher_of(mlp((96, 48), width=1.5))
    found = with_size(spec_of(teacher.network()), "100%", teacher)
    assert Policy(spec_of(found)).num_acting_parameters() == teacher.num_parameters


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": "0.25"}, "must be a percentage of the teacher's parameters"),
        ({"size": "-1%"}, "must be a percentage"),
        ({"size": "0%"}, "must be above 0 %"),
        ({"size": "9" * 20 + "%"}, "must be a percentage"),
        ({"size": "25%", "student": Network(width=2)}, "set one of them"),
    ],
)
def test_sizes_that_say_nothing_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        rt.agents.PolicyDistillation(teacher="zoo", **options)


def test_a_size_needs_known_parameters_that_a_width_can_reach(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"number of parameters of the teacher .* is unknown"):
        learned_from(unknown_teacher(), tmp_path / "run", TASK, size="25%")
    with pytest.raises(InputError, match=r"the closest that a width of this network gives are"):
        with_size(spec_of(mlp((64, 64))), "0.1%", teacher_of(mlp((64, 64))))
    assert fraction_of(" 12.5 % ") == 0.125


def test_what_was_chosen_is_said_stored_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    PPO("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [24]}).save(tmp_path / "it.zip")
    method = rt.agents.PolicyDistillation(
        teacher=f"{tmp_path / 'it.zip'}", size="50%", epochs=3, **QUICK
    )
    options = {"suite": "CartPole-v1", "run_dir": tmp_path / "run", **SMALL, "quiet": False}
    rt.train(method, **options)
    said = capsys.readouterr().err
    assert "by its teacher: objective kl; teacher_acts 1->0@0.2; a student with 12 hid" in said
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["method"]["objective"] == "auto" and config["method"]["size"] == "50%"
    assert config["chosen"].keys() == {"objective", "teacher_acts", "student"}
    assert "chooses by its teacher: objective kl" in format_choices(config["chosen"])

    # A later version may choose otherwise: a run that goes on does not.
    config["chosen"]["teacher_acts"] = "1->0@0.25"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    run = rt.train(method, **{**options, "total_steps": 80}, resume=True)
    assert str(run.agent.teacher_acts) == "1->0@0.25"
    assert run.agent.policy.spec.network.hidden == (24,)

    config["chosen"]["student"] = 3
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config.json is damaged"):
        rt.train(method, **{**options, "total_steps": 120}, resume=True)


@pytest.mark.parametrize(
    ("output", "objective"),
    [
        ({"logits": torch.zeros(4)}, "kl"),
        ({"q_values": torch.zeros(4)}, "kl"),
        ({"mean": torch.zeros(1), "log_std": torch.zeros(1)}, "kl"),
        ({"mean": torch.zeros(1)}, "mse"),
    ],
)
def test_the_objective_fits_what_the_teacher_says(
    output: dict[str, torch.Tensor], objective: str, tmp_path: Path
) -> None:
    def teach(seen: rt.Observation, task: torch.Tensor) -> rt.PolicyOutput:
        rows = len(task)
        return rt.PolicyOutput(**{name: one.expand(rows, -1) for name, one in output.items()})

    # The host plays pendulums, the device symbols.
    task, epochs = ("Pendulum-v1", 16.0) if "mean" in output else (TASK, 8.0)
    method = rt.agents.PolicyDistillation(teacher=rt.CallableTeacher(teach), **QUICK)
    run = rt.train(method, suite=task, run_dir=tmp_path / "run", **SMALL)
    acts = "1->0@0.2"
    assert run.agent.chosen == {"objective": objective, "teacher_acts": acts, "epochs": epochs}
    assert run.agent.method.epochs == epochs and str(run.agent.teacher_acts) == acts


def test_with_rl_the_student_acts_and_learns_each_rollout(tmp_path: Path) -> None:
    run = rt.train(
        rt.agents.PolicyDistillation(
            teacher=unknown_teacher(), reinforcement_weight=1, **QUICK
        ),
        suite=TASK, run_dir=tmp_path / "run", **SMALL,
    )  # fmt: skip
    assert run.agent.chosen == {"objective": "kl", "teacher_acts": 0.0, "epochs": 4.0}


def test_with_a_lag_the_student_acts_alone_early(tmp_path: Path) -> None:
    method = rt.agents.PolicyDistillation(
        teacher=unknown_teacher(), distillation_weight="lag", **QUICK
    )
    run = rt.train(method, suite=TASK, run_dir=tmp_path / "run", **SMALL)
    assert run.agent.chosen["teacher_acts"] == "1->0@0.2"
