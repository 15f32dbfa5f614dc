"""Move what one reinforcement-learning policy knows into another.

    import rltransfer as rt

    run = rt.train(
        rt.agents.PolicyDistillation(teacher="zoo", student=rt.policies.conv(width=0.5)),
        suite="rltransfer/MinAtar-Breakout-v0",
        total_steps=1_000_000,
        run_dir="runs/breakout",
    )

Importing registers every environment of the installed task families with Gymnasium.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rltransfer import policies
from rltransfer.errors import InputError
from rltransfer.objectives.features import (
    AttentionTransfer,
    FeatureRegression,
    JacobianMatching,
    RepresentationalDistance,
)
from rltransfer.objectives.objective import Objective
from rltransfer.objectives.outputs import JS, KL, MSE, NLL, Huber, ReverseKL
from rltransfer.policies.output import PolicyOutput
from rltransfer.policies.policy import Policy
from rltransfer.runs.evaluate import evaluate
from rltransfer.runs.run import Run
from rltransfer.runs.train import train
from rltransfer.schedule import Schedule
from rltransfer.tasks import families as _registry
from rltransfer.tasks.observation import Observation
from rltransfer.tasks.task import Suite, Task
from rltransfer.teachers.adapted import Adapted
from rltransfer.teachers.callable_teacher import CallableTeacher
from rltransfer.teachers.ensembles import Ensemble, ProductOfExperts
from rltransfer.teachers.loading import load_teacher
from rltransfer.teachers.per_task import PerTask
from rltransfer.teachers.teacher import Teacher
from rltransfer.teachers.transformed import Boltzmann, MonteCarloDropout, Noisy
from rltransfer.teachers.vote import Vote

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
    "Observation",
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
