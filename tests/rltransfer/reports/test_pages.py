"""Pages without a browser: their numbers are those of the runs, and names are never markup."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_runs import distillation, make_run, taught_by

import rltransfer as rt
from rltransfer.errors import InputError
from rltransfer.metrics import Interval, mean_interval
from rltransfer.reports.markdown import plain
from rltransfer.reports.sections import format_interval

ATTACK = "<img src=x onerror=alert(1)></script><script>alert(2)</script>{{ 7*7 }}|`x`[a](http://b)"
"""A name that would be markup in either page."""


class Cells(HTMLParser):
    """The tables of a page by their headings, its tags, and the texts of its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self._heading, self._script, self._within = "", "", ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("h2", "h3"):
            self._heading = ""
        elif tag == "table":
            self.tables[self._heading] = []
        elif tag == "tr":
            self.tables[self._heading].append([])
        elif tag in ("td", "th"):
            self.tables[self._heading][-1].append("")
        elif tag == "script":
            self._script = dict(attrs).get("id") or ""
        self._within = tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within in ("h2", "h3"):
            self._heading += data
        elif self._within in ("td", "th"):
            self.tables[self._heading][-1][-1] += data.replace("\N{NO-BREAK SPACE}", " ")
        elif self._within == "script":
            self.scripts[self._script] = self.scripts.get(self._script, "") + data


def read_html(path: Path) -> Cells:
    found = Cells()
    found.feed(path.read_text())
    return found


def read_markdown(path: Path) -> dict[str, list[list[str]]]:
    """The tables of a page of Markdown by their headings, with the escapes undone."""
    tables: dict[str, list[list[str]]] = {}
    heading = ""
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            heading = re.sub(r"\\(.)", r"\1", line.lstrip("# "))
        elif line.startswith("| ") and set(line) != set("| -"):
            cells = re.split(r"(?<!\\) ?\| ?", line)[1:-1]
            row = [re.sub(r"\\(.)", r"\1", cell) for cell in cells]
            tables.setdefault(heading, []).append(row)
    return tables


def row_of(table: list[list[str]], name: str) -> dict[str, str]:
    head = table[0]
    (row,) = (row for row in table[1:] if row[0] == name)
    return dict(zip(head, row, strict=True))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        make_run(folder / f"ppo-{seed}", seed=seed, returns=(0, 2, 4, 6, 8 + seed))
        make_run(
            folder / f"student-{seed}", agent=ATTACK, method=distillation("zoo"), seed=seed,
            returns=(4, 8, 9, 9, 9 + seed), teacher=10.0,
            changes=taught_by(f"teachers/{ATTACK}"),
        )  # fmt: skip
    return folder


@pytest.fixture(scope="module", params=["report.html", "report.md"])
def tables(
    request: pytest.FixtureRequest, runs: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[list[str]]]:
    if request.param.endswith(".html"):
        pytest.importorskip("bokeh")
    path = rt.report(runs).write(tmp_path_factory.mktemp("page") / request.param)
    return read_html(path).tables if path.suffix == ".html" else read_markdown(path)


def test_the_numbers_are_those_of_the_results(
    tables: dict[str, list[list[str]]], runs: Path
) -> None:
    for group, folder in (("ppo", "ppo"), (ATTACK, "student")):
        finals = [
            json.loads((runs / f"{folder}-{seed}" / "result.json").read_text())["tasks"]
            for seed in range(3)
        ]
        found = mean_interval([one["CartPole-v1"]["return_mean"] for one in finals])
        row = row_of(tables["Transfer on CartPole-v1"], group)
        assert row["final return"] == format_interval(found)
        assert row["seeds"] == "3"
    # 9, 10 and 11 of 10: 100 per cent; 4.3027 * 10 / sqrt(3) = 24.8.
    assert row["of the teacher, %"] == "100 (75 to 125)"
    listed = tables["Runs"]
    assert len(listed) == 7
    assert row_of(listed, f"{runs}/ppo-2")["status"] == "finished"
    assert row_of(tables["Groups"], "ppo (baseline)")["seeds"] == "0, 1, 2"
    assert f"Transfer matrix of {' '.join(ATTACK.split())}" in tables


def test_names_are_text_in_html(runs: Path, tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    path = rt.report(runs).write(tmp_path / "report.html")
    page = read_html(path)
    tags = {tag for tag, _ in page.tags}
    assert "img" not in tags and "49" not in {cell for row in page.tables["Groups"] for cell in row}
    # Two scripts of data, two of Bokeh, one that draws; and nothing that is loaded.
    assert [tag for tag, _ in page.tags].count("script") == 5
    assert not any({"src", "href"} & attributes.keys() for _, attributes in page.tags)
    assert json.loads(page.scripts["report"]) == json.loads(json.dumps(rt.report(runs).to_json()))
    # Bokeh and a few tables: what fits into a mail.
    assert 1_000_000 < path.stat().st_size < 2_000_000


def test_names_are_text_in_markdown(runs: Path, tmp_path: Path) -> None:
    text = rt.report(runs).write(tmp_path / "report.md").read_text()
    assert not re.search(r"(?<!\\)<(?!!-- rltransfer report -->)", text)
    assert not re.search(r"(?<!\\)[`\[]", text)
    assert plain("a\n# b_c|d <e> https://f www.g") == (r"a \# b\_c\|d \<e\> https\://f www\.g")


def test_markdown_has_the_curves_as_tables(tables: dict[str, list[list[str]]]) -> None:
    if "Curves of CartPole-v1" in tables:
        rows = tables["Curves of CartPole-v1"]
        assert ["ppo", "500", "4.00 (4.00 to 4.00)", "3"] in rows


def test_without_bokeh_html_is_refused_and_markdown_is_written(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bokeh.embed", None)
    found = rt.report(runs)
    with pytest.raises(InputError, match=r"needs the package .*pip install 'rltransfer\[report\]'"):
        found.write(tmp_path / "report.html")
    assert not list(tmp_path.iterdir())
    assert found.write(tmp_path / "report.md").exists()


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(72.44, 70.1, 74.7, 3), "72.4 (70.1 to 74.7)"),
        (Interval(1234.5, 1200, 1300, 3), "1,234 (1,200 to 1,300)"),
        (Interval(0.01234, 0.01, 0.02, 3), "0.0123 (0.0100 to 0.0200)"),
        (Interval(-0.0001, -0.2, 0.2, 3), "0.000 (-0.200 to 0.200)"),
        (Interval(0.0, 0.0, 0.0, 2), "0.00 (0.00 to 0.00)"),
        (Interval.unknown(72.44, 1), "72.4, no interval (one seed)"),
        (Interval.unknown(1.5, 4), "1.50, no interval"),
        (None, "-"),
    ],
)
def test_intervals_have_three_digits(interval: Interval | None, text: str) -> None:
    assert format_interval(interval) == text
