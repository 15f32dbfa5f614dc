"""The package's face: names that load when they are used, and that type checkers know."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rltransfer

ROOT = Path(__file__).parents[2]

TYPED = """\
from pathlib import Path

import rltransfer as rt
from rltransfer import agents


def expect(run: rt.Run, options: rt.RunOptions, network: rt.policies.Network) -> None: ...


method = rt.agents.PPO(num_envs=4, network=rt.policies.mlp())
run = rt.train(method, suite="CartPole-v1", run_dir=Path("run"), total_steps=2_000)
expect(run, rt.RunOptions(seed=1), agents.PPO().network)
rt.agents.PPO(num_envs="many")  # wrong
agents.PPO(learning_rate="fast")  # wrong
rt.train(method, suite="CartPole-v1", run_dir="run", total_steps="x")  # wrong
rt.train(method, suite="CartPole-v1", run_dir="run", total_stesp=1)  # wrong
rt.trian(method, suite="CartPole-v1", run_dir="run")  # wrong
"""


def test_type_checkers_see_the_names_that_load_lazily() -> None:
    tree = ast.parse(Path(rltransfer.__file__).read_text())
    (seen,) = (node.body for node in tree.body if ast.unparse(node).startswith("if TYPE_CHECKING"))
    imports = {
        alias.asname: node.module
        for node in seen
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name == alias.asname
    }
    assert imports == rltransfer._MODULE_OF
    assert len(imports) == len(seen)


def test_every_name_loads() -> None:
    assert {"Observation", "TrainingContext", "RunOptions", "agents"} <= set(rltransfer.__all__)
    for name in rltransfer.__all__:
        assert getattr(rltransfer, name) is not None
        assert name in dir(rltransfer)
    with pytest.raises(AttributeError, match="module 'rltransfer' has no attribute 'trian'"):
        rltransfer.trian  # type: ignore[attr-defined]  # noqa: B018


def test_importing_registers_environments_and_loads_no_torch() -> None:
    code = (
        "import sys, gymnasium, rltransfer; gymnasium.spec('rltransfer/Maze-v0');"
        "gymnasium.spec('rltransfer/MinAtar-Breakout-v0'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_type_checker_finds_options_of_the_wrong_type(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "typed.py").write_text(TYPED)
    # The project's own settings and cache: `make lint` has checked the package itself.
    words = [
        "--config-file",
        str(ROOT / "pyproject.toml"),
        "--cache-dir",
        str(ROOT / ".mypy_cache"),
    ]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *words, "typed.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [int(line) for line in re.findall(r"^typed\.py:(\d+): error", checked.stdout, re.M)]
    lines = TYPED.splitlines()
    assert found == [number for number, line in enumerate(lines, 1) if line.endswith("# wrong")]
    assert f"Found {len(found)} errors in 1 file" in checked.stdout
