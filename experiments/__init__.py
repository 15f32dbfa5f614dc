"""Reproductions of papers, with their results."""
