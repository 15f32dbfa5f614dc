"""Run folders: what opening one may do, and who may use it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toy import TASK

import rltransfer as rt
from rltransfer.cli.main import main
from rltransfer.files.checkpoint import checkpoints, save_state, write_hashes
from rltransfer.runs.folder import load_run_policy, lock
from rltransfer.runs.onnx_export import export_run

PPO = rt.agents.PPO(num_envs=2, rollout_length=8, batch_size=16, epochs=1)
QUICK = {"total_steps": 32, "episodes": 1, "evaluate_episodes": 0, "quiet": True}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def strangers(here: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The task of the run "strange", whose module is in the run's folder and can be imported."""
    rt.train(PPO, suite="CartPole-v1", run_dir="strange", **QUICK)
    path = here / "strange" / "config.json"
    path.write_text(path.read_text().replace('"CartPole-v1"', '"strange.evil:CartPole-v1"'))
    (here / "strange" / "evil.py").write_text("open('imported', 'w').close()\n")
    monkeypatch.syspath_prepend(here)
    for name in ("strange", "strange.evil"):
        # Set and deleted, so that the test's end deletes what it imports.
        monkeypatch.setitem(sys.modules, name, sys)
        del sys.modules[name]
    return "strange.evil:CartPole-v1"


WORDS = ["--total-steps", "16", "--num-envs", "2", "--rollout-length", "8", "--batch-size", "16"]
DISTIL = ["train", "policy-distillation", "--task", "CartPole-v1", *WORDS, "--quiet"]
OPENING = {
    "evaluate": ["evaluate", "strange", "--episodes", "1"],
    "evaluate with options": ["evaluate", "strange", "--episodes", "1", "--task-option", "a=1"],
    "resume": ["train", "ppo", "--resume", "strange", "--quiet"],
    "teach": [*DISTIL, "--episodes", "1", "--teacher", "strange"],
    "teach in a composition": [
        *DISTIL,
        "--episodes",
        "1",
        "--teacher",
        "Noisy('strange', sigma=0.1)",
    ],
    "list": ["list"],
}


@pytest.mark.parametrize("command", OPENING)
def test_a_run_imports_no_module_that_its_files_name(
    command: str, here: Path, strangers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(OPENING[command])
    error = capsys.readouterr().err
    assert not (here / "imported").exists()
    if command in ("evaluate", "evaluate with options", "resume"):
        assert code == 2 and error.count("\n") == 1
        assert "import the module 'strange.evil'" in error and f"pass --task {strangers}" in error
    else:
        assert code == 0


@pytest.mark.parametrize("command", ["evaluate", "resume"])
def test_a_module_that_the_user_names_is_imported(command: str, here: Path, strangers: str) -> None:
    assert main([*OPENING[command], "--task", strangers]) == 0
    # A finished run makes its environments too.
    assert (here / "imported").exists()


def test_python_imports_what_it_names(here: Path, strangers: str) -> None:
    with pytest.raises(rt.InputError, match=r"import the module 'strange\.evil'"):
        rt.evaluate("strange", episodes=1)
    with pytest.raises(rt.InputError, match=r"import the module 'strange\.evil'"):
        rt.evaluate(rt.load_teacher("strange"), episodes=1)
    assert not (here / "imported").exists()
    __import__("strange.evil")
    assert len(rt.evaluate("strange", episodes=1)) == 1
    assert len(rt.evaluate("strange", strangers, episodes=1)) == 1


def test_a_chain_imports_no_module_that_its_files_name(here: Path, strangers: str) -> None:
    (here / "chain").mkdir()
    (here / "strange").rename(here / "chain" / "generation-1")
    (here / "strange").mkdir()
    (here / "strange" / "evil.py").write_text("open('imported', 'w').close()\n")
    config = json.loads((here / "chain" / "generation-1" / "config.json").read_text())
    (here / "chain" / "config.json").write_text(json.dumps({**config, "generations": 1}))
    assert main(["evaluate", "chain", "--episodes", "1"]) == 2
    assert main(["train", "ppo", "--resume", "chain", "--quiet"]) == 2
    assert not (here / "imported").exists()


def damage(path: Path) -> None:
    """Changes a bit of a file's last tensor."""
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_is_passed_over(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rt.train(PPO, suite=TASK, run_dir="run", **QUICK)
    kept = {path.name: tree_bytes(path) for path in checkpoints(Path("run"))}
    assert list(kept) == ["step-000000000016", "step-000000000032"]
    newest = checkpoints(Path("run"))[-1]
    damage(newest / "policy.safetensors")
    said = f"{newest} is damaged: step-000000000016, the newest whole one, is used.\n"
    capsys.readouterr()
    rt.evaluate("run", episodes=1)
    assert capsys.readouterr().err == said
    rt.load_teacher("run")
    assert capsys.readouterr().err == said
    with pytest.raises(rt.InputError, match="there is no folder nowhere"):
        export_run(Path("run"), Path("nowhere") / "policy.onnx")
    assert capsys.readouterr().err == said
    # A resumed run writes the same checkpoint again.
    (here / "run" / "result.json").unlink()
    rt.train(PPO, suite=TASK, run_dir="run", resume=True, **QUICK)
    assert said in capsys.readouterr().err
    assert {path.name: tree_bytes(path) for path in checkpoints(Path("run"))} == kept


def tree_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize(
    "state", [{}, {"env_steps": "x"}, {"env_steps": 1, "wall_seconds": 1.0, "agent": 3}]
)
def test_a_state_that_does_not_fit_is_refused(state: dict[str, Any], here: Path) -> None:
    rt.train(PPO, suite=TASK, run_dir="run", **QUICK)
    for folder in checkpoints(Path("run")):
        save_state(folder, state)
        write_hashes(folder)
    with pytest.raises(rt.InputError, match="does not fit this run: its state is damaged"):
        rt.train(PPO, suite=TASK, run_dir="run", resume=True, **QUICK)


@contextlib.contextmanager
def another_user() -> Iterator[None]:
    """Runs the block as a user who is not root, to whom permissions do not apply."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.fixture
def shown() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are its user's alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "hidden", [".", "config.json", "checkpoints", "checkpoints/step-000000000032"]
)
def test_a_run_that_may_not_be_read_is_not_missing(hidden: str, shown: Path) -> None:
    run_dir = shown / "runs" / "run"
    rt.train(PPO, suite=TASK, run_dir=run_dir, **QUICK)
    path = run_dir.parent if hidden == "." else run_dir / hidden
    path.chmod(0)
    with another_user():
        for opening in (rt.evaluate, rt.load_teacher, load_run_policy):
            with pytest.raises(rt.InputError, match=r"cannot be read: this user has no permission"):
                opening(run_dir)
        with pytest.raises(rt.InputError, match=r"(read|written): "):
            rt.train(PPO, suite=TASK, run_dir=run_dir, resume=True, **QUICK)
    path.chmod(0o755)


def test_weights_that_may_not_be_read_are_not_missing(shown: Path) -> None:
    rt.train(PPO, suite=TASK, run_dir=shown / "run", **QUICK)
    modes = {path.stat().st_mode & 0o777 for path in (shown / "run").rglob("*") if path.is_file()}
    (shown / "file").touch()
    assert modes == {(shown / "file").stat().st_mode & 0o777}
    newest = checkpoints(shown / "run")[-1]
    for name in ("policy.safetensors", "policy.json", "sha256.json"):
        (newest / "sha256.json").unlink() if name == "policy.json" else None
        (newest / name).touch()
        (newest / name).chmod(0)
        with another_user(), pytest.raises(rt.InputError, match=rf"{name} cannot be read"):
            rt.load_teacher(shown / "run")
        (newest / name).chmod(0o644)


LINKED = [".lock", "checkpoints", "result.json", "checkpoints/step-000000000001", "events.x"]


@pytest.mark.parametrize("name", LINKED)
def test_a_run_with_links_is_not_resumed(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training would write through them, and remove old checkpoints."""
    rt.train(PPO, suite=TASK, run_dir="run", **QUICK)
    (here / "victims").mkdir()
    (here / "victims" / "step-000000000001").mkdir()
    (here / "victims" / "kept").write_text("kept")
    path = here / "run" / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(here / "victims" / ("" if name == "checkpoints" else "kept"))
    assert main(["train", "--resume", "run", "--total-steps", "64", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert f"run/{name} is a symbolic link" in error and "replace the link" in error
    assert (here / "victims" / "kept").read_text() == "kept"
    assert (here / "victims" / "step-000000000001").is_dir()


def test_a_lock_that_is_another_file_too_is_not_written(here: Path) -> None:
    rt.train(PPO, suite=TASK, run_dir="run", **QUICK)
    (here / "victim").write_text("kept")
    (here / "run" / ".lock").unlink()
    os.link(here / "victim", here / "run" / ".lock")
    with pytest.raises(rt.InputError, match=r"run/.lock is not a file of its own: remove it"):
        rt.train(PPO, suite=TASK, run_dir="run", resume=True, **QUICK)
    assert (here / "victim").read_text() == "kept"


def test_a_forked_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    file = lock(tmp_path)
    ready, begun = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(begun, b"1")
            time.sleep(60)
        finally:
            os._exit(0)
    os.close(begun)
    try:
        assert os.read(ready, 1)  # the child has begun, and sleeps
        with pytest.raises(rt.InputError, match=f"in use by the process {os.getpid()} on"):
            lock(tmp_path)
        file.close()
        lock(tmp_path).close()
        assert os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)


def changed_config(change: Any) -> None:
    path = Path("run") / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("value", ["/etc/x.xml", "../x", "~/x", "module:Env", ["x", {"a": "b\\c"}]])
def test_an_argument_of_a_task_that_names_a_place_is_refused(
    value: Any, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rt.train(PPO, suite="CartPole-v1", run_dir="run", **QUICK)
    changed_config(lambda config: config["suite"]["tasks"][0]["kwargs"].update(xml_file=value))
    for words in (["evaluate", "run"], ["train", "--resume", "run"]):
        assert main([*words, "--episodes", "1"]) == 2
        error = capsys.readouterr().err
        assert "'xml_file' with the text" in error and "pass --task CartPole-v1" in error
    # Named by the user, it reaches the environment, which does not know it.
    assert main(["evaluate", "run", "--episodes", "1", "--task", "CartPole-v1"]) == 2
    assert "unexpected keyword argument 'xml_file'" in capsys.readouterr().err


def test_a_folder_that_only_a_configuration_names_is_not_written_to(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rt.train(PPO, suite=TASK, run_dir="teacher", **QUICK)
    small: dict[str, Any] = {"num_envs": 2, "rollout_length": 8, "memory_steps": 64}
    method = rt.agents.PolicyDistillation(teacher="teacher", **small)
    rt.train(method, suite=TASK, run_dir="run", **QUICK)
    changed_config(lambda config: config["method"].update(memory_dir="elsewhere"))
    for words in (["--resume", "run"], ["--config", "run/config.json", "--run-dir", "new"]):
        assert main(["train", *words, "--quiet"]) == 2
        assert "outside of" in (error := capsys.readouterr().err)
        assert "add --memory-dir elsewhere" in error
        assert not (here / "elsewhere").exists()
        assert main(["train", *words, "--memory-dir", "elsewhere", "--quiet"]) == 0
        shutil.rmtree(here / "elsewhere")
    changed_config(lambda config: config["method"].update(memory_dir="run/memory"))
    assert main(["train", "--resume", "run", "--total-steps", "64", "--quiet"]) == 0
