"""Policy distillation on Atari."""
