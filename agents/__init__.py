"""Transfer methods, one file each."""

from .policy_distillation import PolicyDistillation
from .ppo import PPO
from .pqn import PQN

__all__ = ["PPO", "PQN", "PolicyDistillation"]
