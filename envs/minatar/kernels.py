"""The two kernels of a game, built from the game's three functions.

A game is a struct (the state) and three Warp functions:

- `start(game, counters, env) -> game`: begins an episode, given the struct with every field zero;
- `act(game, action, ramping, counters, env) -> game`: plays a step; sets `reward` and `terminal`;
- `draw(game, frame, observation, env)`: draws the game with `bitplane.show`.

Sticky actions, automatic resets and seeding are the same for all games. The same source runs on the
CPU and CUDA; each thread plays one environment.
"""

# mypy: ignore-errors
# The functions are written in Warp's language, which type checkers for Python do not support.
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import warp as wp

from .bitplane import ChannelBytes, Plane
from .random import draw, stream

FULL_ACTIONS = 6
"""The actions of every game: no-op, left, up, right, down, fire."""
LEFT = wp.constant(1)
UP = wp.constant(2)
RIGHT = wp.constant(3)
DOWN = wp.constant(4)
FIRE = wp.constant(5)


@dataclass(frozen=True)
class Game:
    """One of the five games."""

    channels: tuple[str, ...]
    """The name of each channel of the observation."""
    minimal_actions: tuple[int, ...]
    """The actions that have an effect in this game."""
    state: Any
    """The struct of the game's state."""
    step: wp.Kernel
    """Plays one step of each environment."""
    reset: wp.Kernel
    """Begins new episodes."""


def make_game(
    module: str,
    channels: tuple[str, ...],
    minimal_actions: tuple[int, ...],
    state: Any,
    functions: tuple[wp.Function, wp.Function, wp.Function],
) -> Game:
    """A game with its two kernels, in a separate Warp module that is compiled on first use.

    Args:
        module: The name of the Warp module.
        channels: See `Game`.
        minimal_actions: See `Game`.
        state: See `Game`.
        functions: The game's `start`, `act` and `draw`.
    """
    State = state  # noqa: N806  # it is a type
    start_game, act_game, draw_game = functions

    @wp.kernel(module=module, enable_backward=False)
    def step(
        first: int,
        actions: wp.array[wp.int64],
        action_set: wp.array[wp.int32],
        sticky_below: int,
        ramping: bool,
        games: wp.array[State],
        counters: wp.array[wp.uint64],
        last_actions: wp.array[wp.int32],
        frame: wp.array2d[Plane],
        observation: wp.array3d[wp.uint8],
        observation_channels: wp.array2d[ChannelBytes],
        final_channels: wp.array2d[ChannelBytes],
        reward: wp.array[wp.float32],
        terminated: wp.array[wp.bool],
    ) -> None:
        env = first + wp.tid()
        action = wp.int32(0)
        chosen = actions[env]
        # An action out of range is a no-op, so that it cannot read beyond the table.
        if chosen >= wp.int64(0) and chosen < wp.int64(action_set.shape[0]):
            action = action_set[int(chosen)]
        if draw(counters, env) < sticky_below:
            action = last_actions[env]
        last_actions[env] = action

        game = act_game(games[env], action, ramping, counters, env)
        draw_game(game, frame, observation, env)
        reward[env] = float(game.reward)
        terminated[env] = game.terminal
        if game.terminal:
            for channel in range(frame.shape[1]):
                final_channels[env, channel] = observation_channels[env, channel]
            game = start_game(State(), counters, env)
            draw_game(game, frame, observation, env)
        games[env] = game

    @wp.kernel(module=module, enable_backward=False)
    def reset(
        mask: wp.array[wp.bool],
        seeded: bool,
        seed: wp.uint64,
        games: wp.array[State],
        counters: wp.array[wp.uint64],
        last_actions: wp.array[wp.int32],
        frame: wp.array2d[Plane],
        observation: wp.array3d[wp.uint8],
    ) -> None:
        env = wp.tid()
        if mask[env]:
            if seeded:
                counters[env] = stream(seed, env)
                last_actions[env] = 0
            game = start_game(State(), counters, env)
            draw_game(game, frame, observation, env)
            games[env] = game

    return Game(channels, minimal_actions, state, step, reset)
