"""A server on loopback that answers as the Hugging Face hub does, for tests."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

REPO = "owner/dqn-CartPole-v1"
OLD, NEW = "1" * 40, "2" * 40
REVISIONS = {"main": NEW, "v1": OLD, OLD: OLD, NEW: NEW}

Files = Mapping[tuple[str, str], bytes]
"""Content by commit and file."""


@dataclass
class Hub:
    """What is served, and what was asked for."""

    files: Files
    port: int
    requests: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def serving(files: Files) -> Iterator[Hub]:
    """Serves the files of `REPO` until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        """Answers `HEAD` and `GET` of `/OWNER/NAME/resolve/REVISION/FILE`."""

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.wfile.write(self.answer())

        def answer(self) -> bytes:
            """Sends the head of an answer, and returns its body."""
            hub.requests.append(f"{self.command} {self.path}")
            repo, _, rest = self.path.strip("/").partition("/resolve/")
            revision, _, file = rest.partition("/")
            commit = REVISIONS.get(revision, "")
            content = files.get((commit, file)) if repo == REPO else None
            if content is None:
                missing = "EntryNotFound" if commit else "RevisionNotFound"
                self.send_response(404)
                self.send_header("X-Error-Code", missing if repo == REPO else "RepoNotFound")
                content = b""
            else:
                self.send_response(200)
                self.send_header("X-Repo-Commit", commit)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            return content

        def log_message(self, *arguments: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub = Hub(files, server.server_port)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield hub
        server.shutdown()
        thread.join()


def point_at(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets what the hub's library reads from its environment variables when it is imported."""
    from huggingface_hub import constants

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
