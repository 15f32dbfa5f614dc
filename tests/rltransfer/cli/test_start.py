"""How `rltransfer` starts and ends: what it loads, and what a closed pipe does to it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rltransfer.machine.terminal import ignore_closed_pipe

HEAVY = {
    "torch", "tensordict", "scipy", "matplotlib", "warp", "stable_baselines3", "onnx", "bokeh",
}  # fmt: skip


def loaded(words: str) -> set[str]:
    """The modules that are loaded once a command has printed something."""
    code = (
        "import sys; from rltransfer.cli.main import main; code = main(sys.argv[1:]);"
        "print(*sys.modules, file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "words",
    [
        "--help", "list", "list tasks", "list --help", "--version", "experiment list",
        "experiment run --help",
    ],
)  # fmt: skip
def test_answers_at_once_without_heavy_imports(words: str) -> None:
    assert HEAVY & loaded(words) == set()


def test_only_the_experiment_that_is_named_is_loaded() -> None:
    modules = loaded("experiment run kickstarting --help")
    experiments = {name for name in modules if name.endswith(".experiment")}
    assert "rltransfer.experiments.kickstarting.experiment" in experiments
    assert "rltransfer.experiments.atari.experiment" not in experiments
    assert "rltransfer.cli.train" not in modules


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "list",
        "train ppo --help",
        "experiment list",
        "benchmark rollout --task CartPole-v1 --num-envs 1 --repeats 1 --seconds 0",
    ],
)
def test_a_closed_pipe_ends_quietly(words: str) -> None:
    # As `| head -1` does, but sure to close the pipe before anything is written.
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "rltransfer.cli", *words.split()]
    done = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=120
    )
    os.close(writer)
    assert (done.stderr, done.returncode) == ("", 0)


def test_another_pipe_that_breaks_is_an_error() -> None:
    with pytest.raises(BrokenPipeError), ignore_closed_pipe():
        raise BrokenPipeError
