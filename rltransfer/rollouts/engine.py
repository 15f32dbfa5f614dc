"""The rollout engine: tasks x environments x time, on the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.rollouts.cuda_graph import CapturedCalls
from rltransfer.rollouts.episodes import episode_totals
from rltransfer.rollouts.rollout import Actor, Final, Rollout
from rltransfer.tasks.action import action_mask, action_size, joint_action_space
from rltransfer.tasks.families import make_vector_env
from rltransfer.tasks.observation import Observation, as_groups, grouped, joint_observation_space
from rltransfer.tasks.task import Suite
from rltransfer.tasks.vector_env import VectorEnv


class Store:
    """A tensor over time, and its rows at each time: views that are made once."""

    def __init__(self, *shape: int, dtype: torch.dtype, device: torch.device) -> None:
        self.all = torch.zeros(shape, dtype=dtype, device=device)
        self.at = self.all.unbind()


@dataclass
class Lane:
    """One vector environment and the rows that it fills."""

    env: VectorEnv
    rows: slice
    action_size: int | None = None
    """Numbers of the task's own continuous actions, where other tasks have more."""

    def send(self, action: Tensor) -> None:
        """Begins a step.

        Args:
            action: All rows' actions, padded.    (rows,) or (rows, action_dim)
        """
        own = _part(action, self.rows)
        if self.action_size is not None:
            own = own[:, : self.action_size].contiguous()
        self.env.send(own)


class RolloutEngine:
    """Steps every environment of every task and keeps what happens in preallocated tensors.

    One forward pass serves all tasks. Host environments are held in two halves, so that one half is
    simulated while the other is acted for. Where all environments live on a CUDA device, a rollout
    is one CUDA graph from its second time on: policy, sampling, environments and stores of all its
    steps are launched at once.

    Args:
        suite: The tasks.
        num_envs: Environments of each task.
        device: Where tensors live.
        seed: Seeds the environments.
        spaces_like: Observation and action space to pad to, where they are given, e.g. those of a
            policy that was trained on a larger suite.
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
        spaces_like: tuple[spaces.Dict, spaces.Space[Any]] | None = None,
        captures: bool = True,
    ) -> None:
        self.suite = suite
        self.num_envs = num_envs
        self.num_rows = len(suite) * num_envs
        self.device = device
        self.seed = seed
        self.halves = self._make_lanes()
        self.lanes = [lane for half in self.halves for lane in half]
        self._agree_on_spaces(spaces_like)
        self.task = torch.arange(len(suite), device=device).repeat_interleave(num_envs)
        self.running_return = torch.zeros(self.num_rows, device=device)
        self.running_length = torch.zeros(self.num_rows, device=device)
        self._resize_state(0)
        self._last_start = torch.ones(self.num_rows, dtype=torch.bool, device=device)
        capturable = all(lane.env.capturable for lane in self.lanes)
        self._captured = (
            CapturedCalls() if captures and capturable and device.type == "cuda" else None
        )
        self._horizon = 0
        self.restarts = 0
        self._allocate(1)
        self.restart()

    def _make_lanes(self) -> list[list[Lane]]:
        """Makes the environments: each task's as one lane, or as two where that lets it overlap."""
        halves: list[list[Lane]] = [[], []]
        for index, task in enumerate(self.suite):
            base, split = index * self.num_envs, self.num_envs // 2
            env = make_vector_env(task, max(split, 1), self.device)
            if env.metadata["autoreset_mode"] != VectorEnv.metadata["autoreset_mode"]:
                raise InputError(
                    f"The task {task.id!r} resets in the step after an episode's end: "
                    "its environment must reset in the same step."
                )
            if env.overlaps and split:
                rest = make_vector_env(task, self.num_envs - split, self.device)
                halves[0].append(Lane(env, slice(base, base + split)))
                halves[1].append(Lane(rest, slice(base + split, base + self.num_envs)))
                continue
            if self.num_envs > 1:
                env.close()
                env = make_vector_env(task, self.num_envs, self.device)
            halves[0].append(Lane(env, slice(base, base + self.num_envs)))
        return [half for half in halves if half]

    def _agree_on_spaces(self, like: tuple[spaces.Dict, spaces.Space[Any]] | None) -> None:
        """Finds the spaces that all tasks fit, and which part of the actions each has."""
        owners = {lane.rows.start // self.num_envs: lane.env for lane in reversed(self.lanes)}
        envs = [(task.id, owners[index]) for index, task in enumerate(self.suite)]
        observed = [(name, env.single_observation_space) for name, env in envs]
        acted = [(name, env.single_action_space) for name, env in envs]
        self.own_spaces = [
            (grouped(env.single_observation_space), env.single_action_space) for _, env in envs
        ]
        self.own_actions = [space for _, space in self.own_spaces]
        self.observation_space = joint_observation_space(observed)
        self.action_space = joint_action_space(acted)
        if like is not None:
            joint_observation_space([("the policy", like[0]), *observed])
            joint_action_space([("the policy", like[1]), *acted])
            self.observation_space, self.action_space = like
        self.action_mask = action_mask(self.action_space, self.own_actions)
        if self.action_mask is not None and isinstance(self.action_space, spaces.Box):
            for lane in self.lanes:
                lane.action_size = action_size(lane.env.single_action_space)

    def _allocate(self, horizon: int) -> None:
        """Makes room for `horizon` steps; what is seen now is carried over."""
        old = getattr(self, "_observation", None)
        shape = (horizon + 1, self.num_rows)

        def store(dtype: torch.dtype, *rest: int) -> Store:
            return Store(*shape, *rest, dtype=dtype, device=self.device)

        self._observation: dict[str, Store] = {}
        for name, space in self.observation_space.spaces.items():
            dtype = torch.from_numpy(np.zeros(1, space.dtype)).dtype
            self._observation[name] = store(dtype, *(space.shape or ()))
        self._start = store(torch.bool)
        self._start.all.fill_(True)
        self._reward = store(torch.float32)
        self._terminated = store(torch.bool)
        self._truncated = store(torch.bool)
        self._episode_return = torch.zeros(horizon, self.num_rows, device=self.device)
        self._episode_length = torch.zeros_like(self._episode_return)
        self._extras: dict[str, Store] = {}
        self._final: Observation = {}
        self._final_parts: list[Final] = []
        if old is not None:
            for name, kept in old.items():
                self._observation[name].at[horizon].copy_(kept.at[self._horizon])
            self._start.at[horizon].copy_(self._last_start)
        self._horizon = horizon
        if self._captured is not None:
            self._captured.clear()

    def _resize_state(self, size: int) -> None:
        """Makes room for a recurrent state of this size, zero at first."""
        self.state = torch.zeros(self.num_rows, size, device=self.device)
        self._initial_state = torch.zeros_like(self.state)

    def restart(self, only_forgetful: bool = False) -> None:
        """Begins new episodes, seeded by the engine's seed and the count of restarts.

        Args:
            only_forgetful: Whether only those environments begin anew that cannot say their state.
        """
        for index, lane in enumerate(self.lanes):
            if only_forgetful and lane.env.state_dict() is not None:
                continue
            mixed = np.random.SeedSequence([self.seed, self.restarts, index]).generate_state(1)
            observation, _ = lane.env.reset(seed=int(mixed[0]) % 2**31)
            self._write_observation(self._horizon, lane, observation)
            self._start.at[self._horizon][lane.rows] = True
            self.running_return[lane.rows] = 0
            self.running_length[lane.rows] = 0
            self.state[lane.rows] = 0
        self.restarts += 1
        self._last_start.copy_(self._start.at[self._horizon])

    @torch.no_grad()
    def collect(self, actor: Actor, horizon: int) -> Rollout:
        """Lets the actor act for `horizon` steps in every environment.

        Args:
            actor: Who acts.
            horizon: Steps of each environment.

        Returns:
            What happened; the next call overwrites it.
        """
        if horizon != self._horizon:
            self._allocate(horizon)
        if self.state.shape[1] != actor.state_size:
            self._resize_state(actor.state_size)
        self._final_parts.clear()
        if self._captured is None:
            self._play(actor, horizon)
        else:
            # The actor itself is in the key: its identity must not pass to another one.
            key = (actor, actor.course)
            self._captured(key, lambda: self._play(actor, horizon), actor.generators)
        return self._view(horizon)

    def _play(self, actor: Actor, horizon: int) -> None:
        """Fills the stores."""
        for store in self._observation.values():
            store.at[0].copy_(store.at[horizon])
        self._start.at[0].copy_(self._last_start)
        self._initial_state.copy_(self.state)
        for time in range(horizon):
            for half in self.halves:
                if time > 0:
                    self._receive(half, time - 1)
                self._send(actor, half, time)
        for half in self.halves:
            self._receive(half, horizon - 1)
        self._last_start.copy_(self._start.at[horizon])
        self._sum_episodes(horizon)

    def _send(self, actor: Actor, half: list[Lane], time: int) -> None:
        """Acts for one half and begins its step."""
        for rows, _ in _runs(half):
            seen = {name: _part(store.at[time], rows) for name, store in self._observation.items()}
            start = _part(self._start.at[time], rows)
            before = _part(self.state, rows)
            output = actor.act(seen, _part(self.task, rows), before, start)
            state = output.pop("state", None)
            if state is not None:
                before.copy_(state)
            for name, value in output.items():
                _part(self._extra(name, value).at[time], rows).copy_(value)
        action = self._extras["action"].at[time]
        for lane in half:
            lane.send(action)

    def _extra(self, name: str, value: Tensor) -> Store:
        """Returns the store of one of the actor's tensors, made at its first use."""
        if name not in self._extras:
            self._extras[name] = Store(
                self._horizon, self.num_rows, *value.shape[1:],
                dtype=value.dtype, device=self.device,
            )  # fmt: skip
        return self._extras[name]

    def _receive(self, half: list[Lane], time: int) -> None:
        """Ends the step of one half."""
        for rows, lanes in _runs(half):
            rewards, ends, cuts = [], [], []
            for lane in lanes:
                observation, reward, terminated, truncated, info = lane.env.recv()
                self._write_observation(time + 1, lane, observation)
                if lane.env.truncates and "final_obs" in info:
                    self._keep_final(lane, time, truncated & ~terminated, info["final_obs"])
                rewards.append(reward)
                ends.append(terminated)
                cuts.append(truncated)
            # All lanes at once: with many tasks, copies of a few numbers each would add up.
            torch.cat(rewards, out=_part(self._reward.at[time], rows))
            torch.cat(ends, out=_part(self._terminated.at[time], rows))
            torch.cat(cuts, out=_part(self._truncated.at[time], rows))
            done = torch.logical_or(
                _part(self._terminated.at[time], rows),
                _part(self._truncated.at[time], rows),
                out=_part(self._start.at[time + 1], rows),
            )
            if self.state.shape[1]:
                _part(self.state, rows).masked_fill_(done.unsqueeze(-1), 0.0)

    def _sum_episodes(self, horizon: int) -> None:
        """Finds the returns and lengths of the episodes that ended."""
        reward, done = self._reward.all[:horizon], self._start.all[1:]
        self._episode_return.copy_(episode_totals(reward, done, self.running_return))
        one = torch.ones_like(reward)
        self._episode_length.copy_(episode_totals(one, done, self.running_length))

    def _keep_final(self, lane: Lane, time: int, cut: Tensor, observation: Any) -> None:
        """Keeps the last observations of episodes that were cut short."""
        if lane.env.capturable:
            # Which rows are meant would have to be waited for: all are kept, and chosen later.
            for name, value in as_groups(observation).items():
                if name not in self._final:
                    self._final[name] = torch.zeros_like(self._observation[name].all)
                _fill(self._final[name][time, lane.rows], value)
            return
        rows = cut.nonzero().squeeze(-1)
        if not len(rows):
            return
        kept = {}
        for name, value in as_groups(observation).items():
            store = self._observation[name].all
            kept[name] = _fill(store.new_zeros(len(rows), *store.shape[2:]), value[rows])
        times = torch.full_like(rows, time)
        self._final_parts.append(Final(times, rows + lane.rows.start, kept))

    def _finals(self, horizon: int) -> Final | None:
        """Returns what followed where episodes were cut short."""
        parts = list(self._final_parts)
        for lane in self.lanes:
            if not (lane.env.capturable and lane.env.truncates):
                continue
            where = slice(horizon), lane.rows
            cut = self._truncated.all[where] & ~self._terminated.all[where]
            time, rows = cut.nonzero(as_tuple=True)
            rows = rows + lane.rows.start
            kept = {name: store[time, rows] for name, store in self._final.items()}
            parts.append(Final(time, rows, kept))
        parts = [part for part in parts if len(part.time)]
        if not parts:
            return None
        return Final(
            torch.cat([part.time for part in parts]),
            torch.cat([part.rows for part in parts]),
            {
                name: torch.cat([part.observation[name] for part in parts])
                for name in self._observation
            },
        )

    def _write_observation(self, time: int, lane: Lane, observation: Any) -> None:
        """Copies what a lane observes to its place."""
        for name, value in as_groups(observation).items():
            store = _part(self._observation[name].at[time], lane.rows)
            if lane.env.overlaps and self.device.type == "cpu" and value.dim() > 2:
                # By numpy, in this thread: torch's would keep spinning after the copy, on the cores
                # that the emulators of the other half are waiting for.
                store.numpy()[:, : value.shape[1]] = value.numpy()
            else:
                _fill(store, value)

    def _view(self, horizon: int) -> Rollout:
        return Rollout(
            observation={name: store.all[:horizon] for name, store in self._observation.items()},
            last_observation={name: store.at[horizon] for name, store in self._observation.items()},
            reward=self._reward.all[:horizon],
            terminated=self._terminated.all[:horizon],
            truncated=self._truncated.all[:horizon],
            start=self._start.all[:horizon],
            task=self.task.expand(horizon, -1),
            initial_state=self._initial_state,
            extras={name: store.all for name, store in self._extras.items()},
            last_state=self.state,
            final=self._finals(horizon),
            episode_return=self._episode_return,
            episode_length=self._episode_length,
        )

    def close(self) -> None:
        """Closes every environment."""
        for lane in self.lanes:
            lane.env.close()

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that the next `collect` depends on."""
        state: dict[str, Any] = {
            "observation": {n: s.at[self._horizon].clone() for n, s in self._observation.items()},
            "start": self._last_start.clone(),
            "running_return": self.running_return.clone(),
            "running_length": self.running_length.clone(),
            "state": self.state.clone(),
            "restarts": self.restarts,
        }
        for index, lane in enumerate(self.lanes):
            env_state = lane.env.state_dict()
            if env_state is not None:
                state[f"env-{index}"] = env_state
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to a state that `state_dict` returned; forgetful environments begin anew."""
        self.restarts = state["restarts"] - 1
        self.restart()
        self._resize_state(state["state"].shape[1])
        self.state.copy_(state["state"])
        for name, tensor in state["observation"].items():
            self._observation[name].at[self._horizon].copy_(tensor)
        self._last_start.copy_(state["start"])
        self.running_return.copy_(state["running_return"])
        self.running_length.copy_(state["running_length"])
        for index, lane in enumerate(self.lanes):
            if f"env-{index}" in state:
                lane.env.load_state_dict(state[f"env-{index}"])


def _fill(store: Tensor, value: Tensor) -> Tensor:
    """Writes what a task's own environments observe; channels and vectors are padded with zeros.

    Args:
        store: Where to.                                                (rows, *joint shape)
        value: Numbers, vectors or images of the task's own size.       (rows, ...)
    """
    store[:, : value.shape[1] if value.dim() > 1 else 1] = (
        value if value.dim() > 1 else value.unsqueeze(-1)
    )
    return store


def _part(tensor: Tensor, rows: slice) -> Tensor:
    """Returns a view of some rows, or the tensor itself where they are all: that costs nothing."""
    return tensor if rows.stop - rows.start == len(tensor) else tensor[rows]


def _runs(half: list[Lane]) -> Iterator[tuple[slice, list[Lane]]]:
    """Yields the lanes of a half that stand side by side, with their rows as one slice."""
    run = half[:1]
    for lane in half[1:]:
        if lane.rows.start != run[-1].rows.stop:
            yield slice(run[0].rows.start, run[-1].rows.stop), run
            run = []
        run = [*run, lane]
    yield slice(run[0].rows.start, run[-1].rows.stop), run
