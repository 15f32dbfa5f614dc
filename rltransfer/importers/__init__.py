"""Policies out of other libraries' files."""
