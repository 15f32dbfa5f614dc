"""Trained teachers, and how they were trained."""
