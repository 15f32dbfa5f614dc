"""A policy as an ONNX file, which acts without Python, and the check that it acts the same.

Inputs, the first axis of each is the batch, of any size:

| name                  | what                                                                     |
| --------------------- | ------------------------------------------------------------------------ |
| `observation_<group>` | each group that the policy reads, in the task's own type and units; a    |
|                       | discrete observation is a one-hot vector, float32                        |
| `task`                | int64 index of the task, where the policy has several                    |
| `state`               | float32 recurrent state, where it has one; zeros begin an episode        |

Outputs:

| name                               | what                                                        |
| ---------------------------------- | ----------------------------------------------------------- |
| `action`                           | the greedy action: int64, or float32 clipped to its bounds, |
|                                    | the widest of all tasks; 0 for numbers that a task has not  |
| `logits`, `q_values` or `mean`     | what it was chosen by; an illegal action has the score -1e9 |
| `log_std`                          | log standard deviation of continuous actions                |
| `next_state`                       | the recurrent state for the next call                       |

What the file says of itself stands in its metadata: spaces, tasks in the order of their index, and
the hash of the weights that it was made of.
"""

from __future__ import annotations

import contextlib
import hashlib
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

from rltransfer.errors import InputError
from rltransfer.files.checkpoint import newest_checkpoint
from rltransfer.policies.output import ILLEGAL, LABELS, PolicyOutput
from rltransfer.policies.policy import Policy
from rltransfer.policies.saving import load_policy
from rltransfer.runs.config import read_config
from rltransfer.tasks.observation import space_to_json
from rltransfer.tasks.random_observation import random_observation
from rltransfer.tasks.task import Suite

Array = NDArray[Any]

OPSET = 18
"""The version of ONNX's operators: the one that torch's exporter writes by itself."""

FORMAT = "rltransfer policy 1"
"""What the metadata call the file: inputs and outputs as in the table above."""

TOLERANCE = 1e-4
"""By how much an output may differ, as a share of the largest: both compute in float32, but sum in
another order."""


@dataclass(frozen=True)
class Exported:
    """A file that was written, and how it compares with its policy."""

    path: Path
    """The file."""
    num_bytes: int
    """Its size."""
    inputs: dict[str, str]
    """Type and shape of each input, by name."""
    outputs: dict[str, str]
    """Type and shape of each output, by name."""
    samples: int
    """Random observations that both were shown."""
    largest_difference: float
    """Largest difference of an output over all of them."""
    tasks: tuple[str, ...]
    """The tasks, in the order of the index that goes in where there are several."""


class Exportable(nn.Module):
    """A policy with a list of tensors in and a table of tensors out, which never draws at random.

    Attributes:
        inputs: The names of the tensors that go in.
    """

    def __init__(self, policy: Policy, num_tasks: int, stochastic_free: bool = False) -> None:
        """Wraps a policy.

        Args:
            policy: The policy, in evaluation mode.
            num_tasks: How many tasks it knows.
            stochastic_free: Whether to leave out what a random action would be drawn from.
        """
        super().__init__()
        self.policy = policy
        self.num_tasks = num_tasks
        self.stochastic_free = stochastic_free
        self.groups = tuple(dict.fromkeys(policy.spec.network.groups))
        self.inputs = [f"observation_{group}" for group in self.groups]
        self.inputs += ["task"] * (num_tasks > 1) + ["state"] * (policy.state_size > 0)
        self.low, self.high = _bounds(policy.spec.action_space)
        self.eval()

    def forward(self, tensors: list[Tensor]) -> dict[str, Tensor]:
        """Returns the greedy action, and what else the file says, by name.

        Args:
            tensors: In the order of `inputs`.    (batch, ...) each
        """
        given = dict(zip(self.inputs, tensors, strict=True))
        observation = {group: given[f"observation_{group}"] for group in self.groups}
        task = given.get("task", torch.zeros(tensors[0].shape[:1], dtype=torch.int64))
        output: PolicyOutput = self.policy(observation, task, given.get("state"))
        action = output.greedy()
        if self.low is not None:
            action = output.mask_padding(action.clamp(self.low, self.high))
        said = {"action": action}
        for name in () if self.stochastic_free else LABELS:
            if getattr(output, name) is not None:
                said[name] = getattr(output, name)
        if "state" in given:
            assert output.state is not None
            said["next_state"] = output.state
        return said

    def example(self, batch: int, seed: int = 0) -> list[Tensor]:
        """Returns random tensors for `forward`, the same for the same seed.    (batch, ...) each

        Args:
            batch: How many rows.
            seed: The seed.
        """
        known = self.policy.spec.observation_space
        space = spaces.Dict([(group, known[group]) for group in self.groups])
        generator = torch.Generator().manual_seed(seed)
        tensors = list(random_observation(space, batch, seed).values())
        if "task" in self.inputs:
            tensors.append(torch.randint(self.num_tasks, (batch,), generator=generator))
        if "state" in self.inputs:
            # A GRU's state lies between -1 and 1.
            tensors.append(2 * torch.rand(batch, self.policy.state_size, generator=generator) - 1)
        return tensors


def _bounds(space: spaces.Space[Any]) -> tuple[Tensor | None, Tensor | None]:
    """Returns the smallest and the largest continuous action.    (action_dim,) each"""
    if not isinstance(space, spaces.Box):
        return None, None
    return torch.as_tensor(space.low), torch.as_tensor(space.high)


def export_run(
    run_dir: Path, out: Path, *, samples: int = 256, stochastic_free: bool = False
) -> Exported:
    """Writes the newest policy of a run as an ONNX file that was seen to act the same.

    Args:
        run_dir: The run's folder.
        out: The file; must not be there yet.
        samples: Random observations that policy and file are compared on.
        stochastic_free: Whether to leave out what a random action would be drawn from.

    Raises:
        InputError: The folder is no run, the file is there or cannot be written, or a package that
            exporting needs is missing.
        RuntimeError: The file does not act as the policy does; it was not written.
    """
    if samples < 1:
        raise InputError(f"The number of samples is {samples}: it must be at least 1.")
    suite = Suite.from_json(read_config(run_dir)["suite"])
    stem = newest_checkpoint(run_dir) / "policy"
    policy = load_policy(stem)
    if out.exists():
        raise InputError(f"{out} is there already: give another --out.")
    if not out.parent.is_dir():
        raise InputError(f"{out} cannot be written: there is no folder {out.parent}.")
    _check_packages()
    exportable = Exportable(policy, len(suite), stochastic_free)
    sha256 = hashlib.sha256(stem.with_suffix(".safetensors").read_bytes()).hexdigest()
    content, inputs, outputs = _exported(exportable, _metadata(policy, suite, sha256))
    difference = largest_difference(exportable, content, samples)
    _write(content, out)
    return Exported(out, len(content), inputs, outputs, samples, difference, suite.names())


def _check_packages() -> None:
    """Refuses to go on without what exporting needs."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"Exporting needs the package {name}: `pip install 'rltransfer[export]'` brings it."
            )


def _metadata(policy: Policy, suite: Suite, sha256: str) -> dict[str, str]:
    """Returns what the file says of itself."""
    spec = policy.spec
    return {
        "format": FORMAT,
        "tasks": json.dumps([task.to_json() for task in suite]),
        "observation_space": json.dumps(space_to_json(spec.observation_space)),
        "action_space": json.dumps(space_to_json(spec.action_space)),
        "action_mask": json.dumps(spec.action_mask),
        "weights_sha256": sha256,
    }


def _exported(
    exportable: Exportable, metadata: dict[str, str]
) -> tuple[bytes, dict[str, str], dict[str, str]]:
    """Returns the file, and type and shape of its inputs and outputs by name."""
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
    # The exporter notes lines of source beside each node, with the paths of this machine.
    for part in (model.graph, *model.graph.node, *model.graph.value_info):
        del part.metadata_props[:]
    model.producer_name = "rltransfer"
    for name, value in metadata.items():
        model.metadata_props.add(key=name, value=value)
    inputs, outputs = (
        {one.name: _in_words(one) for one in values}
        for values in (model.graph.input, model.graph.output)
    )
    return model.SerializeToString(), inputs, outputs


def _in_words(value: Any) -> str:
    """Returns type and shape of an input or output of a model, e.g. "float32[batch, 4]"."""
    from onnx.helper import tensor_dtype_to_np_dtype

    kind = tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    sizes = [str(d.dim_param or d.dim_value) for d in value.type.tensor_type.shape.dim]
    return f"{kind}[{', '.join(sizes)}]"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter from telling what concerns its own parts only."""
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
    """Returns the largest difference of an output of a file from its policy's.

    Args:
        exportable: The policy.
        content: The file.
        samples: Random observations that both are shown.

    Raises:
        RuntimeError: They act differently.
    """
    import onnxruntime

    tensors = exportable.example(samples, seed=1)
    # With its scores, also where the file leaves them out.
    full = Exportable(exportable.policy, exportable.num_tasks)
    with torch.no_grad():
        own = {name: tensor.numpy() for name, tensor in full(tensors).items()}
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    given = dict(zip(exportable.inputs, (tensor.numpy() for tensor in tensors), strict=True))
    names = [output.name for output in session.get_outputs()]
    largest = 0.0
    for name, found in zip(names, session.run(names, given), strict=True):
        if name == "action" and exportable.low is None:
            scores = own.get("logits", own.get("q_values"))
            assert scores is not None
            _check_actions(own["action"], found, scores)
            continue
        difference, bound = float(np.abs(own[name] - found).max()), _bound(own[name])
        if not difference <= bound:  # so that NaN fails as well
            raise RuntimeError(
                f"The file says another {name} than the policy, by {difference:.2g}, and was not "
                "written."
            )
        largest = max(largest, difference)
    return largest


def _check_actions(own: Array, found: Array, scores: Array) -> None:
    """Checks discrete actions; of two that the policy's scores hardly tell apart, each is right.

    Args:
        own: The policy's.           (samples,)
        found: The file's.           (samples,)
        scores: What the policy's were chosen by.    (samples, num_actions)
    """
    rows = np.arange(len(own))
    worse = scores[rows, own] - scores[rows, found]
    wrong = int((worse > _bound(scores)).sum())
    if wrong:
        raise RuntimeError(
            f"The file takes another action than the policy in {wrong} of {len(own)} observations, "
            "and was not written."
        )


def _bound(values: Array) -> float:
    """Returns by how much values may differ that were summed in another order."""
    legal = values[values > ILLEGAL / 2]
    return TOLERANCE * max(1.0, float(np.abs(legal).max(initial=0.0)))


def _write(content: bytes, path: Path) -> None:
    """Writes a file whole or not at all.

    Raises:
        InputError: It cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.rename(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error
