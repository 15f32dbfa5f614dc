"""Space Invaders: shoot the aliens of a wave before they reach the bottom.

Every alien shot gives 1. The wave moves sideways; at an edge it descends a row and turns. It moves
faster the fewer aliens are left. Every tenth step, the alien nearest to the cannon's column shoots.
A destroyed wave is followed by another one, which with ramping is faster. An alien or a bullet that
reaches the cannon ends the episode, and so does a wave that descends from the last row.

Source: Young & Tian 2019, 1903.03176; package `minatar` 1.0.15 for details beyond the paper.
"""

# mypy: ignore-errors
# The functions are written in Warp's language, which type checkers for Python do not support.
from __future__ import annotations

import warp as wp

from .bitplane import (
    Plane,
    any_set,
    both,
    cell,
    column_bits,
    count,
    either,
    meet,
    moved_down,
    moved_left,
    moved_right,
    moved_up,
    row,
    row_bits,
    show,
    without,
)
from .kernels import FIRE, LEFT, RIGHT, make_game

_CHANNELS = ("cannon", "alien", "alien_left", "alien_right", "friendly_bullet", "enemy_bullet")
_BOTTOM = wp.constant(9)
_COOLDOWN = wp.constant(5)
_ALIEN_SHOT_INTERVAL = wp.constant(10)
_FIRST_MOVE_INTERVAL = wp.constant(12)
_LAST_MOVE_INTERVAL = wp.constant(6)
# Rows 0 to 3, columns 2 to 7.
_WAVE = wp.constant(wp.uint64(sum(0b0011111100 << (10 * y) for y in range(4))))
_LEFTMOST = wp.constant(1)
_RIGHTMOST = wp.constant(1 << 9)


@wp.struct
class SpaceInvaders:
    """The state of one game."""

    aliens: Plane
    bullets: Plane
    """The cannon's bullets."""
    alien_bullets: Plane
    reward: wp.int32
    terminal: wp.bool
    cannon: wp.int32
    to_right: wp.bool
    """Whether the wave moves to the right."""
    cooldown: wp.int32
    move_interval: wp.int32
    """The interval of the wave's moves while it is large."""
    move_timer: wp.int32
    alien_shot_timer: wp.int32


@wp.func
def start(game: SpaceInvaders, counters: wp.array[wp.uint64], env: int) -> SpaceInvaders:
    """Begins an episode: the first wave, moving to the left."""
    game.cannon = 5
    game.aliens = Plane(_WAVE, wp.uint64(0))
    game.move_interval = _FIRST_MOVE_INTERVAL
    game.move_timer = _FIRST_MOVE_INTERVAL
    game.alien_shot_timer = _ALIEN_SHOT_INTERVAL
    return game


@wp.func
def move_wave(game: SpaceInvaders) -> SpaceInvaders:
    """Moves the wave sideways; at an edge it descends and turns."""
    columns = column_bits(game.aliens)
    edge = _LEFTMOST
    if game.to_right:
        edge = _RIGHTMOST
    if (columns & edge) != 0:
        game.to_right = not game.to_right
        lowest = row_bits(game.aliens, _BOTTOM)
        if lowest != 0:
            game.terminal = True
        # A row that leaves at the bottom appears at the top of the episode's last observation.
        game.aliens = either(moved_down(game.aliens), row(lowest, 0))
    elif game.to_right:
        game.aliens = moved_right(game.aliens)
    else:
        game.aliens = moved_left(game.aliens)
    return game


@wp.func
def shooter(game: SpaceInvaders) -> Plane:
    """The cell of the lowest alien in the column nearest to the cannon, left first."""
    columns = column_bits(game.aliens)
    x = -1
    for distance in range(10):
        left = game.cannon - distance
        right = game.cannon + distance
        if x < 0 and left >= 0 and ((columns >> left) & 1) == 1:
            x = left
        if x < 0 and right <= 9 and ((columns >> right) & 1) == 1:
            x = right
    lowest = 0
    for y in range(10):
        if ((row_bits(game.aliens, y) >> x) & 1) == 1:
            lowest = y
    return cell(x, lowest)


@wp.func
def act(
    game: SpaceInvaders, action: int, ramping: bool, counters: wp.array[wp.uint64], env: int
) -> SpaceInvaders:
    """Moves or fires the cannon, moves bullets and aliens, then counts the hits."""
    game.reward = 0
    if action == FIRE and game.cooldown == 0:
        game.bullets = either(game.bullets, cell(game.cannon, _BOTTOM))
        game.cooldown = _COOLDOWN
    elif action == LEFT:
        game.cannon = wp.max(0, game.cannon - 1)
    elif action == RIGHT:
        game.cannon = wp.min(9, game.cannon + 1)

    cannon = cell(game.cannon, _BOTTOM)
    game.bullets = moved_up(game.bullets)
    game.alien_bullets = moved_down(game.alien_bullets)
    if meet(either(game.alien_bullets, game.aliens), cannon):
        game.terminal = True

    if game.move_timer == 0:
        game.move_timer = wp.min(count(game.aliens), game.move_interval)
        game = move_wave(game)
        if meet(game.aliens, cannon):
            game.terminal = True
    if game.alien_shot_timer == 0:
        game.alien_shot_timer = _ALIEN_SHOT_INTERVAL
        game.alien_bullets = either(game.alien_bullets, shooter(game))

    hit = both(game.aliens, game.bullets)
    game.reward = count(hit)
    game.aliens = without(game.aliens, hit)
    game.bullets = without(game.bullets, hit)

    game.cooldown = wp.max(0, game.cooldown - 1)
    game.move_timer -= 1
    game.alien_shot_timer -= 1
    if not any_set(game.aliens):
        if ramping and game.move_interval > _LAST_MOVE_INTERVAL:
            game.move_interval -= 1
        game.aliens = Plane(_WAVE, wp.uint64(0))
    return game


@wp.func
def draw(
    game: SpaceInvaders, frame: wp.array2d[Plane], observation: wp.array3d[wp.uint8], env: int
) -> None:
    """Draws the game; aliens are also in the channel of their direction."""
    to_left = game.aliens
    to_right = Plane()
    if game.to_right:
        to_left = Plane()
        to_right = game.aliens
    show(frame, observation, env, 0, cell(game.cannon, _BOTTOM))
    show(frame, observation, env, 1, game.aliens)
    show(frame, observation, env, 2, to_left)
    show(frame, observation, env, 3, to_right)
    show(frame, observation, env, 4, game.bullets)
    show(frame, observation, env, 5, game.alien_bullets)


GAME = make_game(__name__, _CHANNELS, (0, 1, 3, 5), SpaceInvaders, (start, act, draw))
