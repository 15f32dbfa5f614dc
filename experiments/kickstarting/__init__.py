"""PPO with and without a teacher's advice."""
