"""Seaquest: a submarine shoots fish and submarines, rescues divers and must surface for air.

- Every enemy shot gives 1.
- Surfacing refills the oxygen and costs a diver; with six divers on board it gives up to 10 for the
  remaining oxygen.
- Surfacing without a diver, an enemy, an enemy's bullet or the lack of oxygen ends the episode.
- With ramping, every surfacing makes enemies appear more often, and every second one makes them
  faster, up to a limit.

As in the reference implementation, surfacing with six divers leaves -1 divers, and a negative
number does not end the episode at the next surfacing.

The enemies of a row all move in the same direction, and no two of them in one cell move in the same
step, so that the order of moves has no effect.

Source: Young & Tian 2019, 1903.03176; package `minatar` 1.0.15 for details beyond the paper.
"""

# mypy: ignore-errors
# The functions are written in Warp's language, which type checkers for Python do not support.
from __future__ import annotations

import warp as wp

from .bitplane import Plane, cell, either, meet, moved_left, moved_right, row, show
from .kernels import DOWN, FIRE, LEFT, RIGHT, UP, make_game
from .random import HALF, THIRD, draw_below
from .random import draw as draw_bits

_CHANNELS = (
    "sub_front",
    "sub_back",
    "friendly_bullet",
    "trail",
    "enemy_bullet",
    "enemy_fish",
    "enemy_sub",
    "oxygen",
    "diver_gauge",
    "diver",
)
_FULL_OXYGEN = wp.constant(200)
_FULL_DIVERS = wp.constant(6)
_FIRST_SPAWN_INTERVAL = wp.constant(20)
_DIVER_SPAWN_INTERVAL = wp.constant(30)
_DIVER_MOVE_INTERVAL = wp.constant(5)
_FIRST_MOVE_INTERVAL = wp.constant(5)
_LAST_MOVE_INTERVAL = wp.constant(2)
_COOLDOWN = wp.constant(5)
_ENEMY_SHOT_INTERVAL = wp.constant(10)

MAX_ENEMIES = wp.constant(32)
"""At most 30 exist: at the highest speed, one appears every step and stays for 30 steps."""

# An object (enemy, diver or bullet) is one word: bits 0-3 are its column, 4-7 its row, 8 whether it
# moves to the right, 9-11 the steps until it moves, 12-15 those until it shoots, 16 whether it is a
# submarine. Bit 17 is always set, so that 0 is an empty slot.
_TO_RIGHT = wp.constant(1 << 8)
_TIMER = wp.constant(1 << 9)
_SHOT_TIMER = wp.constant(1 << 12)
_SUB = wp.constant(1 << 16)
_THERE = wp.constant(1 << 17)
_CELL = wp.constant(0xFF)

_Enemies = wp.types.vector(length=32, dtype=wp.int32)


@wp.struct
class Seaquest:
    """The state of one game."""

    enemy_bullets_right: Plane
    enemy_bullets_left: Plane
    reward: wp.int32
    terminal: wp.bool
    x: wp.int32
    y: wp.int32
    to_right: wp.bool
    """Whether the submarine faces right."""
    surfaced: wp.bool
    cooldown: wp.int32
    oxygen: wp.int32
    divers: wp.int32
    """Number of divers on board; see the module's docstring on negative numbers."""
    spawn_interval: wp.int32
    spawn_timer: wp.int32
    diver_spawn_timer: wp.int32
    move_interval: wp.int32
    ramps: wp.int32
    bullets: wp.vec2i
    """The submarine's bullets, the older first: the cooldown allows two."""
    swimmers: wp.vec2i
    """The divers in the water, the older first: the first is gone before a third appears."""
    enemy_count: wp.int32
    enemies: _Enemies
    """The enemies, oldest first."""


@wp.func
def swimmer(x: int, y: int, to_right: bool, timer: int) -> int:
    """The word of an object."""
    word = _THERE + x + 16 * y + _TIMER * timer
    if to_right:
        word += _TO_RIGHT
    return word


@wp.func
def is_to_right(word: int) -> bool:
    """Whether an object moves to the right."""
    return (word & _TO_RIGHT) != 0


@wp.func
def timer_of(word: int) -> int:
    """Steps until an object moves."""
    return (word >> 9) & 7


@wp.func
def shot_timer_of(word: int) -> int:
    """Steps until an enemy submarine shoots."""
    return (word >> 12) & 15


@wp.func
def advanced(word: int) -> int:
    """The object one column further; 0 if it leaves the board."""
    x = word & 15
    if is_to_right(word):
        if x == 9:
            return 0
        return word + 1
    if x == 0:
        return 0
    return word - 1


@wp.func
def plane_of(word: int) -> Plane:
    """The plane with an object's cell; empty if the word is 0."""
    if word == 0:
        return Plane()
    return cell(word & 15, (word >> 4) & 15)


@wp.func
def trail_of(word: int) -> Plane:
    """The plane with the cell behind an object."""
    if is_to_right(word):
        return moved_left(plane_of(word))
    return moved_right(plane_of(word))


@wp.func
def start(game: Seaquest, counters: wp.array[wp.uint64], env: int) -> Seaquest:
    """Begins an episode: at the surface, with full oxygen and an empty sea."""
    game.x = 5
    game.surfaced = True
    game.oxygen = _FULL_OXYGEN
    game.spawn_interval = _FIRST_SPAWN_INTERVAL
    game.spawn_timer = _FIRST_SPAWN_INTERVAL
    game.diver_spawn_timer = _DIVER_SPAWN_INTERVAL
    game.move_interval = _FIRST_MOVE_INTERVAL
    return game


@wp.func
def spawn_enemy(game: Seaquest, counters: wp.array[wp.uint64], env: int) -> Seaquest:
    """Puts an enemy at one end of a row, unless enemies there move the other way."""
    to_right = draw_bits(counters, env) < HALF
    is_sub = draw_bits(counters, env) < THIRD
    y = 1 + draw_below(counters, env, 8)
    for i in range(game.enemy_count):
        other = game.enemies[i]
        if ((other >> 4) & 15) == y and is_to_right(other) != to_right:
            return game
    x = 9
    if to_right:
        x = 0
    enemy = swimmer(x, y, to_right, game.move_interval)
    if is_sub:
        enemy += _SUB + _ENEMY_SHOT_INTERVAL * _SHOT_TIMER
    if game.enemy_count < MAX_ENEMIES:
        game.enemies[game.enemy_count] = enemy
        game.enemy_count += 1
    return game


@wp.func
def spawn_diver(game: Seaquest, counters: wp.array[wp.uint64], env: int) -> Seaquest:
    """Puts a diver at one end of a row."""
    to_right = draw_bits(counters, env) < HALF
    y = 1 + draw_below(counters, env, 8)
    x = 9
    if to_right:
        x = 0
    diver = swimmer(x, y, to_right, _DIVER_MOVE_INTERVAL)
    game.swimmers = appended(game.swimmers, diver)
    return game


@wp.func
def appended(words: wp.vec2i, word: int) -> wp.vec2i:
    """Two slots with a word in the first free one."""
    if words[0] == 0:
        return wp.vec2i(word, 0)
    return wp.vec2i(words[0], word)


@wp.func
def in_order(older: int, newer: int) -> wp.vec2i:
    """Two slots with the free ones last."""
    if older == 0:
        return wp.vec2i(newer, 0)
    return wp.vec2i(older, newer)


@wp.func
def steer(game: Seaquest, action: int) -> Seaquest:
    """Applies the player's action."""
    if action == FIRE and game.cooldown == 0:
        game.bullets = appended(game.bullets, swimmer(game.x, game.y, game.to_right, 0))
        game.cooldown = _COOLDOWN
    elif action == LEFT:
        game.x = wp.max(0, game.x - 1)
        game.to_right = False
    elif action == RIGHT:
        game.x = wp.min(9, game.x + 1)
        game.to_right = True
    elif action == UP:
        game.y = wp.max(0, game.y - 1)
    elif action == DOWN:
        game.y = wp.min(8, game.y + 1)
    return game


@wp.func
def first_enemy_at(game: Seaquest, bullet: int) -> int:
    """The index of the oldest fish, else submarine, in a bullet's cell; -1 if there is none."""
    found = wp.int32(-1)
    for i in range(game.enemy_count):
        enemy = game.enemies[i]
        if (enemy & _CELL) == (bullet & _CELL) and (
            found < 0 or ((enemy & _SUB) == 0 and (game.enemies[found] & _SUB) != 0)
        ):
            found = i
    return found


@wp.func
def fly(game: Seaquest, slot: int) -> Seaquest:
    """Moves one of the submarine's bullets, which removes the enemy that it hits."""
    bullet = game.bullets[slot]
    if bullet != 0:
        bullet = advanced(bullet)
        hit = -1
        if bullet != 0:
            hit = first_enemy_at(game, bullet)
        if hit >= 0:
            bullet = 0
            game.reward += 1
            game.enemy_count -= 1
            for i in range(hit, game.enemy_count):
                game.enemies[i] = game.enemies[i + 1]
        game.bullets[slot] = bullet
    return game


@wp.func
def swim(game: Seaquest, slot: int) -> Seaquest:
    """Moves a diver, who boards in the submarine's cell, before or after the move."""
    diver = game.swimmers[slot]
    if diver != 0:
        here = game.x + 16 * game.y
        room = game.divers < _FULL_DIVERS
        if (diver & _CELL) == here and room:
            diver = 0
            game.divers += 1
        elif timer_of(diver) > 0:
            diver -= _TIMER
        else:
            diver = advanced(diver + _DIVER_MOVE_INTERVAL * _TIMER)
            if diver != 0 and (diver & _CELL) == here and room:
                diver = 0
                game.divers += 1
        game.swimmers[slot] = diver
    return game


@wp.func
def take_bullet(game: Seaquest, enemy: int) -> Seaquest:
    """Removes the older of the submarine's bullets in an enemy's cell."""
    if game.bullets[0] != 0 and (game.bullets[0] & _CELL) == (enemy & _CELL):
        game.bullets = in_order(0, game.bullets[1])
    else:
        game.bullets[1] = 0
    return game


@wp.func
def bullet_at(game: Seaquest, enemy: int) -> bool:
    """Whether one of the submarine's bullets is in an enemy's cell."""
    return (game.bullets[0] != 0 and (game.bullets[0] & _CELL) == (enemy & _CELL)) or (
        game.bullets[1] != 0 and (game.bullets[1] & _CELL) == (enemy & _CELL)
    )


@wp.func
def shoot(game: Seaquest, enemy: int) -> Seaquest:
    """Puts an enemy's bullet in the enemy's cell."""
    if is_to_right(enemy):
        game.enemy_bullets_right = either(game.enemy_bullets_right, plane_of(enemy))
    else:
        game.enemy_bullets_left = either(game.enemy_bullets_left, plane_of(enemy))
    return game


@wp.func
def attack(game: Seaquest) -> Seaquest:
    """Moves the enemies, which may hit the submarine or a bullet; enemy submarines shoot."""
    here = game.x + 16 * game.y
    kept = wp.int32(0)
    for i in range(game.enemy_count):
        enemy = game.enemies[i]
        killed = False
        if (enemy & _CELL) == here:
            game.terminal = True
        if timer_of(enemy) > 0:
            enemy -= _TIMER
        else:
            enemy = advanced(enemy + game.move_interval * _TIMER)
            if enemy != 0:
                if (enemy & _CELL) == here:
                    game.terminal = True
                elif bullet_at(game, enemy):
                    game = take_bullet(game, enemy)
                    game.reward += 1
                    killed = True
        if (enemy & _SUB) != 0:
            if shot_timer_of(enemy) > 0:
                enemy -= _SHOT_TIMER
            else:
                # An enemy submarine also shoots in the step in which it is shot.
                game = shoot(game, enemy)
                enemy += _ENEMY_SHOT_INTERVAL * _SHOT_TIMER
        if enemy != 0 and not killed:
            game.enemies[kept] = enemy
            kept += 1
    game.enemy_count = kept
    return game


@wp.func
def fly_enemy_bullets(game: Seaquest) -> Seaquest:
    """Moves the enemies' bullets; a hit before or after the move ends the episode."""
    here = cell(game.x, game.y)
    if meet(either(game.enemy_bullets_right, game.enemy_bullets_left), here):
        game.terminal = True
    game.enemy_bullets_right = moved_right(game.enemy_bullets_right)
    game.enemy_bullets_left = moved_left(game.enemy_bullets_left)
    if meet(either(game.enemy_bullets_right, game.enemy_bullets_left), here):
        game.terminal = True
    return game


@wp.func
def surface(game: Seaquest, ramping: bool) -> Seaquest:
    """Refills the oxygen, for one diver or for the reward of six."""
    game.surfaced = True
    if game.divers == _FULL_DIVERS:
        game.divers = 0
        game.reward += game.oxygen * 10 / _FULL_OXYGEN
    game.oxygen = _FULL_OXYGEN
    game.divers -= 1
    if ramping and (game.spawn_interval > 1 or game.move_interval > _LAST_MOVE_INTERVAL):
        if game.move_interval > _LAST_MOVE_INTERVAL and game.ramps % 2 == 1:
            game.move_interval -= 1
        if game.spawn_interval > 1:
            game.spawn_interval -= 1
        game.ramps += 1
    return game


@wp.func
def breathe(game: Seaquest, ramping: bool) -> Seaquest:
    """Uses oxygen, or surfaces."""
    if game.oxygen <= 0:
        game.terminal = True
    if game.y > 0:
        game.oxygen -= 1
        game.surfaced = False
    elif not game.surfaced:
        if game.divers == 0:
            game.terminal = True
        else:
            game = surface(game, ramping)
    return game


@wp.func
def act(
    game: Seaquest, action: int, ramping: bool, counters: wp.array[wp.uint64], env: int
) -> Seaquest:
    """Spawns, steers, moves all objects in turn, and breathes."""
    game.reward = 0
    # A loaded state may have any number, which would index other memory.
    game.enemy_count = wp.clamp(game.enemy_count, 0, MAX_ENEMIES)
    if game.spawn_timer == 0:
        game = spawn_enemy(game, counters, env)
        game.spawn_timer = game.spawn_interval
    if game.diver_spawn_timer == 0:
        game = spawn_diver(game, counters, env)
        game.diver_spawn_timer = _DIVER_SPAWN_INTERVAL

    game = steer(game, action)
    # Of two that reach the same enemy or the last free seat, the newer comes first.
    game = fly(game, 1)
    game = fly(game, 0)
    game.bullets = in_order(game.bullets[0], game.bullets[1])
    game = swim(game, 1)
    game = swim(game, 0)
    game.swimmers = in_order(game.swimmers[0], game.swimmers[1])
    game = attack(game)
    game = fly_enemy_bullets(game)

    game.spawn_timer -= 1
    game.diver_spawn_timer -= 1
    game.cooldown = wp.max(0, game.cooldown - 1)
    return breathe(game, ramping)


@wp.func
def draw(
    game: Seaquest, frame: wp.array2d[Plane], observation: wp.array3d[wp.uint8], env: int
) -> None:
    """Draws the game; enemies and divers share one channel of trails."""
    fish = Plane()
    subs = Plane()
    trails = either(trail_of(game.swimmers[0]), trail_of(game.swimmers[1]))
    for i in range(game.enemy_count):
        enemy = game.enemies[i]
        if (enemy & _SUB) != 0:
            subs = either(subs, plane_of(enemy))
        else:
            fish = either(fish, plane_of(enemy))
        trails = either(trails, trail_of(enemy))
    back = game.x + 1
    if game.to_right:
        back = game.x - 1
    air = wp.max(0, game.oxygen) * 10 / _FULL_OXYGEN
    on_board = wp.max(0, game.divers)
    show(frame, observation, env, 0, cell(game.x, game.y))
    show(frame, observation, env, 1, cell(back, game.y))
    bullets = either(plane_of(game.bullets[0]), plane_of(game.bullets[1]))
    show(frame, observation, env, 2, bullets)
    show(frame, observation, env, 3, trails)
    show(frame, observation, env, 4, either(game.enemy_bullets_right, game.enemy_bullets_left))
    show(frame, observation, env, 5, fish)
    show(frame, observation, env, 6, subs)
    show(frame, observation, env, 7, row((1 << air) - 1, 9))
    # The gauge fills from column 8 to the left.
    show(frame, observation, env, 8, row(((1 << on_board) - 1) << (9 - on_board), 9))
    divers = either(plane_of(game.swimmers[0]), plane_of(game.swimmers[1]))
    show(frame, observation, env, 9, divers)


GAME = make_game(__name__, _CHANNELS, (0, 1, 2, 3, 4, 5), Seaquest, (start, act, draw))
