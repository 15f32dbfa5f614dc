"""The episode under way in one environment: how it began and its actions, to play it again.

Few Gymnasium environments can save their state, but most depend only on their generators at the
reset and on the actions since. A checkpoint stores these, and a resumed run plays the episode again
up to the same observation.
"""

from __future__ import annotations

import collections
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

LONGEST = 50_000
"""Steps after which an episode is not recorded any more: playing it again would take too long."""

SECONDS = 60.0
"""How long the environments of a task may take to play their episodes again, all together."""


@dataclass(frozen=True)
class Episode:
    """How an episode began, what was done, and what was seen last."""

    seed: int | None
    """The seed of the reset; None if it had none."""
    generators: list[Any]
    """The states of the environment's generators before a reset without a seed."""
    actions: NDArray[Any] | None
    """The actions; None if they were too many.    (steps, ...)"""
    digest: str
    """Hash of the last observation."""


class EpisodeReplay:
    """Records an environment's episode and plays it again.

    Args:
        env: The environment, whose generators are recorded.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self._env = env
        self._spaces = list(_leaf_spaces(env))
        self._seed: int | None = None
        self._generators: list[Any] = []
        # One more than is kept says that there were more.
        self._actions: collections.deque[Any] = collections.deque(maxlen=LONGEST + 1)
        space = env.action_space
        self._box = space if isinstance(space, spaces.Box) else None
        self.record: Callable[[Any], None] = (
            self._actions.append if self._box is None else self._record_bytes
        )

    def begin(self, seed: int | None) -> None:
        """Records the start of an episode, before the reset."""
        self._seed = seed
        self._generators = [] if seed is not None else [g.state for g in self._bit_generators()]
        self._actions.clear()

    def episode(self, observation: Any) -> Episode:
        """The episode so far.

        Args:
            observation: The last one, by which a repetition is checked.
        """
        actions: NDArray[Any] | None = None
        if len(self._actions) <= LONGEST:
            if self._box is None:
                actions = np.array(self._actions)
            else:
                flat = np.frombuffer(b"".join(self._actions), self._box.dtype)
                actions = flat.reshape(len(self._actions), *self._box.shape)
        return Episode(self._seed, self._generators, actions, _digest(observation))

    def _record_bytes(self, action: Any) -> None:
        """Keeps a copy, as the environment may change what it gets; bytes are a small one."""
        assert self._box is not None
        self._actions.append(np.asarray(action, self._box.dtype).tobytes())

    def play(self, episode: Episode, env: gymnasium.Env[Any, Any], seconds: float) -> bool:
        """Plays an episode again, and returns whether it ends with its observation.

        Args:
            episode: The episode.
            env: What is reset and stepped, and tells the recorder of it.
            seconds: How long it may take.
        """
        if episode.actions is None:
            return False
        deadline = time.monotonic() + seconds
        if episode.seed is None:
            pairs = zip(self._bit_generators(), episode.generators, strict=True)
            for generator, state in pairs:
                generator.state = state
        observation, _ = env.reset(seed=episode.seed)
        for action in episode.actions.copy():
            if time.monotonic() > deadline:
                return False
            observation, *_ = env.step(action)
        return _digest(observation) == episode.digest

    def _bit_generators(self) -> Iterator[np.random.BitGenerator]:
        """The environment's generator, if it has one yet, and those of its spaces."""
        own = getattr(self._env.unwrapped, "_np_random", None)
        if isinstance(own, np.random.Generator):
            yield own.bit_generator
        for space in self._spaces:
            yield space.np_random.bit_generator


def pack(episodes: Sequence[Episode]) -> dict[str, Tensor]:
    """The episodes of several environments as tensors, for a checkpoint."""
    rest = [
        {
            "seed": one.seed,
            "generators": one.generators,
            "length": None if one.actions is None else len(one.actions),
            "digest": one.digest,
        }
        for one in episodes
    ]
    text = bytearray(json.dumps(rest).encode())
    actions = [one.actions for one in episodes if one.actions is not None and len(one.actions)]
    return {
        "episodes": torch.frombuffer(text, dtype=torch.uint8),
        "actions": torch.from_numpy(np.concatenate(actions)) if actions else torch.zeros(0),
    }


def unpack(state: Mapping[str, Tensor]) -> list[Episode]:
    """Inverse of `pack`.

    Raises:
        Exception: The state is damaged: one of `DAMAGE`.
    """
    rest = json.loads(state["episodes"].cpu().numpy().tobytes())
    actions, episodes, first = state["actions"].cpu().numpy(), [], 0
    for one in rest:
        length = one["length"]
        own = None if length is None else actions[first : first + int(length)]
        first += 0 if length is None else int(length)
        episodes.append(Episode(one["seed"], one["generators"], own, one["digest"]))
    return episodes


def _leaf_spaces(env: gymnasium.Env[Any, Any]) -> Iterator[spaces.Space[Any]]:
    """The spaces of an environment and its wrappers that have generators, each once."""
    found: dict[int, spaces.Space[Any]] = {}

    def add(space: spaces.Space[Any]) -> None:
        found[id(space)] = space
        for part in getattr(space, "spaces", {}).values() if isinstance(space, spaces.Dict) else ():
            add(part)

    while True:
        add(env.action_space)
        add(env.observation_space)
        if not isinstance(env, gymnasium.Wrapper):
            return iter(found.values())
        env = env.env


def _digest(observation: Any) -> str:
    groups = observation if isinstance(observation, Mapping) else {"": observation}
    digest = hashlib.sha256()
    for name in sorted(groups):
        digest.update(name.encode() + np.ascontiguousarray(groups[name]).tobytes())
    return digest.hexdigest()
