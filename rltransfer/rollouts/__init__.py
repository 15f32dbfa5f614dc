"""Acting in environments."""
