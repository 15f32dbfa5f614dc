"""What a teacher is, and the policies that stand alone: runs' and zips'."""

from __future__ import annotations

import abc
import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.action import action_size
from rltransfer.errors import InputError
from rltransfer.observation import DEFAULT_GROUP, Observation
from rltransfer.policy import Policy, PolicySpec
from rltransfer.policy_output import LABELS, PolicyOutput
from rltransfer.stable_baselines3 import LoadedPolicy, check_fit, load_zip
from rltransfer.task import Suite, Task
from rltransfer.teacher_spec import TeacherSpec, tensors_sha256

TaskSpaces = tuple[spaces.Dict, spaces.Space[Any]]
"""A task's observation and action space."""


def shown_shape(space: spaces.Space[Any]) -> tuple[int, ...]:
    """Returns the shape of an observation as rollouts show it: discrete ones are one-hot."""
    return (int(space.n),) if isinstance(space, spaces.Discrete) else tuple(space.shape or ())


class Teacher(abc.ABC):
    """Labels observations; never learns.

    Attributes:
        source: Where it comes from, as a user would write it.
        num_parameters: Parameters that acting needs; 0 where nobody knows.
        sha256: Hash of what holds its weights, in hexadecimal; None where nothing does.
        loadable: Whether `load_teacher` makes the same teacher of `str(teacher)`.
    """

    source: str
    num_parameters: int
    sha256: str | None = None
    loadable = False

    @abc.abstractmethod
    def __call__(self, observation: Observation, task: Tensor) -> PolicyOutput:
        """Returns what the teacher says, which has gradients by the observation alone.

        It is captured in CUDA graphs: it neither waits for the device nor draws from any generator
        that `generators` does not return.

        Args:
            observation: The groups.                  (rows, ...)
            task: Index of each row's task, sorted. Whoever was fitted to one task labels every row
                as one of it.                         (rows,)
        """

    def to(self, device: torch.device) -> Teacher:
        """Returns the teacher, on a device; its generators begin anew."""
        return self

    def fitted(self, suite: Suite, own_spaces: Sequence[TaskSpaces]) -> Teacher:
        """Returns the teacher, ready to label the tasks of a suite.

        Args:
            suite: The tasks.
            own_spaces: Each task's own observation and action space, before padding.

        Raises:
            InputError: Its spaces do not fit a task's.
        """
        return self

    def generators(self) -> Sequence[torch.Generator]:
        """Returns the generators that its labels are drawn from, each once."""
        return ()

    def seed(self, seed: int) -> None:
        """Begins every generator anew, each with a seed of its own."""
        for index, generator in enumerate(self.generators()):
            (mixed,) = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)
            generator.manual_seed(int(mixed) % 2**63)

    def state_dict(self) -> dict[str, Any]:
        """Returns what changes as it labels: random states, and what it counts."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Goes back to what `state_dict` returned."""

    def figures(self) -> dict[str, float]:
        """Returns what a run logs of the teacher, by name; every process asks at the same time."""
        return {}

    def spec(self) -> TeacherSpec:
        """Returns what is known of the teacher; of its spaces, once it is fitted to a suite."""
        return TeacherSpec(source=str(self), kind=type(self).__name__, sha256=self.sha256)

    def describe(self) -> dict[str, Any]:
        """Returns JSON that tells this teacher from every other, and its specification."""
        return {
            "source": self.source,
            "num_parameters": self.num_parameters,
            "spec": self.spec().to_json(),
        }

    def quoted(self) -> str:
        """Returns the teacher as it stands in the text of a composition."""
        return repr(str(self)) if self.loadable else self.source

    def __str__(self) -> str:
        return self.source


class ModuleTeacher(Teacher):
    """A frozen network."""

    loadable = True

    def __init__(self, module: nn.Module, source: str, sha256: str, num_parameters: int) -> None:
        self.module = module.eval().requires_grad_(False)
        self.source = source
        self.sha256 = sha256
        self.num_parameters = num_parameters

    def to(self, device: torch.device) -> Teacher:
        """Returns the teacher, on a device."""
        self.module.to(device)
        return self

    def describe(self) -> dict[str, Any]:
        """Returns the source with the hash of its file, and its specification."""
        return {**super().describe(), "sha256": self.sha256}


class PolicyTeacher(ModuleTeacher):
    """A policy that rltransfer trained.

    Args:
        policy: The policy, without a recurrent state.
        source: Where it comes from.
        sha256: Hash of its weights.
        suite: The tasks that it was trained on, by whose order it knows them. If None, it labels
            tasks of its own spaces only, and knows them by the index that it is given.
        kind: What its specification calls it: "run" or "zoo".
        frame_stack: Frames that its observations stack, 0 for none; None where nobody knows.
        recorded_return: Mean return that was measured before, by task id.

    Raises:
        InputError: The policy is recurrent.
    """

    module: Policy

    def __init__(
        self,
        policy: Policy,
        source: str,
        sha256: str,
        suite: Suite | None = None,
        *,
        kind: str = "run",
        frame_stack: int | None = None,
        recorded_return: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(policy, source, sha256, policy.num_acting_parameters())
        if policy.state_size:
            raise InputError(
                f"The teacher {source} is recurrent: its labels depend on a state that nobody "
                "keeps; take a teacher without a GRU."
            )
        self.suite = suite
        self.kind = kind
        self.frame_stack = frame_stack
        self.recorded_return = dict(recorded_return or {})
        self._index: Tensor | None = None
        self._action_size: int | None = None

    def spec(self) -> TeacherSpec:
        """Returns what is known of the teacher: its spaces are those that it was trained on."""
        spec, encoder = self.module.spec, self.module.encoder
        normalizer = None
        if encoder.normalizer is not None:
            normalizer = {
                "kind": "mean and variance",
                "clip": encoder.normalizer.clip,
                "epsilon": encoder.normalizer.epsilon,
                "sha256": tensors_sha256([encoder.normalizer.mean, encoder.normalizer.variance]),
            }
        groups = {name: spec.observation_space[name] for name in spec.network.groups}
        is_image = len(groups[encoder.groups[0]].shape or ()) == 3
        return TeacherSpec(
            source=str(self),
            kind=self.kind,
            sha256=self.sha256,
            observation_space=spaces.Dict(list(groups.items())),
            action_space=spec.action_space,
            preprocessing={
                "groups": list(groups),
                "scale": encoder.scale,
                "channels": "first" if is_image else None,
                "frame_stack": self.frame_stack,
                "normalizer": normalizer,
            },
            recorded_return=self.recorded_return,
        )

    def __call__(self, observation: Observation, task: Tensor) -> PolicyOutput:
        """Returns what the policy says."""
        output: PolicyOutput = self.module(*self.own(observation, task))
        return self.cut(output)

    def own(self, observation: Observation, task: Tensor) -> tuple[Observation, Tensor]:
        """Returns what the policy sees: its own groups in their own sizes, and its own tasks.

        Args:
            observation: The groups, padded for a suite.    (rows, ...)
            task: Index of each row's task in that suite.   (rows,)
        """
        spec = self.module.spec
        seen = cropped(spec, observation)
        if self._index is None:
            # A teacher of one task knows it as its first.
            one_mask = spec.action_mask is None or len(spec.action_mask) == 1
            alone = one_mask and spec.num_tasks == 1
            return seen, torch.zeros_like(task) if alone else task
        if len(self._index) == 1:
            return seen, self._index.expand_as(task)
        return seen, self._index[task]

    def cut(self, output: PolicyOutput) -> PolicyOutput:
        """Returns an output without the actions that no task has that is labelled."""
        for name in (*LABELS, "absent"):
            said = getattr(output, name)
            if said is not None and self._action_size is not None:
                setattr(output, name, said[..., : self._action_size])
        return output

    def to(self, device: torch.device) -> Teacher:
        """Returns the teacher, on a device."""
        self._index = None if self._index is None else self._index.to(device)
        return super().to(device)

    def fitted(self, suite: Suite, own_spaces: Sequence[TaskSpaces]) -> Teacher:
        """Checks every group that the policy reads, and the actions, and finds each task's index.

        A policy of several tasks was trained on padded observations and actions: it fits each task
        that it was trained on.
        """
        fitted = copy.copy(self)
        indices = [self._index_of(task) for task in suite]
        for task, index, (observation_space, action_space) in zip(
            suite, indices, own_spaces, strict=True
        ):
            self._check_observation(task, observation_space)
            self._check_actions(task, index, action_space)
        if self.suite is not None:
            fitted._index = torch.tensor(indices)
        fitted._action_size = max(action_size(space) for _, space in own_spaces)
        return fitted

    @property
    def _is_padded(self) -> bool:
        """Whether it was trained on several tasks, and so perhaps on padded spaces."""
        return self.suite is not None and len(self.suite) > 1

    def _index_of(self, task: Task) -> int:
        """Returns the index by which the policy knows a task."""
        if self.suite is None or not self._is_padded:
            return 0
        place = self.suite.place_of(task)
        if place is None and not self.module.spec.asks_for_task:
            # It does the same in all of its tasks, of which any of this id will do.
            place = next((i for i, own in enumerate(self.suite) if own.id == task.id), None)
        if place is None:
            raise InputError(
                f"The teacher {self.source} does not fit the task {str(task)!r}: it was trained on "
                f"{', '.join(self.suite.names())}."
            )
        return place

    def _check_observation(self, task: Task, space: spaces.Dict) -> None:
        """Checks that a task shows every group that the policy reads."""
        spec = self.module.spec
        for name in spec.network.groups:
            wanted, there = spec.observation_space[name], space.spaces.get(name)
            if there is not None and there.dtype == wanted.dtype:
                size, *rest = wanted.shape or (0,)
                own, *own_rest = there.shape or (0,)
                if rest == own_rest and (own == size or (self._is_padded and own < size)):
                    continue
            found = "nothing" if there is None else f"{there.dtype}{list(there.shape or ())}"
            raise InputError(
                f"The teacher {self.source} does not fit the task {task.id!r}: "
                f"it reads the group {name!r} as {wanted.dtype}{list(wanted.shape or ())}, "
                f"the task gives {found}."
            )

    def _check_actions(self, task: Task, index: int, there: spaces.Space[Any]) -> None:
        """Checks that the policy's actions in a task are the task's own."""
        spec = self.module.spec
        wanted = spec.action_space
        size, given = action_size(wanted), action_size(there)
        if self._is_padded and spec.action_mask is not None:
            size = sum(spec.action_mask[index])
        if type(wanted) is not type(there) or size != given:
            raise InputError(
                f"The teacher {self.source} does not fit the task {task.id!r}: its actions are "
                f"{type(wanted).__name__}({size}), the task's {type(there).__name__}({given})."
            )


def cropped(spec: PolicySpec, observation: Observation) -> Observation:
    """Returns the groups that a policy reads, padded as its own suite pads them and no further."""
    own: Observation = {}
    for name in spec.network.groups:
        shape = spec.observation_space[name].shape or (0,)
        group = observation[name][:, : shape[0]]
        missing = shape[0] - group.shape[1]
        # The first dimension after the rows is the last that `pad` counts.
        own[name] = F.pad(group, (*[0, 0] * (len(shape) - 1), 0, missing)) if missing else group
    return own


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

    def __call__(self, observation: Observation, task: Tensor) -> PolicyOutput:
        """Returns what the policy says."""
        seen = observation[DEFAULT_GROUP]
        if self.loaded.num_observations is not None:
            seen = seen.argmax(-1)  # tasks show discrete observations as one-hot vectors
        else:
            # A suite pads vectors and images to the largest of its tasks'.
            seen = seen[:, : self._shape[0]]
        output: PolicyOutput = self.module(seen)
        return output

    def fitted(self, suite: Suite, own_spaces: Sequence[TaskSpaces]) -> Teacher:
        """Checks observation and action shapes, and takes the task's own action bounds."""
        for task, (observation_space, action_space) in zip(suite, own_spaces, strict=True):
            if DEFAULT_GROUP not in observation_space.spaces:
                raise InputError(
                    f"The teacher {self.source} does not fit the task {task.id!r}: it reads one "
                    "plain observation, the task gives named groups."
                )
            check_fit(self.loaded, observation_space[DEFAULT_GROUP], action_space, self.path)
        shapes = {observed[DEFAULT_GROUP].shape for observed, _ in own_spaces}
        if len(shapes) > 1:
            raise InputError(
                f"The teacher {self.source} reads images with the channels first or last, and the "
                f"tasks {', '.join(suite.names())} differ in that: give each its own teacher."
            )
        actions = own_spaces[0][1]
        if any(acted != actions for _, acted in own_spaces):
            raise InputError(
                f"The teacher {self.source} scales its actions to a task's bounds, and those of "
                f"{', '.join(suite.names())} differ: give each its own teacher, with PerTask."
            )
        fitted = self.with_actions(actions)
        # As the tasks show it: of images the channels may be first or last.
        fitted._shape = shapes.pop() or ()
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
