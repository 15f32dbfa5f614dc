"""Progressive networks against the paper's baselines, on MinAtar."""
