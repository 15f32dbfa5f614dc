"""Atari: the games of the Arcade Learning Environment, stepped by ale-py's C++ threads.

Tasks have ale-py's ids, e.g. "ALE/Pong-v5", and these keyword arguments, with the same defaults as
`gymnasium.make_vec`:

    frameskip=4                         frames for which an action is held
    repeat_action_probability=0.25      sticky actions (Machado et al. 2018); 0.0 in DQN's papers
    full_action_space=False             all 18 actions instead of the game's minimal set
    max_num_frames_per_episode=108_000  half an hour of play, then the episode is truncated
    noop_max=30                         episodes start after a random number of no-ops below this
    use_fire_reset=True                 FIRE starts the episode, in games with this action
    episodic_life=False                 a lost life ends the episode in a terminal state
    reward_clipping=True                rewards of a step are clipped to -1, 0, 1
    stack_num=4                         frames in an observation, oldest first, initially black
    img_height=84, img_width=84         size of a frame after area interpolation
    grayscale=True                      or RGB, (3 stack_num, height, width)
    maxpool=True                        a frame is the maximum of the last two
    continuous=False                    a joystick: radius, angle, fire
    continuous_action_threshold=0.5     joystick deflection that counts as a move
    num_threads=0                       threads; 0 for one per core; results do not depend on it

Evaluations turn `reward_clipping` and `episodic_life` off.

Properties of ale-py to be aware of:

- With `episodic_life` the game restarts after a lost life, so that only first lives are played.
- The last frame of a truncated episode is mixed with the one before.
- The emulators' state cannot be saved, so that episodes begin anew when a run is resumed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
from gymnasium.vector import AutoresetMode

from rltransfer.errors import InputError, unknown
from rltransfer.tasks.task import Suite, Task, transformed_suite

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
"""The paper's three-game policy has 12 outputs. Only Freeway and Pong, with 3 actions each in the
paper's emulator, and Q*bert or Space Invaders, with 6, add up to that. The paper does not name the
third game; Q*bert is a choice."""


_SOUP = ("", "noise", "black", "white", "zoom", "flip_vertical", "flip_horizontal",
         "flip_horizontal+flip_vertical")  # fmt: skip
"""Source: Rusu et al. 2016, "Progressive Neural Networks", section 5.1."""


class Atari:
    """The family of ale-py's games."""

    name = "atari"
    overlaps = True

    def register(self) -> None:
        """Registers nothing: importing ale-py registers the ids."""

    def suites(self) -> tuple[Suite, ...]:
        """The ten and three games of the policy-distillation paper, and the Pong Soup."""
        return (
            Suite("atari-pd10", tuple(map(_task, _POLICY_DISTILLATION_GAMES))),
            Suite("atari-pd3", tuple(map(_task, _THREE_GAMES))),
            transformed_suite("pong-soup", _task("Pong").id, _SOUP),
        )

    def task_ids(self) -> tuple[str, ...]:
        """The id of every game."""
        return tuple(sorted(_games()))

    def accepts(self, task: Task) -> bool:
        """Whether the id is ale-py's, including old ids, which `make` refuses."""
        return task.id.startswith(_PREFIX) or _old_game(task) is not None

    def make(self, task: Task, num_envs: int, device: torch.device) -> VectorEnv:
        """Makes a game's vector environment.

        Raises:
            InputError: The game does not exist, or a keyword argument is unknown or out of range.
        """
        games = _games()
        if task.id not in games:
            game = _old_game(task)
            for current, rom in games.items():
                if rom == game:
                    raise InputError(f"{task.id!r} is an old id of ale-py: use {current!r}.")
            raise unknown("task", task.id, games, "rltransfer list tasks")
        options = _options(task)
        # Imported here, so that runs on other tasks do not wait for the emulator.
        from ale_py.vector_env import AtariVectorEnv as Emulators

        from .atari_vector_env import AtariVectorEnv

        emulators = Emulators(
            games[task.id], num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **options
        )
        stacks = options["grayscale"] and options["stack_num"] > 1
        stack = options["stack_num"] if stacks else 0
        return AtariVectorEnv(emulators, device, name=task.id, frame_stack=stack)

    def evaluation_task(self, task: Task) -> Task:
        """The task with unmodified rewards and whole games."""
        return task.with_kwargs(reward_clipping=False, episodic_life=False)


FAMILY = Atari()


def _task(game: str) -> Task:
    return Task(f"{_PREFIX}{game}-v5")


def _games() -> dict[str, str]:
    """The ROM of every game, by id."""
    import ale_py  # noqa: F401  (registers the ids)

    return {
        task_id: spec.kwargs["game"]
        for task_id, spec in gymnasium.registry.items()
        if task_id.startswith(_PREFIX)
    }


def _old_game(task: Task) -> str | None:
    """The ROM of an old id without "ALE/"; None for any other id."""
    spec = gymnasium.registry.get(task.id)
    if spec is None or spec.namespace or not str(spec.entry_point).startswith("ale_py."):
        return None
    return str(spec.kwargs["game"])


def _options(task: Task) -> dict[str, Any]:
    """The keyword arguments of ale-py's vector environment.

    They are checked here, as ale-py crashes or hangs on some values.
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
    default = _DEFAULTS[name]
    if isinstance(default, bool):
        valid, needed = isinstance(value, bool), "true or false"
    elif isinstance(default, float):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        valid, needed = is_number and 0 <= value <= 1, "a number from 0 to 1"
    else:
        least = 0 if name in _MAY_BE_ZERO else 1
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        valid, needed = is_whole and value >= least, f"a whole number of at least {least}"
    if not valid:
        raise InputError(
            f"The keyword argument {name!r} of {task.id!r} is {value!r}: it must be {needed}."
        )
    return float(value) if isinstance(default, float) else value
