"""Teachers from files, here or on the Hugging Face hub: zips, checkpoints, TorchScript.

A source is a path or `hf:REPO/FILE[@REVISION]`, with options behind it where a file says too little
of itself: `model_1500.pt?activation=relu`; see `torch_file.py`.
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.file_module import FileModule
from rltransfer.hub import fetch, is_on_hub
from rltransfer.observation import Observation
from rltransfer.policy_output import PolicyOutput
from rltransfer.task import Suite
from rltransfer.teacher_base import ModuleTeacher, TaskSpaces, Teacher, ZipTeacher
from rltransfer.teacher_spec import TeacherSpec, split_source
from rltransfer.torch_file import SUFFIXES, load_torch_file
from rltransfer.torchscript import is_torchscript

SOURCES = (
    "give a run directory, a Stable-Baselines3 zip, an rsl_rl checkpoint or a TorchScript file, "
    "hf:OWNER/NAME/FILE, or 'zoo'"
)
"""What may be a teacher, in words."""


class FileTeacher(ModuleTeacher):
    """A network from a checkpoint of rsl_rl or a TorchScript file.

    Args:
        module: The network.
        source: What the user wrote.
        origin: Where its file was fetched from.
    """

    module: FileModule

    def __init__(
        self, module: FileModule, source: str, origin: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(module, source, module.sha256, module.num_parameters())
        self.origin = dict(origin or {})

    def __call__(self, observation: Observation, task: Tensor) -> PolicyOutput:
        """Returns what the network says."""
        output: PolicyOutput = self.module(observation)
        return output

    def fitted(self, suite: Suite, own_spaces: Sequence[TaskSpaces]) -> Teacher:
        """Checks observations and actions; a program of TorchScript is tried with some."""
        module = self.module
        for task, (observation_space, action_space) in zip(suite, own_spaces, strict=True):
            module = module.fitted(task.id, observation_space, action_space)
        return FileTeacher(module, self.source, self.origin)

    def spec(self) -> TeacherSpec:
        """Returns what is known of the teacher."""
        return self.module.spec(self.source, self.origin)


class HubZipTeacher(ZipTeacher):
    """A policy from a Stable-Baselines3 zip on the Hugging Face hub.

    Args:
        path: Where the zip lies.
        vecnormalize: Where its statistics lie.
        written: What the user wrote for each of the two.
        origin: Where the zip was fetched from.
        action_space: The action space of the task, where it is known.
    """

    def __init__(
        self,
        path: Path,
        vecnormalize: Path | None,
        written: tuple[str, str | None],
        origin: Mapping[str, str],
        action_space: spaces.Space[Any] | None = None,
    ) -> None:
        super().__init__(path, vecnormalize, action_space)
        self.source = written[0]
        self.written = written
        self.origin = dict(origin)

    def with_actions(self, space: spaces.Space[Any]) -> ZipTeacher:
        """Returns the teacher, of these actions' bounds."""
        return HubZipTeacher(self.path, self.vecnormalize, self.written, self.origin, space)

    def spec(self) -> TeacherSpec:
        """Returns what is known of the teacher, and where its file was fetched from."""
        return dataclasses.replace(super().spec(), origin=self.origin)

    def __str__(self) -> str:
        source, vecnormalize = self.written
        if vecnormalize is None:
            return source
        return f"load_teacher({source!r}, vecnormalize={vecnormalize!r})"


def is_zip(source: str) -> bool:
    """Tells whether a source is a Stable-Baselines3 zip by its name, here or on the hub."""
    place = split_source(source)[0]
    return (place.partition("@")[0] if is_on_hub(place) else place).endswith(".zip")


def load_file_teacher(source: str, vecnormalize: str | None = None) -> Teacher:
    """Returns the teacher of a file.

    Args:
        source: A path or a file on the hub, with options.
        vecnormalize: Observation statistics of a Stable-Baselines3 zip: a path or a file on the
            hub.

    Raises:
        InputError: There is no such file, it cannot be read, or the options are not its own.
    """
    place, options = split_source(source)
    path, origin = _located(place)
    if path.suffix in SUFFIXES or is_torchscript(path):
        if vecnormalize is not None:
            raise InputError(
                f"Observation statistics go with a Stable-Baselines3 zip, but the teacher is "
                f"{place}."
            )
        return FileTeacher(load_torch_file(path, options), source, origin)
    if not is_zip(place) and not zipfile.is_zipfile(path):
        raise InputError(f"{place} is no teacher: {SOURCES}.")
    if options:
        raise InputError(
            f"The teacher {place} takes no options, but was given {', '.join(options)}."
        )
    if vecnormalize is not None and not (is_on_hub(vecnormalize) or os.path.exists(vecnormalize)):
        raise InputError(
            f"There is no file {vecnormalize!r} of observation statistics: give the pickle that "
            "VecNormalize saved."
        )
    statistics = None if vecnormalize is None else _located(vecnormalize)[0]
    if is_on_hub(place) or is_on_hub(vecnormalize or ""):
        return HubZipTeacher(path, statistics, (source, vecnormalize), origin)
    return ZipTeacher(path, statistics)


def _located(place: str) -> tuple[Path, dict[str, str]]:
    """Returns where a file lies, and where it was fetched from, if it was."""
    if is_on_hub(place):
        file = fetch(place)
        return file.path, file.origin()
    if not os.path.exists(place):
        raise InputError(f"There is no teacher {place!r}: {SOURCES}.")
    return Path(place), {}
