"""Rooms and mazes."""
