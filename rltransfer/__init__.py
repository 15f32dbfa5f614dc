"""Move what one reinforcement-learning policy knows into another.

    import rltransfer as rt

    run = rt.train(
        rt.agents.PolicyDistillation(teacher="zoo", student=rt.policies.conv(width=0.5)),
        suite="rltransfer/MinAtar-Breakout-v0",
        total_steps=1_000_000,
        run_dir="runs/breakout",
    )

Importing registers every environment of the installed task families with Gymnasium. Everything
else, torch included, loads when it is first used.
"""

from __future__ import annotations

import ast
import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before torch loads OpenMP, whose threads otherwise spin while they wait, on cores that other
# programs may need: two threads are then slower than one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from rltransfer.tasks import families as _families

if TYPE_CHECKING:
    from rltransfer import agents as agents
    from rltransfer import metrics as metrics
    from rltransfer import policies as policies
    from rltransfer.errors import InputError as InputError
    from rltransfer.learning.agent import TrainingContext as TrainingContext
    from rltransfer.objectives.features import AttentionTransfer as AttentionTransfer
    from rltransfer.objectives.features import FeatureRegression as FeatureRegression
    from rltransfer.objectives.features import JacobianMatching as JacobianMatching
    from rltransfer.objectives.features import RepresentationalDistance as RepresentationalDistance
    from rltransfer.objectives.objective import Objective as Objective
    from rltransfer.objectives.outputs import JS as JS
    from rltransfer.objectives.outputs import KL as KL
    from rltransfer.objectives.outputs import MSE as MSE
    from rltransfer.objectives.outputs import NLL as NLL
    from rltransfer.objectives.outputs import Huber as Huber
    from rltransfer.objectives.outputs import ReverseKL as ReverseKL
    from rltransfer.policies.output import PolicyOutput as PolicyOutput
    from rltransfer.policies.policy import Policy as Policy
    from rltransfer.reports.report import Report as Report
    from rltransfer.reports.report import report as report
    from rltransfer.runs.callbacks import RunEvent as RunEvent
    from rltransfer.runs.config import RunOptions as RunOptions
    from rltransfer.runs.curves import CurvePoint as CurvePoint
    from rltransfer.runs.curves import curves as curves
    from rltransfer.runs.evaluate import evaluate as evaluate
    from rltransfer.runs.run import Run as Run
    from rltransfer.runs.sensitivity import LayerSensitivity as LayerSensitivity
    from rltransfer.runs.sensitivity import Sensitivity as Sensitivity
    from rltransfer.runs.sensitivity import sensitivity as sensitivity
    from rltransfer.runs.teacher_summary import TeacherSummary as TeacherSummary
    from rltransfer.runs.teacher_summary import summarize_teacher as summarize_teacher
    from rltransfer.runs.train import train as train
    from rltransfer.schedule import Schedule as Schedule
    from rltransfer.tasks.observation import Observation as Observation
    from rltransfer.tasks.task import Suite as Suite
    from rltransfer.tasks.task import Task as Task
    from rltransfer.teachers.adapted import Adapted as Adapted
    from rltransfer.teachers.callable_teacher import CallableTeacher as CallableTeacher
    from rltransfer.teachers.ensembles import Ensemble as Ensemble
    from rltransfer.teachers.ensembles import ProductOfExperts as ProductOfExperts
    from rltransfer.teachers.loading import load_teacher as load_teacher
    from rltransfer.teachers.per_task import PerTask as PerTask
    from rltransfer.teachers.teacher import Teacher as Teacher
    from rltransfer.teachers.transformed import Boltzmann as Boltzmann
    from rltransfer.teachers.transformed import MonteCarloDropout as MonteCarloDropout
    from rltransfer.teachers.transformed import Noisy as Noisy
    from rltransfer.teachers.vote import Vote as Vote

__version__ = "0.1.0"


def _lazy_names() -> dict[str, str]:
    """The module of each name in the imports above, which run for type checkers alone."""
    tree = ast.parse(Path(__file__).read_text())
    return {
        alias.name: node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }


_MODULE_OF = _lazy_names()

__all__ = [*_MODULE_OF]

_families.register_environments()


if not TYPE_CHECKING:  # with it, a type checker would accept any name

    def __getattr__(name: str) -> Any:
        """Loads a name when it is first used (PEP 562)."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'rltransfer' has no attribute {name!r}")
        module = _MODULE_OF[name]
        if module == __name__:
            return importlib.import_module(f"{module}.{name}")
        value = getattr(importlib.import_module(module), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
