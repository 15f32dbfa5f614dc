"""Actor-Mimic on three Atari games."""
