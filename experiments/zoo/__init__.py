"""Trained teachers, and the experiment that trained them."""
