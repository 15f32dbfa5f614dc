"""Teachers: frozen modules that label observations."""

from __future__ import annotations

import abc
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.policies.network import Network
from rltransfer.policies.output import EMPTY, Needs, PolicyOutput
from rltransfer.tasks.observation import Observation, copied
from rltransfer.tasks.suite_spaces import SuiteSpaces
from rltransfer.tasks.task import Task
from rltransfer.teachers.row_states import RowStates
from rltransfer.teachers.spec import TeacherSpec


def in_this_package(kind: type[Any]) -> bool:
    """Whether a class is one of rltransfer's own, and not of another package."""
    return kind.__module__.partition(".")[0] == __name__.partition(".")[0]


class Teacher(nn.Module, abc.ABC):
    """Labels observations; never learns.

    A teacher stays in evaluation mode and in its precision, and no method trains its parameters.
    Tensors that labelling needs are buffers, so that `to` moves them; generators restart from their
    seed on a new device.

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
    states: RowStates | None = None
    """The recurrent states of the rows that it labels; None for a teacher without any."""

    def __init__(self) -> None:
        super().__init__()
        self.eval()

    def __call__(
        self, observation: Observation, task: Tensor, needs: Needs = EMPTY
    ) -> PolicyOutput:
        """Runs `forward`; classes of other packages get a copy, as they may change it in place."""
        if not self.is_ours:
            observation = copied(observation)
            # CUDA graphs cannot contain what `PerTask` does with a tensor that is new to it.
            task = task if task.is_cuda else task.clone()
        output: PolicyOutput = super().__call__(observation, task, needs)
        return output

    @functools.cached_property
    def is_ours(self) -> bool:
        """Whether all code that reads observations is rltransfer's own."""
        return in_this_package(type(self))

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

    def row_states(self) -> list[RowStates]:
        """The recurrent states of this teacher and of all within it."""
        teachers = (one for one in self.modules() if isinstance(one, Teacher))
        return [one.states for one in teachers if one.states is not None]

    def begin_step(self, start: Tensor, task: Tensor) -> None:
        """Tells a recurrent teacher that its next call labels a step of all environments.

        Other calls are of single observations, as at the beginning of an episode.

        Args:
            start: Whether a row's observation is the first of its episode.    (rows,)
            task: Index of each row's task, sorted.                            (rows,)
        """
        if self.states is not None:
            self.states.begin_step(start)

    def train(self, mode: bool = True) -> Self:
        """Keeps the teacher in evaluation mode, whatever a module that holds it does."""
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves the teacher, and keeps its precision, whatever a module that holds it does.

        In half precision, statistics and sums would overflow, e.g. the privacy cost of `Vote`.
        """

        def moved(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            return result if result.dtype == tensor.dtype else tensor.to(result.device)

        return super()._apply(moved, recurse)  # type: ignore[no-untyped-call,no-any-return]

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

    def bounds_advice(self) -> str:
        """How a user scales its actions to a task if their bounds are unknown; "" for no way."""
        return ""

    def network(self) -> Network | None:
        """Its architecture, where that is known and one of `Network`'s."""
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

    def describe_figures(self) -> dict[str, str]:
        """What each of `figures` means, with its unit, for TensorBoard.

        By the figure's name, without the number or task of a member that follows it.
        """
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

    def __init__(
        self,
        module: nn.Module,
        source: str,
        sha256: str,
        num_parameters: int,
        state_size: int = 0,
    ) -> None:
        """Freezes a network.

        Args:
            module: The network.
            source: Where it comes from.
            sha256: Hash of its weights.
            num_parameters: Parameters that acting needs.
            state_size: Numbers in its recurrent state, which is kept for each row; 0 without any.
        """
        super().__init__()
        if state_size:
            self.states = RowStates(state_size)
        self.module = module.eval().requires_grad_(False)
        self.source = source
        self.sha256: str = sha256
        self.num_parameters = num_parameters

    def remembered(
        self, network: Callable[[Tensor | None, Tensor | None], PolicyOutput], task: Tensor
    ) -> PolicyOutput:
        """The output of the network, from and to the recurrent states of the rows, if any.

        Args:
            network: From states and resets, None without a recurrent state, to an output.
            task: Index of each row's task.    (rows,)
        """
        if self.states is None:
            return network(None, None)
        output = network(*self.states.before(len(task), task.device))
        assert output.state is not None
        self.states.after(output.state)
        output.state = None
        return output

    def label_state(self) -> dict[str, Any]:
        """The recurrent states of all rows."""
        return {} if self.states is None else self.states.state_dict()

    def load_label_state(self, state: dict[str, Any]) -> None:
        """Restores what `label_state` returned."""
        if self.states is not None:
            tensors = itertools.chain(self.module.parameters(), self.module.buffers())
            place = next((one.device for one in tensors), torch.device("cpu"))
            self.states.load_state_dict(state, place)

    def row_work(self) -> int:
        """Multiply-adds of the network on one row; here, one for each parameter."""
        return self.num_parameters
