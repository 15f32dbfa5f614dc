"""Move what one reinforcement-learning policy knows into another.

    import rltransfer as rt

    run = rt.train(
        rt.agents.PolicyDistillation(teacher="zoo", student=rt.policies.conv(width=0.5)),
        suite="rltransfer/MinAtar-Breakout-v0",
        steps=1_000_000,
        run_dir="runs/breakout",
    )

Importing registers every environment of the installed task families with Gymnasium.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rltransfer import network as policies
from rltransfer import registry as _registry
from rltransfer.adapted import Adapted
from rltransfer.composition import Ensemble, ProductOfExperts
from rltransfer.errors import InputError
from rltransfer.evaluate_source import evaluate
from rltransfer.feature_objectives import (
    AttentionTransfer,
    FeatureRegression,
    JacobianMatching,
    RepresentationalDistance,
)
from rltransfer.objective import Objective
from rltransfer.output_objectives import JS, KL, MSE, NLL, Huber, ReverseKL
from rltransfer.per_task import PerTask
from rltransfer.policy import Policy
from rltransfer.policy_output import PolicyOutput
from rltransfer.run import Run, train
from rltransfer.schedule import Schedule
from rltransfer.task import Suite, Task
from rltransfer.teacher import CallableTeacher, Teacher, load_teacher
from rltransfer.vote import Vote
from rltransfer.wrapper import Boltzmann, MonteCarloDropout, Noisy

if TYPE_CHECKING:
    from types import ModuleType

    agents: ModuleType

__version__ = "0.1.0"

__all__ = [
    "JS",
    "KL",
    "MSE",
    "NLL",
    "Adapted",
    "AttentionTransfer",
    "Boltzmann",
    "CallableTeacher",
    "Ensemble",
    "FeatureRegression",
    "Huber",
    "InputError",
    "JacobianMatching",
    "MonteCarloDropout",
    "Noisy",
    "Objective",
    "PerTask",
    "Policy",
    "PolicyOutput",
    "ProductOfExperts",
    "RepresentationalDistance",
    "ReverseKL",
    "Run",
    "Schedule",
    "Suite",
    "Task",
    "Teacher",
    "Vote",
    "agents",
    "evaluate",
    "load_teacher",
    "policies",
    "train",
]

_registry.register_environments()


def __getattr__(name: str) -> Any:
    """Loads `rltransfer.agents` when it is first used: it stands above the core."""
    if name == "agents":
        return importlib.import_module("rltransfer.agents")
    raise AttributeError(f"module 'rltransfer' has no attribute {name!r}")
