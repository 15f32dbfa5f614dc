"""The two kernels of a map: one step of each environment, and new episodes.

States are indices into the tables of `rules.py`. The same source runs on the CPU and CUDA; each
thread plays one environment.
"""

# mypy: ignore-errors
# The functions are written in Warp's language, which type checkers for Python do not support.
from __future__ import annotations

import warp as wp

from rltransfer.envs.minatar.random import BITS, draw, stream

from .rules import LAST_ACTIONS, NOTHING, NUM_ACTIONS, STATES_PER_CELL

_BITS = wp.constant(wp.uint64(BITS))
_LAST_ACTIONS = wp.constant(LAST_ACTIONS)
_NOTHING = wp.constant(NOTHING)
_NUM_ACTIONS = wp.constant(wp.int64(NUM_ACTIONS))
_STATES_PER_CELL = wp.constant(STATES_PER_CELL)


@wp.func
def _start(starts: wp.array[wp.int32], counters: wp.array[wp.uint64], env: int) -> int:
    """Draws a start cell; its bias is below `num_starts / 2**24`."""
    place = (wp.uint64(draw(counters, env)) * wp.uint64(starts.shape[0])) >> _BITS
    return starts[int(place)]


@wp.func
def _show(
    appearance: wp.array2d[wp.int32], state: int, observation: wp.array2d[wp.int32], env: int
) -> None:
    for word in range(appearance.shape[1]):
        observation[env, word] = appearance[state, word]


@wp.kernel(enable_backward=False)
def step(
    actions: wp.array[wp.int64],
    time_limit: int,
    destination: wp.array2d[wp.int32],
    starts: wp.array[wp.int32],
    goal: int,
    appearance: wp.array2d[wp.int32],
    states: wp.array[wp.int32],
    times: wp.array[wp.int32],
    counters: wp.array[wp.uint64],
    observation: wp.array2d[wp.int32],
    final: wp.array2d[wp.int32],
    reward: wp.array[wp.float32],
    truncated: wp.array[wp.bool],
) -> None:
    """Plays one step; at the time limit, stores the last observation and begins a new episode."""
    env = wp.tid()
    cell = states[env] / _STATES_PER_CELL
    last = _NOTHING
    chosen = actions[env]
    # An action out of range does nothing, so that it cannot read beyond the table.
    if chosen >= wp.int64(0) and chosen < _NUM_ACTIONS:
        last = int(chosen)
        cell = destination[cell, last]
    rewarded = 0
    if cell == goal:
        rewarded = 1
        cell = _start(starts, counters, env)
    state = (cell * _LAST_ACTIONS + last) * 2 + rewarded
    time = times[env] + 1
    reward[env] = float(rewarded)
    truncated[env] = time >= time_limit
    if time >= time_limit:
        _show(appearance, state, final, env)
        state = (_start(starts, counters, env) * _LAST_ACTIONS + _NOTHING) * 2
        time = 0
    _show(appearance, state, observation, env)
    states[env] = state
    times[env] = time


@wp.kernel(enable_backward=False)
def reset(
    mask: wp.array[wp.bool],
    seeded: bool,
    seed: wp.uint64,
    starts: wp.array[wp.int32],
    appearance: wp.array2d[wp.int32],
    states: wp.array[wp.int32],
    times: wp.array[wp.int32],
    counters: wp.array[wp.uint64],
    observation: wp.array2d[wp.int32],
) -> None:
    """Begins new episodes."""
    env = wp.tid()
    if mask[env]:
        if seeded:
            counters[env] = stream(seed, env)
        state = (_start(starts, counters, env) * _LAST_ACTIONS + _NOTHING) * 2
        states[env] = state
        times[env] = 0
        _show(appearance, state, observation, env)
