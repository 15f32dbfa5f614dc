"""Checkpoints by the names that users give them: best, final, or the number of steps."""

from __future__ import annotations

from pathlib import Path

from rltransfer.errors import InputError
from rltransfer.files.atomic import complete_folder
from rltransfer.files.checkpoint import (
    BEST,
    best_folder,
    checkpoints,
    is_whole,
    newest_checkpoint,
)
from rltransfer.files.reading import must_be_readable

FINAL = "final"
"""The name of the newest checkpoint; that of the best one is `BEST`."""


def find_checkpoint(run_dir: Path, name: str | int = FINAL) -> Path:
    """The folder of one of a run's checkpoints, whose policy is undamaged.

    Args:
        run_dir: The run's folder.
        name: "final" for the newest checkpoint, as `newest_checkpoint` finds it; "best" for the one
            with the best policy; or the environment steps of one of those that are kept.

    Raises:
        InputError: There is no such checkpoint, or it cannot be read.
    """
    if name == FINAL:
        return newest_checkpoint(run_dir)
    with must_be_readable():
        best = complete_folder(best_folder(run_dir))
        known: dict[str | int | None, Path] = {BEST: best} if best.is_dir() else {}
        known |= {_as_steps(path.name.removeprefix("step-")): path for path in checkpoints(run_dir)}
        known.pop(None, None)  # a folder that no run has written
        found = known.get(BEST if name == BEST else _as_steps(name))
        if found is None:
            raise _unknown(run_dir, name, list(map(str, known)))
        if not is_whole(found, "policy"):
            raise InputError(f"{found} is not a complete checkpoint: one of its files is damaged.")
    return found


def _unknown(run_dir: Path, name: str | int, known: list[str]) -> InputError:
    """The error for a name that no checkpoint of a run has."""
    if not known:
        return InputError(f"There is no checkpoint {str(name)!r} in {run_dir}: it has none yet.")
    if known != [BEST]:
        known[-1] += f" ({FINAL})"
    why = ", as no evaluation during training has kept one" if name == BEST else ""
    return InputError(
        f"There is no checkpoint {str(name)!r} in {run_dir}{why}: there are {', '.join(known)}."
    )


def _as_steps(name: str | int) -> int | None:
    """The number of steps that a name is, e.g. 200000, "200_000" or "2e5"; None for others."""
    try:
        number = float(name)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if number.is_integer() else None


def check_not_checkpoint(folder: Path) -> None:
    """Checks that a folder is not a checkpoint, passed in the place of its run.

    Raises:
        InputError: It is one.
    """
    run_dir = folder.parent.parent
    if folder.parent.name == "checkpoints" and (run_dir / "config.json").is_file():
        name = folder.name.removeprefix("step-").lstrip("0") or "0"
        raise InputError(
            f"{folder} is a checkpoint of {run_dir}: pass the run, with --checkpoint {name}, or as "
            f"a teacher load_teacher({str(run_dir)!r}, checkpoint={name!r})."
        )
