"""Progressive networks: a new column for each task, on top of frozen ones (Rusu 2016).

    rltransfer train progressive --task T --columns RUN[,RUN...]

Each finished run is an earlier column, or several if it is progressive itself. The new column
learns its task by PPO (`progressive`) or PQN (`progressive-pqn`), and sees the features of all
earlier ones through adapters: see `progressive_policy.py`. Nothing of the earlier columns changes,
so that they play their tasks as before.

Tasks may differ in observations and actions: an earlier column sees the channels, or numbers, that
its own task has, those that are missing as 0.

Differs from Rusu 2016: PPO or PQN on batches of environments instead of A3C; output layers see the
earlier columns' features without an adapter, as in Rusu 2016b (1610.04286).
"""

from __future__ import annotations

import dataclasses
import operator
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from rltransfer.agents.ppo import PPO, PPOAgent
from rltransfer.agents.pqn import PQN, PQNAgent
from rltransfer.errors import InputError, check_range
from rltransfer.files.checkpoint import newest_generation
from rltransfer.files.reading import is_folder
from rltransfer.learning.agent import Agent, TrainingContext
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.policies.sensitivity import average_fisher_sensitivity, feature_statistics
from rltransfer.rollouts.rollout import Rollout
from rltransfer.tasks.task import Suite
from rltransfer.teachers.loading import load_teacher
from rltransfer.teachers.policy_teacher import PolicyTeacher

from .progressive_policy import Adapter, ProgressivePolicy, ProgressiveSpec, check_frozen

StartName = Literal["fresh", "previous"]

SENSITIVITY_EVERY = 10
"""Rollouts from one measurement of the Fisher sensitivity to the next. On
`SENSITIVITY_STATES`, they take less than 1 % of a run's time."""

SENSITIVITY_STATES = 512
"""States of a rollout on which it is measured, at most."""

METRICS = {
    "alpha": "Scale of an earlier column's features in the adapter of a layer, without unit.",
    "fisher_sensitivity": "Average Fisher sensitivity of the policy to a layer of a column, 0 to "
    "1 (Rusu 2016, section 4): the columns of a layer sum to 1. The last column is the new one.",
}
"""The metrics that columns add."""


@dataclass(frozen=True, kw_only=True)
class ColumnOptions:
    """The options that both methods add."""

    columns: tuple[str, ...] = ()
    """Finished runs, or zoo:ID, whose policies are the earlier columns; oldest first."""
    alpha: float = 0.1
    """Initial scale of the earlier columns' features in each adapter."""
    start: StartName = "fresh"
    """previous: the new column starts as the newest earlier policy, whose outputs it takes over."""


@dataclass(frozen=True, kw_only=True)
class Progressive(PPO, ColumnOptions):
    """Progressive networks: a new column on frozen ones, by PPO (Rusu 2016)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self)

    def build(self, context: TrainingContext) -> PPOAgent:
        """Builds the agent."""
        return ProgressivePPOAgent(self, build_policy(self, context), context)


@dataclass(frozen=True, kw_only=True)
class ProgressivePQN(PQN, ColumnOptions):
    """Progressive networks: a new column on frozen ones, by PQN (Rusu 2016)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self)

    def build(self, context: TrainingContext) -> PQNAgent:
        """Builds the agent."""
        return ProgressivePQNAgent(self, build_policy(self, context), context)


class ColumnCurves(Agent):
    """An agent with the scales and the sensitivities of its columns as curves."""

    num_rollouts = 0
    """Rollouts that it has learned from."""

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Learns from a rollout; the metrics contain the columns' curves.

        The sensitivities are those of the policy that collected the rollout.
        """
        measures = self.num_rollouts % SENSITIVITY_EVERY == 0
        measured = fisher_sensitivities(self.policy, rollout) if measures else {}
        self.num_rollouts += 1
        return {**super().learn(rollout), **scales(self), **measured}

    def state_dict(self) -> dict[str, Any]:
        """Everything that training depends on, with the number of rollouts."""
        return {**super().state_dict(), "num_rollouts": self.num_rollouts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of `state_dict`."""
        super().load_state_dict(state)
        self.num_rollouts = operator.index(state.get("num_rollouts", 0))

    def describe_metrics(self) -> dict[str, str]:
        """See `METRICS`."""
        return {**super().describe_metrics(), **METRICS}


class ProgressivePPOAgent(ColumnCurves, PPOAgent):
    """PPO with curves of its columns."""


class ProgressivePQNAgent(ColumnCurves, PQNAgent):
    """PQN with curves of its columns."""


def scales(agent: Agent) -> dict[str, float]:
    """The scale of each earlier column in each layer's adapter, counted from 1."""
    policy = agent.policy
    assert isinstance(policy, ProgressivePolicy)
    adapters = [one for one in policy.adapters if isinstance(one, Adapter)]
    # One transfer from the device for all.
    values = torch.stack([one.alpha.detach() for one in adapters]).tolist() if adapters else []
    return {
        f"alpha/layer-{layer}-column-{column}": value
        for layer, row in enumerate(values, 2)
        for column, value in enumerate(row, 1)
    }


def fisher_sensitivities(policy: Policy, rollout: Rollout) -> dict[str, float]:
    """The average Fisher sensitivity of each layer and column, on states of a rollout.

    The same random numbers each time: those of training stay as they are.
    """
    device, states = rollout.task.device, rollout.num_steps
    # Evenly over time and environments.
    index = torch.linspace(0, states - 1, min(states, SENSITIVITY_STATES), device=device).long()
    observation = {name: group.flatten(0, 1)[index] for name, group in rollout.observation.items()}
    generator = torch.Generator(device).manual_seed(0)
    statistics = feature_statistics(policy, observation, rollout.task.flatten()[index], generator)
    # One transfer from the device for all.
    return {
        f"fisher_sensitivity/layer-{layer}-column-{column}": value
        for layer, row in enumerate(average_fisher_sensitivity(statistics).tolist(), 1)
        for column, value in enumerate(row, 1)
    }


def _check(method: Progressive | ProgressivePQN) -> None:
    columns = tuple(
        name
        for text in method.columns
        for name in ([text] if os.path.exists(text) else text.split(","))
        if name
    )
    object.__setattr__(method, "columns", columns)
    check_range(method, "finite and at least 0", "alpha")
    if not columns:
        raise InputError("A progressive network needs earlier columns: pass --columns RUN.")
    if len(set(columns)) < len(columns):
        raise InputError("columns contains a run twice: pass each column once.")
    if method.network.gru:
        raise InputError("The columns of progressive networks have no GRU: leave out --gru.")


def build_policy(method: Progressive | ProgressivePQN, context: TrainingContext) -> Policy:
    """The policy with its earlier columns, on the context's device.

    A network of which only the width is set has the architecture of the newest column.

    Raises:
        InputError: A column cannot be used, or does not fit the task.
    """
    if len(context.suite) > 1:
        raise InputError(
            f"A column learns one task, but there are {len(context.suite)}: train them one after "
            "the other, each with the earlier runs as --columns."
        )
    earlier = [load_column(source) for source in method.columns]
    newest, _ = earlier[-1]
    if dataclasses.replace(method.network, width=1.0) == type(method).network:
        network = dataclasses.replace(newest.spec.network, width=method.network.width)
        method = dataclasses.replace(method, network=network)
    spec = method.policy_spec(context)
    fields = {field.name: getattr(spec, field.name) for field in dataclasses.fields(PolicySpec)}
    _check_groups(spec, earlier, method.columns)
    policy = ProgressivePolicy(
        ProgressiveSpec(
            **fields,
            earlier=tuple(policy.spec for policy, _ in earlier),
            suites=tuple(suite for _, suite in earlier),
        ),
        method.alpha,
    )
    for module, (trained, _) in zip(policy.earlier, earlier, strict=True):
        module.load_state_dict(trained.state_dict())
    if method.start == "previous":
        policy.start_as_previous()
    return policy.to(context.device)


def load_column(source: str) -> tuple[Policy, Suite]:
    """The policy of a finished run or of the zoo, and the tasks that it was trained on.

    Raises:
        InputError: There is none, the run is not finished, or the policy cannot be a column.
    """
    if is_folder(source):
        run_dir = newest_generation(Path(source))
        if (run_dir / "config.json").is_file() and not (run_dir / "result.json").is_file():
            raise InputError(f"{source} is not finished: resume it with --resume {source}.")
    teacher = load_teacher(source)
    if not isinstance(teacher, PolicyTeacher) or teacher.suite is None:
        raise InputError(
            f"{source} is not a policy of rltransfer, and columns are: distil it into a run first."
        )
    check_frozen(teacher.module.spec, source)
    return teacher.module, teacher.suite


def _check_groups(
    spec: PolicySpec, earlier: list[tuple[Policy, Suite]], names: tuple[str, ...]
) -> None:
    """Refuses columns that see vectors where the task shows images, or the other way round."""

    def images(one: PolicySpec) -> Any:
        shapes = [one.observation_space[group].shape or () for group in one.network.groups]
        return [shape[1:] for shape in shapes if len(shape) == 3]

    for (policy, _), name in zip(earlier, names, strict=True):
        if images(policy.spec) != images(spec):
            raise InputError(
                f"{name} observes {_kind(images(policy.spec))}, and the task shows "
                f"{_kind(images(spec))}: a column must see observations of the same kind and size."
            )


def _kind(images: list[tuple[int, int]]) -> str:
    return f"images of {images[0][0]} x {images[0][1]} pixels" if images else "vectors"
