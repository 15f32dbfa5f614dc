"""Forgetting and transfer over a sequence of tasks."""
