"""Teachers: frozen modules that label observations."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.policies.output import EMPTY, Needs, PolicyOutput
from rltransfer.tasks.observation import Observation
from rltransfer.tasks.suite_spaces import SuiteSpaces
from rltransfer.tasks.task import Task
from rltransfer.teachers.spec import TeacherSpec


class Teacher(nn.Module, abc.ABC):
    """Labels observations; never learns.

    A teacher stays in evaluation mode, and no method trains its parameters. Tensors that labelling
    needs are buffers, so that `to` moves them; generators restart from their seed on a new device.

    Attributes:
        source: Where it comes from, as a user would write it.
        num_parameters: Parameters that acting needs; 0 if unknown.
        sha256: Hash of the file with its weights, in hexadecimal; None where there is no file.
        loadable: Whether `load_teacher(str(teacher))` gives the same teacher.
    """

    source: str
    num_parameters: int
    sha256: str | None = None
    loadable = False

    def __init__(self) -> None:
        super().__init__()
        self.eval()

    if TYPE_CHECKING:

        def __call__(
            self, observation: Observation, task: Tensor, needs: Needs = EMPTY
        ) -> PolicyOutput:
            """Types `nn.Module.__call__`, which runs `forward`."""

    @abc.abstractmethod
    def forward(self, observation: Observation, task: Tensor, needs: Needs = EMPTY) -> PolicyOutput:
        """The output of the teacher, which is differentiable with respect to observations only.

        CUDA graphs capture it: it must not wait for the device, and must draw random numbers only
        from `generators`.

        Args:
            observation: The groups.                  (rows, ...)
            task: Index of each row's task, sorted. A teacher that is fitted to one task labels all
                rows as rows of that task.            (rows,)
            needs: The fields that are needed in addition to `LABELS`.
        """

    def train(self, mode: bool = True) -> Self:
        """Keeps the teacher in evaluation mode, whatever a module that holds it does."""
        return super().train(False)

    def fitted(self, spaces: SuiteSpaces) -> Teacher:
        """The teacher, ready to label the tasks of a suite.

        Args:
            spaces: The tasks, with their observation and action spaces.

        Raises:
            InputError: Its spaces do not fit those of a task.
        """
        return self

    def bounds_in(self, task: Task) -> spaces.Box | None:
        """The bounds of its continuous actions in a task, where it knows them by itself."""
        return None

    def notes(self) -> tuple[str, ...]:
        """Sentences that a user should read before the teacher acts."""
        return ()

    def generators(self) -> Sequence[torch.Generator]:
        """The generators that labels are drawn from, each once."""
        return ()

    def seed(self, seed: int) -> None:
        """Restarts every generator, each with a different seed derived from this one."""
        for index, generator in enumerate(self.generators()):
            (mixed,) = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)
            generator.manual_seed(int(mixed) % 2**63)

    def label_state(self) -> dict[str, Any]:
        """What labelling changes, for checkpoints: random states and counters, but no weights."""
        return {}

    def load_label_state(self, state: dict[str, Any]) -> None:
        """Restores what `label_state` returned."""

    def row_work(self) -> int:
        """Multiply-adds of its largest network on one row; 0 if it contains no known network."""
        networks = (one for one in self.modules() if isinstance(one, ModuleTeacher))
        return max((one.row_work() for one in networks), default=0)

    def figures(self) -> dict[str, float]:
        """What a run logs about the teacher, by name. All processes call it at the same time."""
        return {}

    def spec(self) -> TeacherSpec:
        """The specification. It may contain spaces only after the teacher is fitted."""
        return TeacherSpec(source=str(self), kind=type(self).__name__, sha256=self.sha256)

    def describe(self) -> dict[str, Any]:
        """JSON that identifies the teacher, with its specification."""
        known = {"source": self.source, "num_parameters": self.num_parameters}
        sha256 = {} if self.sha256 is None else {"sha256": self.sha256}
        return {**known, **sha256, "spec": self.spec().to_json()}

    def quoted(self) -> str:
        """The teacher as written in the text of a composition."""
        return repr(str(self)) if self.loadable else self.source

    def __str__(self) -> str:
        return self.source

    def __repr__(self) -> str:
        return self.quoted()


class ModuleTeacher(Teacher):
    """A frozen network."""

    loadable = True

    def __init__(self, module: nn.Module, source: str, sha256: str, num_parameters: int) -> None:
        super().__init__()
        self.module = module.eval().requires_grad_(False)
        self.source = source
        self.sha256: str = sha256
        self.num_parameters = num_parameters

    def row_work(self) -> int:
        """Multiply-adds of the network on one row; here, one for each parameter."""
        return self.num_parameters
