"""Teachers by name: run directories, zips, the zoo, and compositions of them as text."""

from __future__ import annotations

import os
from pathlib import Path

from rltransfer.errors import InputError
from rltransfer.files.checkpoint import newest_generation
from rltransfer.files.checkpoint_names import FINAL, check_not_checkpoint, find_checkpoint
from rltransfer.files.hashing import weights_sha256
from rltransfer.files.reading import is_folder, must_be_readable
from rltransfer.files.untrusted import DAMAGE, damage_refused, read_json
from rltransfer.importers.source import is_zip
from rltransfer.policies.saving import load_policy
from rltransfer.tasks.families import SuiteLike, as_suite
from rltransfer.tasks.task import Suite
from rltransfer.teachers.adapted import Adapted
from rltransfer.teachers.file_teacher import load_file_teacher
from rltransfer.teachers.policy_teacher import PolicyTeacher
from rltransfer.teachers.teacher import Teacher
from rltransfer.teachers.text import is_composition, read_composition
from rltransfer.teachers.zoo import ZOO, card_teacher, zoo_teacher


def load_teacher(
    source: str | Path | Teacher,
    vecnormalize: str | Path | None = None,
    suite: SuiteLike | None = None,
    *,
    checkpoint: str | int = FINAL,
    rescale_actions: bool = False,
) -> Teacher:
    """Loads a teacher.

    Args:
        source: A teacher, which is returned as it is, or one of:
            - a run directory; of a chain of generations the newest is used;
            - a file, local or on the Hugging Face hub as "hf:REPO/FILE": a Stable-Baselines3 zip,
              a checkpoint of another library, a state_dict, a TorchScript or ONNX file, see
              `file_teacher.py`;
            - "zoo": the installed teacher of each task of the suite; "zoo:ID": that of one task;
            - a composition of such sources in quotes, "Ensemble('a.zip', 'runs/b')", see `text.py`.
        vecnormalize: Observation statistics of a Stable-Baselines3 zip, or "none" for none; by
            default those next to the zip are used: see `sb3_zoo.py`.
        suite: The tasks, or the name of a suite or task; needed for "zoo".
        checkpoint: Of a run directory: "final" for the newest checkpoint, "best" for the best
            policy by the evaluations during training, or the environment steps of a checkpoint.
        rescale_actions: Whether continuous actions are scaled to the bounds of a task, which is
            refused if its bounds are others: `Adapted(source, bounds="scale")`.

    Raises:
        InputError: The source is none of these, or is damaged; an argument does not apply to it.
    """
    if rescale_actions:
        teacher = load_teacher(source, vecnormalize, suite, checkpoint=checkpoint)
        return Adapted(teacher, bounds="scale")
    if callable(source) and not isinstance(source, Teacher):
        raise InputError("The teacher is a function: write CallableTeacher(function).")
    text = os.path.expanduser(str(source))
    if vecnormalize is not None and (isinstance(source, Teacher) or not is_zip(text)):
        raise InputError(
            f"Observation statistics go with a Stable-Baselines3 zip, but the teacher is {text}. "
            "In a composition, write load_teacher('a.zip', vecnormalize='a.pkl') for the zip."
        )
    if checkpoint != FINAL and (isinstance(source, Teacher) or not is_folder(text)):
        raise InputError(
            f"The checkpoint {checkpoint!r} is one of a run, but the teacher is {text}: leave it "
            "out, or in a composition write load_teacher('RUN', checkpoint=...) for the run."
        )
    if isinstance(source, Teacher):
        return source
    if text == ZOO:
        return zoo_teacher(None if suite is None else as_suite(suite))
    if text.startswith(f"{ZOO}:"):
        return card_teacher(text.removeprefix(f"{ZOO}:"))
    if is_composition(text) and not os.path.exists(text):
        return read_composition(text, load_teacher, None if suite is None else as_suite(suite))
    if is_folder(text):
        return _of_run(Path(text), checkpoint)
    if vecnormalize is not None:
        vecnormalize = os.path.expanduser(str(vecnormalize))
    return load_file_teacher(text, vecnormalize)


def _of_run(run_dir: Path, checkpoint: str | int) -> Teacher:
    check_not_checkpoint(run_dir)
    run_dir = newest_generation(run_dir)
    stem = find_checkpoint(run_dir, checkpoint) / "policy"
    damaged = f"{run_dir} is not a complete run: its config.json is missing or damaged."
    with damage_refused(damaged), must_be_readable():
        config = read_json(run_dir / "config.json")
        suite = Suite.from_json(config["suite"])
        frame_stack = config.get("frame_stack")
        if not isinstance(frame_stack, int | None):
            raise TypeError("The number of stacked frames is a number.")
    return PolicyTeacher(
        load_policy(stem), str(run_dir), weights_sha256(stem), suite,
        frame_stack=frame_stack,
        recorded_return=_recorded_return(run_dir) if checkpoint == FINAL else {},
        checkpoint=checkpoint,
    )  # fmt: skip


def _recorded_return(run_dir: Path) -> dict[str, float]:
    """The mean return of each task, if the run is finished."""
    try:
        tasks = read_json(run_dir / "result.json")["tasks"]
        return {name: float(row["return_mean"]) for name, row in tasks.items()}
    except DAMAGE:
        return {}
