"""MinAtar's five games as device environments: one kernel source for the CPU and CUDA.

The ids are `rltransfer/MinAtar-<Game>-v0` with all six actions, and
`rltransfer/MinAtarMinimal-<Game>-v0` with the game's minimal actions. The former ids of the latter,
`rltransfer/MinAtar-<Game>-v1`, stay valid, e.g. in runs and in the suite `minatar-minimal`. Keyword
arguments are `sticky_action_prob` and `difficulty_ramping`.

Source: Young & Tian 2019, "MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible
Reinforcement Learning Experiments", 1903.03176. The rules are those of its package, version 1.0.15.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import gymnasium

from rltransfer.envs.minatar.ids import GAMES
from rltransfer.errors import unknown
from rltransfer.tasks.task import Suite, Task, transformed_suite

if TYPE_CHECKING:
    import torch

    from rltransfer.tasks.vector_env import VectorEnv


_PREFIX = "rltransfer/MinAtar"
_OPTIONS = ("sticky_action_prob", "difficulty_ramping")


def _id(game: str, minimal_actions: bool) -> str:
    return f"{_PREFIX}{'Minimal' if minimal_actions else ''}-{GAMES[game]}-v0"


def _former_id(game: str) -> str:
    """The id with minimal actions that Gymnasium takes for a newer version of all actions."""
    return f"{_PREFIX}-{GAMES[game]}-v1"


_TASKS = {
    _id(game, minimal_actions): (game, minimal_actions)
    for minimal_actions in (False, True)
    for game in GAMES
}
_SOUP = ("", "noise", "invert", "rotate_channels", "shift", "flip_horizontal", "flip_vertical",
         "flip_horizontal+flip_vertical")  # fmt: skip
"""Breakout as it is, and seen in seven other ways, after the Pong Soup of Rusu 2016."""
_FORMER = {_former_id(game): _id(game, minimal_actions=True) for game in GAMES}


class MinAtarFamily:
    """The task family `minatar`."""

    name = "minatar"

    def register(self) -> None:
        """Registers the ten ids with Gymnasium, unless they are registered."""
        for env_id, (game, minimal_actions) in _TASKS.items():
            if env_id not in gymnasium.registry:
                gymnasium.register(
                    id=env_id,
                    entry_point="rltransfer.envs.minatar.single:MinAtarEnv",
                    vector_entry_point="rltransfer.envs.minatar.vector_env:MinAtarVectorEnv",
                    kwargs={"game": game, "minimal_actions": minimal_actions},
                )
        for former, env_id in _FORMER.items():
            # An entry of this key with its own id would make Gymnasium warn that v0 is old.
            gymnasium.registry.setdefault(former, gymnasium.registry[env_id])

    def suites(self) -> tuple[Suite, ...]:
        """`minatar`, the five games with all actions, `minatar-minimal`, and `minatar-soup`."""
        ids = {"minatar": [_id(game, False) for game in GAMES], "minatar-minimal": [*_FORMER]}
        plain = tuple(Suite(name, tuple(map(Task, each))) for name, each in ids.items())
        return *plain, transformed_suite("minatar-soup", _id("breakout", False), _SOUP)

    def task_ids(self) -> tuple[str, ...]:
        """The ten ids."""
        return tuple(_TASKS)

    def accepts(self, task: Task) -> bool:
        """Whether the id is of this family, in any version."""
        return task.id.startswith(_PREFIX)

    def make(self, task: Task, num_envs: int, device: torch.device) -> VectorEnv:
        """Makes a task's vector environment.

        Raises:
            InputError: The game or a keyword argument is unknown.
        """
        task_id = _FORMER.get(task.id, task.id)
        if task_id not in _TASKS:
            raise unknown("MinAtar task", task.id, _TASKS)
        for option in task.kwargs:
            if option not in _OPTIONS:
                raise unknown(f"keyword argument of {task.id}", option, _OPTIONS)
        from .vector_env import MinAtarVectorEnv

        game, minimal_actions = _TASKS[task_id]
        return MinAtarVectorEnv(
            game, num_envs, minimal_actions=minimal_actions, device=device, **task.kwargs
        )

    def evaluation_task(self, task: Task) -> Task:
        """The task itself: training modifies neither episodes nor rewards."""
        return task


FAMILY = MinAtarFamily()
"""The entry point."""
