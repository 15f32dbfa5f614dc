"""Distral in two rooms."""
