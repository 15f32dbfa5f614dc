"""Teachers from files, local or on the Hugging Face hub: zips, tensors, TorchScript, ONNX.

A source is a path or `hf:REPO/FILE[@REVISION]`. Options after it supply what a file does not
contain, `model_1500.pt?activation=relu`; see `torch_file.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.files.lfs import check_not_pointer
from rltransfer.importers.archive import names_of
from rltransfer.importers.hub import is_on_hub
from rltransfer.importers.imported_policy import ImportedPolicy
from rltransfer.importers.onnx_policy import SUFFIX as ONNX
from rltransfer.importers.onnx_policy import load_onnx
from rltransfer.importers.program_policy import ProgramPolicy
from rltransfer.importers.sb3_zip import load_zip
from rltransfer.importers.sb3_zoo import WITHOUT, find_statistics, look_around
from rltransfer.importers.source import SOURCES, is_zip, located, split_source
from rltransfer.importers.torch_file import SUFFIXES, load_torch_file
from rltransfer.importers.torchscript import is_torchscript
from rltransfer.policies.network import Network
from rltransfer.policies.output import EMPTY, Needs, PolicyOutput
from rltransfer.policies.work import multiply_adds
from rltransfer.tasks.observation import Observation
from rltransfer.tasks.random_observation import random_observation
from rltransfer.tasks.suite_spaces import SuiteSpaces
from rltransfer.tasks.task import Task
from rltransfer.teachers.spec import TeacherSpec
from rltransfer.teachers.teacher import ModuleTeacher, Teacher

OTHERS = {
    ".safetensors": "contains weights alone: use the run directory that it belongs to",
}
"""Files that seem to be policies but cannot be read, by their suffix: what to use instead."""


class FileTeacher(ModuleTeacher):
    """A policy from a Stable-Baselines3 zip, a file of tensors, TorchScript or ONNX.

    Args:
        module: The policy.
        source: What the user wrote.
        origin: Where its file was downloaded from.
        vecnormalize: The observation statistics of a zip, as a user would write them; "none"
            plays it without any.
        is_found: Whether the statistics were found next to the zip, and not passed by the user.
    """

    module: ImportedPolicy

    def __init__(
        self,
        module: ImportedPolicy,
        source: str,
        origin: Mapping[str, str] | None = None,
        vecnormalize: str | None = None,
        is_found: bool = False,
    ) -> None:
        size = module.state_size
        super().__init__(module, source, module.sha256, module.num_parameters(), size)
        self.is_found = is_found
        self.origin = dict(origin or {})
        self.vecnormalize = vecnormalize

    def forward(self, observation: Observation, task: Tensor, needs: Needs = EMPTY) -> PolicyOutput:
        """The output of the policy."""
        return self.remembered(
            lambda state, start: self.module(observation, needs, state, start), task
        )

    def network(self) -> Network | None:
        """The architecture of the file's policy."""
        return self.module.architecture()

    def row_work(self) -> int:
        """Multiply-adds of the network; of a program, only its parameters are known."""
        space = self.module.observation_space
        if space is None or isinstance(self.module, ProgramPolicy):
            return self.num_parameters
        return multiply_adds(self.module, random_observation(space, 1))

    def fitted(self, spaces: SuiteSpaces) -> Teacher:
        """Checks the policy against each task, and takes from it what the file does not contain."""
        module = self.module
        for task, own in zip(spaces.suite, spaces.own, strict=True):
            module = module.fitted(task.id, own.observation, own.action, own.shown)
        return FileTeacher(module, self.source, self.origin, self.vecnormalize, self.is_found)

    def notes(self) -> tuple[str, ...]:
        """Those of the policy, and the observation statistics that nobody passed."""
        notes = self.module.notes()
        if not self.is_found or self.module.preprocessing()["normalizer"] is None:
            return notes
        return (
            *notes,
            f"{self.source} observes with the statistics {self.vecnormalize}, found next to it "
            f"(vecnormalize={WITHOUT!r} plays it without).",
        )

    def bounds_in(self, task: Task) -> spaces.Box | None:
        """The bounds in the file; None where it does not contain them."""
        _, actions = self.module.known_spaces()
        return actions if isinstance(actions, spaces.Box) else None

    def bounds_advice(self) -> str:
        """That of the file's kind."""
        return self.module.bounds_advice

    def spec(self) -> TeacherSpec:
        """The specification, with what the file and the task tell."""
        observation_space, action_space = self.module.known_spaces()
        return TeacherSpec(
            source=str(self),
            kind=self.module.kind,
            sha256=self.sha256,
            origin=self.origin,
            observation_space=observation_space,
            action_space=action_space,
            preprocessing=self.module.preprocessing(),
        )

    def quoted(self) -> str:
        """The source, with that of the statistics."""
        return super().quoted() if self.vecnormalize is None else str(self)

    def __str__(self) -> str:
        if self.vecnormalize is None:
            return self.source
        return f"load_teacher({self.source!r}, vecnormalize={self.vecnormalize!r})"


def load_file_teacher(source: str, vecnormalize: str | None = None) -> Teacher:
    """The teacher in a file.

    Args:
        source: A path or a file on the hub, with options.
        vecnormalize: Observation statistics of a Stable-Baselines3 zip: a path or a file on the
            hub, or "none" for none. By default those next to the zip are used: see `sb3_zoo.py`.

    Raises:
        InputError: The file is missing or cannot be read, an option does not apply to it, or a zip
            needs statistics that are missing.
    """
    place, options = split_source(source)
    path, origin = located(place)
    if path.suffix in (*SUFFIXES, ONNX) or is_torchscript(path):
        if vecnormalize is not None:
            raise InputError(
                f"Observation statistics go with a Stable-Baselines3 zip, but the teacher is "
                f"{place}."
            )
        load = load_onnx if path.suffix == ONNX else load_torch_file
        return FileTeacher(load(path, options), source, origin)
    if path.suffix in OTHERS:
        raise InputError(f"{place} {OTHERS[path.suffix]}.")
    if not is_zip(place) and not names_of(path):
        check_not_pointer(path)
        raise InputError(f"{place} is not a teacher: {SOURCES}.")
    if options:
        raise InputError(
            f"The teacher {place} takes no options, but was given {', '.join(options)}."
        )
    is_found = vecnormalize is None
    files = look_around(place, path, origin)
    config = files.config()
    if vecnormalize is None:
        vecnormalize = find_statistics(place, files, config)
    if vecnormalize is None or vecnormalize == WITHOUT:
        named = source if is_on_hub(place) else str(path)
        return FileTeacher(load_zip(path, None, config), named, origin, vecnormalize)
    if not is_on_hub(vecnormalize) and not os.path.exists(vecnormalize):
        raise InputError(
            f"There is no file {vecnormalize!r} of observation statistics: pass the pickle that "
            "`VecNormalize.save` wrote."
        )
    statistics, _ = located(vecnormalize)
    policy = load_zip(path, statistics, config)
    if is_on_hub(place) or is_on_hub(vecnormalize):
        return FileTeacher(policy, source, origin, vecnormalize, is_found)
    return FileTeacher(policy, str(path), origin, str(statistics), is_found)
