"""Distral in mazes."""
