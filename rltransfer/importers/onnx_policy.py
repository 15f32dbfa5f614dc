"""ONNX files as policies: from `rltransfer export`, Stable-Baselines3's recipe, rsl_rl and others.

The graph runs in torch, by the operators of `onnx_operators.py`; onnxruntime is not needed. What
the inputs and outputs mean follows from their names:

| name                              | meaning                                                      |
| --------------------------------- | ------------------------------------------------------------ |
| `observation_<group>`             | the input for this observation group                         |
| `state`/`next_state`, `X`/`next_X`, `X_in`/`X_out` | the recurrent state before and after a step |
| any other input                   | the observation                                              |
| `logits`, `q_values`, `mean`      | what they say; before every other output                     |
| `log_std`                         | next to `mean`, the log standard deviation                   |
| `action`, `actions`               | the greedy action: whole numbers for discrete actions        |

Files of others may call their outputs anything: a single one is used, and the first of several.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.errors import InputError, unknown
from rltransfer.files.untrusted import JSON_GROWTH, check_size, damage_refused, parse_json
from rltransfer.importers.file_options import checked_once, scale_of, truth
from rltransfer.importers.imported_policy import shapes_of
from rltransfer.importers.onnx_file import OnnxFile, Value, read_onnx
from rltransfer.importers.onnx_graph import OnnxGraph
from rltransfer.importers.program_policy import OutputName, ProgramPolicy
from rltransfer.policies.output import PolicyOutput
from rltransfer.policies.scores import LOSING, mask_infinite
from rltransfer.tasks.action import action_size
from rltransfer.tasks.observation import DEFAULT_GROUP, Observation, space_from_json
from rltransfer.tasks.suite_spaces import check_bounds, describe_bounds

OPTIONS = ("output", "rescale", "scale", "tensor")
"""The options, next to `group`."""

SUFFIX = ".onnx"
"""The suffix of the files."""

FORMAT = "rltransfer policy"
"""What the metadata `format` of files of `rltransfer export` begins with."""

GROUP = "observation_"
"""What the names of inputs for observation groups begin with."""

SCORES: tuple[OutputName, ...] = ("logits", "q_values", "mean")
"""Names of outputs that say what they are."""

ACTIONS = ("action", "actions")
"""Names of outputs that are used before others."""

KEEPING = ("Clip", "Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Operators that keep values in [-1, 1] in this interval, or clip them further."""

LARGEST_STATE = 2**20
"""Numbers in a recurrent state, of which each environment has one."""


@dataclass(frozen=True)
class Memory:
    """A recurrent state as an input and an output."""

    before: str
    after: str
    shape: tuple[int, ...]
    """Without the axis of the batch, e.g. (layers, size)."""
    axis: int
    """The axis of the batch."""

    def size(self) -> int:
        """Numbers in the state of a row."""
        return math.prod(self.shape)

    def packed(self, flat: Tensor) -> Tensor:
        """The input of the graph.

        Args:
            flat: The state of each row.    (rows, size)
        """
        states: Tensor = flat.unflatten(1, self.shape)
        return states.movedim(0, self.axis)

    def unpacked(self, after: Tensor) -> Tensor:
        """The state of each row from an output of the graph.    (rows, size)"""
        rows: Tensor = after.movedim(self.axis, 0)
        return rows.flatten(1)


class Rescaled(nn.Module):
    """Scales actions from [-1, 1] to bounds, as Stable-Baselines3 does after a squashed actor.

    Args:
        actions: The bounds.
    """

    low: Tensor
    high: Tensor

    def __init__(self, actions: spaces.Box) -> None:
        super().__init__()
        for name, bound in (("low", actions.low), ("high", actions.high)):
            self.register_buffer(name, torch.from_numpy(bound.flatten()).float())

    def equals(self, other: Rescaled) -> bool:
        """Whether the bounds are those of another."""
        return self.low.equal(other.low) and self.high.equal(other.high)

    def forward(self, action: Tensor) -> Tensor:
        """The actions in the units of the environment.    (rows, action_dim)"""
        return self.low + 0.5 * (action + 1.0) * (self.high - self.low)


class OnnxPolicy(ProgramPolicy):
    """The graph of an ONNX file as a policy."""

    kind = "onnx"

    def __init__(
        self,
        file: OnnxFile,
        output: OutputName = "auto",
        scale: float = 1.0,
        groups: Sequence[str] | None = None,
        tensor: str | None = None,
        rescale: bool = False,
    ) -> None:
        """Creates a policy from a file.

        Args:
            file: The content of the file.
            output: What the output contains; see `ProgramPolicy`.
            scale: Factor on every observation.
            groups: The observation groups that it reads, in order; None for those that the inputs
                are named after, or else the default one.
            tensor: The name of the output to use; None to choose it.
            rescale: Whether actions in [-1, 1] are scaled to the bounds of the task.

        Raises:
            InputError: The inputs or outputs are not those of a policy for one task.
        """
        states, seen = _memories(file)
        named = [one.name.removeprefix(GROUP) for one in seen if one.name.startswith(GROUP)]
        if groups is None:
            groups = named if len(named) == len(seen) else (DEFAULT_GROUP,)
        if len(seen) not in (1, len(groups)):
            raise InputError(
                f"The teacher {file.path} takes the inputs {_listed(seen)}: add one "
                "`?group=NAME` for each of them to the path, in this order."
            )
        super().__init__(file.path, file.sha256, output, scale, groups)
        self.seen = seen
        self.memories = states
        self.chosen, self.other_outputs = _chosen(file, tensor, states)
        self.log_std = self.chosen == "mean" and "log_std" in {one.name for one in file.outputs}
        names = [self.chosen, *["log_std"] * self.log_std, *(one.after for one in states)]
        self.graph = OnnxGraph(file, names)
        self.own_actions = _own_actions(file)
        self.may_read_as_shown = self.own_actions is None
        if rescale and isinstance(self.own_actions, spaces.Box):
            raise InputError(
                f"The teacher {file.path} outputs actions in the units of its task, as its "
                "metadata tell: leave out `?rescale=true`."
            )
        if rescale and self.log_std:
            raise InputError(
                f"The teacher {file.path} outputs 'log_std', which `?rescale=true` does not scale: "
                "leave it out, or export the file with the action alone."
            )
        self.rescale = rescale
        self.is_squashed = not self.log_std and _is_squashed(file, self.chosen)
        if not rescale and self.own_actions is None:
            self.bounds_advice = "add `?rescale=true` to its path if its actions are in [-1, 1]"
        self.bounds: Rescaled | None = None
        if output == "auto":
            self.output = next((one for one in SCORES if one == self.chosen), "auto")

    def num_parameters(self) -> int:
        """The numbers in the weights that the output needs."""
        return self.graph.num_parameters()

    def preprocessing(self) -> dict[str, Any]:
        """The groups, the scale, and what is done to actions."""
        told = super().preprocessing()
        return {**told, "tensor": self.chosen, **({"rescale": True} if self.rescale else {})}

    def known_spaces(self) -> tuple[spaces.Dict | None, spaces.Space[Any] | None]:
        """The groups, and the actions in the metadata or of the task."""
        return self.observation_space, self.own_actions or self.action_space

    def notes(self) -> tuple[str, ...]:
        """Which of several outputs is used, if no name tells; and actions that seem not scaled."""
        notes, actions = [], self.action_space
        if self.other_outputs:
            others = ", ".join(map(repr, self.other_outputs))
            notes.append(
                f"{self.path} has several outputs: {self.chosen!r} is used, and not {others} "
                "(`?tensor=NAME` chooses another)."
            )
        may_scale = self.is_squashed and not self.rescale and self.own_actions is None
        if may_scale and isinstance(actions, spaces.Box) and actions.is_bounded():
            is_same = bool((actions.low == -1).all() and (actions.high == 1).all())
            notes += [] if is_same else [
                f"{self.path} outputs actions in [-1, 1], but those of the task are in "
                f"{describe_bounds(actions)}: add `?rescale=true` to its path to scale them, "
                "as Stable-Baselines3 does for SAC, TD3 and DDPG."
            ]  # fmt: skip
        return tuple(notes)

    def find_state(self, row: Observation) -> None:
        """The size of the recurrent states, which the inputs tell."""
        self.state_size = sum(one.size() for one in self.memories)

    def call(self, inputs: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Runs the graph once; see `ProgramPolicy`.

        Returns:
            The output, with the log standard deviation after it if there is one, and the states.
        """
        given = self._inputs(inputs)
        if state is not None:
            parts = state.split([one.size() for one in self.memories], 1)
            for memory, part in zip(self.memories, parts, strict=True):
                given[memory.before] = memory.packed(part)
        found = self.graph(given)
        output = found[self.chosen]
        rows = len(inputs)
        if not output.is_floating_point() and self.output != "mean":
            output = self._preference(output.reshape(rows))
        elif output.dim() > 2 and len(output) == rows:
            output = output.flatten(1)  # actions in the shape of their space
        if self.log_std:
            output = torch.cat([output, found["log_std"].expand_as(output)], 1)
        if state is None:
            return output, None
        after = torch.cat([one.unpacked(found[one.after]) for one in self.memories], 1)
        if after.shape != state.shape:
            raise ValueError("its state changes its shape")
        return output, after

    def _inputs(self, inputs: Tensor) -> dict[str, Tensor]:
        """The observation as the graph takes it.

        Args:
            inputs: The groups: one as it is, several as one vector.    (rows, ...)
        """
        if len(self.seen) == 1:
            return {self.seen[0].name: _cast(inputs, self.seen[0])}
        assert self.observation_space is not None
        shapes = shapes_of(self.observation_space)
        parts = inputs.split([math.prod(shape) for shape in shapes], 1)
        return {
            one.name: _cast(part.unflatten(1, shape), one)
            for one, part, shape in zip(self.seen, parts, shapes, strict=True)
        }

    def _preference(self, action: Tensor) -> Tensor:
        """Logits of a policy that always takes one action; NaN for an action out of range.

        Nothing is scattered, as an index that does not exist ends the work of a GPU.

        Args:
            action: The action.    (rows,)

        Returns:
            Logits.    (rows, num_actions)
        """
        count = action_size(self.action_space) if self.action_space is not None else 0
        places = torch.arange(count, device=action.device)
        start = int(self.own_actions.start) if isinstance(self.own_actions, spaces.Discrete) else 0
        action = action.long().unsqueeze(-1) - start
        logits = torch.where(action == places, 0.0, LOSING)
        return torch.where((action < 0) | (action >= count), math.nan, logits)

    def policy_output(self, output: Tensor) -> PolicyOutput:
        """What the graph outputs, in the fields of its kind."""
        output = output.float()
        if self.output != "mean":
            return PolicyOutput(**{self.output: mask_infinite(output)})
        if self.log_std:
            mean, log_std = output.chunk(2, -1)
            return PolicyOutput(mean=mean, log_std=log_std)
        if self.bounds is not None:
            output = self.bounds(output)
        return PolicyOutput(mean=output)

    def check_fit(self, task_id: str, shown: Observation | None) -> None:
        """Checks the sizes that the file declares, and runs the graph on observations."""
        assert self.observation_space is not None and self.action_space is not None
        shapes = shapes_of(self.observation_space)
        if len(self.seen) == 1 and len(shapes) > 1:
            shapes = [(sum(map(math.prod, shapes)),)]
        for one, shape in zip(self.seen, shapes, strict=True):
            declared = one.shape
            if declared is None or any(size is None for size in declared[1:]):
                continue
            if math.prod(size or 1 for size in declared[1:]) != math.prod(shape):
                raise self.refusal(task_id, f"reads observations of the shape {list(declared[1:])}")
        known = self.own_actions
        if isinstance(known, spaces.Box) and known.shape == self.action_space.shape:
            who, source = f"The teacher {self.path}", repr(str(self.path))
            check_bounds(who, source, known, task_id, self.action_space)
        self._take_bounds(task_id)
        super().check_fit(task_id, shown)
        labels = self.labels(self.example(shown))
        if labels is None or not bool(labels.isfinite().all()):
            raise self.refusal(
                task_id, "outputs NaN, infinity, or an action that the task does not have"
            )

    def _take_bounds(self, task_id: str) -> None:
        """Takes the bounds of the task if actions are scaled to them."""
        if not self.rescale:
            return
        actions = self.action_space
        if not isinstance(actions, spaces.Box) or not actions.is_bounded():
            raise self.refusal(task_id, "scales actions to bounds (`rescale=true`)")
        bounds = Rescaled(actions)
        if self.bounds is not None and not self.bounds.equals(bounds):
            raise InputError(
                f"The teacher {self.path} scales its actions to the bounds of one task, but those "
                f"of the task {task_id!r} differ: give each its own teacher, with PerTask."
            )
        self.bounds = bounds


def _cast(part: Tensor, value: Value) -> Tensor:
    """An observation in the type of an input, flat if the input is.    (rows, ...)"""
    if value.shape is not None and len(value.shape) == 2:
        part = part.flatten(1)
    return part if value.dtype is None else part.to(value.dtype)


def _listed(values: Sequence[Value]) -> str:
    return ", ".join(repr(one.name) for one in values)


def _memories(file: OnnxFile) -> tuple[list[Memory], list[Value]]:
    """The recurrent states of a file, and its other inputs.

    Raises:
        InputError: A state has no known size, or the file is for several tasks.
    """
    outputs = {one.name for one in file.outputs}
    found, seen = [], []
    for value in file.inputs:
        name = value.name
        after = f"{name.removesuffix('_in')}_out" if name.endswith("_in") else f"next_{name}"
        if after not in outputs:
            seen.append(value)
            continue
        shape = value.shape or ()
        axis = 1 if len(shape) == 3 else 0
        rest = tuple(size for place, size in enumerate(shape) if place != axis)
        sizes = tuple(size for size in rest if size is not None)
        known = len(shape) in (2, 3) and len(sizes) == len(rest)
        if not known or shape[axis] not in (None, 1) or math.prod(sizes) > LARGEST_STATE:
            raise InputError(
                f"The teacher {file.path} has the recurrent state {name!r} of the shape "
                f"{list(shape)}, but only [batch, size] and [layers, batch, size] are read."
            )
        found.append(Memory(name, after, sizes, axis))
    if any(one.name == "task" for one in seen) and "tasks" in file.metadata:
        raise InputError(
            f"The teacher {file.path} was exported from a run on several tasks: use the run "
            "directory, which tells them apart."
        )
    if not seen:
        raise InputError(f"{file.path} is not a policy: it has no input for an observation.")
    return found, seen


def _chosen(
    file: OnnxFile, tensor: str | None, memories: Sequence[Memory]
) -> tuple[str, list[str]]:
    """The output that is used, and the others if no name tells which it is.

    Raises:
        InputError: The file does not have this output, or has none.
    """
    states = {one.after for one in memories}
    names = [one.name for one in file.outputs if one.name not in states]
    if tensor is not None:
        if tensor not in names:
            raise unknown(f"output of {file.path}", tensor, names)
        return tensor, []
    if not names:
        raise InputError(f"{file.path} is not a policy: it has no output besides its state.")
    told = [name for name in (*SCORES, *ACTIONS) if name in names]
    if told or len(names) == 1:
        return (told or names)[0], []
    return names[0], names[1:]


def _is_squashed(file: OnnxFile, name: str) -> bool:
    """Whether the last operator that computes an output is a tanh."""
    nodes = {one: node for node in file.nodes for one in node.outputs if one}
    for _ in file.nodes:  # a damaged file may have a circle
        node = nodes.get(name)
        if node is None or node.op not in KEEPING or not node.inputs:
            return node is not None and node.op == "Tanh"
        name = node.inputs[0]
    return False


def _own_actions(file: OnnxFile) -> spaces.Space[Any] | None:
    """The action space in the metadata of `rltransfer export`; None in files of others.

    Raises:
        InputError: The metadata are damaged.
    """
    if not file.metadata.get("format", "").startswith(FORMAT):
        return None
    text = file.metadata.get("action_space", "")
    check_size(len(text), file.path, JSON_GROWTH)
    with damage_refused(f"{file.path} is damaged: its metadata do not contain an action space."):
        return space_from_json(parse_json(text))


def load_onnx(path: Path, options: Mapping[str, list[str]] | None = None) -> OnnxPolicy:
    """The policy of an ONNX file, on the CPU.

    Args:
        path: The file.
        options: The values of each option; see docs/teachers.md.

    Raises:
        InputError: The file is missing, damaged or not a policy's, has an operator that is not
            known, or an option is unknown or has no such value.
    """
    given = dict(options or {})
    groups = given.pop("group", None)
    once: dict[str, Any] = dict(checked_once(given, OPTIONS, path))
    if once.get("output", "auto") not in get_args(OutputName):
        raise unknown("output of an ONNX file", once["output"], get_args(OutputName))
    if "scale" in once:
        once["scale"] = scale_of(once["scale"], path)
    if "rescale" in once:
        once["rescale"] = truth(once["rescale"], "rescale", path)
    return OnnxPolicy(read_onnx(path), groups=groups, **once).eval().requires_grad_(False)
