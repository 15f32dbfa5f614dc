"""What users read is plain English: no word of the project's old dialect is left."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import house
import pytest

DIALECT = {
    r"(?<!there )(?<!There )\b(is|are) no (?!longer|more\b|less\b|better|worse)": "is not a",
    r"\bnumbers of an action\b": "action dimensions",
    r"\b(stands|lies)\b(?! for)": "is, is stored",
    r"\b(goes|go|went|gone|going) on with\b": "resumes",
    r"\bby reinforcement\b(?! learning)": "with RL",
    r"\b(born|made) of\b": "built from",
}
"""Words that no user should have to translate back, and what to write."""

PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/*.md", "experiments/*/*.md")


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a page, or the strings of a module: docstrings, help texts and errors."""
    if path.suffix == ".md":
        yield from enumerate(path.read_text().splitlines(), 1)
        return
    nodes = list(ast.walk(ast.parse(path.read_text())))
    # The words between the braces of an f-string are parts of its sentence.
    parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            words = (part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
            yield node.lineno, "".join(map(str, words))
        elif isinstance(node, ast.Constant) and id(node) not in parts:
            yield node.lineno, str(node.value)


def files() -> list[Path]:
    pages = [path for pattern in PAGES for path in sorted(house.ROOT.glob(pattern))]
    return [*pages, *house.modules().values()]


@pytest.mark.parametrize("pattern", DIALECT)
def test_no_dialect_is_left(pattern: str) -> None:
    found = [
        f"{path.relative_to(house.ROOT)}:{line}: {match[0]!r}"
        for path in files()
        for line, text in texts(path)
        for match in re.finditer(pattern, re.sub(r"\s+", " ", text))
    ]
    assert not found, f"write {DIALECT[pattern]!r}:\n" + "\n".join(found)
