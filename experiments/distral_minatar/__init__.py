"""Distral on MinAtar's games."""
