"""Progressive networks against the paper's baselines, on Atari's Pong."""
