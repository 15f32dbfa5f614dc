"""Environments of one Atari game, with tensors."""

from __future__ import annotations

from typing import Any

from rltransfer.tasks.host_env import HostVectorEnv

_SEEDS = 2**31
"""ale-py accepts seeds below this."""


class AtariVectorEnv(HostVectorEnv):
    """Environments of one game, with tensors."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins new episodes; see `HostVectorEnv`. Seeds wrap around ale-py's limit."""
        if seed is not None:
            seed %= _SEEDS - self.num_envs
        return super().reset(seed=seed, options=options)
