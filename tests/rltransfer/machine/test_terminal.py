"""What is printed: names of users as they are, and devices that have no values."""

from __future__ import annotations

import os
import sys

import pytest
from rich.table import Table

from rltransfer.errors import InputError
from rltransfer.machine.devices import existing_device
from rltransfer.machine.terminal import console, print_line
from rltransfer.runs.progress import Progress

NAMES = ["runs/a[/b]", "runs/ppo[lr=0.1]", "[red]x", ":smile:", "\\[x]"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(name, title=name)
    table.add_row(name)
    console().print(table)
    assert capsys.readouterr().out.count(name) == 3
    print_line(name)
    with Progress(name, 10) as progress:
        progress.show(10, 1.0, {f"return {name}": name})
        # The table of a terminal, whose title, heads and cells are names.
        cells = Table(name, title=name)
        cells.add_row(name)
        progress.console.print(cells)
    assert capsys.readouterr().err.count(name) == 1 + 3 + 3


def test_progress_that_nobody_reads_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    # As with `2>&1 | head -1`, but sure to close the pipe before anything is written.
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        monkeypatch.setattr(sys, "stderr", closed)
        for _ in range(2):
            print_line("a line")
        with Progress("a run", 10) as progress:
            progress.show(10, 1.0, {})
        print("a sentence", file=sys.stderr, flush=True)


CONTROLS = {
    "\x1b[2J\x1b]0;title\x07": r"\x1b[2J\x1b]0;title\x07",  # clears the screen, sets its title
    "left\u202eright": r"left\u202eright",  # turns the direction of writing
    "\x9b31mred": r"\x9b31mred",
    "half \ud800": r"half \ud800",
    "back\x08\x08\r": r"back\x08\x08\r",
    "Grün ± 3 日本": "Grün ± 3 日本",
}


@pytest.mark.parametrize("name", CONTROLS)
def test_control_characters_of_names_are_not_obeyed(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = CONTROLS[name]
    assert str(InputError(f"There is no task {name}.")) == f"There is no task {shown}."
    print_line(name)
    with Progress(name, 10) as progress:
        progress.show(10, 1.0, {"return": name})
    table = Table(name, title=name)
    table.add_row(name)
    console().print(table)
    captured = capsys.readouterr()
    # rich itself removes some characters, such as those that move back.
    text = captured.out + captured.err
    assert all(one.isprintable() or one == "\n" for one in text)
    if "back" not in name:
        assert captured.out.count(shown) == 3 and captured.err.count(shown) >= 2


@pytest.mark.parametrize("name", ["meta", "hpu", "privateuseone", "nothing"])
def test_devices_without_values_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"There is no device '{name}': available are cpu"):
        existing_device(name)
