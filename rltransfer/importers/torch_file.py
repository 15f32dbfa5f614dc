"""Files of torch: a TorchScript program, or tensors that another library saved.

Both are zips: TorchScript's has a program under `code/`, the others are written by `torch.save`.
Which library wrote a file follows from what it contains. Options supply what it does not contain,
e.g. `model_1500.pt?activation=relu`: see docs/teachers.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rltransfer.errors import FEW, InputError, unknown
from rltransfer.importers import cleanrl
from rltransfer.importers.cleanrl import is_cleanrl, read_cleanrl
from rltransfer.importers.file_options import checked_once, scale_of
from rltransfer.importers.imported_policy import ImportedPolicy
from rltransfer.importers.rl_games import is_rl_games, read_rl_games
from rltransfer.importers.rsl_rl import is_rsl_rl, read_rsl_rl
from rltransfer.importers.saved_file import EXPORT, SavedFile, keys_of, open_saved
from rltransfer.importers.script_argument import shapes_of_text
from rltransfer.importers.skrl import is_skrl, read_skrl
from rltransfer.importers.state_dict import is_state_dict, read_state_dict
from rltransfer.importers.torchscript import is_torchscript, load_torchscript
from rltransfer.tasks.observation import DEFAULT_GROUP

SUFFIXES = (".pt", ".pth", cleanrl.SUFFIX)
"""The suffixes of the files."""

RECOGNISED: dict[str, Callable[[SavedFile], bool]] = {
    "rsl_rl": is_rsl_rl,
    "rl_games": is_rl_games,
    "skrl": is_skrl,
    "cleanrl": is_cleanrl,
    "state_dict": is_state_dict,
}
"""What tells whether a file is of a library, in the order in which they are asked."""

READERS: dict[str, Callable[..., ImportedPolicy]] = {
    "rsl_rl": read_rsl_rl,
    "rl_games": read_rl_games,
    "skrl": read_skrl,
    "cleanrl": read_cleanrl,
    "state_dict": read_state_dict,
}
"""The readers of open files."""

OPTIONS: dict[str, tuple[str, ...]] = {
    "torchscript": ("output", "scale", "state"),
    "rsl_rl": ("activation",),
    "rl_games": ("activation", "clip_actions"),
    "skrl": ("activation",),
    "cleanrl": ("library",),
    "state_dict": ("activation", "library", "network", "output", "prefix"),
}
"""The options of each kind of file, next to `group`."""

LIBRARIES = ("cleanrl", "state_dict")
"""The values of the option `library`, for files of named tensors alone."""


def load_torch_file(path: Path, options: Mapping[str, list[str]] | None = None) -> ImportedPolicy:
    """The policy of a TorchScript file, or of a file of tensors.

    Args:
        path: The file.
        options: The values of each option; see docs/teachers.md.

    Raises:
        InputError: The file cannot be read, an option is unknown, or a value is not valid.
    """
    given = dict(options or {})
    groups = given.pop("group", [DEFAULT_GROUP])
    if is_torchscript(path):
        once: dict[str, Any] = dict(checked_once(given, OPTIONS["torchscript"], path))
        if "scale" in once:
            once["scale"] = scale_of(once["scale"], path)
        if "state" in once:
            once["state"] = shapes_of_text(once["state"], path)
        return load_torchscript(path, groups=groups, **once)
    saved = open_saved(path)
    library = _library(saved, given.get("library", []))
    once = dict(checked_once(given, OPTIONS[library], path))
    once.pop("library", None)
    return READERS[library](saved, groups=groups, **once)


def _library(saved: SavedFile, requested: Sequence[str]) -> str:
    """The library that wrote a file.

    Args:
        saved: The open file.
        requested: The values of the option `library`.
    """
    for library in requested:
        if library not in LIBRARIES:
            raise unknown("library", library, LIBRARIES)
    found = [library for library, is_one in RECOGNISED.items() if is_one(saved)]
    if requested and is_state_dict(saved):
        return requested[0]
    if found:
        return found[0]
    keys = sorted(keys_of(saved.value))
    more = ", ..." if len(keys) > FEW else ""
    names = ", ".join(map(repr, keys[:FEW])) + more
    content = f"the entries {names}" if keys else "no named entries"
    raise InputError(
        f"{saved.path} contains {content}, so that it is not a plain state_dict, a CleanRL model, "
        f"or a checkpoint of rsl_rl, skrl or rl_games: save the policy's state_dict alone, or "
        f"{EXPORT}."
    )
