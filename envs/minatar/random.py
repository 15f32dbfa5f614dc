"""The random streams of the games: one 64-bit counter for each environment.

A stream is SplitMix64 (Steele, Lea & Flood 2014): each draw adds a fixed odd number to the counter
and returns the counter's hash. The state of a stream is therefore one integer.
"""

# mypy: ignore-errors
# The functions are written in Warp's language, which type checkers for Python do not support.
from __future__ import annotations

import warp as wp

BITS = 24
"""Random bits of a draw, which is exact as a float32."""
HALF = wp.constant(1 << (BITS - 1))
"""A draw is below this with probability 1/2."""
THIRD = wp.constant(-(-(1 << BITS) // 3))
"""A draw is below this with probability 1/3."""

_INCREMENT = wp.constant(wp.uint64(0x9E3779B97F4A7C15))
_MULTIPLIER_1 = wp.constant(wp.uint64(0xBF58476D1CE4E5B9))
_MULTIPLIER_2 = wp.constant(wp.uint64(0x94D049BB133111EB))
_SHIFT_1 = wp.constant(wp.uint64(30))
_SHIFT_2 = wp.constant(wp.uint64(27))
_SHIFT_3 = wp.constant(wp.uint64(31))
_UNUSED_BITS = wp.constant(wp.uint64(64 - BITS))
_BITS = wp.constant(BITS)


@wp.func
def mix(counter: wp.uint64) -> wp.uint64:
    """The hash of a counter: a bijection of the 64-bit integers."""
    value = (counter ^ (counter >> _SHIFT_1)) * _MULTIPLIER_1
    value = (value ^ (value >> _SHIFT_2)) * _MULTIPLIER_2
    return value ^ (value >> _SHIFT_3)


@wp.func
def stream(seed: wp.uint64, env: int) -> wp.uint64:
    """The first counter of environment `env`; distinct for every environment."""
    return mix(mix(seed) + wp.uint64(env))


@wp.func
def draw(counters: wp.array[wp.uint64], env: int) -> int:
    """Draws an integer of `BITS` bits, uniformly, from environment `env`'s stream."""
    counter = counters[env] + _INCREMENT
    counters[env] = counter
    return int(mix(counter) >> _UNUSED_BITS)


@wp.func
def draw_below(counters: wp.array[wp.uint64], env: int, bound: int) -> int:
    """Draws an integer in `[0, bound)`, `bound` at most 128; its bias is below `bound / 2**24`."""
    return (draw(counters, env) * bound) >> _BITS
