"""PPO with its defaults on control tasks."""
