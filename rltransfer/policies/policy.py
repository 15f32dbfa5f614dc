"""The policy: encoder, optional GRU, and heads."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.files.serialization import from_json
from rltransfer.policies.encoder import Encoder, head, through, upper_image_bound
from rltransfer.policies.history_encoder import check_same_history
from rltransfer.policies.network import Network
from rltransfer.policies.output import EMPTY, MAPS, MASKED, Needs, PolicyOutput
from rltransfer.tasks.action import action_size, center_and_half_range
from rltransfer.tasks.observation import Observation, space_from_json, space_to_json
from rltransfer.tasks.suite_spaces import SuiteSpaces
from rltransfer.tasks.task import Suite

LOG_STD_RANGE = (-5.0, 2.0)
"""Bounds of a continuous policy's log standard deviation, which keep its density finite."""


class _Bounded(torch.autograd.Function):
    """Clamps to `LOG_STD_RANGE`, with gradients that lead back into the range.

    A plain clamp has no gradient outside its bounds: a parameter that leaves them would never
    return. Here only gradients that lead further out are zero.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor) -> Tensor:
        return value.clamp(*LOG_STD_RANGE)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (value,) = ctx.saved_tensors
        low, high = LOG_STD_RANGE
        # Gradient descent moves against the gradient.
        leads_out = ((value < low) & (gradient > 0)) | ((value > high) & (gradient < 0))
        return gradient.masked_fill(leads_out, 0.0)


def bounded_log_std(value: Tensor) -> Tensor:
    """Log standard deviations clamped to `LOG_STD_RANGE`; see `_Bounded`.    (...)"""
    bounded: Tensor = _Bounded.apply(value)  # type: ignore[no-untyped-call]
    return bounded


@dataclasses.dataclass(frozen=True)
class PolicySpec:
    """Everything that a policy is built from, except its weights."""

    network: Network
    observation_space: spaces.Dict
    action_space: spaces.Space[Any]
    """`Discrete` or `Box`."""
    action_mask: tuple[tuple[bool, ...], ...] | None = None
    """The available actions or action dimensions of each task; None if all are available."""
    q_values: bool = False
    """Whether the head over discrete actions outputs Q-values instead of logits."""
    value: bool = True
    """Whether there is a value head."""
    num_tasks: int = 1
    """Number of tasks."""
    host_actions: tuple[spaces.Space[Any], ...] | None = None
    """The action space of each task as its environment defines it, with its start or its shape.
    Continuous actions are learned in [-1, 1] and scaled to its bounds, dimension by dimension. None
    in files of earlier versions, whose policies output actions in the environment's units."""
    image_bounds: tuple[float, ...] | None = None
    """The upper bound of each task's images, by which they are divided; None if all are alike."""

    def __post_init__(self) -> None:
        # A method that means something else by "auto" has replaced it.
        object.__setattr__(self, "network", self.network.with_activation("relu"))

    @classmethod
    def of_suite(cls, network: Network, suite: SuiteSpaces, **rest: Any) -> Self:
        """The specification of a policy for all tasks of a suite; `rest` sets the other fields.

        Raises:
            InputError: The network reads histories that differ in their shapes.
        """
        check_same_history(network, [own.observation for own in suite.own])
        first = [own.observation.spaces.get(network.groups[0]) for own in suite.own]
        bounds = tuple(upper_image_bound(space) for space in first)
        return cls(
            network=network,
            image_bounds=bounds if len(set(bounds)) > 1 else None,
            observation_space=suite.observation_space,
            action_space=suite.action_space,
            action_mask=suite.action_mask,
            num_tasks=len(suite.suite),
            host_actions=suite.host_actions,
            **rest,
        )

    @property
    def num_heads(self) -> int:
        """Number of action heads, and of value heads."""
        return self.num_tasks if self.network.heads == "per-task" else 1

    @property
    def num_statistics(self) -> int:
        """Number of separate statistics of vectors."""
        return self.num_tasks if self.network.statistics == "per-task" else 1

    @property
    def asks_for_task(self) -> bool:
        """Whether the output depends on the task."""
        units = self.action_units()
        return (
            self.action_mask is not None
            or max(self.num_heads, self.num_statistics) > 1
            or self.image_bounds is not None
            or (units is not None and len(units[0]) > 1)
        )

    def action_units(self) -> tuple[Tensor, Tensor] | None:
        """The units in which a network outputs continuous actions: the bounds of each dimension.

        Returns:
            The center and the half-range of the bounds, one row for all tasks if these agree,
            (1 or num_tasks, action_dim) each; None if outputs are in the environment's units.
        """
        if self.host_actions is None or not isinstance(self.action_space, spaces.Box):
            return None
        # In NumPy: a file's policy is first built without memory, on the device "meta".
        shape = (len(self.host_actions), action_size(self.action_space))
        center, half_range = np.zeros(shape, np.float32), np.ones(shape, np.float32)
        for task, box in enumerate(self.host_actions):
            assert isinstance(box, spaces.Box)
            units = center_and_half_range(box)
            for table, values in zip((center, half_range), units, strict=True):
                table[task, : len(values)] = values
        if (center == center[0]).all() and (half_range == half_range[0]).all():
            center, half_range = center[:1], half_range[:1]
        return torch.from_numpy(center), torch.from_numpy(half_range)

    def bounds_of(self, task: int) -> spaces.Box | None:
        """The bounds within which the policy acts in a task; None if unknown, or discrete."""
        if self.host_actions is not None:
            space = self.host_actions[task]
        elif self.num_tasks == 1 and self.action_mask is None:
            space = self.action_space
        else:
            return None  # the joint bounds of several tasks
        return space if isinstance(space, spaces.Box) else None

    def build(self) -> Policy:
        """A policy with fresh weights."""
        return Policy(self)

    def to_json(self) -> dict[str, Any]:
        """JSON form of the specification."""
        return {
            "network": dataclasses.asdict(self.network),
            "observation_space": space_to_json(self.observation_space),
            "action_space": space_to_json(self.action_space),
            "action_mask": self.action_mask,
            "q_values": self.q_values,
            "value": self.value,
            "num_tasks": self.num_tasks,
            "host_actions": (
                None if self.host_actions is None else [space_to_json(s) for s in self.host_actions]
            ),
            **({} if self.image_bounds is None else {"image_bounds": self.image_bounds}),
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> PolicySpec:
        """Inverse of `to_json`.

        Raises:
            Exception: The data are not those of a policy: one of `DAMAGE`.
        """
        observation_space = space_from_json(data["observation_space"])
        if not isinstance(observation_space, spaces.Dict):
            raise TypeError("The observation space of a policy must be a dictionary of groups.")
        mask = data["action_mask"]
        # Files of earlier versions lack newer options.
        network = {**dataclasses.asdict(Network()), **data["network"]}
        num_tasks, flags = data.get("num_tasks", 1), (data["q_values"], data["value"])
        if type(num_tasks) is not int or num_tasks < 1 or {type(one) for one in flags} != {bool}:
            raise TypeError("The number of tasks is a number, and what there is is true or false.")
        return PolicySpec(
            from_json(Network, network),
            observation_space,
            space_from_json(data["action_space"]),
            None if mask is None else tuple(tuple(row) for row in mask),
            *flags,
            num_tasks,
            _host_actions(data.get("host_actions"), num_tasks),
            tuple(data["image_bounds"]) if data.get("image_bounds") else None,
        )


def _host_actions(data: Any, num_tasks: int) -> tuple[spaces.Space[Any], ...] | None:
    """The action spaces in a file, one for each task."""
    if data is None:
        return None
    found = tuple(space_from_json(space) for space in data)
    if len(found) != num_tasks:
        raise ValueError("There is an action space for each task.")
    return found


class Policy(nn.Module):
    """A network over observation groups with heads for actions and value.

    Continuous actions are Gaussian with a standard deviation that does not depend on the state; the
    network outputs them in [-1, 1], and `forward` in the environment's units. For vectors, the
    value has a separate encoder, as it needs other features; images share one encoder.
    """

    action_mask: Tensor | None
    action_center: Tensor | None
    action_half_range: Tensor | None

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__()
        self.spec = spec
        self.frozen_statistics = False
        self.frozen_action_units = False
        parts = (spec.network, spec.observation_space, spec.num_statistics, spec.image_bounds)
        self.encoder = Encoder(*parts)
        features = self.encoder.num_features
        self.state_size = spec.network.scaled(spec.network.gru) if spec.network.gru else 0
        self.gru = nn.GRUCell(features, self.state_size) if self.state_size else None
        features = self.state_size or features

        self.log_std: nn.Parameter | None = None
        if isinstance(spec.action_space, spaces.Discrete):
            outputs = int(spec.action_space.n)
        else:
            assert isinstance(spec.action_space, spaces.Box)
            (outputs,) = spec.action_space.shape
            shape = (spec.num_heads, outputs) if spec.num_heads > 1 else (outputs,)
            self.log_std = nn.Parameter(torch.zeros(shape))
        gain = 1.0 if spec.q_values else 0.01
        self.action_head = head(features, spec.num_heads * outputs, gain)

        self.value_encoder: Encoder | None = None
        self.value_head: nn.Linear | None = None
        if spec.value:
            if self.encoder.flat and self.gru is None:
                self.value_encoder = Encoder(*parts)
            self.value_head = head(features, spec.num_heads, gain=1.0)

        mask = None if spec.action_mask is None else torch.tensor(spec.action_mask)
        self.register_buffer("action_mask", mask, persistent=False)
        center, half_range = spec.action_units() or (None, None)
        self.register_buffer("action_center", center)
        self.register_buffer("action_half_range", half_range)

    def forward(
        self,
        observation: Observation,
        task: Tensor | None = None,
        state: Tensor | None = None,
        start: Tensor | None = None,
        needs: Needs = EMPTY,
    ) -> PolicyOutput:
        """The policy's output for a batch or a sequence of observations.

        Args:
            observation: The groups.
                (batch, ...) or (time, batch, ...)
            task: Index of each observation's task; required if `PolicySpec.asks_for_task`.
                (batch,) or (time, batch)
            state: The recurrent state before the first observation.  (batch, state_size)
            start: Whether an observation is an episode's first, where the state is reset to zero.
                (batch,) or (time, batch)
            needs: Optional fields to output: "maps", "attention".
        """
        if task is None and self.spec.asks_for_task:
            raise ValueError("The output of this policy depends on the task: pass the task index.")
        any_group = observation[self.encoder.groups[0]]
        shape = self.spec.observation_space[self.encoder.groups[0]].shape
        assert shape is not None
        leading = any_group.shape[: any_group.dim() - len(shape)]
        sequence = len(leading) > 1
        flat, flat_task = observation, task
        if sequence:
            flat = {name: group.flatten(0, len(leading) - 1) for name, group in flat.items()}
            flat_task = None if task is None else task.flatten()

        features, maps = self._encoded(flat, flat_task, needs)
        if sequence:
            features = features.unflatten(0, leading)
        if self.gru is not None:
            features, state = self._remember(features, state, start)
        output = self._act(features, task)
        if maps is not None:
            output.add_maps(maps.unflatten(0, leading), needs)
        if self.value_head is not None:
            if self.value_encoder is not None:
                features = self.value_encoder(flat, flat_task)
                if sequence:
                    features = features.unflatten(0, leading)
            output.value = self._of_task(_float32(self.value_head, features), task).squeeze(-1)
        output.state = state
        return output

    def _encoded(
        self, observation: Observation, task: Tensor | None, needs: Needs
    ) -> tuple[Tensor, Tensor | None]:
        """The features that the heads see, and the last feature maps if they are needed.

        Args:
            observation: The groups.                                    (rows, ...)
            task: Index of each row's task; see `forward`.              (rows,)
            needs: See `forward`.

        Returns:
            (rows, num_features), and (rows, channels, height, width) or None.
        """
        if needs & MAPS:
            return through(self.encoder.layers, self.encoder.inputs(observation, task))
        return self.encoder(observation, task), None

    def _act(self, features: Tensor, task: Tensor | None) -> PolicyOutput:
        """The output of the action head.

        Args:
            features: (..., num_features)
            task: Index of each row's task; see `forward`.    (...)
        """
        scores = self._of_task(_float32(self.action_head, features), task)
        if self.log_std is not None:
            log_std = self.log_std if self.log_std.dim() == 1 else self.log_std[task]
            log_std = bounded_log_std(log_std).expand_as(scores)
            output = self._gaussian(*self._scaled(scores, log_std, task), task)
            output.features = features
            return output
        if self.action_mask is not None:
            scores = scores.masked_fill(~self.action_mask[task], MASKED)
        if self.spec.q_values:
            return PolicyOutput(q_values=scores, features=features)
        return PolicyOutput(logits=scores, features=features)

    def _scaled(self, mean: Tensor, log_std: Tensor, task: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation in the environment's units.    (..., action_dim) each

        Args:
            mean: As the network outputs it, in [-1, 1].    (..., action_dim)
            log_std: In the same units.                     (..., action_dim)
            task: Index of each row's task; see `forward`.  (...)
        """
        if self.action_center is None:
            return mean, log_std
        center, half_range = self._action_units(task)
        return center + half_range * mean, log_std + half_range.log()

    def _action_units(self, task: Tensor | None) -> tuple[Tensor, Tensor]:
        """The center and half-range of each row's action.    (action_dim,) or (..., action_dim)"""
        assert self.action_center is not None and self.action_half_range is not None
        row = 0 if len(self.action_center) == 1 else task
        return self.action_center[row], self.action_half_range[row]

    def set_action_units(self, center: Tensor, half_range: Tensor) -> None:
        """Sets the units of the network's outputs, unless `frozen_action_units`.

        Args:
            center: The actions of outputs of 0.               (1 or num_tasks, action_dim)
            half_range: Their distance to actions of outputs of 1.    (1 or num_tasks, action_dim)
        """
        assert self.action_center is not None and self.action_half_range is not None
        if self.frozen_action_units:
            return
        # In place: captured CUDA graphs read these tensors.
        self.action_center.copy_(center)
        self.action_half_range.copy_(half_range)

    def _gaussian(self, mean: Tensor, log_std: Tensor, task: Tensor | None) -> PolicyOutput:
        """A Gaussian over the action dimensions of each row's task.

        Args:
            mean: In the environment's units.               (..., action_dim)
            log_std: In the environment's units.            (..., action_dim)
            task: Index of each row's task; see `forward`.    (...)
        """
        padding_mask = None if self.action_mask is None else ~self.action_mask[task]
        if padding_mask is not None:
            mean = mean.masked_fill(padding_mask, 0.0)
            log_std = log_std.masked_fill(padding_mask, 0.0)
        output = PolicyOutput(mean=mean, log_std=log_std, padding_mask=padding_mask)
        if self.action_center is not None:
            _, output.action_scale = self._action_units(task)
        return output

    def _of_task(self, outputs: Tensor, task: Tensor | None) -> Tensor:
        """The output of the head of each row's task.    (..., size)

        Args:
            outputs: Concatenated outputs of all heads.    (..., num_heads * size)
            task: Index of each row's task.                (...)
        """
        heads = self.spec.num_heads
        if heads == 1:
            return outputs
        assert task is not None
        each = outputs.unflatten(-1, (heads, -1))
        index = task[..., None, None].expand(*task.shape, 1, each.shape[-1])
        chosen: Tensor = each.gather(-2, index).squeeze(-2)
        return chosen

    def _remember(
        self, features: Tensor, state: Tensor | None, start: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The recurrent states as features, and the last state."""
        assert self.gru is not None
        sequence = features.dim() == 3
        steps = features if sequence else features.unsqueeze(0)
        state = self.initial_state(steps.shape[1], features.device) if state is None else state
        outputs = []
        for time, step in enumerate(steps):
            if start is not None:
                first = start[time] if sequence else start
                state = state.masked_fill(first.unsqueeze(-1), 0.0)
            state = self.gru(step, state)
            outputs.append(state)
        return (torch.stack(outputs) if sequence else outputs[0]), state

    def initial_state(self, num_envs: int, device: torch.device | None = None) -> Tensor:
        """The recurrent state at an episode's start.    (num_envs, state_size)"""
        return torch.zeros(num_envs, self.state_size, device=device)

    def update_statistics(self, observation: Observation, task: Tensor | None = None) -> None:
        """Updates the normalisers of vector observations, unless `frozen_statistics`.

        Args:
            observation: The groups.                                            (..., *shape)
            task: Index of each observation's task, if statistics are per task. (...)
        """
        if self.frozen_statistics:
            return
        known = self.spec.observation_space
        for encoder in (self.encoder, self.value_encoder):
            if encoder is not None and encoder.normalizer is not None:
                flat = {
                    name: observation[name].reshape(-1, *(known[name].shape or ()))
                    for name in encoder.groups
                }
                encoder.normalizer.update(encoder.vectors(flat), task)

    def parts(self) -> Sequence[tuple[Policy, Suite]]:
        """Policies of their own inside this one, with the tasks that they play."""
        return ()

    def feature_layers(self) -> Sequence[Sequence[nn.Module]]:
        """The modules that output the features of each layer, by column, the oldest column first.

        A plain policy is one column. Empty if the actions depend on several separate networks.
        """
        return (self.encoder.feature_layers(),)

    def num_acting_parameters(self) -> int:
        """Number of parameters, without those of the value."""
        count = sum(parameter.numel() for parameter in self.parameters())
        for part in (self.value_head, self.value_encoder):
            if part is not None:
                count -= sum(parameter.numel() for parameter in part.parameters())
        return count


def _float32(layer: nn.Linear, features: Tensor) -> Tensor:
    """A head's output in float32, also under autocast.    (..., outputs)

    bfloat16 would round away the differences between large Q-values, and the ratio of new to old
    probabilities would not be 1 for unchanged weights.
    """
    kind = features.device.type
    outputs: Tensor
    if not torch.is_autocast_enabled(kind):
        outputs = layer(features)
        return outputs
    with torch.autocast(kind, enabled=False):
        outputs = layer(features.float())
    return outputs
