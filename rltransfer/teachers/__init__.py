"""Whom students learn from."""
