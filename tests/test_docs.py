"""README and docs: what they show works, links lead somewhere, what is exported is on a page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import doc_blocks
import pytest
from doc_blocks import PAGES, ROOT, blocks, run_folders, run_page, show_help

import rltransfer
from rltransfer.aliases import ELSEWHERE, FORMER
from rltransfer.cli.experiment import experiment_names
from rltransfer.learning import methods

HERE = ("README.md", "docs/teachers.md")
"""The pages that are run here; tests/test_docs_pages.py runs the others at the same time."""


@pytest.mark.parametrize("page", HERE)
def test_what_a_page_shows_works(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page, monkeypatch, capsys)


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def prose(page: str) -> str:
    """Returns a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S)


def in_backticks(page: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def test_no_two_examples_use_the_same_folder() -> None:
    """The second of two would be refused; a page on GPUs is followed in an empty folder."""
    folders = [one for page in PAGES if page != "docs/gpu-checks.md" for one in run_folders(page)]
    assert len(folders) > 20 and len(set(folders)) == len(folders), sorted(folders)
    checks = run_folders("docs/gpu-checks.md")
    assert len(set(checks)) == len(checks)


def test_the_readme_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_one_that_is_tested(page: str) -> None:
    kinds = {block.language for block in blocks(page)}
    assert kinds <= {*doc_blocks.RUNNERS, "text"}
    # A block by indentation would not be found.
    assert not re.findall(r"^\n {4,}\S.*$", prose(page), re.M)


def anchors(page: str) -> set[str]:
    """Returns what GitHub calls a page's headings in links."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: str) -> Iterator[tuple[str, str]]:
    """Yields the files, from the root, and the headings that a page links to."""
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        path, _, anchor = target.replace("\n", " ").partition("#")
        whole = (ROOT / page).parent / path if path else ROOT / page
        yield str(whole.resolve().relative_to(ROOT)), anchor


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for path, anchor in links(page):
        assert (ROOT / path).exists(), path
        assert not anchor or anchor in anchors(path), f"{path}#{anchor}"


def test_the_readme_links_to_every_page() -> None:
    assert {path for path, _ in links("README.md")} >= set(PAGES) - {"README.md"}


ELSEWHERE_OPTIONS = {"--nproc-per-node"}
"""Options of torchrun."""


def test_options_in_the_text_exist(capsys: pytest.CaptureFixture[str]) -> None:
    agents = methods.method_names()
    for words in (
        *(["train", agent] for agent in agents), ["evaluate"], ["export"], ["curves"], ["report"],
        ["sensitivity"], ["teachers", "check"], ["train", "sb3"],
        *(["benchmark", what] for what in ("rollout", "learner", "teachers")),
        *(["experiment", "run", name] for name in experiment_names()),
        ["benchmark", "train", agents[0]],
    ):  # fmt: skip
        show_help([*words, "--help"])
    known = set(re.findall(r"--[a-z][\w-]+", capsys.readouterr().out))
    known |= {f"--{name.replace('_', '-')}" for name in (*FORMER, *ELSEWHERE)} | ELSEWHERE_OPTIONS
    for page in PAGES:
        named = {option for code in in_backticks(page) for option in re.findall(r"--[\w-]+", code)}
        assert named <= known, page


@pytest.mark.parametrize("page", PAGES)
def test_python_names_in_the_text_exist(page: str) -> None:
    for code in in_backticks(page):
        for names in re.findall(r"\brt((?:\.\w+)+)", code):
            found: object = rltransfer
            for name in names[1:].split("."):
                found = getattr(found, name)


def test_the_table_of_option_names_is_whole() -> None:
    rows = re.findall(r"^\| `--([\w-]+)`.* \| (`--.*`) \|$", text_of("docs/methods.md"), re.M)
    told = {
        other.replace("-", "_"): option.replace("-", "_")
        for option, others in rows
        for other in re.findall(r"`--([\w-]+)`", others)
    }
    # `share` is an option of a composition, told below the table.
    assert told == {name: now for name, now in {**FORMER, **ELSEWHERE}.items() if name != "share"}


def test_everything_exported_is_on_a_page() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| \[.*\]\((.*)\) \|$", text_of("docs/python.md"), re.M)
    told = dict(rows)
    assert len(told) == len(rows)
    assert told.keys() >= set(rltransfer.__all__)
    for name, path in told.items():
        module = ast.parse((ROOT / "docs" / path).read_text())
        defined = {getattr(node, "name", "") for node in module.body}
        targets = [node.targets[0] for node in module.body if isinstance(node, ast.Assign)]
        defined |= {target.id for target in targets if isinstance(target, ast.Name)}
        assert name in defined or path.endswith("__init__.py"), f"{name} is not from {path}"


def test_every_test_that_needs_a_gpu_is_listed() -> None:
    page = text_of("docs/gpu-checks.md")
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text()
        if "cuda.is_available()" not in text or path == Path(__file__):
            continue
        name = str(path.relative_to(ROOT))
        marks = r"@(?:needs_cuda|pytest\.mark\.skipif\(not torch\.cuda.*)\n(?:@.*\n)*def (\w+)"
        for test in re.findall(marks, text):
            assert f"{name}::{test}" in page
        assert name in page


def test_the_packages_example_names_what_there_is() -> None:
    assert rltransfer.__doc__ is not None
    for name in re.findall(r"rt\.([a-z_]+)", rltransfer.__doc__):
        assert hasattr(rltransfer, name)
