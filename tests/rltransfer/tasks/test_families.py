"""Entry points of other packages: what is wrong with one is said, and the others stay."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

import rltransfer as rt
from rltransfer import entry_points
from rltransfer.cli import experiment
from rltransfer.learning import methods
from rltransfer.tasks import families


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    families.families.cache_clear()
    yield
    families.families.cache_clear()


def add(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Lets every group have an entry more."""
    found = entry_points.entries

    def entries(group: str) -> list[EntryPoint]:
        return [*found(group), EntryPoint(name, value, group)]

    for module in (entry_points, families, methods, experiment):
        monkeypatch.setattr(module, "entries", entries)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("rltransfer.envs.minatar:FAMILI", r"cannot be loaded: AttributeError: .*FAMILI"),
        ("nowhere.at.all:X", "cannot be loaded: ModuleNotFoundError: No module named 'nowhere'"),
        ("rltransfer.tasks.task:Task", "is not an EnvFamily: it must be an instance"),
        ("rltransfer.errors:FEW", "is not an EnvFamily: it must be an instance"),
    ],
)
def test_a_broken_family_takes_nothing_else_away(
    monkeypatch: pytest.MonkeyPatch, value: str, words: str
) -> None:
    names = [family.name for family in families.families()]
    families.families.cache_clear()
    add(monkeypatch, "mine", value)
    with pytest.warns(RuntimeWarning, match=rf"mine = '{value}' in rltransfer.envs {words}"):
        assert [family.name for family in families.families()] == names


def test_a_broken_agent_or_experiment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, "mine", "nowhere:X")
    for find in (methods.find_method, experiment.find_experiment):
        with pytest.raises(rt.InputError, match=r"entry point mine = 'nowhere:X' in rltransfer\."):
            find("mine")
    # None of the others is loaded, or lost.
    assert "mine" in experiment.experiment_names() and "mine" in methods.method_names()
    assert experiment.find_experiment("zoo").__name__ == "Zoo"
    assert methods.find_method("ppo") is rt.agents.PPO


def test_what_is_no_method_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, "mine", "rltransfer.errors:unknown")
    with pytest.raises(rt.InputError, match="is not a Method: it must be a class"):
        methods.find_method("mine")


def test_what_names_no_task_is_told() -> None:
    with pytest.raises(rt.InputError, match="None is not a task: pass a suite"):
        families.as_suite(None)  # type: ignore[arg-type]
