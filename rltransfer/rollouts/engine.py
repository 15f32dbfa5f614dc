"""The rollout engine: tasks x environments x time, on the device."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.nested import Path, from_leaves, leaves
from rltransfer.rollouts.cuda_graph import CapturedCalls
from rltransfer.rollouts.episodes import episode_totals
from rltransfer.rollouts.rollout import Actor, Rollout, TruncatedObservations
from rltransfer.tasks.making import make_vector_env, overlaps
from rltransfer.tasks.observation import Observation, as_groups, grouped
from rltransfer.tasks.suite_spaces import SuiteSpaces, TaskSpaces
from rltransfer.tasks.task import Suite
from rltransfer.tasks.vector_env import LostEpisodeError, VectorEnv


class Store:
    """A tensor over time, with preallocated views of each time step."""

    def __init__(self, *shape: int, dtype: torch.dtype, device: torch.device) -> None:
        self.all = torch.zeros(shape, dtype=dtype, device=device)
        self.at = self.all.unbind()


@dataclass
class EnvSlice:
    """One vector environment and its rows in the rollout."""

    env: VectorEnv
    rows: slice
    task: int
    """Index of the task."""
    action_size: int | None = None
    """Action dimensions of the task if other tasks have more."""

    def send(self, action: Tensor) -> None:
        """Begins a step.

        Args:
            action: The padded actions of all rows.    (rows,) or (rows, action_dim)
        """
        action = _take(action, self.rows)
        if self.action_size is not None:
            action = action[:, : self.action_size].contiguous()
        self.env.send(action)


class Closable(Protocol):
    """What can be closed, such as a `RolloutEngine`."""

    def close(self) -> None:
        """Closes it."""


@contextlib.contextmanager
def closed_if_refused(closable: Closable) -> Iterator[None]:
    """Closes the environments, or what else there is, if the block ends with an error."""
    try:
        yield
    except BaseException:
        closable.close()
        raise


class RolloutEngine:
    """Steps every environment of every task and stores the rollout in preallocated tensors.

    One forward pass serves all tasks. Host environments are split into two pipeline stages: the
    policy acts for one while the other is simulated. If all environments are on a CUDA device, a
    rollout is one CUDA graph from the second time on: policy, sampling, environments and stores of
    all steps are launched at once.

    Args:
        suite: The tasks.
        num_envs: Environments of each task.
        device: The tensors' device.
        seed: Seeds the environments.
        pad: Pads the suite's spaces, e.g. to those of a policy that was trained on a larger suite,
            or refuses the suite.
        captures: Whether rollouts on a CUDA device are captured in CUDA graphs.

    Raises:
        InputError: A task cannot be made, or the tasks cannot share a policy.
    """

    def __init__(
        self,
        suite: Suite,
        num_envs: int,
        device: torch.device,
        seed: int,
        pad: Callable[[SuiteSpaces], SuiteSpaces] | None = None,
        captures: bool = True,
    ) -> None:
        self.suite = suite
        self.num_envs = num_envs
        self.num_rows = len(suite) * num_envs
        self.device = device
        self.seed = seed
        self.pipeline_stages = self._make_env_slices()
        self.env_slices = [env_slice for stage in self.pipeline_stages for env_slice in stage]
        with closed_if_refused(self):
            self.spaces = self._joint_spaces(pad)
        self.task = torch.arange(len(suite), device=device).repeat_interleave(num_envs)
        self.running_return = torch.zeros(self.num_rows, device=device)
        self.running_length = torch.zeros(self.num_rows, device=device)
        self._resize_state(0)
        self._last_start = torch.ones(self.num_rows, dtype=torch.bool, device=device)
        captures = captures and all(env_slice.env.capturable for env_slice in self.env_slices)
        self._captured = CapturedCalls() if captures and device.type == "cuda" else None
        self._rollout_length = 0
        self.restarts = 0
        self._allocate(1)
        self.restart()
        self.spaces = self.spaces.with_shown(self._first_observations())

    def _make_env_slices(self) -> list[list[EnvSlice]]:
        """Makes one slice for each task, or one in each stage if its environments overlap."""
        stages: list[list[EnvSlice]] = [[], []]
        for index, task in enumerate(self.suite):
            base, split = index * self.num_envs, self.num_envs // 2
            parts = [split, self.num_envs - split] if split and overlaps(task) else [self.num_envs]
            for stage, count in zip(stages, parts, strict=False):
                env = make_vector_env(task, count, self.device)
                if env.metadata["autoreset_mode"] != VectorEnv.metadata["autoreset_mode"]:
                    raise InputError(
                        f"The task {task.id!r} resets in the step after an episode's end: "
                        "its environment must reset in the same step."
                    )
                env.first_index = base - index * self.num_envs
                stage.append(EnvSlice(env, slice(base, base + count), index))
                base += count
        return [stage for stage in stages if stage]

    def _joint_spaces(self, pad: Callable[[SuiteSpaces], SuiteSpaces] | None) -> SuiteSpaces:
        """The joint spaces of all tasks; sets each slice's action size if actions are padded."""
        envs = {one.task: one.env for one in reversed(self.env_slices)}
        own = [
            TaskSpaces(
                grouped(env.single_observation_space),
                env.single_action_space,
                env.host_action_space or env.single_action_space,
            )
            for _, env in sorted(envs.items())
        ]
        joint = SuiteSpaces.of(self.suite, own)
        joint = joint if pad is None else pad(joint)
        if joint.action_mask is not None and not joint.is_discrete:
            for env_slice in self.env_slices:
                env_slice.action_size = joint.action_sizes[env_slice.task]
        return joint

    def _allocate(self, rollout_length: int) -> None:
        """Allocates the tensors of a rollout; the current observation is carried over."""
        old = getattr(self, "_observation", None)
        shape = (rollout_length + 1, self.num_rows)

        def allocate(dtype: torch.dtype, *rest: int) -> Store:
            return Store(*shape, *rest, dtype=dtype, device=self.device)

        self._observation: dict[str, Store] = {}
        for name, space in self.spaces.observation_space.spaces.items():
            dtype = torch.from_numpy(np.zeros(1, space.dtype)).dtype
            self._observation[name] = allocate(dtype, *(space.shape or ()))
        self._start = allocate(torch.bool)
        self._start.all.fill_(True)
        self._reward = allocate(torch.float32)
        self._terminated = allocate(torch.bool)
        self._truncated = allocate(torch.bool)
        self._episode_return = torch.zeros(rollout_length, self.num_rows, device=self.device)
        self._episode_length = torch.zeros_like(self._episode_return)
        self._extras: dict[Path, Store] = {}
        self._final: Observation = {}
        self._final_parts: list[TruncatedObservations] = []
        if old is not None:
            for name, store in old.items():
                self._observation[name].at[rollout_length].copy_(store.at[self._rollout_length])
            self._start.at[rollout_length].copy_(self._last_start)
        self._rollout_length = rollout_length
        if self._captured is not None:
            self._captured.clear()

    def _first_observations(self) -> Observation:
        """The current observation of each task's first environment, on the CPU.

        (num_tasks, ...) each
        """
        rows = slice(None, None, self.num_envs)
        stores = self._observation.items()
        return {name: store.at[self._rollout_length][rows].cpu().clone() for name, store in stores}

    def _resize_state(self, size: int) -> None:
        self.state = torch.zeros(self.num_rows, size, device=self.device)
        self._initial_state = torch.zeros_like(self.state)

    def restart(self, indices: Collection[int] | None = None) -> None:
        """Begins new episodes, seeded by the engine's seed and the number of restarts.

        Args:
            indices: Those of `env_slices` that restart; None for all.
        """
        for index, env_slice in enumerate(self.env_slices):
            if indices is not None and index not in indices:
                continue
            seed = np.random.SeedSequence([self.seed, self.restarts, index]).generate_state(1)
            observation, _ = env_slice.env.reset(seed=int(seed[0]) % 2**31)
            self._write_observation(self._rollout_length, env_slice, observation)
            self._start.at[self._rollout_length][env_slice.rows] = True
            self.running_return[env_slice.rows] = 0
            self.running_length[env_slice.rows] = 0
            self.state[env_slice.rows] = 0
        self.restarts += 1
        self._last_start.copy_(self._start.at[self._rollout_length])

    @torch.no_grad()
    def collect(self, actor: Actor, rollout_length: int) -> Rollout:
        """Runs `rollout_length` steps in every environment; the next call overwrites them."""
        if rollout_length != self._rollout_length:
            self._allocate(rollout_length)
        if self.state.shape[1] != actor.state_size:
            self._resize_state(actor.state_size)
        self._final_parts.clear()
        if self._captured is None:
            self._play(actor, rollout_length)
        else:
            # The key contains the actor itself, so that no other object can get its identity.
            key = (actor, actor.graph_key)
            self._captured(key, lambda: self._play(actor, rollout_length), actor.generators)
        return self._view(rollout_length)

    def _play(self, actor: Actor, rollout_length: int) -> None:
        for store in self._observation.values():
            store.at[0].copy_(store.at[rollout_length])
        self._start.at[0].copy_(self._last_start)
        self._initial_state.copy_(self.state)
        for time in range(rollout_length):
            for stage in self.pipeline_stages:
                if time > 0:
                    self._receive(stage, time - 1)
                self._send(actor, stage, time)
        for stage in self.pipeline_stages:
            self._receive(stage, rollout_length - 1)
        self._last_start.copy_(self._start.at[rollout_length])
        self._sum_episodes(rollout_length)

    def _send(self, actor: Actor, stage: list[EnvSlice], time: int) -> None:
        for rows, _ in _adjacent(stage):
            observation = {n: _take(store.at[time], rows) for n, store in self._observation.items()}
            start = _take(self._start.at[time], rows)
            state = _take(self.state, rows)
            output = actor.act(observation, _take(self.task, rows), state, start)
            new_state = output.pop("state", None)
            if new_state is not None:
                state.copy_(new_state)
            for path, value in leaves(output):
                _take(self._extra(path, value).at[time], rows).copy_(value)
        action = self._extras["action",].at[time]
        for env_slice in stage:
            env_slice.send(action)

    def _extra(self, path: Path, value: Tensor) -> Store:
        """The store of one of the actor's outputs, allocated at its first use."""
        if path not in self._extras:
            self._extras[path] = Store(
                self._rollout_length, self.num_rows, *value.shape[1:],
                dtype=value.dtype, device=self.device,
            )  # fmt: skip
        return self._extras[path]

    def _receive(self, stage: list[EnvSlice], time: int) -> None:
        for rows, env_slices in _adjacent(stage):
            rewards, terminations, truncations = [], [], []
            for env_slice in env_slices:
                observation, reward, terminated, truncated, info = env_slice.env.recv()
                self._write_observation(time + 1, env_slice, observation)
                if env_slice.env.truncates and "final_obs" in info:
                    cut = truncated & ~terminated
                    self._store_final(env_slice, time, cut, info["final_obs"])
                rewards.append(reward)
                terminations.append(terminated)
                truncations.append(truncated)
            # All slices at once: with many tasks, small copies would add up.
            torch.cat(rewards, out=_take(self._reward.at[time], rows))
            torch.cat(terminations, out=_take(self._terminated.at[time], rows))
            torch.cat(truncations, out=_take(self._truncated.at[time], rows))
            done = torch.logical_or(
                _take(self._terminated.at[time], rows),
                _take(self._truncated.at[time], rows),
                out=_take(self._start.at[time + 1], rows),
            )
            if self.state.shape[1]:
                _take(self.state, rows).masked_fill_(done.unsqueeze(-1), 0.0)

    def _sum_episodes(self, rollout_length: int) -> None:
        reward, done = self._reward.all[:rollout_length], self._start.all[1:]
        self._episode_return.copy_(episode_totals(reward, done, self.running_return))
        one = torch.ones_like(reward)
        self._episode_length.copy_(episode_totals(one, done, self.running_length))

    def _store_final(self, env_slice: EnvSlice, time: int, cut: Tensor, observation: Any) -> None:
        """Stores the last observations of truncated episodes."""
        if env_slice.env.capturable:
            # Selecting the rows would wait for the device: all are stored, and selected later.
            for name, value in as_groups(observation).items():
                if name not in self._final:
                    self._final[name] = torch.zeros_like(self._observation[name].all)
                _fill(self._final[name][time, env_slice.rows], value)
            return
        rows = cut.nonzero().squeeze(-1)
        if not len(rows):
            return
        final = {}
        for name, value in as_groups(observation).items():
            store = self._observation[name].all
            final[name] = _fill(store.new_zeros(len(rows), *store.shape[2:]), value[rows])
        times = torch.full_like(rows, time)
        self._final_parts.append(TruncatedObservations(times, rows + env_slice.rows.start, final))

    def _final_obs(self, rollout_length: int) -> TruncatedObservations | None:
        parts = list(self._final_parts)
        for env_slice in self.env_slices:
            if not (env_slice.env.capturable and env_slice.env.truncates):
                continue
            where = slice(rollout_length), env_slice.rows
            cut = self._truncated.all[where] & ~self._terminated.all[where]
            time, rows = cut.nonzero(as_tuple=True)
            rows = rows + env_slice.rows.start
            final = {name: store[time, rows] for name, store in self._final.items()}
            parts.append(TruncatedObservations(time, rows, final))
        parts = [part for part in parts if len(part.time)]
        if not parts:
            return None
        return TruncatedObservations(
            torch.cat([part.time for part in parts]),
            torch.cat([part.rows for part in parts]),
            {
                name: torch.cat([part.observation[name] for part in parts])
                for name in self._observation
            },
        )

    def _write_observation(self, time: int, env_slice: EnvSlice, observation: Any) -> None:
        for name, value in as_groups(observation).items():
            store = _take(self._observation[name].at[time], env_slice.rows)
            if env_slice.env.overlaps and self.device.type == "cpu" and value.dim() > 2:
                # NumPy copies in this thread. torch's threads would keep spinning afterwards, on
                # cores that the emulators of the other stage need.
                store.numpy()[:, : value.shape[1]] = value.numpy()
            else:
                _fill(store, value)

    def _view(self, rollout_length: int) -> Rollout:
        stores = self._observation.items()
        return Rollout(
            observation={name: store.all[:rollout_length] for name, store in stores},
            last_observation={name: store.at[rollout_length] for name, store in stores},
            reward=self._reward.all[:rollout_length],
            terminated=self._terminated.all[:rollout_length],
            truncated=self._truncated.all[:rollout_length],
            start=self._start.all[:rollout_length],
            task=self.task.expand(rollout_length, -1),
            initial_state=self._initial_state,
            extras=from_leaves({path: store.all for path, store in self._extras.items()}),
            last_state=self.state,
            final_obs=self._final_obs(rollout_length),
            episode_return=self._episode_return,
            episode_length=self._episode_length,
        )

    def current_observation(self, index: int) -> Observation:
        """What a task's first environment shows now, without padding.    (...) each

        Args:
            index: The task's index.
        """
        found = {}
        for name, space in self.spaces.own[index].observation.spaces.items():
            row = self._observation[name].at[self._rollout_length][index * self.num_envs]
            found[name] = row[: space.shape[0]] if space.shape else row
        return found

    def reopen(self, same_episodes: bool = False) -> None:
        """Makes the closed environments again, and begins episodes.

        Args:
            same_episodes: Whether to begin the episodes of the last restart again, not new ones.
        """
        for env_slice in self.env_slices:
            task, count = self.suite.tasks[env_slice.task], env_slice.env.num_envs
            env_slice.env = make_vector_env(task, count, self.device)
        if self._captured is not None:
            self._captured.clear()
        self.restarts -= same_episodes
        self.restart()

    def close(self) -> None:
        """Closes every environment."""
        for env_slice in self.env_slices:
            env_slice.env.close()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next `collect` depends on."""
        state: dict[str, Any] = {
            "observation": {
                name: store.at[self._rollout_length].clone()
                for name, store in self._observation.items()
            },
            "start": self._last_start.clone(),
            "running_return": self.running_return.clone(),
            "running_length": self.running_length.clone(),
            "state": self.state.clone(),
            # Counts the restart that resuming may need, which so has a seed of its own.
            "restarts": self.restarts + 1,
        }
        for index, env_slice in enumerate(self.env_slices):
            env_state = env_slice.env.state_dict()
            if env_state is not None:
                state[f"env-{index}"] = env_state
        return state

    def new_episodes(self) -> dict[str, Any]:
        """A state from which every environment begins a new episode, e.g. after one has failed."""
        return {
            "observation": {},
            "start": torch.ones_like(self._last_start),
            "running_return": torch.zeros_like(self.running_return),
            "running_length": torch.zeros_like(self.running_length),
            "state": torch.zeros_like(self.state),
            "restarts": self.restarts + 1,
        }

    def load_state_dict(self, state: dict[str, Any]) -> list[str]:
        """Restores a state; environments whose state is lost begin new episodes.

        Returns:
            Why episodes are lost, one reason for each of `env_slices` that has one.
        """
        self._resize_state(state["state"].shape[1])
        self.state.copy_(state["state"])
        for name, tensor in state["observation"].items():
            self._observation[name].at[self._rollout_length].copy_(tensor)
        self._start.at[self._rollout_length].copy_(state["start"])
        self._last_start.copy_(state["start"])
        self.running_return.copy_(state["running_return"])
        self.running_length.copy_(state["running_length"])
        lost: dict[int, str] = {}
        for index, env_slice in enumerate(self.env_slices):
            if f"env-{index}" not in state:
                task = self.suite.tasks[env_slice.task].id
                lost[index] = f"The state of {task!r} is not in the checkpoint"
                continue
            try:
                env_slice.env.load_state_dict(state[f"env-{index}"])
            except LostEpisodeError as error:
                lost[index] = str(error)
        self.restarts = operator.index(state["restarts"]) - 1
        if lost:
            self.restart(lost)
        return list(lost.values())


def _fill(store: Tensor, value: Tensor) -> Tensor:
    """Writes observations into a store, whose padding stays zero.

    Args:
        store: The target.                                              (rows, *joint shape)
        value: Numbers, vectors or images of the task's size.           (rows, ...)
    """
    value = value if value.dim() > 1 else value.unsqueeze(-1)
    store[:, : value.shape[1]] = value
    return store


def _take(tensor: Tensor, rows: slice) -> Tensor:
    """A view of some rows, or the tensor itself if that is all of them, which costs nothing."""
    return tensor if rows.stop - rows.start == len(tensor) else tensor[rows]


def _adjacent(stage: list[EnvSlice]) -> Iterator[tuple[slice, list[EnvSlice]]]:
    """Yields the slices of a stage with adjacent rows, and these rows as one slice."""
    run = stage[:1]
    for env_slice in stage[1:]:
        if env_slice.rows.start != run[-1].rows.stop:
            yield slice(run[0].rows.start, run[-1].rows.stop), run
            run = []
        run = [*run, env_slice]
    yield slice(run[0].rows.start, run[-1].rows.stop), run
