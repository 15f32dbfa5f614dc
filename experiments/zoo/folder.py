"""The folder of the zoo's teachers, in a module of its own that imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
"""Folder of the teachers: weights, networks and cards."""
