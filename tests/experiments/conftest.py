"""What short experiments have: their runs in this process, after a brief look at the teacher."""

from __future__ import annotations

import pytest
from in_turn import one_by_one

from rltransfer.experiments.common import comparison, trials


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch, brief_check: None) -> None:
    """Runs trials and comparisons one by one, without new processes."""
    for module in (comparison, trials):
        monkeypatch.setattr(module, "run_parallel", one_by_one)
