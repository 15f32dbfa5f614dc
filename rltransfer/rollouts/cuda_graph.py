"""CUDA graphs: what a function launches, recorded once and launched again as one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence

import torch


class CapturedCalls:
    """Calls functions of no arguments: eagerly the first time, from a CUDA graph ever after.

    The first call warms up: kernels are compiled and lazily made tensors made. The second is
    captured. A function is fit for that if it neither waits for the device nor makes tensors that
    outlive it, and if everything it does beside launching depends on its key alone. One that is
    unfit is called eagerly ever after, with a warning that says why.
    """

    def __init__(self) -> None:
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph | None] = {}
        self._unfit: set[Hashable] = set()

    def __call__(
        self, key: Hashable, function: Callable[[], None], generators: Sequence[torch.Generator]
    ) -> None:
        """Does what the function does.

        Args:
            key: What the function's course depends on, beside the values in tensors.
            function: Launches the work.
            generators: Those of the device that it draws from.
        """
        if key in self._unfit:
            function()
        elif key not in self._graphs:
            self._graphs[key] = None
            function()
        else:
            graph = self._graphs[key] or self._capture(key, function, generators)
            if graph is None:
                function()
            else:
                graph.replay()

    def _capture(
        self, key: Hashable, function: Callable[[], None], generators: Sequence[torch.Generator]
    ) -> torch.cuda.CUDAGraph | None:
        """Returns the function's graph; None if it cannot be captured."""
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        try:
            with torch.cuda.graph(graph):
                function()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            warnings.warn(
                f"A rollout cannot be captured in a CUDA graph and is launched step by step: "
                f"{reason}",
                RuntimeWarning,
                stacklevel=4,
            )
            self._unfit.add(key)
            return None
        self._graphs[key] = graph
        return graph

    def clear(self) -> None:
        """Forgets every graph, e.g. as the tensors that they write to are no more."""
        self._graphs.clear()
        self._unfit.clear()
