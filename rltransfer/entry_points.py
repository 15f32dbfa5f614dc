"""Entry points: what installed packages add to rltransfer."""

from __future__ import annotations

import ast
import importlib.util
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from rltransfer.errors import InputError, unknown


def entries(group: str) -> list[EntryPoint]:
    """The entry points of a group, each name once, sorted by name."""
    return list({entry.name: entry for entry in sorted(entry_points(group=group))}.values())


def find_entry(group: str, name: str, kind: str, listing: str | None = None) -> EntryPoint:
    """The entry point of a name; see `unknown` for `kind` and `listing`.

    Raises:
        InputError: There is none.
    """
    found = {entry.name: entry for entry in entries(group)}
    if name not in found:
        raise unknown(kind, name, found, listing)
    return found[name]


def load_entry(entry: EntryPoint) -> Any:
    """Loads an entry point.

    Raises:
        InputError: The package cannot be imported, or does not define the name.
    """
    try:
        return entry.load()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".rstrip(".")
        raise InputError(f"{describe_entry(entry)} cannot be loaded: {reason}.") from error


def summarize(entry: EntryPoint) -> str:
    """The first line of the docstring of the class that an entry point names.

    It is read from the source if possible: help and lists would take seconds to import all.

    Raises:
        InputError: It must be imported for this, but cannot be.
    """
    try:
        tree = ast.parse(_source_file(entry.module).read_text())
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        (named,) = (node for node in classes if node.name == entry.attr)
        docstring = ast.get_docstring(named)
    except (OSError, ImportError, SyntaxError, ValueError):
        docstring = load_entry(entry).__doc__
    return (docstring or "").partition("\n")[0]


def _source_file(module: str) -> Path:
    """The file of a module; neither it nor the packages that contain it are imported.

    Raises:
        ImportError: There is none.
    """
    name, *rest = module.split(".")
    spec = importlib.util.find_spec(name)
    for part in rest:
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, spec.submodule_search_locations) if spec else None
    if spec is None or spec.origin is None:
        raise ImportError(name)
    return Path(spec.origin)


def describe_entry(entry: EntryPoint) -> str:
    """An entry point, as the subject of a sentence."""
    package = "" if entry.dist is None else f" of the package {entry.dist.name}"
    return f"The entry point {entry.name} = {entry.value!r} in {entry.group}{package}"
