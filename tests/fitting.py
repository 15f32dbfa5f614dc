"""Teachers fitted to tasks, whose spaces are read off environments or given by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces

from rltransfer.rollouts.evaluation import probe_spaces
from rltransfer.tasks.suite_spaces import SuiteSpaces, TaskSpaces
from rltransfer.tasks.task import Suite
from rltransfer.teachers.teacher import Teacher


def fitted_teacher(teacher: Teacher, suite: Suite, device: torch.device) -> Teacher:
    return teacher.fitted(probe_spaces(suite, device)).to(device)


def spaces_of(suite: Suite, own: Sequence[tuple[spaces.Dict, spaces.Space[Any]]]) -> SuiteSpaces:
    return SuiteSpaces.of(suite, [TaskSpaces(*pair) for pair in own])
