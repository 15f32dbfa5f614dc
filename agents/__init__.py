"""Methods, one file each; a policy of its own kind stands beside its method."""

from .distral import Distral
from .policy_distillation import PolicyDistillation
from .ppo import PPO
from .pqn import PQN
from .soft_q import SoftQ

__all__ = ["PPO", "PQN", "Distral", "PolicyDistillation", "SoftQ"]
