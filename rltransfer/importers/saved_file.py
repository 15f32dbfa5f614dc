"""Files of `torch.save` before it is known which library wrote them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.importers.damage import DAMAGE, read_file
from rltransfer.importers.saved_tensors import load_tensors

EXPORT = (
    "load it where it was trained, and save its policy with torch.jit.save, or pass a function "
    "that calls it, as a CallableTeacher"
)
"""What works for other files of tensors."""

Tensors = dict[str, Tensor]

COMPILED = "_orig_mod."
"""What `torch.compile` adds to the names of a module's tensors."""


@dataclass(frozen=True)
class SavedFile:
    """The content of a file."""

    path: Path
    """The file."""
    sha256: str
    """Hash of the file."""
    value: Any
    """What it contains: dictionaries, lists, tuples, plain values and tensors."""


def open_saved(path: Path) -> SavedFile:
    """Opens a file; nothing in it is executed.

    Args:
        path: The file that `torch.save` wrote.

    Raises:
        InputError: It is missing or damaged, or contains more than tensors and plain values.
    """
    content = read_file(path, "a checkpoint")
    try:
        value = load_tensors(content, path)
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(
            f"{path} is not a checkpoint that can be read: it is damaged, or contains more than "
            f"tensors and plain values; {EXPORT}."
        ) from error
    return SavedFile(path, hashlib.sha256(content).hexdigest(), value)


def table(value: object, path: Path) -> Tensors:
    """The tensors of a dictionary by name; its other values are left out.

    Raises:
        InputError: The value is not a dictionary.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"{path} cannot be read: an entry is not a dictionary of tensors.")
    return {
        str(name).replace(COMPILED, ""): part
        for name, part in value.items()
        if isinstance(part, Tensor) and part.layout == torch.strided
    }


def below(tensors: Tensors, prefix: str) -> Tensors:
    """The tensors whose names begin with a prefix, by the rest of their names."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def keys_of(value: object) -> set[str]:
    """The keys of a dictionary as text; none for other values."""
    return set(map(str, value)) if isinstance(value, Mapping) else set()
