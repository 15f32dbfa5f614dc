"""Atari: the games of the Arcade Learning Environment, stepped by ale-py's C++ threads.

A task is an id of ale-py's, "ALE/Pong-v5", and its keyword arguments are these, with the defaults
that `gymnasium.make_vec` gives the id, so that the same id means the same environment here:

    frameskip=4                         frames for which an action is held
    repeat_action_probability=0.25      sticky actions (Machado et al. 2018); 0.0 in DQN's papers
    full_action_space=False             all 18 actions, not only those that the game knows
    max_num_frames_per_episode=108_000  half an hour of play, then the episode is truncated
    noop_max=30                         an episode starts after fewer no-ops than this, at random
    use_fire_reset=True                 FIRE starts the episode, in games that know it
    episodic_life=False                 a lost life ends the episode in a terminal state
    reward_clipping=True                rewards of a step are clipped to -1, 0, 1
    stack_num=4                         frames in an observation, oldest first, the first ones black
    img_height=84, img_width=84         size of a frame after area interpolation
    grayscale=True                      or RGB, (stack_num, height, width, 3)
    maxpool=True                        a frame is the maximum of the last two
    continuous=False                    a joystick: radius, angle, fire
    continuous_action_threshold=0.5     from where on the joystick counts as moved
    num_threads=0                       threads; 0 for one for each core; no result depends on it

A task that is evaluated has `reward_clipping` and `episodic_life` off.

What ale-py does that one would not guess: with `episodic_life` the game starts over after a lost
life, so that nothing is seen but first lives; an episode that is truncated ends with a frame that
was not drawn anew (its last screen is mixed with that of the step before); the emulators' state
cannot be had, so that episodes begin anew at every checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
from gymnasium.vector import AutoresetMode

from rltransfer.errors import InputError, unknown
from rltransfer.tasks.task import Suite, Task

if TYPE_CHECKING:
    import torch

    from rltransfer.tasks.vector_env import VectorEnv

_PREFIX = "ALE/"

_DEFAULTS: dict[str, bool | int | float] = {
    "frameskip": 4,
    "repeat_action_probability": 0.25,
    "full_action_space": False,
    "max_num_frames_per_episode": 108_000,
    "noop_max": 30,
    "use_fire_reset": True,
    "episodic_life": False,
    "reward_clipping": True,
    "stack_num": 4,
    "img_height": 84,
    "img_width": 84,
    "grayscale": True,
    "maxpool": True,
    "continuous": False,
    "continuous_action_threshold": 0.5,
    "num_threads": 0,
}

_MAY_BE_ZERO = ("noop_max", "num_threads")

_POLICY_DISTILLATION_GAMES = (
    "BeamRider",
    "Breakout",
    "Enduro",
    "Freeway",
    "MsPacman",
    "Pong",
    "Qbert",
    "Riverraid",
    "Seaquest",
    "SpaceInvaders",
)
"""Source: Rusu et al. 2015, "Policy Distillation", table 1."""

_THREE_GAMES = ("Freeway", "Pong", "Qbert")
"""The paper's three-game policy has 12 outputs. Of its ten games only Freeway and Pong, which had 3
actions each in the paper's emulator, and Q*bert or Space Invaders, with 6, add up to that; which of
the two it was is not known, Q*bert is a choice."""


class Atari:
    """The family of ale-py's games."""

    name = "atari"
    overlaps = True

    def register(self) -> None:
        """Registers nothing: the ids are ale-py's own, known once it is imported."""

    def suites(self) -> tuple[Suite, ...]:
        """Returns the games on which policy distillation was introduced."""
        return (
            Suite("atari-pd10", tuple(map(_task, _POLICY_DISTILLATION_GAMES))),
            Suite("atari-pd3", tuple(map(_task, _THREE_GAMES))),
        )

    def task_ids(self) -> tuple[str, ...]:
        """Returns the id of every game."""
        return tuple(sorted(_games()))

    def accepts(self, task: Task) -> bool:
        """Tells whether it is one of ale-py's ids, old ones included, which `make` refuses."""
        return task.id.startswith(_PREFIX) or _old_game(task) is not None

    def make(self, task: Task, num_envs: int, device: torch.device) -> VectorEnv:
        """Makes a game's vector environment.

        Raises:
            InputError: There is no such game, or a keyword argument is unknown or out of range.
        """
        games = _games()
        if task.id not in games:
            game = _old_game(task)
            for now, known in games.items():
                if known == game:
                    raise InputError(f"{task.id!r} is an old name of ale-py's: take {now!r}.")
            raise unknown("task", task.id, games, "rltransfer list tasks")
        options = _options(task)
        # Imported only where a game is made: a run on other tasks need not wait for the emulator.
        from ale_py.vector_env import AtariVectorEnv as Emulators

        from .atari_vector_env import AtariVectorEnv

        emulators = Emulators(
            games[task.id], num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **options
        )
        stack = options["stack_num"]
        return AtariVectorEnv(
            emulators, device, name=task.id, frame_stack=stack if stack > 1 else 0
        )

    def evaluation_task(self, task: Task) -> Task:
        """Returns the task with the game's own rewards and whole games."""
        return task.with_kwargs(reward_clipping=False, episodic_life=False)


FAMILY = Atari()


def _task(game: str) -> Task:
    return Task(f"{_PREFIX}{game}-v5")


def _games() -> dict[str, str]:
    """Returns the name of every game's ROM, by id."""
    import ale_py  # noqa: F401  (registers the ids)

    return {
        task_id: spec.kwargs["game"]
        for task_id, spec in gymnasium.registry.items()
        if task_id.startswith(_PREFIX)
    }


def _old_game(task: Task) -> str | None:
    """Returns the name of the ROM of an id as it was before "ALE/"; None for any other id."""
    spec = gymnasium.registry.get(task.id)
    if spec is None or spec.namespace or not str(spec.entry_point).startswith("ale_py."):
        return None
    return str(spec.kwargs["game"])


def _options(task: Task) -> dict[str, Any]:
    """Returns all keyword arguments of ale-py's vector environment.

    ale-py checks none of them: some values crash the process, others hang it.

    Raises:
        InputError: A keyword argument is unknown, or its value is of another type or out of range.
    """
    options: dict[str, Any] = dict(_DEFAULTS)
    for name, value in task.kwargs.items():
        if name not in _DEFAULTS:
            raise InputError(
                f"The task {task.id!r} has no keyword argument {name!r}: "
                f"there are {', '.join(_DEFAULTS)}."
            )
        options[name] = _checked(task, name, value)
    return options


def _checked(task: Task, name: str, value: Any) -> bool | int | float:
    """Returns a keyword argument's value if it may be that."""
    default = _DEFAULTS[name]
    if isinstance(default, bool):
        right, needed = isinstance(value, bool), "true or false"
    elif isinstance(default, float):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        right, needed = is_number and 0 <= value <= 1, "a number from 0 to 1"
    else:
        least = 0 if name in _MAY_BE_ZERO else 1
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        right, needed = is_whole and value >= least, f"a whole number of at least {least}"
    if not right:
        raise InputError(
            f"The keyword argument {name!r} of {task.id!r} is {value!r}: it must be {needed}."
        )
    return float(value) if isinstance(default, float) else value
