"""The experiment of which game helps which: its runs, its choices and its page."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from rltransfer.errors import InputError
from rltransfer.experiments.actor_mimic.experiment import NETWORK
from rltransfer.experiments.taskonomy.experiment import RANDOM, Taskonomy
from rltransfer.experiments.taskonomy.selection import Gains, best_selection
from rltransfer.metrics.curves import Curve

TASKS = ("a", "b", "c", "d")


def by_enumeration(tasks: Sequence[str], gains: Gains, budget: int) -> float:
    """The most that any choice gains: each other task takes its best source, or none."""
    return max(
        sum(
            max(0.0, *(gains.get(source, {}).get(task, 0.0) for source in sources))
            for task in tasks
            if task not in sources
        )
        for count in range(1, budget + 1)
        for sources in itertools.combinations(tasks, count)
    )


def test_no_other_choice_gains_more() -> None:
    generator = np.random.default_rng(0)
    for _ in range(30):
        table = generator.normal(0.2, 1.0, (4, 4)).round(2)
        gains = {
            s: {t: float(table[i, j]) for j, t in enumerate(TASKS) if i != j}
            for i, s in enumerate(TASKS)
        }
        for budget in (1, 2, 3, 9):
            found = best_selection(TASKS, gains, budget)
            assert found.gain == pytest.approx(by_enumeration(TASKS, gains, budget))
            assert len(found.sources) <= budget
            assert set(found.starts.values()) == set(found.sources)
            assert not set(found.starts) & set(found.sources)


def test_a_choice_by_hand() -> None:
    gains = {"a": {"b": 0.3, "c": 0.5, "d": -0.2}, "b": {"a": 0.6, "d": 0.1}, "d": {"b": 0.4}}
    one = best_selection(TASKS, gains, 1)
    assert (one.sources, one.starts) == (("a",), {"b": "a", "c": "a"})
    assert one.gain == pytest.approx(0.8)
    # "a" and "b" would gain 0.6 alone, as "a" could not start from "b".
    two = best_selection(TASKS, gains, 2)
    assert (two.sources, two.starts) == (("a", "d"), {"c": "a", "b": "d"})
    assert two.gain == pytest.approx(0.9)
    nothing = best_selection(TASKS, {"a": {"b": -0.1}}, 2)
    assert (nothing.sources, nothing.starts, nothing.gain) == ((), {}, 0.0)


@pytest.mark.parametrize(
    ("gains", "budget", "sentence"),
    [
        ({}, 0, "A budget of 0 has no source"),
        ({"a": {"x": 1.0}}, 1, "'x' has gains but is not among the tasks"),
        ({"a": {"b": float("nan")}}, 1, "gain of 'b' from 'a' is nan"),
    ],
)
def test_wrong_gains(gains: Gains, budget: int, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        best_selection(TASKS, gains, budget)


def test_runs() -> None:
    experiment = Taskonomy(seeds=2, games=("Asterix", "Breakout", "Freeway"))
    assert len(experiment.sources()) == 6
    assert all(source.method.student == NETWORK for source in experiment.sources())
    trials = {trial.name: trial for trial in experiment.trials()}
    assert len(trials) == 18
    assert "init_from" not in trials["Breakout-from-random-1"].options
    started = trials["Breakout-from-Freeway-1"]
    assert started.options["init_from"] == "runs/taskonomy/source-Freeway-1"
    assert started.method == trials["Breakout-from-random-1"].method
    with pytest.raises(InputError, match="at least two"):
        Taskonomy(games=("Asterix",))


def curve(height: float) -> Curve:
    return Curve(np.array([1e5, 2e5, 3e5]), np.full(3, height))


def test_the_page_by_hand() -> None:
    games = ("Asterix", "Breakout")
    curves = {
        "Asterix": {RANDOM: [curve(1.0), curve(1.1)], "Breakout": [curve(3.0), curve(3.1)]},
        "Breakout": {RANDOM: [curve(4.0), curve(4.1)], "Asterix": [curve(2.0), curve(2.1)]},
    }
    page = Taskonomy(games=games, seeds=2).page(curves, {})
    ratios = page.data["area_ratio"]
    assert ratios["Breakout"]["Asterix"]["mean"] == pytest.approx(3.05 / 1.05)
    assert ratios["Asterix"]["Breakout"]["mean"] == pytest.approx(2.05 / 4.05)
    assert "**1 of 2 transfers help; 1 hurt; 0 are undecided**" in page.text
    # Only Asterix gains: (3.05 / 1.05 + 1) / 2.
    assert "| 1 | Breakout | Asterix from Breakout | 1.95 |" in page.text
    assert set(page.pictures) == {"matrix.png", "curves.png"}
