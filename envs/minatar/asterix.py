"""Asterix: gather gold and avoid enemies that cross eight lanes from either side.

Gold gives 1, an enemy ends the episode. Each lane contains at most one object. Every
`spawn_interval` steps an object, gold with probability 1/3, enters a random free lane; every
`move_interval` steps all objects move. With ramping both intervals shrink during the episode.

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
    either,
    meet,
    moved_left,
    moved_right,
    row_bits,
    show,
    without,
)
from .kernels import DOWN, LEFT, RIGHT, UP, make_game
from .random import HALF, THIRD, draw_below
from .random import draw as draw_bits

_CHANNELS = ("player", "enemy", "trail", "gold")
_FIRST_SPAWN_INTERVAL = wp.constant(10)
_FIRST_MOVE_INTERVAL = wp.constant(5)
_RAMP_INTERVAL = wp.constant(100)
_FIRST_LANE = wp.constant(1)
_LAST_LANE = wp.constant(8)


@wp.struct
class Asterix:
    """The state of one game."""

    enemies_right: Plane
    """The enemies that move to the right."""
    enemies_left: Plane
    gold_right: Plane
    gold_left: Plane
    reward: wp.int32
    terminal: wp.bool
    x: wp.int32
    y: wp.int32
    spawn_interval: wp.int32
    spawn_timer: wp.int32
    move_interval: wp.int32
    move_timer: wp.int32
    ramp_timer: wp.int32
    ramps: wp.int32


@wp.func
def start(game: Asterix, counters: wp.array[wp.uint64], env: int) -> Asterix:
    """Begins an episode with only the player, in the middle."""
    game.x = 5
    game.y = 5
    game.spawn_interval = _FIRST_SPAWN_INTERVAL
    game.spawn_timer = _FIRST_SPAWN_INTERVAL
    game.move_interval = _FIRST_MOVE_INTERVAL
    game.move_timer = _FIRST_MOVE_INTERVAL
    game.ramp_timer = _RAMP_INTERVAL
    return game


@wp.func
def spawn(game: Asterix, counters: wp.array[wp.uint64], env: int) -> Asterix:
    """Puts gold or an enemy at one end of a free lane, if any."""
    to_right = draw_bits(counters, env) < HALF
    is_gold = draw_bits(counters, env) < THIRD
    things = either(
        either(game.enemies_right, game.enemies_left), either(game.gold_right, game.gold_left)
    )
    free = 0
    for lane in range(1, 9):
        if row_bits(things, lane) == 0:
            free += 1
    if free == 0:
        return game
    chosen = draw_below(counters, env, free)
    y = 0
    for lane in range(1, 9):
        if row_bits(things, lane) == 0:
            if chosen == 0:
                y = lane
            chosen -= 1
    if to_right and is_gold:
        game.gold_right = either(game.gold_right, cell(0, y))
    elif to_right:
        game.enemies_right = either(game.enemies_right, cell(0, y))
    elif is_gold:
        game.gold_left = either(game.gold_left, cell(9, y))
    else:
        game.enemies_left = either(game.enemies_left, cell(9, y))
    return game


@wp.func
def touch(game: Asterix) -> Asterix:
    """Collects gold in the player's cell; an enemy there ends the episode."""
    player = cell(game.x, game.y)
    gold = either(game.gold_right, game.gold_left)
    if any_set(both(gold, player)):
        game.reward += 1
        game.gold_right = without(game.gold_right, player)
        game.gold_left = without(game.gold_left, player)
    if meet(either(game.enemies_right, game.enemies_left), player):
        game.terminal = True
    return game


@wp.func
def ramp(game: Asterix) -> Asterix:
    """Shortens the intervals when the ramp timer expires, that of moves every second time."""
    if game.spawn_interval > 1 or game.move_interval > 1:
        if game.ramp_timer >= 0:
            game.ramp_timer -= 1
        else:
            if game.move_interval > 1 and game.ramps % 2 == 1:
                game.move_interval -= 1
            if game.spawn_interval > 1:
                game.spawn_interval -= 1
            game.ramps += 1
            game.ramp_timer = _RAMP_INTERVAL
    return game


@wp.func
def act(
    game: Asterix, action: int, ramping: bool, counters: wp.array[wp.uint64], env: int
) -> Asterix:
    """Spawns, moves the player, then all objects."""
    game.reward = 0
    if game.spawn_timer == 0:
        game = spawn(game, counters, env)
        game.spawn_timer = game.spawn_interval

    if action == LEFT:
        game.x = wp.max(0, game.x - 1)
    elif action == RIGHT:
        game.x = wp.min(9, game.x + 1)
    elif action == UP:
        game.y = wp.max(_FIRST_LANE, game.y - 1)
    elif action == DOWN:
        game.y = wp.min(_LAST_LANE, game.y + 1)

    game = touch(game)
    if game.move_timer == 0:
        game.move_timer = game.move_interval
        game.enemies_right = moved_right(game.enemies_right)
        game.enemies_left = moved_left(game.enemies_left)
        game.gold_right = moved_right(game.gold_right)
        game.gold_left = moved_left(game.gold_left)
        game = touch(game)

    game.spawn_timer -= 1
    game.move_timer -= 1
    if ramping:
        game = ramp(game)
    return game


@wp.func
def draw(
    game: Asterix, frame: wp.array2d[Plane], observation: wp.array3d[wp.uint8], env: int
) -> None:
    """Draws the game; an object's trail is the cell behind it."""
    trail = either(
        moved_left(either(game.enemies_right, game.gold_right)),
        moved_right(either(game.enemies_left, game.gold_left)),
    )
    show(frame, observation, env, 0, cell(game.x, game.y))
    show(frame, observation, env, 1, either(game.enemies_right, game.enemies_left))
    show(frame, observation, env, 2, trail)
    show(frame, observation, env, 3, either(game.gold_right, game.gold_left))


GAME = make_game(__name__, _CHANNELS, (0, 1, 2, 3, 4), Asterix, (start, act, draw))
