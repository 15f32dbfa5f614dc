"""Imports run one way: experiments -> agents, envs -> rltransfer, and down the core's folders."""

from __future__ import annotations

import house


def test_every_folder_of_the_core_is_known() -> None:
    folders = {path.parent.name for path in house.CORE.glob("*/__init__.py")}
    assert folders - set(house.PACKAGES) == set(house.FOLDERS) - {""}


def test_the_core_imports_downwards() -> None:
    for name in house.core():
        for one in house.own_imports(name) & house.core_set():
            above, below = (house.FOLDERS.index(house.folder_of(two)) for two in (name, one))
            assert above <= below, f"{name} imports {one}, which is above it"


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    assert not list(house.circles())


def test_there_are_few_floors_and_few_arrows() -> None:
    assert max(map(house.folder_floor, house.FOLDERS)) <= 12
    assert len(house.folder_arrows()) <= 66


def test_the_core_knows_no_method_and_no_environment() -> None:
    others = ("rltransfer.agents", "rltransfer.envs", "rltransfer.experiments")
    for name in house.core():
        for one in house.imports(name):
            assert not one.startswith((*others, "ale_py", "warp", "stable_baselines3")), name


def test_the_core_does_not_go_round_by_the_packages_face() -> None:
    # `import rltransfer as rt; rt.Run` would reach every folder; the command line has the version.
    for name in house.core():
        if name != "rltransfer.cli.main":
            assert "rltransfer" not in house.imports(name), name
            assert 'import_module("rltransfer' not in house.modules()[name].read_text(), name


def test_agents_and_environments_do_not_know_each_other() -> None:
    for folder, other in (("agents", "envs"), ("envs", "agents")):
        for name in house.modules():
            if name.startswith(f"rltransfer.{folder}"):
                for one in house.imports(name):
                    assert not one.startswith((f"rltransfer.{other}", "rltransfer.experiments"))
