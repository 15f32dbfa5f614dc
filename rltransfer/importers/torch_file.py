"""Files of torch (`.pt`, `.pth`): a TorchScript program or a checkpoint of rsl_rl.

Both are zips: TorchScript's has a program under `code/`, rsl_rl's is written by `torch.save`.
Options supply what a file does not contain, e.g. `model_1500.pt?activation=relu`: see
docs/teachers.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rltransfer.errors import InputError, unknown
from rltransfer.importers.imported_policy import ImportedPolicy
from rltransfer.importers.rsl_rl import load_rsl_rl
from rltransfer.importers.torchscript import is_torchscript, load_torchscript
from rltransfer.tasks.observation import DEFAULT_GROUP

SUFFIXES = (".pt", ".pth")
"""The suffixes of the files."""


def load_torch_file(path: Path, options: Mapping[str, list[str]] | None = None) -> ImportedPolicy:
    """The policy of a TorchScript file or of an rsl_rl checkpoint.

    Args:
        path: The file.
        options: The values of each option; see docs/teachers.md.

    Raises:
        InputError: The file cannot be read, an option is unknown, or a value is not valid.
    """
    given = dict(options or {})
    groups = given.pop("group", [DEFAULT_GROUP])
    scripted = is_torchscript(path)
    known = ("output", "scale") if scripted else ("activation",)
    for name, values in given.items():
        if name not in known:
            raise unknown(f"option of the teacher {path}", name, (*known, "group"))
        if len(values) > 1:
            raise InputError(
                f"The option {name!r} of the teacher {path} is set twice: set it once."
            )
    once: dict[str, Any] = {name: values[0] for name, values in given.items()}
    if not scripted:
        return load_rsl_rl(path, groups=groups, **once)
    if "scale" in once:
        once["scale"] = _number(once["scale"], path)
    return load_torchscript(path, groups=groups, **once)


def _number(text: str, path: Path) -> float:
    """The value of a text, which may be a fraction such as 1/255."""
    above, _, below = text.partition("/")
    try:
        return float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(
            f"The scale of the teacher {path} is {text!r}: write a number, or a fraction such as "
            "1/255."
        ) from error
