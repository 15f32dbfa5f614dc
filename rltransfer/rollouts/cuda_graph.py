"""CUDA graphs: the launches of a function, captured once and replayed as one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence

import torch


class CapturedCalls:
    """Calls functions without arguments: eagerly at first, then as a CUDA graph.

    The first call compiles kernels and allocates lazily made tensors; the second is captured. To be
    capturable, a function must not wait for the device, must not allocate tensors that outlive it,
    and must do the same whenever its key is the same. Any other function is always called eagerly,
    with a warning that gives the reason.
    """

    def __init__(self) -> None:
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph | None] = {}
        self._not_capturable: set[Hashable] = set()

    def __call__(
        self, key: Hashable, function: Callable[[], None], generators: Sequence[torch.Generator]
    ) -> None:
        """Runs the function, or replays its graph.

        Args:
            key: Everything that the function's control flow depends on.
            function: Launches the work.
            generators: The device's generators that it draws from.
        """
        graph = None
        if key in self._graphs and key not in self._not_capturable:
            graph = self._graphs[key] or self._capture(key, function, generators)
        self._graphs.setdefault(key, None)
        if graph is None:
            function()
        else:
            graph.replay()

    def _capture(
        self, key: Hashable, function: Callable[[], None], generators: Sequence[torch.Generator]
    ) -> torch.cuda.CUDAGraph | None:
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        try:
            with torch.cuda.graph(graph):
                function()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            warnings.warn(
                f"The rollout runs without a CUDA graph, as it cannot be captured: {reason}",
                RuntimeWarning,
                stacklevel=4,
            )
            self._not_capturable.add(key)
            return None
        self._graphs[key] = graph
        return graph

    def clear(self) -> None:
        """Drops all graphs, e.g. because the tensors that they write to are replaced."""
        self._graphs.clear()
        self._not_capturable.clear()
