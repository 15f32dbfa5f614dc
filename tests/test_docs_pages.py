"""The pages that tests/test_docs.py does not run: two files, so that two workers share them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import doc_blocks
import pytest
from doc_blocks import PAGES, ROOT, run_page
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_docs import HERE

from rltransfer.cli.main import main
from rltransfer.learning import methods


@pytest.fixture(autouse=True)
def as_installed() -> Iterator[None]:
    """Forgets what a page installed."""
    yield
    doc_blocks.forget_installed()


@pytest.mark.parametrize("page", [page for page in PAGES if page not in HERE])
def test_what_a_page_shows_works(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page, monkeypatch, capsys)


def test_every_curve_is_on_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pages = (ROOT / "docs/methods.md").read_text() + (ROOT / "docs/runs.md").read_text()
    teacher = tmp_path / "ppo"
    rooms = ("--task", "rltransfer/TwoRooms-v0", "--task-option", "observation=one-hot")
    runs = {
        "ppo": ("--task", "CartPole-v1"),
        "pqn": ("--task", "CartPole-v1"),
        "policy-distillation": (
            "--task", "CartPole-v1", "--teacher", str(teacher), "--teacher-acts", "0",
            "--distillation-weight", "lag", "--reinforcement-weight", "1",
            "--init-from", str(teacher), "--l2-to-source", "0.1",
            "--ewc-from", str(teacher), "--ewc-weight", "1",
        ),
        "actor-mimic": ("--task", "CartPole-v1", "--teacher", str(teacher)),
        "progressive": ("--task", "CartPole-v1", "--columns", str(teacher)),
        "progressive-pqn": ("--task", "CartPole-v1", "--columns", str(tmp_path / "pqn")),
        "distral": rooms,
        "soft-q": rooms,
    }  # fmt: skip
    assert runs.keys() == set(methods.method_names())
    logged = set()
    for agent, words in runs.items():
        command = ["train", agent, *words, "--run-dir", agent, "--evaluate-every", "16", "--quiet"]
        # Long enough for an episode's end.
        small = {"total-steps": "512", "rollout-length": "32", "num-envs": "4", "episodes": "1"}
        command += [word for name, value in small.items() for word in (f"--{name}", value)]
        assert main([*command, "--evaluate-episodes", "1"]) == 0
        curves = EventAccumulator(agent, {"scalars": 0})
        curves.Reload()
        tags = curves.Tags()["scalars"]
        assert len(tags) > 5
        for tag in tags:
            told = re.sub(r"(CartPole-v1|rltransfer/TwoRooms-v0.*)$", "TASK", tag)
            told = re.sub(r"layer-\d+-column-\d+$", "layer-L-column-C", told)
            if tag.startswith("final/"):
                continue  # documented together
            assert f"`{told}`" in pages, tag
            logged.add(told)
    kinds = "train|speed|rollout|evaluate|reference|all_tasks"
    documented = set(re.findall(rf"`((?:{kinds})/[\w/-]+)`", pages))
    # The chart of all returns, histograms, another objective, continuous actions, and the names of
    # earlier versions.
    others = {"evaluate/return", "evaluate/returns/TASK", "train/mse", "train/action_error",
              "speed/teacher_share", "speed/collect_share", "train/regularizer_share"}  # fmt: skip
    assert documented == logged | others
