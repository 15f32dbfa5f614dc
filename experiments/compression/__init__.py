"""Students of a fraction of the size."""
