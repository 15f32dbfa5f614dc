"""A fixed part of the attack; `make attack` runs all of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

INPUTS = 500


def test_changed_files_load_or_are_refused_in_one_sentence() -> None:
    script = Path(__file__).parent / "attack"
    ran = subprocess.run(
        [sys.executable, str(script), "--inputs", str(INPUTS)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    # input, loaded, refused, and six kinds of faults
    last = re.search(r"^all +(\d+) +(\d+)( +0){6}$", ran.stdout, re.MULTILINE)
    assert last is not None, ran.stdout
    assert int(last[1]) + int(last[2]) == INPUTS
    assert int(last[1]) > 50 and int(last[2]) > 50, "hardly any input is changed, or all are broken"
