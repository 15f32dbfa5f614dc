"""The computer underneath."""
