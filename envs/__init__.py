"""Families of tasks, one file or one folder each."""
