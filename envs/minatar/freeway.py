"""Freeway: a chicken repeatedly crosses eight lanes of cars, for 2,500 steps.

Every crossing gives 1 and draws new speeds and directions for the cars; a car that hits the
chicken sends it back to the bottom row. The chicken moves at most every third step, a car of speed
`s` every `s + 1` steps. As in the reference implementation, an episode has 2,501 steps.

The cars are the bytes of 64-bit words, so that all eight move at once. Only the car in the
chicken's lane can hit it.

Source: Young & Tian 2019, 1903.03176; package `minatar` 1.0.15 for details beyond the paper.
"""

# mypy: ignore-errors
# The functions are written in Warp's language, which type checkers for Python do not support.
from __future__ import annotations

import warp as wp

from .bitplane import Plane, cell, either, show
from .kernels import DOWN, UP, make_game
from .random import HALF, draw_below
from .random import draw as draw_bits

_CHANNELS = ("chicken", "car", "speed1", "speed2", "speed3", "speed4", "speed5")
_CHICKEN_X = wp.constant(4)
_BOTTOM = wp.constant(9)
_CHICKEN_INTERVAL = wp.constant(3)
_TIME_LIMIT = wp.constant(2500)
_LANES = wp.constant(8)

_ZERO = wp.constant(wp.uint64(0))
_BYTE = wp.constant(wp.uint64(0xFF))
_SEVEN = wp.constant(wp.uint64(7))
_NINE = wp.constant(wp.uint64(9))
_TEN = wp.constant(wp.uint64(10))
_ONES = wp.constant(wp.uint64(0x0101010101010101))
# Adding these to a byte sets its highest bit if the byte is above 0, or above 9.
_ABOVE_0 = wp.constant(wp.uint64(0x7F7F7F7F7F7F7F7F))
_ABOVE_9 = wp.constant(wp.uint64(0x7676767676767676))

_Trails = wp.types.vector(length=10, dtype=wp.uint64)


@wp.struct
class Freeway:
    """The state of one game; byte `i` of a word is the car in row `i + 1`."""

    x: wp.uint64
    timer: wp.uint64
    speed: wp.uint64
    to_right: wp.uint64
    """Byte 1 for a car that drives to the right, else 0."""
    reward: wp.int32
    terminal: wp.bool
    chicken: wp.int32
    """The chicken's row."""
    move_timer: wp.int32
    time_left: wp.int32


@wp.func
def draw_cars(game: Freeway, counters: wp.array[wp.uint64], env: int) -> Freeway:
    """Draws each car's speed, 1 to 5, then each car's direction."""
    game.speed = _ZERO
    game.to_right = _ZERO
    for lane in range(_LANES):
        speed = wp.uint64(1 + draw_below(counters, env, 5))
        game.speed = game.speed | (speed << wp.uint64(8 * lane))
    for lane in range(_LANES):
        if draw_bits(counters, env) >= HALF:
            game.to_right = game.to_right | (wp.uint64(1) << wp.uint64(8 * lane))
    game.timer = game.speed
    return game


@wp.func
def start(game: Freeway, counters: wp.array[wp.uint64], env: int) -> Freeway:
    """Begins an episode: the chicken in the bottom row, every car in column 0."""
    game = draw_cars(game, counters, env)
    game.chicken = _BOTTOM
    game.move_timer = _CHICKEN_INTERVAL
    game.time_left = _TIME_LIMIT
    return game


@wp.func
def car_at(x: wp.uint64, y: int) -> int:
    """The column of the car in row `y`, 1 to 8."""
    return int((x >> wp.uint64(8 * (y - 1))) & _BYTE)


@wp.func
def drive(game: Freeway) -> Freeway:
    """Moves the cars whose timer is 0, wrapping at the edges, and decrements the other timers."""
    # 1 in the byte of each car whose timer is 0.
    moving = (((game.timer + _ABOVE_0) >> _SEVEN) & _ONES) ^ _ONES
    game.timer = game.timer - (moving ^ _ONES) + (game.speed & (moving * _BYTE))
    # One column to the left is nine to the right.
    x = game.x + (moving & game.to_right) + (moving & ~game.to_right) * _NINE
    game.x = x - (((x + _ABOVE_9) >> _SEVEN) & _ONES) * _TEN
    return game


@wp.func
def act(
    game: Freeway, action: int, ramping: bool, counters: wp.array[wp.uint64], env: int
) -> Freeway:
    """Moves the chicken, then the cars."""
    game.reward = 0
    if game.move_timer == 0:
        if action == UP:
            game.move_timer = _CHICKEN_INTERVAL
            game.chicken = wp.max(0, game.chicken - 1)
        elif action == DOWN:
            game.move_timer = _CHICKEN_INTERVAL
            game.chicken = wp.min(_BOTTOM, game.chicken + 1)
    if game.chicken == 0:
        game.reward = 1
        game = draw_cars(game, counters, env)
        game.chicken = _BOTTOM

    before = game.x
    game = drive(game)
    if game.chicken < _BOTTOM and (
        car_at(before, game.chicken) == _CHICKEN_X or car_at(game.x, game.chicken) == _CHICKEN_X
    ):
        game.chicken = _BOTTOM

    game.move_timer = wp.max(0, game.move_timer - 1)
    game.time_left -= 1
    game.terminal = game.time_left < 0
    return game


@wp.func
def draw(
    game: Freeway, frame: wp.array2d[Plane], observation: wp.array3d[wp.uint8], env: int
) -> None:
    """Draws the game; a car's trail, wrapped at the edges, is in the channel of its speed."""
    cars = Plane()
    trails = _Trails()
    for lane in range(_LANES):
        x = car_at(game.x, lane + 1)
        back = x + 1
        if car_at(game.to_right, lane + 1) == 1:
            back = x + 9
        if back > 9:
            back -= 10
        cars = either(cars, cell(x, lane + 1))
        speed = car_at(game.speed, lane + 1)
        trail = cell(back, lane + 1)
        # Always, unless a loaded state has other speeds: those index other memory.
        if speed >= 1 and speed <= 5:
            trails[2 * speed - 2] = trails[2 * speed - 2] | trail[0]
            trails[2 * speed - 1] = trails[2 * speed - 1] | trail[1]
    show(frame, observation, env, 0, cell(_CHICKEN_X, game.chicken))
    show(frame, observation, env, 1, cars)
    for speed in range(5):
        show(frame, observation, env, 2 + speed, Plane(trails[2 * speed], trails[2 * speed + 1]))


GAME = make_game(__name__, _CHANNELS, (0, 2, 4), Freeway, (start, act, draw))
