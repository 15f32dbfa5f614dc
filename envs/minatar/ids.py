"""The names of the games."""

from __future__ import annotations

GAMES = {
    "asterix": "Asterix",
    "breakout": "Breakout",
    "freeway": "Freeway",
    "seaquest": "Seaquest",
    "space_invaders": "SpaceInvaders",
}
"""The module of each game and its name in an id, in the order of the suites."""
