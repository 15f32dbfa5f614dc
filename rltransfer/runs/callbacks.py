"""Callbacks: functions of a user that a run calls, e.g. to log or to stop early.

def stop_when_solved(event: rt.RunEvent) -> None:
    if event.metrics.get("evaluate/return/CartPole-v1", 0) >= 475:
        event.stop()

rt.train(method, suite="CartPole-v1", run_dir="runs/x", callbacks=[stop_when_solved])
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from rltransfer.errors import InputError
from rltransfer.machine import distributed
from rltransfer.machine.generators import global_state, set_global_state
from rltransfer.policies.policy import Policy

Kind = Literal["start", "rollout", "evaluation", "checkpoint", "end"]


@dataclass(frozen=True)
class RunEvent:
    """An event of a run, which its callbacks are called with."""

    kind: Kind
    """What has happened:

    - "start": training begins or resumes;
    - "rollout": a rollout was collected and learned from;
    - "evaluation": the policy was evaluated, and saved if it is the best so far;
    - "checkpoint": a checkpoint was written;
    - "end": training has ended, and `result.json` was written.
    """
    step: int
    """Environment steps so far."""
    metrics: Mapping[str, float]
    """New points of the run's curves by name: each point is in one event."""
    policy: Policy
    """The policy that learns, in evaluation mode: copy what should stay as it is."""
    run_dir: Path
    """The run's folder, which contains `checkpoints` and, at the end, `result.json`."""
    stop: Callable[[], None]
    """Ends training after this event: a checkpoint, the final evaluation and `result.json` follow.
    If the run is resumed, it trains on."""


Callback: TypeAlias = Callable[[RunEvent], object]
"""A function of one event. What it returns is ignored; an error ends the run after a checkpoint."""


class Callbacks:
    """The callbacks of a run. Under torchrun, the first process calls them.

    Args:
        functions: The callbacks, called in this order.

    Raises:
        InputError: They are not a list of functions.
    """

    def __init__(self, functions: Sequence[Callback] = ()) -> None:
        if not isinstance(functions, Sequence) or not all(map(callable, functions)):
            raise InputError(
                f"callbacks is {functions!r}: pass a list of functions of one argument, the event."
            )
        self.functions = tuple(functions)
        self._stop = False

    @property
    def stopped(self) -> bool:
        """Whether a callback has stopped the run. All processes ask at the same time."""
        return bool(self.functions) and distributed.any_of(self._stop)

    def __call__(
        self, kind: Kind, step: int, metrics: Mapping[str, float], policy: Policy, run_dir: Path
    ) -> None:
        """Calls each function with an event."""
        if not self.functions or distributed.rank() > 0:
            return
        event = RunEvent(kind, step, dict(metrics), policy, run_dir, self._request_stop)
        with _unchanged(policy):
            for function in self.functions:
                function(event)

    def _request_stop(self) -> None:
        self._stop = True


@contextlib.contextmanager
def _unchanged(policy: Policy) -> Iterator[None]:
    """Runs the block so that training continues as if there were none.

    The policy is in evaluation mode, and random numbers are those of before.
    """
    state, training = global_state(), policy.training
    policy.eval()
    try:
        yield
    finally:
        policy.train(training)
        set_global_state(state)
