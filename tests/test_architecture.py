"""Imports run one way: experiments -> agents, envs -> rltransfer, and down the core's floors."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent

FLOORS = (
    "errors allocator cuda_graph hardware action episodes linear task schedule observation network "
    "policy policy_output batch exploration lag memory checkpoint serialization tracking "
    "distributed privacy random_observation stacked_layers teacher_spec",
    "vector_env host_env gymnasium_env registry learner teacher reinforcement "
    "teacher_base callable_teacher teacher_text composition per_task wrapper adapted vote "
    "labels divergence objective objective_text output_objectives feature_objectives "
    "stable_baselines3 stable_baselines3_network stable_baselines3_weights "
    "stable_baselines3_spaces vecnormalize stacked_policies "
    "file_module file_teacher hub rsl_rl_checkpoint torch_file torchscript",
    "rollout",
    "agent evaluation metrics result experiment",
    "run run_folder generations evaluate_source benchmark export",
    "cli command_help benchmark_command export_command options task_options report",
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names.split()}


def imports(path: Path) -> set[str]:
    """The modules that a file imports when it runs: not those for the type checker alone."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


def test_every_module_of_the_core_has_a_floor() -> None:
    modules = {path.stem for path in (ROOT / "rltransfer").glob("*.py")} - {"__init__"}
    assert modules == set(FLOOR)


def test_the_core_imports_downwards() -> None:
    for path in (ROOT / "rltransfer").glob("*.py"):
        if path.stem == "__init__":
            continue
        for name in imports(path):
            package, _, module = name.partition(".")
            if package == "rltransfer" and module.split(".")[0] in FLOOR:
                above = FLOOR[module.split(".")[0]] > FLOOR[path.stem]
                assert not above, f"{path.name} imports {name}, which is above it"


def test_the_core_knows_no_method_and_no_environment() -> None:
    for path in (ROOT / "rltransfer").glob("*.py"):
        for name in imports(path):
            assert not name.startswith(("rltransfer.agents", "rltransfer.envs", "ale_py", "warp"))
            assert not name.startswith(("rltransfer.experiments", "stable_baselines3"))


def test_agents_and_environments_do_not_know_each_other() -> None:
    for folder, others in (("agents", "envs"), ("envs", "agents")):
        for path in (ROOT / folder).rglob("*.py"):
            for name in imports(path):
                assert not name.startswith((f"rltransfer.{others}", "rltransfer.experiments"))
