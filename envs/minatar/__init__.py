"""MinAtar's five games."""
