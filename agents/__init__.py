"""Methods, one per file; a method's special policy is in a file next to it."""

from .actor_mimic import ActorMimic
from .distral import Distral
from .policy_distillation import PolicyDistillation
from .ppo import PPO
from .pqn import PQN
from .progressive import Progressive, ProgressivePQN
from .soft_q import SoftQ

__all__ = [
    "PPO",
    "PQN",
    "ActorMimic",
    "Distral",
    "PolicyDistillation",
    "Progressive",
    "ProgressivePQN",
    "SoftQ",
]
