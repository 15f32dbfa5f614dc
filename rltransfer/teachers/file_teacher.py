"""Teachers from files, here or on the Hugging Face hub: zips, checkpoints, TorchScript.

A source is a path or `hf:REPO/FILE[@REVISION]`, with options behind it where a file says too little
of itself: `model_1500.pt?activation=relu`; see `torch_file.py`.
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.importers.hub import is_on_hub
from rltransfer.importers.imported_policy import FileModule
from rltransfer.importers.sb3_zip import LoadedPolicy, check_fit, load_zip
from rltransfer.importers.source import SOURCES, is_zip, located, split_source
from rltransfer.importers.torch_file import SUFFIXES, load_torch_file
from rltransfer.importers.torchscript import is_torchscript
from rltransfer.policies.output import NOTHING, Needs, PolicyOutput
from rltransfer.tasks.observation import DEFAULT_GROUP, Observation
from rltransfer.tasks.suite_spaces import SuiteSpaces
from rltransfer.teachers.spec import TeacherSpec
from rltransfer.teachers.teacher import ModuleTeacher, Teacher


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

    def forward(
        self, observation: Observation, task: Tensor, needs: Needs = NOTHING
    ) -> PolicyOutput:
        """Returns what the network says."""
        output: PolicyOutput = self.module(observation)
        return output

    def fitted(self, spaces: SuiteSpaces) -> Teacher:
        """Checks observations and actions; a program of TorchScript is tried with some."""
        module = self.module
        for task, own in zip(spaces.suite, spaces.own, strict=True):
            module = module.fitted(task.id, own.observation, own.action)
        return FileTeacher(module, self.source, self.origin)

    def spec(self) -> TeacherSpec:
        """Returns what is known of the teacher."""
        return TeacherSpec(
            source=self.source,
            kind=self.module.kind,
            sha256=self.sha256,
            origin=self.origin,
            observation_space=self.module.observation_space,
            action_space=self.module.action_space,
            preprocessing=self.module.preprocessing(),
        )


class ZipTeacher(ModuleTeacher):
    """A policy from a Stable-Baselines3 zip."""

    def __init__(
        self, path: Path, vecnormalize: Path | None, action_space: spaces.Space[Any] | None = None
    ) -> None:
        self.path, self.vecnormalize = path, vecnormalize
        self.loaded = load_zip(path, vecnormalize, action_space)
        module = self.loaded.module
        super().__init__(module, str(path), self.loaded.sha256, _acting_parameters(module))
        self._shape = self.loaded.observation_shape

    def forward(
        self, observation: Observation, task: Tensor, needs: Needs = NOTHING
    ) -> PolicyOutput:
        """Returns what the policy says."""
        seen = observation[DEFAULT_GROUP]
        if self.loaded.num_observations is not None:
            seen = seen.argmax(-1)  # tasks show discrete observations as one-hot vectors
        else:
            # A suite pads vectors and images to the largest of its tasks'.
            seen = seen[:, : self._shape[0]]
        output: PolicyOutput = self.module(seen, needs)
        return output

    def fitted(self, spaces: SuiteSpaces) -> Teacher:
        """Checks observation and action shapes, and takes the task's own action bounds."""
        suite = spaces.suite
        for task, (observation_space, action_space) in zip(suite, spaces.own, strict=True):
            if DEFAULT_GROUP not in observation_space.spaces:
                raise InputError(
                    f"The teacher {self.source} does not fit the task {task.id!r}: it reads one "
                    "plain observation, the task gives named groups."
                )
            check_fit(self.loaded, observation_space[DEFAULT_GROUP], action_space, self.path)
        actions = spaces.own[0].action
        if any(acted != actions for _, acted in spaces.own):
            raise InputError(
                f"The teacher {self.source} scales its actions to a task's bounds, and those of "
                f"{', '.join(suite.names())} differ: give each its own teacher, with PerTask."
            )
        fitted = self.with_actions(actions)
        # As the tasks show it: of images the channels may be first or last.
        fitted._shape = spaces.own[0].observation[DEFAULT_GROUP].shape or ()
        return fitted

    def with_actions(self, space: spaces.Space[Any]) -> ZipTeacher:
        """Returns the teacher, of these actions' bounds."""
        return ZipTeacher(self.path, self.vecnormalize, space)

    def spec(self) -> TeacherSpec:
        """Returns what is known of the teacher; a zip does not say how many frames it stacks."""
        loaded = self.loaded
        normalizer = None
        if loaded.vecnormalize_sha256 is not None:
            normalizer = {"kind": "VecNormalize", "sha256": loaded.vecnormalize_sha256}
        return TeacherSpec(
            source=str(self),
            kind="stable-baselines3",
            sha256=loaded.sha256,
            observation_space=spaces.Dict({DEFAULT_GROUP: _observation_space(loaded)}),
            action_space=_action_space(loaded),
            preprocessing={
                "algorithm": loaded.algorithm,
                "scale": 1 / 255 if loaded.divides else 1.0,
                "channels": "first" if loaded.is_image else None,
                "normalizer": normalizer,
            },
        )

    def quoted(self) -> str:
        """Returns the path, with that of the statistics."""
        return super().quoted() if self.vecnormalize is None else str(self)

    def __str__(self) -> str:
        if self.vecnormalize is None:
            return self.source
        return f"load_teacher({self.source!r}, vecnormalize={str(self.vecnormalize)!r})"


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
    path, origin = located(place)
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
    statistics = None if vecnormalize is None else located(vecnormalize)[0]
    if is_on_hub(place) or is_on_hub(vecnormalize or ""):
        return HubZipTeacher(path, statistics, (source, vecnormalize), origin)
    return ZipTeacher(path, statistics)


def _observation_space(loaded: LoadedPolicy) -> spaces.Space[Any]:
    """Returns what the policy of a zip observes; the bounds of a vector are not read."""
    if loaded.num_observations is not None:
        return spaces.Discrete(loaded.num_observations)
    if loaded.is_image:
        return spaces.Box(0, 255, loaded.observation_shape, np.uint8)
    dtype = loaded.observation_dtype
    low, high = -np.inf, np.inf
    if np.issubdtype(dtype, np.integer):
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return spaces.Box(low, high, loaded.observation_shape, dtype.type)


def _action_space(loaded: LoadedPolicy) -> spaces.Space[Any]:
    """Returns what the policy of a zip does."""
    if loaded.num_actions is not None:
        return spaces.Discrete(loaded.num_actions)
    assert loaded.action_low is not None and loaded.action_high is not None
    return spaces.Box(loaded.action_low, loaded.action_high, dtype=np.float32)


def _acting_parameters(module: nn.Module) -> int:
    """Returns the parameters of a zip's policy but for those that only say the value."""
    return sum(p.numel() for name, p in module.named_parameters() if "value" not in name)
