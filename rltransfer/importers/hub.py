"""Files on the Hugging Face hub: `hf:REPO/FILE`, stored in the cache of the hub library.

The library reads its endpoint, cache, token and offline mode from HF_ENDPOINT, HF_HUB_CACHE,
HF_TOKEN and HF_HUB_OFFLINE.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from rltransfer.errors import InputError
from rltransfer.files.untrusted import check_size

PREFIX = "hf:"
"""The beginning of a source on the hub."""

# Each becomes a path in the cache: no part begins with a dot, so that none leads out of it.
_NAME = r"\w[\w.+=-]*"
_FILE = r"\w[\w.+=,() -]*"
FORM = re.compile(
    rf"hf:(?P<repo>{_NAME}/{_NAME})/(?P<file>{_FILE}(?:/{_FILE})*)"
    rf"(?:@(?P<revision>{_NAME}(?:/{_NAME})*))?",
    re.ASCII,
)


@dataclass(frozen=True)
class HubFile:
    """A file of a repository, in the cache."""

    path: Path
    """Where it is stored."""
    repo: str
    """The repository: OWNER/NAME."""
    file: str
    """The path of the file in the repository."""
    revision: str
    """The commit of the file, in hexadecimal."""

    def origin(self) -> dict[str, str]:
        """The `origin` of a `TeacherSpec`."""
        return {"repo": self.repo, "file": self.file, "revision": self.revision}


def is_on_hub(source: str) -> bool:
    """Whether a source is a file on the hub."""
    return source.startswith(PREFIX)


def fetch(source: str) -> HubFile:
    """Downloads a file, unless it is in the cache.

    Without a connection, the cached copy of the revision is used.

    Args:
        source: `hf:REPO/FILE` or `hf:REPO/FILE@REVISION`, e.g.
            "hf:sb3/dqn-CartPole-v1/dqn-CartPole-v1.zip"; the revision is a branch, a tag or a
            commit.

    Raises:
        InputError: The source does not have this form, the repository, revision or file does not
            exist, the file is larger than the limit of `files/untrusted.py`, or the hub cannot be
            reached and the cache does not contain the file.
    """
    match = FORM.fullmatch(source)
    if match is None:
        raise InputError(
            f"{source!r} does not name a file on the Hugging Face hub: write hf:OWNER/NAME/FILE, "
            "and add @REVISION for another revision than the newest, each with letters, digits "
            "and the characters ._+=- only."
        )
    repo, file = match["repo"], match["file"]
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise InputError(
            "A teacher on the Hugging Face hub needs the package huggingface_hub: run "
            "`pip install 'rltransfer[hub]'`."
        ) from error
    _check_size(repo, file, match["revision"], source)
    try:
        path = Path(hf_hub_download(repo, file, revision=match["revision"]))
    except Exception as error:  # the HTTP libraries underneath raise errors of many types
        raise InputError(f"{source} cannot be downloaded: {_reason(error)}.") from error
    # The cache stores each file under its commit: snapshots/COMMIT/FILE.
    revision = path.parts[-1 - len(Path(file).parts)]
    return HubFile(path, repo, file, revision)


def _check_size(repo: str, file: str, revision: str | None, source: str) -> None:
    """Checks the size of a file before it is downloaded, as far as the hub tells it.

    Raises:
        LimitError: It is above the limit of `files/untrusted.py`.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        size = get_hf_file_metadata(hf_hub_url(repo, file, revision=revision)).size
    except Exception:  # the download fails too, or takes the file from the cache
        return
    check_size(size or 0, Path(source))


def _reason(error: Exception) -> str:
    """What an error of the hub library means, as the end of a sentence."""
    from huggingface_hub import constants, errors

    hub = f"the hub at {constants.ENDPOINT}"
    # The first match counts: e.g. the error for a gated repository is also one for a missing one.
    reasons: list[tuple[type[Exception], str]] = [
        (errors.GatedRepoError, f"{hub} restricts access to this repository"),
        (errors.RepositoryNotFoundError, f"{hub} has no such repository, or requires a token"),
        (errors.RevisionNotFoundError, "the repository has no such revision"),
        (errors.LocalEntryNotFoundError, f"{hub} cannot be reached, and the cache has no copy"),
        (errors.EntryNotFoundError, "the repository has no such file at this revision"),
        (errors.HFValidationError, "the name of the repository is not valid"),
    ]
    for kind, reason in reasons:
        if isinstance(error, kind):
            return reason
    return f"{hub} or the cache failed with {type(error).__name__}"
