"""Files on the Hugging Face hub: `hf:REPO/FILE`, kept in the hub library's own cache.

Endpoint, cache, token and offline mode are the library's: HF_ENDPOINT, HF_HUB_CACHE, HF_TOKEN and
HF_HUB_OFFLINE.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from rltransfer.errors import InputError

PREFIX = "hf:"
"""What a source on the hub begins with."""

FORM = re.compile(r"hf:(?P<repo>[^/@]+/[^/@]+)/(?P<file>[^@]+)(?:@(?P<revision>.+))?")


@dataclass(frozen=True)
class HubFile:
    """A file of a repository, and where it lies in the cache."""

    path: Path
    """Where it lies."""
    repo: str
    """The repository: OWNER/NAME."""
    file: str
    """The file in it, with its folders."""
    revision: str
    """The commit that it is of, in hexadecimal."""

    def origin(self) -> dict[str, str]:
        """Returns what `TeacherSpec.origin` keeps."""
        return {"repo": self.repo, "file": self.file, "revision": self.revision}


def is_on_hub(source: str) -> bool:
    """Tells whether a source is a file on the hub."""
    return source.startswith(PREFIX)


def fetch(source: str) -> HubFile:
    """Downloads a file that is not in the cache yet, and returns it.

    Without a connection, what the cache holds of the revision is taken.

    Args:
        source: `hf:REPO/FILE` or `hf:REPO/FILE@REVISION`, e.g.
            "hf:sb3/dqn-CartPole-v1/dqn-CartPole-v1.zip"; the revision is a branch, a tag or a
            commit.

    Raises:
        InputError: The source is not of this form, there is no such repository, revision or file,
            or the hub cannot be reached and the cache does not hold it.
    """
    match = FORM.fullmatch(source)
    if match is None:
        raise InputError(
            f"{source!r} names no file on the Hugging Face hub: write hf:OWNER/NAME/FILE, with "
            "@REVISION behind it for another than the newest."
        )
    repo, file = match["repo"], match["file"]
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise InputError(
            "A teacher on the Hugging Face hub needs the package huggingface_hub: "
            "`pip install 'rltransfer[hub]'` brings it."
        ) from error
    try:
        path = Path(hf_hub_download(repo, file, revision=match["revision"]))
    except Exception as error:  # the HTTP libraries below have errors of their own
        raise InputError(f"{source} cannot be fetched: {_reason(error)}.") from error
    # The cache keeps each file below its commit: snapshots/COMMIT/FILE.
    revision = path.parts[-1 - len(Path(file).parts)]
    return HubFile(path, repo, file, revision)


def _reason(error: Exception) -> str:
    """Returns what an error of the hub library means, as the end of a sentence."""
    from huggingface_hub import constants, errors

    hub = f"the hub at {constants.ENDPOINT}"
    # The first that fits: a repository with conditions is also a missing one, for instance.
    reasons: list[tuple[type[Exception], str]] = [
        (errors.GatedRepoError, f"{hub} shows this repository to those it has granted access only"),
        (errors.RepositoryNotFoundError, f"{hub} has no such repository, or asks for a token"),
        (errors.RevisionNotFoundError, "the repository has no such revision"),
        (errors.LocalEntryNotFoundError, f"{hub} cannot be reached, and the cache has no copy"),
        (errors.EntryNotFoundError, "the repository has no such file at this revision"),
        (errors.HFValidationError, "the repository cannot have such a name"),
    ]
    for kind, reason in reasons:
        if isinstance(error, kind):
            return reason
    return f"{hub} or the cache failed with {type(error).__name__}"
