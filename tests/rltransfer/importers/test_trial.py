"""Programs are tried within bounds of time and memory."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.files.untrusted import LIMIT
from rltransfer.importers.torchscript import load_torchscript
from rltransfer.importers.trial import NAME, within_bounds

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

PATH = Path("policy.pt")
VECTOR = spaces.Dict({"policy": spaces.Box(-1.0, 1.0, (3,), np.float32)})
MOVES = spaces.Box(-1.0, 1.0, (3,), np.float32)


class Long(nn.Module):
    """Takes about a tenth of a second."""

    def forward(self, seen: Tensor) -> Tensor:
        for _ in range(50_000):
            seen = torch.neg(seen)
        return seen


class Large(nn.Module):
    """Takes 30 GiB."""

    def forward(self, seen: Tensor) -> Tensor:
        return seen[:, :3] + seen.new_ones([8_000_000, 1000]).sum()


def script(module: nn.Module, path: Path) -> Path:
    torch.jit.save(torch.jit.script(module), path)
    return path


def test_a_program_that_takes_too_long_is_stopped() -> None:
    program = torch.jit.script(Long())
    began = time.monotonic()
    with pytest.raises(
        InputError, match=r"policy.pt was stopped: it takes more than 0 s for a few"
    ):
        within_bounds(lambda: program(torch.zeros(1, 3)), PATH, seconds=0.01)
    (thread,) = (thread for thread in threading.enumerate() if thread.name == NAME)
    assert thread.daemon, "a command would wait for it"
    thread.join()
    assert time.monotonic() - began > 0.02, "the program is too short for the test"


def test_a_program_that_takes_too_much_memory_is_stopped(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    loaded = load_torchscript(script(Large(), tmp_path / "policy.pt"))
    with pytest.raises(InputError, match=rf"takes more than 1,024 MiB; .*set {LIMIT} above 512"):
        loaded.fitted("a task", VECTOR, MOVES)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_results_and_errors_are_those_of_the_function() -> None:
    assert within_bounds(lambda: 3, PATH) == 3

    def fails() -> None:
        raise InputError("It says so itself.")

    with pytest.raises(InputError, match="itself"):
        within_bounds(fails, PATH)


def test_a_command_ends_although_a_program_does_not(tmp_path: Path) -> None:
    class Endless(nn.Module):
        def forward(self, seen: Tensor) -> Tensor:
            for _ in range(1_000_000):
                for _ in range(1_000_000):
                    seen = torch.neg(seen)
            return seen

    path = script(Endless(), tmp_path / "policy.pt")
    words = ["rltransfer", "evaluate", str(path), "--task", "CartPole-v1"]
    code = (
        "import sys; from rltransfer.importers import trial; from rltransfer.cli.main import main;"
        f"trial.within_bounds.__defaults__ = (0.5,); sys.argv = {words}; sys.exit(main())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 2, ran.stderr
    assert ran.stderr.splitlines()[-1].endswith("or never ends.")
