"""Exports a policy as an ONNX file, and checks that the file acts like the policy.

Inputs; the first axis of each is the batch, of any size:

| name                  | content                                                               |
| --------------------- | --------------------------------------------------------------------- |
| `observation_<group>` | each group that the policy reads, in the task's type and units; a     |
|                       | discrete observation is a one-hot vector, float32                     |
| `task`                | int64 index of the task, if the policy has several                    |
| `state`               | float32 recurrent state, if any; zeros at the start of an episode     |

Outputs:

| name                           | content                                                      |
| ------------------------------ | ------------------------------------------------------------ |
| `action`                       | the greedy action, as the environment takes it: int64 from   |
|                                | the start of its space, or float32 within the task's bounds, |
|                                | in the shape of its space; of several tasks whose shapes     |
|                                | differ a vector, whose padded dimensions are 0               |
| `logits`, `q_values` or `mean` | the policy's output; masked actions have the score -1e9      |
| `log_std`                      | log standard deviation of continuous actions                 |
| `next_state`                   | the recurrent state for the next call                        |

The file's metadata contain the spaces, those of each task's actions as its environment defines
them, the tasks in the order of their index, and the hash of the weights.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from rltransfer.errors import InputError, check_number
from rltransfer.files.atomic import write_bytes_whole
from rltransfer.files.checkpoint_names import FINAL, find_checkpoint
from rltransfer.files.hashing import weights_sha256
from rltransfer.options import flag, path_value, whole_number
from rltransfer.policies.output import LABELS, MASKED, PolicyOutput
from rltransfer.policies.policy import Policy
from rltransfer.policies.saving import load_policy
from rltransfer.runs.config import read_config
from rltransfer.runs.exporters import check_target
from rltransfer.runs.folder import io_errors_as_input_errors
from rltransfer.tasks.action import action_size
from rltransfer.tasks.observation import space_to_json
from rltransfer.tasks.random_observation import random_observation
from rltransfer.tasks.task import Suite

Array = NDArray[Any]

OPSET = 18
"""Version of ONNX's operators: the default of torch's exporter."""

FORMAT = "rltransfer policy 1"
"""The format's name in the metadata: inputs and outputs as in the tables above."""

TOLERANCE = 1e-4
"""Tolerated difference of an output, relative to the largest: both compute in float32, but sum in
different orders."""


@dataclass(frozen=True)
class Exported:
    """An exported file, and its differences from the policy."""

    path: Path
    num_bytes: int
    inputs: dict[str, str]
    """Type and shape of each input, by name."""
    outputs: dict[str, str]
    """Type and shape of each output, by name."""
    samples: int
    """Number of random observations in the comparison."""
    largest_difference: float
    """Largest difference of an output over all samples."""
    tasks: tuple[str, ...]
    """The tasks, in the order of the index in the input `task`."""


class Exportable(nn.Module):
    """A greedy policy whose inputs are a list and whose outputs are a dictionary of tensors.

    Args:
        policy: The policy, in evaluation mode.
        num_tasks: Number of tasks.
        actions_only: Whether to leave out the logits, Q-values, mean and log_std.

    Attributes:
        inputs: The names of the inputs.
    """

    low: Tensor
    high: Tensor
    starts: Tensor

    def __init__(self, policy: Policy, num_tasks: int, actions_only: bool = False) -> None:
        super().__init__()
        self.policy = policy
        self.num_tasks = num_tasks
        self.actions_only = actions_only
        self.groups = tuple(dict.fromkeys(policy.spec.network.groups))
        self.inputs = [f"observation_{group}" for group in self.groups]
        self.inputs += ["task"] * (num_tasks > 1) + ["state"] * (policy.state_size > 0)
        self.actions = policy.spec.host_actions or (policy.spec.action_space,)
        self.continuous = isinstance(policy.spec.action_space, spaces.Box)
        size = action_size(policy.spec.action_space)
        low, high = torch.full((2, len(self.actions), size), torch.inf)
        low = -low
        starts = torch.zeros(len(self.actions), dtype=torch.int64)
        for task, space in enumerate(self.actions):
            if isinstance(space, spaces.Box):
                low[task, : space.low.size] = torch.from_numpy(space.low.flatten())
                high[task, : space.low.size] = torch.from_numpy(space.high.flatten())
            else:
                assert isinstance(space, spaces.Discrete)
                starts[task] = int(space.start)
        for name, table in (("low", low), ("high", high), ("starts", starts)):
            self.register_buffer(name, table)
        self.eval()

    def forward(self, tensors: list[Tensor]) -> dict[str, Tensor]:
        """The outputs by name.    (batch, ...) each

        Args:
            tensors: The inputs, in the order of `inputs`.    (batch, ...) each
        """
        given = dict(zip(self.inputs, tensors, strict=True))
        observation = {group: given[f"observation_{group}"] for group in self.groups}
        task = given.get("task", torch.zeros(tensors[0].shape[:1], dtype=torch.int64))
        output: PolicyOutput = self.policy(observation, task, given.get("state"))
        outputs = {"action": self._host_action(output, task)}
        for name in () if self.actions_only else LABELS:
            if getattr(output, name) is not None:
                outputs[name] = getattr(output, name)
        if "state" in given:
            assert output.state is not None
            outputs["next_state"] = output.state
        return outputs

    def _host_action(self, output: PolicyOutput, task: Tensor) -> Tensor:
        """The greedy action as the environment takes it.    (batch, *shape)"""
        row = task if len(self.actions) > 1 else 0
        if not self.continuous:
            return output.greedy() + self.starts[row]
        action = output.greedy().clamp(self.low[row], self.high[row])
        action = output.mask_padding(action)
        shapes = {space.shape for space in self.actions}
        (shape,) = shapes if len(shapes) == 1 else (None,)
        return action if shape is None else action.reshape(-1, *shape)

    def example(self, batch: int, seed: int = 0) -> list[Tensor]:
        """Random inputs for `forward`; to export, no environment needs to be installed.

        (batch, ...) each
        """
        known = self.policy.spec.observation_space
        space = spaces.Dict([(group, known[group]) for group in self.groups])
        generator = torch.Generator().manual_seed(seed)
        tensors = list(random_observation(space, batch, seed).values())
        if "task" in self.inputs:
            tensors.append(torch.randint(self.num_tasks, (batch,), generator=generator))
        if "state" in self.inputs:
            # A GRU's state is between -1 and 1.
            tensors.append(2 * torch.rand(batch, self.policy.state_size, generator=generator) - 1)
        return tensors


def export_run(
    run_dir: str | Path,
    out: str | Path,
    *,
    samples: int = 256,
    actions_only: bool = False,
    checkpoint: str | int = FINAL,
) -> Exported:
    """Writes a run's policy as an ONNX file, after checking that it acts the same.

    Args:
        run_dir: The run directory.
        out: The file; must not exist.
        samples: Number of random observations on which policy and file are compared.
        actions_only: Whether to leave out the logits, Q-values, mean and log_std.
        checkpoint: The checkpoint with the policy, see `find_checkpoint`.

    Raises:
        InputError: The folder is not a run or has no such checkpoint, the file exists or cannot be
            written, or a required package is missing.
        RuntimeError: The file does not act like the policy; it is not written.
    """
    samples = whole_number("samples", samples, "at least 1")
    check_number("samples", samples, "at most 1,000,000")
    actions_only = flag("actions_only", actions_only)
    run_dir, out = path_value("run_dir", run_dir), path_value("out", out)
    suite = Suite.from_json(read_config(run_dir)["suite"])
    stem = find_checkpoint(run_dir, checkpoint) / "policy"
    policy = load_policy(stem)
    check_target(out)
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"Exporting needs the package {name}: run `pip install 'rltransfer[export]'`."
            )
    exportable = Exportable(policy, len(suite), actions_only)
    metadata = _metadata(policy, suite, weights_sha256(stem))
    content, inputs, outputs = _exported(exportable, metadata)
    difference = largest_difference(exportable, content, samples)
    with io_errors_as_input_errors(out):
        write_bytes_whole(out, content)
    return Exported(out, len(content), inputs, outputs, samples, difference, suite.names())


def _metadata(policy: Policy, suite: Suite, sha256: str) -> dict[str, str]:
    spec = policy.spec
    hosts = spec.host_actions or ()
    own = hosts[0] if len(hosts) == 1 else None
    return {
        "format": FORMAT,
        "tasks": json.dumps([task.to_json() for task in suite]),
        "observation_space": json.dumps(space_to_json(spec.observation_space)),
        "action_space": json.dumps(space_to_json(spec.action_space if own is None else own)),
        "task_action_spaces": json.dumps([space_to_json(s) for s in hosts]),
        "action_mask": json.dumps(spec.action_mask),
        "weights_sha256": sha256,
    }


def _exported(
    exportable: Exportable, metadata: dict[str, str]
) -> tuple[bytes, dict[str, str], dict[str, str]]:
    """The file's content, and type and shape of its inputs and outputs by name."""
    example = exportable.example(2)
    batch = torch.export.Dim("batch")
    with _quiet():
        program = torch.onnx.export(
            exportable,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=([{0: batch} for _ in example],),
            input_names=exportable.inputs,
            output_names=list(exportable(example)),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    # The exporter adds source lines to each node, with the paths of this machine.
    for part in (model.graph, *model.graph.node, *model.graph.value_info):
        del part.metadata_props[:]
    model.producer_name = "rltransfer"
    for name, value in metadata.items():
        model.metadata_props.add(key=name, value=value)
    inputs, outputs = (
        {one.name: _type_and_shape(one) for one in values}
        for values in (model.graph.input, model.graph.output)
    )
    return model.SerializeToString(), inputs, outputs


def _type_and_shape(value: Any) -> str:
    """The type and shape of a model's input or output, e.g. "float32[batch, 4]"."""
    from onnx.helper import tensor_dtype_to_np_dtype

    kind = tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    sizes = [str(d.dim_param or d.dim_value) for d in value.type.tensor_type.shape.dim]
    return f"{kind}[{', '.join(sizes)}]"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter's messages about its internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def largest_difference(exportable: Exportable, content: bytes, samples: int) -> float:
    """The largest difference of an output between a file and its policy.

    Args:
        exportable: The policy.
        content: The file's content.
        samples: Number of random observations.

    Raises:
        RuntimeError: The file acts differently.
    """
    import onnxruntime

    tensors = exportable.example(samples, seed=1)
    # With the scores, even if the file leaves them out.
    full = Exportable(exportable.policy, exportable.num_tasks)
    with torch.no_grad():
        expected = {name: tensor.numpy() for name, tensor in full(tensors).items()}
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    given = dict(zip(exportable.inputs, (tensor.numpy() for tensor in tensors), strict=True))
    names = [output.name for output in session.get_outputs()]
    largest = 0.0
    for name, found in zip(names, session.run(names, given), strict=True):
        if name == "action" and not exportable.continuous:
            scores = expected.get("logits", expected.get("q_values"))
            assert scores is not None
            several = "task" in given and len(exportable.starts) > 1
            starts = exportable.starts.numpy()[given["task"] if several else 0]
            _check_actions(expected["action"] - starts, found - starts, scores)
            continue
        difference = float(np.abs(expected[name] - found).max())
        if not difference <= _tolerance(expected[name]):  # so that NaN fails as well
            raise RuntimeError(
                f"The file's {name} differs from the policy's by {difference:.2g}; it was not "
                "written."
            )
        largest = max(largest, difference)
    return largest


def _check_actions(expected: Array, found: Array, scores: Array) -> None:
    """Checks discrete actions; actions with almost equal scores are interchangeable.

    Args:
        expected: The policy's actions.    (samples,)
        found: The file's actions.         (samples,)
        scores: The policy's scores.       (samples, num_actions)
    """
    rows = np.arange(len(expected))
    worse = scores[rows, expected] - scores[rows, found]
    wrong = int((worse > _tolerance(scores)).sum())
    if wrong:
        raise RuntimeError(
            f"The file's action differs from the policy's in {wrong} of {len(expected)} "
            "observations; it was not written."
        )


def _tolerance(values: Array) -> float:
    unmasked = values[values > MASKED / 2]
    return TOLERANCE * max(1.0, float(np.abs(unmasked).max(initial=0.0)))
