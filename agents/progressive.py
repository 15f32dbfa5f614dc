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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from rltransfer.agents.policy_distillation import PolicyDistillation
from rltransfer.agents.ppo import PPO, PPOAgent
from rltransfer.agents.pqn import PQN, PQNAgent
from rltransfer.errors import InputError, check_range
from rltransfer.files.checkpoint import newest_checkpoint, newest_generation
from rltransfer.files.checkpoint_names import check_not_checkpoint
from rltransfer.files.hashing import weights_sha256
from rltransfer.files.reading import is_folder
from rltransfer.learning.agent import Agent, Method, TrainingContext
from rltransfer.learning.network_size import check_network_size
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.policies.saving import load_policy
from rltransfer.policies.sensitivity import average_fisher_sensitivity, feature_statistics
from rltransfer.rollouts.rollout import Rollout
from rltransfer.runs.config import read_config
from rltransfer.tasks.task import Suite
from rltransfer.teachers.policy_teacher import PolicyTeacher
from rltransfer.teachers.zoo import ZOO, card_teacher

from .progressive_policy import (
    Adapter,
    ProgressivePolicy,
    ProgressiveSpec,
    check_frozen,
    check_layers,
    check_number_of_columns,
    num_columns,
)

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

    def first_task(self) -> Method:
        """A plain network, the first column.

        Raises:
            InputError: There are columns already.
        """
        if self.columns:
            raise InputError("A sequence begins with a column of its own: leave out --columns.")
        kind: type[Method] = PPO if isinstance(self, PPO) else PQN
        return kind(**{one.name: getattr(self, one.name) for one in dataclasses.fields(kind)})

    def next_task(self, run_dir: str) -> tuple[Any, dict[str, Any]]:
        """A new column on those of the last run."""
        return dataclasses.replace(self, columns=(run_dir,)), {}

    def compressed(self, run_dir: str) -> Method:
        """A distillation into a network like one column."""
        assert isinstance(self, PPO | PQN)
        return PolicyDistillation(
            teacher=run_dir, student=self.network, num_envs=self.num_envs,
            rollout_length=self.rollout_length, objective="kl", teacher_acts=1.0, epochs=4.0,
            exploration=0.05, batch_size=512, learning_rate=2e-3,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Progressive(ColumnOptions, PPO):
    """Progressive networks: a new column on frozen ones, by PPO (Rusu 2016)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self)

    def build(self, context: TrainingContext) -> PPOAgent:
        """Builds the agent."""
        policy, sources = build_policy(self, context)
        agent = ProgressivePPOAgent(self, policy, context)
        agent.sources = sources
        return agent


@dataclass(frozen=True, kw_only=True)
class ProgressivePQN(ColumnOptions, PQN):
    """Progressive networks: a new column on frozen ones, by PQN (Rusu 2016)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self)

    def build(self, context: TrainingContext) -> PQNAgent:
        """Builds the agent."""
        policy, sources = build_policy(self, context)
        agent = ProgressivePQNAgent(self, policy, context)
        agent.sources = sources
        return agent

    def policy_spec(self, context: TrainingContext) -> PolicySpec:
        """The specification of the new column.

        Raises:
            InputError: The actions are continuous.
        """
        if not context.spaces.is_discrete:
            raise InputError(
                "progressive-pqn needs discrete actions, but those of "
                f"{context.suite.tasks[0].id!r} are continuous: use progressive."
            )
        return super().policy_spec(context)


class ColumnCurves(Agent):
    """An agent with the scales and the sensitivities of its columns as curves."""

    num_rollouts = 0
    """Rollouts that it has learned from."""

    method: Any
    """`Progressive` or `ProgressivePQN`."""

    def check_size(self, total_steps: int, run_dir: Path) -> Sequence[str]:
        """Checks that the columns, and what learning keeps of them, fit into memory."""
        method = self.method
        rows = min(method.batch_size, method.num_envs * method.rollout_length)
        remedy = "a smaller --batch-size or --width, or fewer --columns"
        said = check_network_size(self.policy, self.learner, rows, remedy)
        number = num_columns(self.policy.spec)
        return () if said is None else (f"with {number} columns, {said}",)

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
    if len(set(map(os.path.realpath, columns))) < len(columns):
        raise InputError("columns contains a run twice: pass each column once.")
    check_number_of_columns(len(columns))
    if method.network.gru:
        raise InputError("The columns of progressive networks have no GRU: leave out --gru.")


@dataclass(frozen=True)
class LoadedColumn:
    """An earlier policy, with where it is from."""

    policy: Policy
    suite: Suite
    """The tasks that it was trained on."""
    sha256: str = ""
    """Hash of its file; empty if the file is gone."""


def build_policy(
    method: Progressive | ProgressivePQN, context: TrainingContext
) -> tuple[Policy, list[dict[str, str]]]:
    """The policy with its earlier columns, on the context's device, and where these are from.

    A network of which only the width is set has the architecture of the newest column; one with
    normalisation keeps it.

    Raises:
        InputError: A column cannot be used, or does not fit the task.
    """
    if not method.columns:
        raise InputError("A progressive network needs earlier columns: pass --columns RUN.")
    if len(context.suite) > 1:
        raise InputError(
            f"A column learns one task, but there are {len(context.suite)}: train them one after "
            "the other, each with the earlier runs as --columns."
        )
    earlier = _load_columns(method.columns, context.resumed)
    newest = earlier[-1].policy.spec.network
    default = type(method).network
    default = default.with_activation(method.default_activation(default))
    if dataclasses.replace(method.network, width=default.width) == default:
        network = dataclasses.replace(
            newest,
            width=method.network.width,
            layer_norm=newest.layer_norm or default.layer_norm,
            # One task has one head and one set of statistics.
            heads=default.heads,
            statistics=default.statistics,
        )
        method = dataclasses.replace(method, network=network)
    spec = method.policy_spec(context)
    fields = {field.name: getattr(spec, field.name) for field in dataclasses.fields(PolicySpec)}
    whole = ProgressiveSpec(
        **fields,
        earlier=tuple(one.policy.spec for one in earlier),
        suites=tuple(one.suite for one in earlier),
    )
    check_number_of_columns(num_columns(whole) - 1)
    _check_kinds(spec, earlier, method.columns)
    with torch.device("meta"):
        column = Policy(spec).encoder
    for name, one in zip(method.columns, earlier, strict=True):
        check_layers(column, one.policy, name)
    policy = ProgressivePolicy(whole, method.alpha)
    for module, one in zip(policy.earlier, earlier, strict=True):
        module.load_state_dict(one.policy.state_dict())
    if method.start == "previous":
        policy.start_as_previous()
    sources = [
        {"source": name, "sha256": one.sha256}
        for name, one in zip(method.columns, earlier, strict=True)
    ]
    return policy.to(context.device), sources


def _load_columns(names: tuple[str, ...], resumed: Path | None) -> list[LoadedColumn]:
    """The earlier policies; those of a resumed run whose folders are gone are in its checkpoint.

    Args:
        names: Runs, or zoo:ID.
        resumed: The folder of a run that resumes; None for a new one.

    Raises:
        InputError: A column cannot be used, has other weights than in the resumed run, or is there
            twice.
    """
    stored: list[tuple[Policy, Suite]] = []
    if resumed is not None:
        policy = load_policy(newest_checkpoint(resumed, part="") / "policy")
        # With other columns it is refused later, as any other setting would be.
        if isinstance(policy, ProgressivePolicy) and len(policy.spec.earlier) == len(names):
            stored = list(policy.parts())
    found: list[LoadedColumn] = []
    for index, name in enumerate(names):
        if stored and not name.startswith(f"{ZOO}:") and not os.path.exists(name):
            found.append(LoadedColumn(*stored[index]))
            continue
        column = load_column(name)
        if stored and not _same_weights(column.policy, stored[index][0]):
            raise InputError(
                f"{name} has other weights now than the column of {resumed}: put back the earlier "
                f"ones, or move {name} away, as {resumed} contains its columns."
            )
        for other, one in zip(names, found, strict=False):
            if one.sha256 == column.sha256:
                raise InputError(f"{other} and {name} are the same policy: pass each column once.")
        found.append(column)
    return found


def _same_weights(one: Policy, other: Policy) -> bool:
    tensors = other.state_dict()
    return one.spec == other.spec and all(
        torch.equal(tensor, tensors[name]) for name, tensor in one.state_dict().items()
    )


def load_column(source: str) -> LoadedColumn:
    """The policy of a finished run or of the zoo, and the tasks that it was trained on.

    Raises:
        InputError: There is none, the run is not finished, or the policy cannot be a column.
    """
    if source.startswith(f"{ZOO}:"):
        teacher = card_teacher(source.removeprefix(f"{ZOO}:"))
        assert isinstance(teacher, PolicyTeacher) and teacher.suite is not None
        column = LoadedColumn(teacher.module, teacher.suite, teacher.sha256)
    elif is_folder(source):
        column = _of_run(source)
    elif os.path.exists(source):
        raise InputError(
            f"{source} is not a run of rltransfer, and columns are: distil it first, as the "
            "--teacher of policy-distillation."
        )
    else:
        raise InputError(f"There is no run {source}: pass finished runs, or zoo:ID, as --columns.")
    check_frozen(column.policy.spec, source)
    return column


def _of_run(source: str) -> LoadedColumn:
    check_not_checkpoint(Path(source))
    run_dir = newest_generation(Path(source))
    suite = Suite.from_json(read_config(run_dir)["suite"])
    if not (run_dir / "result.json").is_file():
        raise InputError(f"{source} is not finished: resume it with --resume {source}.")
    stem = newest_checkpoint(run_dir) / "policy"
    return LoadedColumn(load_policy(stem), suite, weights_sha256(stem))


def _check_kinds(spec: PolicySpec, earlier: list[LoadedColumn], names: tuple[str, ...]) -> None:
    """Refuses columns that see vectors where the task shows images, or the other way round.

    A group that the task does not have is refused where the encoder is built.
    """
    if not set(spec.network.groups) <= set(spec.observation_space.spaces):
        return

    def images(one: PolicySpec) -> list[tuple[int, ...]]:
        shapes = [one.observation_space[group].shape or () for group in one.network.groups]
        return [shape[1:] for shape in shapes if len(shape) == 3]

    for column, name in zip(earlier, names, strict=True):
        theirs = images(column.policy.spec)
        if theirs != images(spec):
            raise InputError(
                f"{name} observes {_kind(theirs)}, and the task shows {_kind(images(spec))}: use "
                "columns that observe the same kind and size."
            )


def _kind(images: list[tuple[int, ...]]) -> str:
    return f"images of {images[0][0]} x {images[0][1]} pixels" if images else "vectors"
