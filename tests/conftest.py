"""What every test has: one thread of torch, the toy tasks, and a folder to train in."""

from __future__ import annotations

import pytest
import torch
import toy

from rltransfer.runs import teacher_check


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small networks on few cores are faster with one thread, and tests run side by side."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def toy_tasks() -> None:
    toy.register()


@pytest.fixture
def brief_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plays a teacher for one episode before a run: as many as its interval needs take long."""
    for bound in ("CHECK_EPISODES", "MAX_EPISODES"):
        monkeypatch.setattr(teacher_check, bound, 1)
