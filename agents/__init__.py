"""Transfer methods, one file each."""

from .policy_distillation import PolicyDistillation
from .pqn import PQN
from .ppo import PPO

__all__ = ["PPO", "PQN", "PolicyDistillation"]
