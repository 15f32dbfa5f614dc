"""Progress of an evaluation in the terminal."""

from __future__ import annotations

from collections.abc import Callable

from rltransfer.rollouts.evaluation import Watcher
from rltransfer.runs.progress import Progress


class EvaluationProgress(Watcher):
    """Shows an evaluation's progress.

    Args:
        progress: Where the progress is shown.
        max_steps: Steps after which an episode is cut.
        make_room: See `Watcher.make_room`; None for nothing that can be done.
    """

    def __init__(
        self,
        progress: Progress,
        max_steps: int,
        make_room: Callable[[Exception], None] | None = None,
    ) -> None:
        self.progress = progress
        self.max_steps = max_steps
        self._make_room = make_room

    def make_room(self, error: Exception) -> None:
        """See `Watcher`."""
        if self._make_room is None:
            raise error
        self._make_room(error)

    def show(self, who: str, task: str, ended: int, episodes: int, longest: int) -> None:
        """See `Watcher`."""
        self.progress.note(
            f"evaluating {who} on {task}: {ended} of {episodes} episodes, "
            f"longest unfinished one {longest:,} of at most {self.max_steps:,} steps"
        )
