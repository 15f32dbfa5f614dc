"""Threads: their number follows from the work, and waiting ones do not spin."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from rltransfer.errors import InputError
from rltransfer.machine.threads import (
    WORK_PER_THREAD,
    available,
    checked_threads,
    number_for,
    one_thread,
    restored,
    use_threads,
)


def test_the_number_follows_from_the_work() -> None:
    quarter = WORK_PER_THREAD // 4
    found = {work: number_for(work * quarter, most=4) for work in (0, 1, 4, 7, 8, 12, 16, 400)}
    # A whole WORK_PER_THREAD for each thread, from one to four.
    assert found == {0: 1, 1: 1, 4: 1, 7: 1, 8: 2, 12: 3, 16: 4, 400: 4}


def test_a_number_is_checked() -> None:
    assert [checked_threads(value) for value in ("auto", 0, 3.0, np.int64(2))] == ["auto", 0, 3, 2]
    for value in ("2", "Auto", -1, 1.5, 10**9, True):
        with pytest.raises(InputError, match=r"^threads is "):
            checked_threads(value)  # type: ignore[arg-type]


def test_the_number_before_is_restored() -> None:
    before = torch.get_num_threads()
    with restored():
        use_threads(before + 2)
        use_threads(0)
        use_threads("auto")
        assert torch.get_num_threads() == before + 2
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == before + 2
    assert torch.get_num_threads() == before


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    with restored():
        torch.set_num_threads(4)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        assert available() == 4
        found = []
        for processes in (2, 3, 8):
            monkeypatch.setenv("WORLD_SIZE", str(processes))
            monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
            found.append(available())
        assert found == [2, 1, 1]
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
        assert available() == 4


@pytest.mark.parametrize(("given", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_that_wait_do_not_spin(given: str | None, found: str) -> None:
    """The variable is set before OpenMP reads it, which is when torch is loaded."""
    code = (
        "import os, sys, rltransfer; assert 'torch' not in sys.modules; "
        "print(os.environ['OMP_WAIT_POLICY'])"
    )
    rest = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    env: dict[str, Any] = {**rest, **({"OMP_WAIT_POLICY": given} if given else {})}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == found
