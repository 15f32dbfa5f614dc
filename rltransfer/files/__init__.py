"""Files: configurations, checkpoints, and complete writes."""
