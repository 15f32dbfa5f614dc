"""A file on the hub, from a server on loopback that answers as the hub does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_hub import NEW, OLD, REPO, Hub, point_at, serving

from rltransfer.errors import InputError
from rltransfer.importers.hub import fetch, is_on_hub

constants = pytest.importorskip("huggingface_hub.constants")

FILE = "models/dqn-CartPole-v1.zip"
CONTENT = {OLD: b"the first weights", NEW: b"the second weights"}
FILES = {(commit, FILE): content for commit, content in CONTENT.items()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(FILES) as running:
        point_at(running.url, tmp_path / "cache", monkeypatch)
        yield running


def refused(source: str) -> str:
    """Returns the sentence that refuses a source."""
    with pytest.raises(InputError) as caught:
        fetch(source)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


def test_the_newest_file_is_fetched_once(hub: Hub, tmp_path: Path) -> None:
    found = fetch(f"hf:{REPO}/{FILE}")
    assert found.path.read_bytes() == CONTENT[NEW]
    assert found.path.is_relative_to(tmp_path / "cache")
    assert found.path.suffix == ".zip"
    assert found.origin() == {"repo": REPO, "file": FILE, "revision": NEW}
    assert fetch(f"hf:{REPO}/{FILE}") == found
    gets = [
        request for request in hub.requests if request.startswith("GET") and "resolve" in request
    ]
    assert gets == [f"GET /{REPO}/resolve/main/{FILE}"]


def test_a_large_file_is_not_downloaded(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rltransfer.files.untrusted.MIB", 10)  # the limit is then 10 bytes
    monkeypatch.setenv("RLTRANSFER_MAX_FILE_MIB", "1")
    assert "was not opened: its content takes" in refused(f"hf:{REPO}/{FILE}")
    assert not [request for request in hub.requests if request.startswith("GET")]


def test_a_revision_is_a_tag_or_a_commit(hub: Hub) -> None:
    for revision in ("v1", OLD):
        found = fetch(f"hf:{REPO}/{FILE}@{revision}")
        assert found.path.read_bytes() == CONTENT[OLD]
        assert found.revision == OLD


def test_without_a_connection_the_cache_serves(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    source = f"hf:{REPO}/{FILE}"
    found = fetch(source)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(source) == found
    assert "cannot be reached, and the cache has no copy" in refused(f"{source}@v1")


def test_an_endpoint_that_nobody_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Port 9 of loopback is the discard service, which nothing runs today.
    point_at("http://127.0.0.1:9", tmp_path, monkeypatch)
    # The library tries again with pauses of up to eight seconds.
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    said = refused(f"hf:{REPO}/{FILE}")
    assert "the hub at http://127.0.0.1:9 cannot be reached" in said


def test_what_is_not_there_is_named(hub: Hub) -> None:
    assert "no such repository" in refused(f"hf:owner/nothing/{FILE}")
    assert "no such revision" in refused(f"hf:{REPO}/{FILE}@v9")
    assert "no such file" in refused(f"hf:{REPO}/other.zip")
    assert "the name of the repository is not valid" in refused(f"hf:owner/bad--name/{FILE}")


@pytest.mark.parametrize("source", ["hf:", "hf:owner/name", "hf:owner", "hf:a/b/c.zip@", "x.zip"])
def test_what_names_no_file_is_refused(source: str) -> None:
    assert "write hf:OWNER/NAME/FILE" in refused(source)


@pytest.mark.parametrize(
    "source",
    [
        "hf:o/r/d.zip@../../../outside", "hf:o/r/d.zip@a/../../b", "hf:o/r/../../d.zip",
        "hf:../r/d.zip", "hf:o/../d.zip", "hf:o/r/d.zip@/etc/x", "hf:o/r//d.zip", "hf:o/r/.d/x.zip",
        "hf:o/r/d.zip@a\nb", "hf:o/r/d.zip@a\\b", "hf:o/r/d.zip@%2e%2e/x", "hf:o/r/d.zip@a b",
    ],
)  # fmt: skip
def test_names_that_lead_out_of_the_cache_are_refused_before_a_request(
    source: str, hub: Hub
) -> None:
    assert "write hf:OWNER/NAME/FILE" in refused(source)
    assert hub.requests == []


def test_only_sources_with_the_prefix_are_on_the_hub() -> None:
    assert is_on_hub("hf:a/b/c.zip")
    assert not is_on_hub("runs/hf:a") and not is_on_hub("zoo")


def test_the_endpoint_is_the_variable_of_the_hub_library(tmp_path: Path) -> None:
    code = f"from rltransfer.importers.hub import fetch; print(fetch('hf:{REPO}/{FILE}').revision)"
    with serving(FILES) as hub:
        said = subprocess.run(
            [sys.executable, "-c", code],
            env={
                **os.environ,
                "HF_ENDPOINT": hub.url,
                "HF_HOME": str(tmp_path),
                "NO_PROXY": "127.0.0.1",
            },
            capture_output=True,
            text=True,
            check=True,
        )
    assert said.stdout == NEW + "\n"
