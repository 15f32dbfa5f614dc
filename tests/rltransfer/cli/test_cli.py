"""The shell's face: what it prints, its exit codes, and that bad input writes nothing."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3 import DQN, PPO, SAC
from toy import TASK

from rltransfer.cli.main import main
from rltransfer.cli.train import default_folder
from rltransfer.rollouts.evaluation import Evaluation
from rltransfer.tasks.task import Suite

ONE = {"a task": Evaluation((1.0,), (1,))}
BREAKOUT = "rltransfer/MinAtar-Breakout-v0"
SMALL = [
    "--num-envs",
    "4",
    "--rollout-length",
    "10",
    "--batch-size",
    "40",
    "--evaluate-episodes",
    "0",
]
QUICK = [*SMALL, "--episodes", "4", "--steps", "200", "--quiet"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def cartpole_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zip") / "dqn.zip"
    DQN("MlpPolicy", "CartPole-v1", device="cpu", buffer_size=100).save(path)
    return path


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """Runs a command that must fail as bad input does, and returns its sentence."""
    assert main([str(word) for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_train_evaluate_and_go_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "ppo", "--task", TASK, *QUICK, "--run-dir", "run"]) == 0
    assert "tensorboard --logdir run" in capsys.readouterr().out
    assert main(["evaluate", "run", "--episodes", "5", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["tasks"][TASK]
    assert row["episodes"] == len(row["returns"]) == 5
    assert main(["train", "ppo", "--resume", "run", "--quiet"]) == 0


def test_one_episode_has_no_interval(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "ppo", "--task", TASK, *QUICK, "--run-dir", "run"])
    capsys.readouterr()
    assert main(["evaluate", "run", "--episodes", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"][TASK]["return_ci95"] is None
    assert main(["evaluate", "run", "--episodes", "1"]) == 0
    assert "± ?" in capsys.readouterr().out


def test_a_task_in_a_module(here: Path) -> None:
    task = "gymnasium.envs.classic_control:CartPole-v1"
    assert main(["train", "ppo", "--task", task, *QUICK, "--run-dir", "run"]) == 0
    assert main(["evaluate", "run", "--episodes", "1"]) == 0


def test_the_default_folder_names_agent_task_and_seed(here: Path) -> None:
    assert main(["train", "ppo", "--task", TASK, *QUICK, "--seed", "7"]) == 0
    assert (here / "runs" / f"ppo-{TASK.replace('/', '-')}-7" / "result.json").exists()


def test_distil_from_a_zip(
    here: Path, cartpole_zip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "train",
        "policy-distillation",
        "--task",
        "CartPole-v1",
        "--teacher",
        str(cartpole_zip),
    ]
    assert main([*words, *QUICK, "--hidden", "8", "8", "--run-dir", "run"]) == 0
    result = json.loads((here / "run" / "result.json").read_text())
    # SB3's default: 4 x 64 + 64, 64 x 64 + 64, 64 x 2 + 2 = 320 + 4160 + 130.
    assert result["teacher_parameters"] == 4610
    assert result["student_parameters"] == 4 * 8 + 8 + 8 * 8 + 8 + 8 * 2 + 2
    row = result["tasks"]["CartPole-v1"]
    assert {"return_mean", "return_ci95", "teacher_return_mean", "random_return_mean"} <= set(row)
    assert "student/teacher" in capsys.readouterr().out


def test_a_resumed_run_keeps_its_settings(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "ppo", "--task", TASK, *QUICK, "--run-dir", "run"])
    capsys.readouterr()
    before = sorted(path.name for path in (here / "run").iterdir())
    said = refused(capsys, "train", "ppo", "--resume", "run", "--clip", "0.3")
    assert "another clip" in said
    said = refused(capsys, "train", "pqn", "--resume", "run")
    assert "a run of the agent 'ppo'" in said
    said = refused(capsys, "train", "ppo", "--resume", "run", "--run-dir", "other")
    assert "resumes in its own directory, run" in said
    said = refused(capsys, "train", "ppo", "--resume", "run", "--task-option", "a=1")
    assert "resumes with its own tasks" in said
    said = refused(capsys, "evaluate", "run", "--vecnormalize", "x.pkl")
    assert "--vecnormalize applies to Stable-Baselines3 zips" in said
    assert sorted(path.name for path in (here / "run").iterdir()) == before


def test_bad_words_are_refused_in_a_sentence(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {
        ("trian",): "did you mean 'train'?",
        ("train",): "needs an agent",
        ("train", "pp0"): "did you mean 'ppo'?",
        ("train", "ppo"): "either --task ID or --suite NAME",
        ("train", "ppo", "--suite", "minitar"): "did you mean 'minatar'?",
        ("train", "ppo", "--task", "CartPole-v9"): "CartPole-v1",
        ("train", "ppo", "--task", "ALE/Pnog-v5"): "did you mean 'ALE/Pong-v5'?",
        ("train", "ppo", "--task", TASK, "--learning-rte", "1"): "did you mean '--learning-rate'?",
        ("train", "ppo", "--task", TASK, "--steps", "many"): "'many' is not a whole number",
        ("train", "ppo", "--task", TASK, "--steps", "-1"): "steps is -1",
        ("train", "ppo", "--task", TASK, "--num-envs", "-3"): "num_envs is -3",
        ("train", "ppo", TASK): f"did you mean '--task {TASK}'?",
        ("train", "ppo", "--task", "My/Env-v0"): "'my_module:My/Env-v0'",
        ("train", "ppo", "--task", TASK, "--teacher", "zoo"): "`rltransfer train ppo --help`",
        ("train", "ppo", "--task", "xyzzy"): "`rltransfer list tasks` lists them all",
        ("train", "ppo", "--task", "minatar"): "is a suite, not a task: use --suite minatar",
        ("train", "ppo", "--task", TASK, "--device", "cuda:99"): "no device 'cuda:99'",
        ("train", "ppo", "--task", TASK, "--width", "0"): "width is 0",
        ("train", "ppo", "--task", TASK, "--task-option", "x"): "write NAME=VALUE",
        ("train", "ppo", "--resume", "nowhere"): "nowhere is not a run",
        ("train", "pqn", "--task", "Pendulum-v1"): "pqn needs discrete actions",
        ("train", "policy-distillation", "--task", TASK): "--teacher is missing",
        ("train", "policy-distillation", "--task", TASK, "--teacher", "x.zip"): "no teacher",
        ("evaluate",): "SOURCE is missing; see `rltransfer evaluate --help`",
        ("evaluate", "nowhere"): "'nowhere'",
        (
            "evaluate",
            "zoo",
            "--task-option",
            "x=1",
        ): "--task-option and --transform change a task: add --task",
        ("evaluate", "zoo"): "The tasks of the teacher zoo are unknown",
        ("evaluate", "zoo", "--task", "minatar"): "is a suite: evaluate one of its tasks",
        ("evaluate", "zoo", "--task", TASK, "--num-envs", "0"): "num_envs is 0",
        ("evaluate", "zoo", "--task", TASK, "--episodes", "0"): "episodes is 0",
        ("evaluate", "zoo", "--task", TASK, "--seed", "-1"): "seed is -1",
        ("list", "agent"): "did you mean 'agents'?",
        ("list", "agents", "foo"): "There is no option 'foo'",
        ("experiment", "list", "foo"): "There is no option 'foo'",
        ("experiment", "run", "zoos"): "did you mean 'zoo'?",
        ("experiment",): "needs a command: list, run",
        ("benchmark", "train"): "needs an agent",
        ("export",): "RUN is missing",
    }
    for words, sentence in cases.items():
        assert sentence in refused(capsys, *words), words
    assert list(here.iterdir()) == []


def test_an_objective_that_the_teacher_cannot_serve_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SAC("MlpPolicy", "Pendulum-v1", device="cpu", buffer_size=100).save("sac.zip")
    train = ("train", "policy-distillation", "--task", "Pendulum-v1", "--teacher", "sac.zip")
    assert "use MSE or NLL" in refused(capsys, *train, "--objective", "kl", "--run-dir", "run")
    assert not (here / "run").exists()


def test_bad_zips_are_refused_in_a_sentence(
    here: Path, cartpole_zip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = cartpole_zip.read_bytes()
    (here / "text.zip").write_text("not a zip")
    (here / "short.zip").write_bytes(whole[: len(whole) // 2])
    train = ("train", "policy-distillation", "--task", "CartPole-v1", "--run-dir", "run")
    for name in ("text.zip", "short.zip"):
        assert name in refused(capsys, *train, "--teacher", name)
    other = ("train", "policy-distillation", "--task", "Acrobot-v1", "--run-dir", "run")
    assert "observes" in refused(capsys, *other, "--teacher", cartpole_zip)
    assert not (here / "run").exists()


class Bomb:
    """What a pickle of it would do when loaded: create a file."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("exploded",))


def test_a_zip_with_a_bomb_does_not_explode(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    PPO("MlpPolicy", "CartPole-v1", device="cpu").save("plain.zip")
    import base64

    with zipfile.ZipFile("plain.zip") as plain, zipfile.ZipFile("armed.zip", "w") as armed:
        for name in plain.namelist():
            content = plain.read(name)
            if name == "data":
                data = json.loads(content)
                for value in data.values():
                    if isinstance(value, dict) and ":serialized:" in value:
                        bomb = base64.b64encode(pickle.dumps(Bomb())).decode()
                        value[":serialized:"] = bomb
                content = json.dumps(data).encode()
            armed.writestr(name, content)
    assert main(["evaluate", "armed.zip", "--task", "CartPole-v1", "--episodes", "1"]) == 0
    capsys.readouterr()

    buffer = io.BytesIO()
    torch.save({"weights": Bomb()}, buffer)
    with zipfile.ZipFile("plain.zip") as plain, zipfile.ZipFile("worse.zip", "w") as worse:
        for name in plain.namelist():
            worse.writestr(name, buffer.getvalue() if name == "policy.pth" else plain.read(name))
    refused(capsys, "evaluate", "worse.zip", "--task", "CartPole-v1", "--episodes", "1")
    assert not (here / "exploded").exists()


def test_help_shows_every_field_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "ppo", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for word in (
        "--learning-rate",
        "--total-steps",
        "--clip-range",
        "--width",
        "--suite",
        "--resume",
    ):
        assert word in said


@pytest.mark.parametrize(
    ("command", "usage", "named"),
    [
        ("--help", "{list,train,", "Train an agent"),
        ("help", "{list,train,", "Play whole episodes"),
        ("list -h", "list [{all,agents,", "tasks"),
        ("train --help", "train {actor-mimic,distral,", "Proximal policy optimisation"),
        ("train -h ppo", "train {actor-mimic,distral,", "Policy distillation, DAgger"),
        ("help train", "train {actor-mimic,distral,", "Proximal policy optimisation"),
        ("benchmark --help", "benchmark {rollout,train,", "Environment steps per second"),
        (
            "benchmark train -h",
            "benchmark train {actor-mimic,distral,",
            "Proximal policy optimisation",
        ),
        ("help benchmark", "benchmark {rollout,train,", "Samples per second"),
        ("experiment -h", "experiment {list,run}", "List the experiments"),
        ("experiment list --help", "experiment list", "List the experiments"),
        ("help experiment run", "experiment run {actor-mimic,actor-mimic-atari,", "compression"),
        ("evaluate --help", "evaluate [OPTIONS] SOURCE", "--vecnormalize"),
        ("help export", "export [OPTIONS] RUN", "--actions-only"),
    ],
)
def test_help_on_a_command_says_what_can_follow_it(
    command: str, usage: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command.split()) == 0
    said = capsys.readouterr().out
    assert said.replace("[-h] ", "").startswith(f"usage: rltransfer {usage}")
    assert named in said


def test_help_does_not_hide_a_wrong_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'ppo'?" in refused(capsys, "train", "pp0", "--help")


@pytest.mark.parametrize("command", ["list", "list tasks", "help", "experiment list"])
def test_a_reader_may_stop_before_the_end(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as broken:
        monkeypatch.setattr("sys.stdout", broken)
        assert main(command.split()) == 0
    assert capsys.readouterr().err == ""


def test_list_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    for word in ("ppo", "pqn", "policy-distillation", "minatar", "quickstart"):
        assert word in said
    assert "mazes-8: 8 x rltransfer/Maze-v0\n" in said
    assert main(["list", "tasks"]) == 0
    assert "rltransfer/MinAtar-Breakout-v0" in capsys.readouterr().out


def test_a_task_of_several_is_evaluated_by_its_own_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    words = (
        "train ppo --task CartPole-v1 Acrobot-v1 --heads per-task --num-envs 2 --rollout-length 8"
    )
    sizes = "--steps 64 --episodes 1 --evaluate-episodes 0 --quiet --run-dir"
    assert main([*words.split(), *sizes.split(), run]) == 0
    first: list[int] = []
    monkeypatch.setattr(
        "rltransfer.runs.evaluate.evaluate_policy",
        lambda *args, **how: first.append(how["first"]) or ONE,
    )
    for task in ("CartPole-v1", "Acrobot-v1"):
        assert main(["evaluate", run, "--task", task]) == 0
    assert first == [0, 1]
    assert main(["evaluate", run, "--task", "MountainCar-v0"]) == 2
    assert "none for 'MountainCar-v0'" in capsys.readouterr().err


def test_a_task_of_one_id_is_evaluated_by_its_own_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    words = (
        "train distral --suite two-rooms --num-envs 2 --rollout-length 8 --steps 64 --episodes 1"
    )
    assert main([*words.split(), "--evaluate-episodes", "0", "--quiet", "--run-dir", run]) == 0
    first: list[int] = []
    suites: list[Suite] = []

    def evaluated(policy: object, suite: Suite, *args: object, **how: int) -> dict[str, Evaluation]:
        suites.append(suite)
        first.append(how["first"])
        return ONE

    monkeypatch.setattr("rltransfer.runs.evaluate.evaluate_policy", evaluated)
    asked = ["evaluate", run, "--task", "rltransfer/TwoRooms-v0"]
    for options in (["goal=2"], ["goal=1", "time_limit=9"]):
        assert main([*asked, "--task-option", *options]) == 0
    assert first == [2, 1]
    assert suites[1].tasks[0].kwargs["time_limit"] == 9
    for options in ([], ["--task-option", "goal=9"]):
        assert main([*asked, *options]) == 2
        assert "pass one of these as --task, with its --task-option" in capsys.readouterr().err


def test_a_runs_task_keeps_its_options(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "train ppo --task CartPole-v1 --task-option sutton_barto_reward=True --run-dir run"
    assert main([*words.split(), *QUICK]) == 0
    kwargs = []
    monkeypatch.setattr(
        "rltransfer.runs.evaluate.evaluate_policy",
        lambda policy, suite, *args, **how: kwargs.append(suite.tasks[0].kwargs) or ONE,
    )
    asked = ["evaluate", "run", "--task", "CartPole-v1"]
    assert main(["evaluate", "run"]) == main(asked) == 0
    assert main([*asked, "--task-option", "sutton_barto_reward=False", "x=1"]) == 0
    assert kwargs == [
        {"sutton_barto_reward": True}, {"sutton_barto_reward": True},
        {"sutton_barto_reward": False, "x": 1},
    ]  # fmt: skip


def test_a_teacher_of_the_zoo_plays_its_own_task(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["evaluate", f"zoo:{BREAKOUT}", "--episodes", "2", "--json"]
    assert main(words) == 0
    alone = capsys.readouterr().out
    assert main([*words, "--task", BREAKOUT]) == 0
    assert capsys.readouterr().out == alone
    assert list(json.loads(alone)["tasks"]) == [BREAKOUT]


def test_brackets_in_names_are_printed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("a[/b]", "ppo[lr=0.1]"):
        assert main(["train", "ppo", "--task", TASK, *QUICK, "--run-dir", folder]) == 0
        assert f"tensorboard --logdir {folder}\n" in capsys.readouterr().out


def test_the_folder_of_many_tasks_has_a_shorter_name(here: Path) -> None:
    suites = [Suite.of(*(f"ALE/Game{i}-v{version}" for i in range(40))) for version in (4, 5)]
    names = [default_folder("ppo", suite, 3).name for suite in suites]
    assert names[0].startswith("ppo-ALE-Game0-v4+39-") and names[0].endswith("-3")
    assert len(set(names)) == 2 and max(map(len, names)) < 200
    assert len(default_folder("ppo", Suite.of("é" * 400), 0).name.encode()) < 255
    assert default_folder("ppo", Suite.of("A", "B"), 0) == Path("runs/ppo-A+B-0")


def test_a_folder_whose_name_is_too_long(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "ppo", "--task", TASK, *QUICK]
    assert "cannot be written: File name too long" in refused(
        capsys, *words, "--run-dir", "a" * 300
    )
    resumed = refused(capsys, "train", "ppo", "--resume", "a" * 300)
    assert "is not a run" in resumed and not list(here.iterdir())


def test_help_has_names_of_values_and_no_types(capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "ppo", "--help"])
    alone = capsys.readouterr().out
    main(["train", "policy-distillation", "--help"])
    taught = capsys.readouterr().out
    assert "--generations N" in taught and "--generations" not in alone
    assert "student options" in taught and "network options" in alone
    assert not any(sign in alone + taught for sign in ("{None}", "STR", "method.student"))
    assert "--hidden N ..." in alone and "--run-dir PATH" in alone


@pytest.mark.parametrize(
    ("code", "expected", "said"), [("robot off", 1, "robot off\n"), (7, 7, ""), (None, 0, "")]
)
def test_code_that_ends_the_program_gives_its_exit_code(
    code: Any, expected: int, said: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def ends(words: list[str]) -> None:
        raise SystemExit(code)

    monkeypatch.setattr("rltransfer.cli.curves.run", ends)
    assert main(["curves", "run"]) == expected
    assert capsys.readouterr().err == said
