"""The rooms of the code: what imports what. `make house` prints its figures.

A floor is the length of the longest chain of imports below a module. Imports between folders are
counted as pairs of folders: the arrows of a plan on which each folder is a room.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
CORE = ROOT / "rltransfer"

FOLDERS = (
    "cli",
    "runs",
    "learning",
    "rollouts",
    "teachers",
    "objectives",
    "importers",
    "policies",
    "tasks",
    "files",
    "machine",
    "metrics",
    "",
)
"""The core's folders, each of which imports only those after it; the last are the flat modules."""

PACKAGES = ("agents", "envs", "experiments")
"""The folders next to the core that belong to its package."""


@functools.cache
def modules() -> dict[str, Path]:
    """Every module by its dotted name."""
    found = {}
    for top in ("rltransfer", *PACKAGES):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if top == "rltransfer" and len(parts) > 2 and parts[1] in PACKAGES:
                continue  # a link to one of the other folders
            parts = parts if top == "rltransfer" else ("rltransfer", *parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


@functools.cache
def imports(name: str) -> frozenset[str]:
    """The modules that a module imports anywhere, those for the type checker among them."""
    path = modules()[name]
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1])
            base = ".".join(filter(None, (base if node.level else "", node.module)))
            names = {f"{base}.{alias.name}" for alias in node.names}
            inner = names & modules().keys()
            found |= inner
            if len(inner) < len(names):
                found.add(base)
    return frozenset(found)


@functools.cache
def own_imports(name: str) -> frozenset[str]:
    """The modules of this project that a module imports."""
    return imports(name) & modules().keys() - {name}


def folder_of(name: str) -> str:
    """The folder of a core module; "" for flat ones."""
    parts = name.split(".")
    return parts[1] if len(parts) > 2 or (parts[1:] and parts[1] in FOLDERS) else ""


def core() -> list[str]:
    """The core's modules, but for the package's own face."""
    return [
        name
        for name in modules()
        if name != "rltransfer" and name.split(".")[1] not in PACKAGES and name.count(".")
    ]


def circles() -> Iterator[list[str]]:
    """Chains of imports that come back to where they began."""
    done: set[str] = set()

    def walk(name: str, above: list[str]) -> Iterator[list[str]]:
        if name in above:
            yield [*above[above.index(name) :], name]
        elif name not in done:
            for one in sorted(own_imports(name)):
                if one != "rltransfer":
                    yield from walk(one, [*above, name])
            done.add(name)

    for name in modules():
        yield from walk(name, [])


@functools.cache
def floor(name: str) -> int:
    """The length of the longest chain of imports below a module of the core."""
    below = [one for one in own_imports(name) if one in core_set()]
    return 1 + max(map(floor, below), default=0)


@functools.cache
def core_set() -> frozenset[str]:
    return frozenset(core())


def folder_floor(folder: str) -> int:
    """The length of the longest chain of imports below a folder."""
    below = {two for one, two in folder_arrows() if one == folder}
    return 1 + max(map(folder_floor, below), default=0)


@functools.cache
def folder_arrows() -> frozenset[tuple[str, str]]:
    """Pairs of folders of which the first imports from the second."""
    return frozenset(
        (folder_of(name), folder_of(one))
        for name in core()
        for one in own_imports(name)
        if one in core_set() and folder_of(one) != folder_of(name)
    )


def main() -> None:
    """Prints the figures."""
    files = list(modules().values())
    print(f"folders of the core       {len(FOLDERS) - 1}")
    print(f"floors of folders         {max(map(folder_floor, FOLDERS))}")
    print(f"floors of modules         {max(map(floor, core()))}")
    print(f"imports between folders   {len(folder_arrows())}")
    print(f"circles                   {len(list(circles()))}")
    for top in ("rltransfer", *PACKAGES):
        paths = [path for path in files if path.relative_to(ROOT).parts[0] == top]
        lines = sum(len(path.read_text().splitlines()) for path in paths)
        print(f"{top:25} {len(paths)} files, {lines:,} lines")
    total = sum(len(path.read_text().splitlines()) for path in files)
    print(f"source in all             {total:,} lines")


if __name__ == "__main__":
    main()
