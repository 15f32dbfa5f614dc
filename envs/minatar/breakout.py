"""Breakout: three rows of bricks, a ball that flies diagonally, a paddle on the bottom row.

Every brick gives 1. After breaking a brick, the ball passes through a brick in the next step
(`struck`). When the ball reaches the bottom row and no brick is left, three new rows appear. A ball
that passes the paddle ends the episode.

Source: Young & Tian 2019, 1903.03176; package `minatar` 1.0.15 for details beyond the paper.
"""

# mypy: ignore-errors
# The functions are written in Warp's language, which type checkers for Python do not support.
from __future__ import annotations

import warp as wp

from .bitplane import Plane, cell, show
from .kernels import LEFT, RIGHT, make_game
from .random import draw_below

_CHANNELS = ("paddle", "ball", "trail", "brick")
_ALL_BRICKS = wp.constant((1 << 30) - 1)


@wp.struct
class Breakout:
    """The state of one game."""

    reward: wp.int32
    terminal: wp.bool
    paddle: wp.int32
    ball_x: wp.int32
    ball_y: wp.int32
    trail_x: wp.int32
    trail_y: wp.int32
    dx: wp.int32
    dy: wp.int32
    struck: wp.bool
    bricks: wp.int32
    """Bit `(y - 1) * 10 + x` is the brick in column `x` of rows 1 to 3."""


@wp.func
def start(game: Breakout, counters: wp.array[wp.uint64], env: int) -> Breakout:
    """Begins an episode: the ball at either edge below the bricks, flying inwards and down."""
    from_right = draw_below(counters, env, 2)
    game.paddle = 4
    game.ball_x = from_right * 9
    game.ball_y = 3
    game.trail_x = game.ball_x
    game.trail_y = game.ball_y
    game.dx = 1 - 2 * from_right
    game.dy = 1
    game.bricks = _ALL_BRICKS
    return game


@wp.func
def act(
    game: Breakout, action: int, ramping: bool, counters: wp.array[wp.uint64], env: int
) -> Breakout:
    """Moves the paddle, then the ball."""
    game.reward = 0
    if action == LEFT:
        game.paddle = wp.max(0, game.paddle - 1)
    elif action == RIGHT:
        game.paddle = wp.min(9, game.paddle + 1)

    game.trail_x = game.ball_x
    game.trail_y = game.ball_y
    x = game.ball_x + game.dx
    y = game.ball_y + game.dy
    if x < 0 or x > 9:
        x = wp.clamp(x, 0, 9)
        game.dx = -game.dx

    brick = 0
    if y >= 1 and y <= 3:
        brick = game.bricks & (1 << ((y - 1) * 10 + x))
    if y < 0:
        y = 0
        game.dy = -game.dy
    elif brick != 0:
        if not game.struck:
            game.reward = 1
            game.bricks = game.bricks ^ brick
            y = game.trail_y
            game.dy = -game.dy
    elif y == 9:
        if game.bricks == 0:
            game.bricks = _ALL_BRICKS
        if game.trail_x == game.paddle:
            game.dy = -game.dy
            y = game.trail_y
        elif x == game.paddle:
            game.dx = -game.dx
            game.dy = -game.dy
            y = game.trail_y
        else:
            game.terminal = True
    game.struck = brick != 0
    game.ball_x = x
    game.ball_y = y
    return game


@wp.func
def draw(
    game: Breakout, frame: wp.array2d[Plane], observation: wp.array3d[wp.uint8], env: int
) -> None:
    """Draws the game."""
    show(frame, observation, env, 0, cell(game.paddle, 9))
    show(frame, observation, env, 1, cell(game.ball_x, game.ball_y))
    show(frame, observation, env, 2, cell(game.trail_x, game.trail_y))
    show(frame, observation, env, 3, Plane(wp.uint64(game.bricks) << wp.uint64(10), wp.uint64(0)))


GAME = make_game(__name__, _CHANNELS, (0, 1, 3), Breakout, (start, act, draw))
