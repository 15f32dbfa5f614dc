"""ale-py's vector environment, as tensors."""

from __future__ import annotations

from typing import Any

from rltransfer.tasks.host_env import HostVectorEnv

_SEEDS = 2**31
"""ale-py takes seeds below this."""


class AtariVectorEnv(HostVectorEnv):
    """One game's environments, as tensors."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins new episodes.

        Args:
            seed: Seeds environment i with seed + i, counted round within what ale-py takes.
            options: Handed on to ale-py.

        Returns:
            The observation (num_envs, stack_num, height, width), and ale-py's "lives" and frames.
        """
        if seed is not None:
            seed %= _SEEDS - self.num_envs
        return super().reset(seed=seed, options=options)
