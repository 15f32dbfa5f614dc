"""Where Stable-Baselines3 users keep the observation statistics of a zip.

Alongside `DIR/NAME.zip`, the statistics are one of:

- `DIR/NAME/vecnormalize.pkl` (rl-zoo), for `best_model.zip` in the only such folder;
- `DIR/NAME.vecnormalize.pkl`, or `DIR/PREFIX_vecnormalize_N_steps.pkl` of a checkpoint
  `DIR/PREFIX_N_steps.zip`;
- `DIR/vec_normalize.pkl` (rl-zoo on the Hugging Face hub), `DIR/vecnormalize.pkl`.

rl-zoo's `config.yml`, in the folder of the statistics, tells whether observations were normalised,
how many were stacked, and which wrappers the task had. Its YAML names Python objects; here it is
searched as text, and nothing is built or run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rltransfer.errors import InputError
from rltransfer.files.untrusted import is_regular
from rltransfer.importers.hub import fetch, is_on_hub

WITHOUT = "none"
"""What a user writes to play a zip without observation statistics."""

LARGEST_CONFIG = 1_000_000
"""Bytes of a configuration that are searched."""

ENTRY = re.compile(r"^[ -]*normalize(?::|[ ]*\n[ ]*-)[ ]*(?P<value>.*(?:\n(?![ ]*- |\w).+)*)", re.M)
"""The entry `normalize`: of an OrderedDict, two items of a list, or of a plain mapping."""

HEAD = re.compile(r"^(?P<before>[ -]*)normalize(?::|[ ]*\n[ ]*-)", re.M)
"""Its beginning."""

YES, NO = ("true", "yes", "on"), ("false", "no", "off", "null", "~")

WRAPPER = re.compile(r"\b(?:[a-z_]\w*\.)+[A-Z]\w*")
"""A class with its modules."""
LONGEST_ENTRY = 2_000
"""Characters of an entry that are searched for wrappers."""


@dataclass(frozen=True)
class ZooConfig:
    """What rl-zoo's `config.yml` tells of the task that a zip was trained on."""

    place: str
    """Where it is."""
    normalized: bool | None
    """Whether observations were normalised; None if it does not tell."""
    frame_stack: int
    """Number of observations that were stacked; 1 for none."""
    wrappers: tuple[str, ...]
    """The wrappers of the environment, with their modules."""

    @staticmethod
    def of(place: str, text: str) -> ZooConfig:
        """Reads the text of a `config.yml`."""
        stacked = re.match(r"[ '\"]*(\d{1,4})\b", _entry(text, "frame_stack"))
        wrappers = WRAPPER.findall(_entry(text, "env_wrapper"))
        return ZooConfig(
            place, is_normalized(text), max(1, int(stacked[1])) if stacked else 1,
            tuple(dict.fromkeys(wrappers)),
        )  # fmt: skip


def _entry(config: str, name: str) -> str:
    """The value of an entry, of an OrderedDict or of a plain mapping; "" if there is none."""
    found = re.search(rf"^(?P<before>[ -]*){name}(?::|[ ]*\n[ ]*-)", config, re.M)
    if found is None:
        return ""
    first, *rest = config[found.end() : found.end() + LONGEST_ENTRY].splitlines() or [""]
    # Items of an OrderedDict begin with "- - ", which the first one has behind another dash.
    before = found["before"]
    indent = len(before) - len("- - ") if before.endswith("- - ") else len(before)
    end = re.compile(rf" {{0,{max(indent, 0)}}}(?:- - |\w)")
    lines = [first]
    for line in rest:
        if end.match(line):
            break
        lines.append(line)
    return "\n".join(lines)


def find_statistics(place: str, files: Surroundings, config: ZooConfig | None) -> str | None:
    """The observation statistics that belong to a zip, as a user would write them; None if none do.

    Args:
        place: The zip, as a user wrote it.
        files: The files around it.
        config: Its configuration, if any.

    Raises:
        InputError: The zip was trained on normalised observations, but the statistics are missing,
            or may be those of another zip.
    """
    normalized = None if config is None else config.normalized
    # On the hub every look is a request: without a configuration, nothing tells of statistics.
    if normalized is False or (config is None and isinstance(files, _OnHub)):
        return None
    remedy = f"pass its VecNormalize file as `vecnormalize`, or {WITHOUT!r} to play without"
    for statistics, sure in files.statistics():
        if sure or normalized:
            return statistics
        raise InputError(
            f"{place} is next to the observation statistics {statistics}, which may be those of "
            f"another zip in the folder: {remedy}."
        )
    if normalized and config is not None:
        raise InputError(
            f"{place} was trained on normalised observations, as {config.place} tells, but their "
            f"statistics are missing: {remedy}."
        )
    return None


def look_around(place: str, path: Path, origin: dict[str, str]) -> Surroundings:
    """The files around a zip.

    Args:
        place: The zip, as a user wrote it.
        path: Where it is.
        origin: Where it was downloaded from: see `HubFile`.
    """
    if is_on_hub(place):
        folder, stem = PurePosixPath(origin["file"]).parent, PurePosixPath(origin["file"]).stem
        return _OnHub(folder, stem, origin)
    return _Local(path)


def hides_statistics(path: Path, statistics: Path | None) -> str | None:
    """The file that keeps a zip from playing with its own statistics; None if there is none.

    Args:
        path: Where the zip will be.
        statistics: `DIR/NAME.vecnormalize.pkl` if it will have statistics, and else None.
    """
    files = _Local(path)
    config = files.config()
    if config is not None and config.normalized is False:
        return None if statistics is None else config.place
    # Its own come before those that zips of a folder share.
    found = [Path(one) for one, _ in files.statistics() if statistics is None]
    if statistics is not None:
        found = [one for one in files.own[: files.own.index(statistics)] if is_regular(one)]
    return str(found[0]) if found else None


class _Local:
    """The files around a zip on this machine."""

    def __init__(self, path: Path) -> None:
        folder, stem = path.parent, path.stem
        self.path = path
        inner = [folder / stem]
        if stem == "best_model":
            # rl-zoo's best model so far; the folder of its settings has the name of the task.
            holders = {found.parent for found in folder.glob("*/config.yml")}
            inner = sorted(holders) if len(holders) == 1 else []
        steps = re.sub(r"_(\d+_steps)$", r"_vecnormalize_\1", stem)
        own = [*(one / "vecnormalize.pkl" for one in inner), folder / f"{stem}.vecnormalize.pkl"]
        self.own = [*own, folder / f"{steps}.pkl"] if steps != stem else own
        self.shared = [folder / "vec_normalize.pkl", folder / "vecnormalize.pkl"]
        self.configs = [*(one / "config.yml" for one in inner), folder / "config.yml"]

    def config(self) -> ZooConfig | None:
        """The first configuration."""
        for path in filter(is_regular, self.configs):
            return ZooConfig.of(str(path), _text(path))
        return None

    def statistics(self) -> Iterator[tuple[str, bool]]:
        """Files of statistics, and whether each is surely that of the zip."""
        # The hub's zip of training curves is not a policy.
        zips = [one for one in self.path.parent.glob("*.zip") if "metrics" not in one.name]
        for candidates, sure in ((self.own, True), (self.shared, len(zips) == 1)):
            yield from ((str(path), sure) for path in candidates if is_regular(path))


class _OnHub:
    """The files around a zip in a repository, at the commit of the zip."""

    def __init__(self, folder: PurePosixPath, stem: str, origin: dict[str, str]) -> None:
        def source(path: PurePosixPath) -> str:
            return f"hf:{origin['repo']}/{path}@{origin['revision']}"

        self.configs = [source(one / "config.yml") for one in (folder / stem, folder)]
        self.names = [
            source(folder / stem / "vecnormalize.pkl"), source(folder / "vec_normalize.pkl"),
        ]  # fmt: skip

    def config(self) -> ZooConfig | None:
        """See `_Local`."""
        for source in self.configs:
            if (path := _fetched(source)) is not None:
                return ZooConfig.of(source, _text(path))
        return None

    def statistics(self) -> Iterator[tuple[str, bool]]:
        """See `_Local`."""
        yield from ((source, True) for source in self.names if _fetched(source) is not None)


Surroundings = _Local | _OnHub
"""The files around a zip."""


def _text(path: Path) -> str:
    """The beginning of a configuration."""
    with path.open("rb") as file:
        return file.read(LARGEST_CONFIG).decode(errors="replace")


def _fetched(source: str) -> Path | None:
    """A file on the hub; None where it does not exist or cannot be reached."""
    try:
        return fetch(source).path
    except InputError:
        return None


def is_normalized(config: str) -> bool | None:
    """Whether rl-zoo's configuration normalises observations; None if it does not tell.

    Args:
        config: The text of `config.yml`.
    """
    heads = list(HEAD.finditer(config))
    if not heads:
        return None
    # Of several entries the last counts, as in YAML; deeper ones belong to another mapping.
    places = [one.start() for one in heads if len(one["before"]) == len(heads[0]["before"])]
    match = ENTRY.match(config, places[-1])
    assert match is not None
    # A flag, or the arguments of VecNormalize: `{'norm_obs': False, 'norm_reward': True}`.
    value = match["value"].lower()
    flag = value.partition("\n")[0].strip().strip("'\"")
    if flag in YES or flag in NO or not value.strip():
        return flag in YES
    return re.search(r"norm_obs\W+false", value) is None
