"""README and docs: what they show works, what they link to is there, what is exported is on a page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import doc_blocks
import pytest
from doc_blocks import PAGES, ROOT, blocks, run_page

import rltransfer
from rltransfer.aliases import ELSEWHERE, FORMER
from rltransfer.cli import parsing
from rltransfer.cli.benchmark import BENCHMARKS, BenchmarkOptions, RunLength
from rltransfer.cli.evaluate import EvaluateOptions
from rltransfer.cli.experiment import experiments
from rltransfer.cli.export import ExportOptions
from rltransfer.cli.train import TrainOptions
from rltransfer.learning import methods
from rltransfer.runs.config import RunOptions
from rltransfer.runs.stopwatch import Measuring

HERE = ("README.md", "docs/teachers.md")
"""The pages that are run here; tests/test_docs_pages.py runs the others at the same time."""


@pytest.mark.parametrize("page", HERE)
def test_what_a_page_shows_works(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page, monkeypatch, capsys)
