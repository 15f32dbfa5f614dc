"""Runs that are compared: groups of seeds, what transfer gained, and a page about both."""
