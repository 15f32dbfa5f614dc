"""The HTML page in a browser: it draws, needs no network, runs no stranger's script."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import Page, chromium, find_chromium
from fake_runs import distillation, make_run, taught_by

import rltransfer as rt
from rltransfer.metrics import mean_interval

pytest.importorskip("bokeh")
PROGRAM = find_chromium()

ATTACK = "</script><script>window.attacked=1</script><img src=x onerror='window.attacked=2'>"
"""A name that runs a script where it is not escaped."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two groups; the second has names that attack the page, and a run cut short."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        make_run(folder / f"ppo-{seed}", seed=seed, returns=(0, 2, 4, 6, 8 + seed))
        make_run(
            folder / f"student-{seed}", agent=f"evil {ATTACK}", method=distillation("zoo"),
            seed=seed, returns=(4, 8, 9, 9, 9)[: 3 if seed == 2 else 5], finished=seed < 2,
            teacher=10.0, changes=taught_by(f"teachers/{ATTACK}"),
        )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def page(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if PROGRAM is None:
        pytest.skip("there is no Chromium")
    folder = tmp_path_factory.mktemp("page")
    path = rt.report(runs).write(folder / "report.html")
    profile = tmp_path_factory.mktemp("profile")
    with chromium(PROGRAM, profile) as opened:
        opened.open(path)
        opened.wait_for("document.documentElement?.dataset.drawn")
        yield opened


def cells(page: Page, title: str) -> dict[str, dict[str, str]]:
    """A table by row and column, read off the page."""
    find = (
        f"[...document.querySelectorAll('h2, h3')].find(e => e.textContent == {title!r})"
        ".nextElementSibling"
    )
    rows: Any = page.value(
        f"[...{find}.querySelectorAll('tr')].map(r => [...r.cells].map(c => c.innerText))"
    )
    head, *body = [[cell.replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in rows]
    return {row[0]: dict(zip(head, row, strict=True)) for row in body}


def test_the_table_has_the_numbers_of_the_results(page: Page, runs: Path) -> None:
    finals = [
        json.loads((runs / f"ppo-{seed}" / "result.json").read_text())["tasks"]["CartPole-v1"]
        for seed in range(3)
    ]
    found = mean_interval([one["return_mean"] for one in finals])
    row = cells(page, "Transfer on CartPole-v1")["ppo"]
    assert row["final return"] == f"{found.estimate:.1f} ({found.low:.1f} to {found.high:.1f})"
    assert row["seeds"] == "3"
    student = cells(page, "Transfer on CartPole-v1")[f"evil {ATTACK}"]
    assert student["seeds"] == "2 + 1 cut short"


def test_every_figure_is_drawn_with_the_numbers_of_the_runs(page: Page) -> None:
    assert page.value("document.documentElement.dataset.drawn") == "2"
    assert page.value("document.querySelectorAll('.figure > *').length") == 2
    size = page.value("document.querySelector('.figure > *').getBoundingClientRect().width")
    assert size > 500
    drawn = page.value(
        "Bokeh.documents.flatMap(d => [...d._all_models.values()])"
        ".filter(m => m.type == 'ColumnDataSource' && m.data.group)"
        ".map(m => [m.data.group[0], [...m.data.x], [...m.data.y]])"
    )
    # The mean of 8, 9 and 10 at the end, and the mean of equal runs.
    assert ["ppo", [0, 250, 500, 750, 1000], [0, 2, 4, 6, 9]] in drawn


TEXTS = """
(function all(node) {
    if (node.nodeType == Node.TEXT_NODE) return node.data;
    if (["STYLE", "SCRIPT"].includes(node.tagName)) return "";
    const inner = node.shadowRoot ? [...node.shadowRoot.childNodes] : [];
    return [...inner, ...node.childNodes].map(all).join("");
})(document.body)
"""
"""All texts of the page, those within the shadows of Bokeh's elements as well."""


def test_hovering_shows_the_values_of_all_groups(page: Page) -> None:
    page.value("document.getElementById('curves-0').scrollIntoView()")
    x, y, width, height = page.value(
        "(b => [b.x, b.y, b.width, b.height])"
        "(document.getElementById('curves-0').getBoundingClientRect())"
    )
    assert "4.00 (4.00 to 4.00), 3 seeds" not in page.value(TEXTS)
    # From left to right, over the middle of the figure: all points are passed.
    shown = []
    for part in range(5, 60):
        page.move_to(x + width * part / 100, y + height / 2)
        shown.append(page.value(TEXTS))
    # Half of the steps, in one tooltip.
    assert any(
        "ppo: 4.00 (4.00 to 4.00), 3 seeds" in text and f"evil {ATTACK}: 9.00" in text
        for text in shown
    )


def test_no_script_of_a_name_runs_and_nothing_is_loaded(page: Page) -> None:
    assert page.value("window.attacked") is None
    assert page.value("document.querySelectorAll('img').length") == 0
    # The icons of Bokeh's tools are in its own code.
    logged = [line for line in page.logged if not line.startswith("request: data:image/")]
    assert len(logged) == 1 and logged[0].startswith("request: file://"), logged


def test_the_data_are_in_the_page(page: Page, runs: Path) -> None:
    found = json.loads(page.value("document.getElementById('report').textContent"))
    assert found == json.loads(json.dumps(rt.report(runs).to_json()))
