"""Odd values on the command line: each works, or is refused in a sentence and leaves no trace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from toy import TASK

import rltransfer as rt
from rltransfer.cli.main import main
from rltransfer.machine import free_memory
from rltransfer.runs.onnx_export import export_run

SMALL = {
    "--total-steps": "16", "--num-envs": "2", "--rollout-length": "8", "--episodes": "1",
    "--evaluate-episodes": "0",
}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "file").write_text("a file")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "a run [/b]"
    assert train(str(folder)) == 0
    return folder


def train(run_dir: str, **changed: str) -> int:
    options = {**SMALL, **{f"--{name.replace('_', '-')}": value for name, value in changed.items()}}
    words = [word for option in options.items() for word in option]
    return main(["train", "ppo", "--task", TASK, "--quiet", *words, f"--run-dir={run_dir}"])


def written() -> list[Path]:
    """Everything in the folder, but for the caches of libraries that are imported."""
    return sorted(path for path in Path().rglob("*") if ".cache" not in path.parts)


def check_refused(capsys: pytest.CaptureFixture[str], words: list[str], sentence: str) -> None:
    before = written()
    capsys.readouterr()
    assert main(words) == 2, words
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and sentence in err
    assert written() == before


@pytest.mark.parametrize(
    ("run_dir", "folder"),
    [
        ("runs/a b", "runs/a b"), ("runs/[/b]", "runs/[/b]"), ("runs/é🎉/", "runs/é🎉"),
        ("runs//a/./b", "runs/a/b"), ("two\nlines", "two\nlines"), ("=", "="), ("-x", "-x"),
        ("~/runs/a", "home/runs/a"), ("a" * 240, "a" * 240),
    ],
)  # fmt: skip
def test_folders_of_any_name_work(
    run_dir: str, folder: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(run_dir) == 0
    assert (here / folder / "result.json").exists()
    assert f"--logdir {Path(run_dir).expanduser()}\n" in capsys.readouterr().out
    assert main(["train", f"--resume={run_dir}"]) == 0


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--run-dir", "", "the path is empty: it must be a path, such as '.' for this folder"),
        ("--run-dir", "a\0b", "the path is 'a\\x00b': it must be UTF-8 text"),
        ("--run-dir", os.fsdecode(b"\xff"), "it must be UTF-8 text"),
        ("--run-dir", "a" * 300, "cannot be written: File name too long"),
        ("--run-dir", "file", "file already exists"),
        ("--run-dir", "file/a", "cannot be written: Not a directory"),
        ("--run-dir", ".", ". already exists"),
        ("--run-dir", "/proc/a", "/proc/a cannot be written"),
        ("--resume", "", "--resume is empty"),
        ("--total-steps", "nan", "'nan' is not a whole number"),
        ("--total-steps", "-1", "total_steps is -1: it must be at least 0"),
        ("--num-envs", "1.5", "'1.5' is not a whole number"),
        ("--num-envs", "True", "'True' is not a whole number"),
        ("--seed", "½", "'½' is not a whole number"),
        ("--seed", "1e19", "seed is too large"),
        ("--num-envs", "1,000", "write numbers without commas"),
        ("--learning-rate", "-inf", "learning_rate is -inf: it must be finite"),
        ("--learning-rate", "None", "--learning-rate: could not convert string to float"),
        ("--device", "", "There is no device ''"),
        ("--device", "[/b]", "There is no device '[/b]'"),
        ("--encoder", "é", "There is no"),
        ("--groups", "", "observation group '', but"),
        ("--task", "a\nb", "There is no task 'a\\nb'"),
        ("--task", "x" * 1000, "There is no task"),
        ("--task-option", "=", "is called '': its name must be text"),
        ("--env-timeout", "nan", "env_timeout is nan"),
        ("--width", "1e18", "width is 1e+18: it must be at most 10,000"),
    ],
)
def test_training_is_refused(
    option: str, value: str, sentence: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {**SMALL, "--task": TASK, option: value}
    words = [f"{name}={value}" for name, value in options.items()]
    check_refused(capsys, ["train", "ppo", *words], sentence)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["evaluate", ""], "There is no teacher"),
        (["evaluate", "~"], "is not a run"),
        (["evaluate", "/proc/self/mem", "--task", TASK], "/proc/self/mem cannot be read"),
        (["evaluate", "Vote('a.zip', noise_scale=nan)", "--task", TASK], "is not a composition"),
        (["evaluate", "RUN", "--episodes", "1e18"], "at most 10,000,000"),
        (["evaluate", "RUN", "--max-steps", "-0"], "max_steps is 0"),
        (["evaluate", "RUN", "--vecnormalize", ""], "the path is empty"),
        (["export", "RUN", "--out", ""], "the path is empty"),
        (["export", "RUN", "--out", "file"], "file already exists"),
        (["export", "RUN", "--out", "link.onnx"], "link.onnx already exists"),
        (["export", "RUN", "--out", "no/file"], "there is no folder no"),
        (["export", "RUN", "--out", "x" * 300], "cannot be written: File name too long"),
        (["export", "RUN", "--out", "x.onnx", "--samples", "1e18"], "at most 1,000,000"),
        (["export", "home", "--out", "x.onnx"], "is not a run"),
        (["list", "[/b]"], "There is no"),
        (["experiment", "run", ""], "There is no experiment ''"),
        (["benchmark", "rollout", "--task", TASK, "--num-envs", "1e18"], "at most 1,000,000"),
        (["benchmark", "rollout", "--task", TASK, "--seconds", "inf"], "seconds is inf"),
        (["benchmark", "learner", "--batch-size", "1e18"], "at most 10,000,000"),
        (["benchmark", "learner", "--memory-steps", "1e18"], "replay buffer would take"),
    ],
)
def test_other_commands_are_refused(
    words: list[str], sentence: str, run: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "link.onnx").symlink_to("nowhere")
    words = [str(run) if word == "RUN" else word for word in words]
    check_refused(capsys, words, sentence)


def test_a_rollout_that_does_not_fit_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(free_memory, "_of_machine", lambda: iter([2**30]))
    words = ["train", "ppo", "--task", TASK, "--num-envs", "100", "--rollout-length", "1e6"]
    # 100 environments of 4 numbers: 1.5 GiB.
    check_refused(capsys, words, "A rollout of 1000000 steps in 100 environments takes 1.5 GiB")


def test_a_full_memory_ends_in_a_sentence(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rltransfer.cli import list as listing

    def full(words: list[str]) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    monkeypatch.setattr(listing, "run", full)
    check_refused(capsys, ["list"], "There is not enough memory: use fewer environments")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"run_dir": 5}, "run_dir is 5: it must be a path"),
        ({"run_dir": b"a"}, "run_dir is b'a': it must be a path"),
        ({"run_dir": ""}, "run_dir is empty"),
        ({"resume": "yes"}, "resume is 'yes': it must be True or False"),
        ({"quiet": 1}, "quiet is 1: it must be True or False"),
        ({"generations": 1.5}, "generations is 1.5: it must be a whole number"),
        ({"generations": -1}, "generations is -1"),
        ({"suite": {"a"}}, "is not a task: pass a suite"),
        ({"suite": ()}, "contains no task"),
    ],
)
def test_training_from_python_is_refused(
    options: dict[str, object], sentence: str, here: Path
) -> None:
    before = sorted(here.rglob("*"))
    given = {"suite": TASK, "run_dir": "run", "total_steps": 16, **options}
    with pytest.raises(rt.InputError, match=sentence):
        rt.train(rt.agents.PPO(num_envs=2, rollout_length=8), **given)  # type: ignore[arg-type]
    assert sorted(here.rglob("*")) == before


def test_home_is_found_from_python(here: Path) -> None:
    assert train("~/runs/a") == 0
    assert len(rt.evaluate("~/runs/a", episodes=1, max_steps=10)[TASK].returns) == 1
    assert rt.load_teacher("~/runs/a").source == str(here / "home/runs/a")
    with pytest.raises(rt.InputError, match="there is no folder"):
        export_run("~/runs/a", "~/no/file.onnx")
