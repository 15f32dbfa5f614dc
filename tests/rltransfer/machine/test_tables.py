"""Tables at several widths: what tells tasks apart is kept, columns go before names do."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from rltransfer.machine.tables import FittedTable, split_front
from rltransfer.runs.progress import live_tables
from rltransfer.runs.report import result_table

GAMES = [f"rltransfer/MinAtar-{game}-v0" for game in ("Asterix", "Breakout", "Freeway", "Seaquest")]
GOALS = [f'rltransfer/TwoRooms-v0{{"goal": {goal}}}' for goal in range(16)]
ROW = {
    "random_return_mean": 0.4, "return_mean": 72.4, "return_ci95": 14.1,
    "teacher_return_mean": 76.6, "teacher_return_ci95": 14.5,
}  # fmt: skip


def printed(width: int, *tables: Any) -> str:
    out = io.StringIO()
    console = Console(width=width, file=out)
    for table in tables:
        console.print(table)
    return out.getvalue()


def results(names: list[str]) -> FittedTable:
    tasks = dict.fromkeys(names, ROW)
    return result_table(
        [{"teacher_parameters": 131_000, "student_parameters": 33_518, "tasks": tasks}]
    )


def progress(names: list[str]) -> list[FittedTable]:
    cells = {"done": "14 %", "steps": "4,096,000", "steps/s": "12,315", "left": "11 min 3 s"}
    values = dict.fromkeys(names, "72.4")
    by_task = {"teacher": values, "return": values, "training return": values}
    return live_tables("ppo on a suite", {**cells, "agreement": "0.098"}, by_task)


def test_the_shared_front_of_names() -> None:
    assert split_front(GAMES[:2]) == ("rltransfer/MinAtar-", ["Asterix-v0", "Breakout-v0"])
    assert split_front(GAMES[:1]) == ("rltransfer/", ["MinAtar-Asterix-v0"])
    assert split_front(GOALS[:2]) == ("rltransfer/TwoRooms-v0", ['{"goal": 0}', '{"goal": 1}'])
    # Not within a word, and not within the keyword arguments.
    assert split_front(["CartPole-v1", "CarRacing-v3"]) == ("", ["CartPole-v1", "CarRacing-v3"])
    assert split_front(["A-v0", "A-v0{}"]) == ("A-", ["v0", "v0{}"])


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("names", [GAMES[:1], GAMES, GOALS], ids=["1", "4", "16"])
def test_what_tells_tasks_apart_is_whole_at_any_width(width: int, names: list[str]) -> None:
    _, rests = split_front(names)
    for shown in (printed(width, results(names)), printed(width, *progress(names))):
        assert max(map(len, shown.splitlines())) <= width
        assert "…" not in shown
        if len(names) > 1 or "student" in shown:
            assert all(rest in shown for rest in rests)
    assert "72.4 ± 14.1" in printed(width, results(names))
    # A front is cut once, into the title.
    shown = printed(width, results(names))
    assert shown.count("rltransfer/") == (1 if "..." in shown else len(names))


def test_columns_go_in_their_order() -> None:
    table = FittedTable(("task", "a" * 10, "b" * 10), optional=("b" * 10, "a" * 10))
    table.add_row("N/one", "1", "2")
    table.add_row("N/two", "1", "2")
    assert "N/one" in printed(60, table)
    assert "N/one" not in printed(34, table) and "bbb" in printed(34, table)
    assert "bbb" not in printed(24, table) and "aaa" in printed(24, table)
    assert "aaa" not in printed(12, table) and "one" in printed(12, table)


def test_names_that_do_not_fit_are_folded() -> None:
    name = "A-Name-" + "x" * 60
    shown = printed(40, results([name]))
    assert "72.4 ± 14.1" in shown
    assert "".join(line.split("│")[1].strip() for line in shown.splitlines() if "│" in line) == name


def test_brackets_in_names_are_no_markup() -> None:
    assert "a[/b]" in printed(120, results(["a[/b]"]))
