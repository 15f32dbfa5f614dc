"""The names of the games."""

from __future__ import annotations

GAMES = {
    "asterix": "Asterix",
    "breakout": "Breakout",
    "freeway": "Freeway",
    "seaquest": "Seaquest",
    "space_invaders": "SpaceInvaders",
}
"""Each game's module and its name in ids, in the order of the suites."""
