"""MinAtar's five games as device environments: one kernel source for the CPU and CUDA.

The ids are `rltransfer/MinAtar-<Game>-v0` with all six actions, and `-v1` with the game's minimal
actions. Keyword arguments are `sticky_action_prob` and `difficulty_ramping`.

Source: Young & Tian 2019, "MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible
Reinforcement Learning Experiments", 1903.03176. The rules are those of its package, version 1.0.15.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import gymnasium

from rltransfer.envs.minatar.ids import GAMES
from rltransfer.errors import unknown
from rltransfer.tasks.task import Suite, Task

if TYPE_CHECKING:
    import torch

    from rltransfer.tasks.vector_env import VectorEnv


_PREFIX = "rltransfer/MinAtar-"
_OPTIONS = ("sticky_action_prob", "difficulty_ramping")


def _id(game: str, minimal_actions: bool) -> str:
    return f"{_PREFIX}{GAMES[game]}-v{int(minimal_actions)}"


_TASKS = {
    _id(game, minimal_actions): (game, minimal_actions)
    for minimal_actions in (False, True)
    for game in GAMES
}


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

    def suites(self) -> tuple[Suite, ...]:
        """`minatar`, the five games with all actions, and `minatar-minimal`."""
        return tuple(
            Suite(name, tuple(Task(_id(game, minimal_actions)) for game in GAMES))
            for name, minimal_actions in (("minatar", False), ("minatar-minimal", True))
        )

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
        if task.id not in _TASKS:
            raise unknown("MinAtar task", task.id, _TASKS)
        for option in task.kwargs:
            if option not in _OPTIONS:
                raise unknown(f"keyword argument of {task.id}", option, _OPTIONS)
        from .vector_env import MinAtarVectorEnv

        game, minimal_actions = _TASKS[task.id]
        return MinAtarVectorEnv(
            game, num_envs, minimal_actions=minimal_actions, device=device, **task.kwargs
        )

    def evaluation_task(self, task: Task) -> Task:
        """The task itself: training modifies neither episodes nor rewards."""
        return task


FAMILY = MinAtarFamily()
"""The entry point."""
