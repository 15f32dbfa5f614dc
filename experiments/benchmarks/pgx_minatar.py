"""pgx: one of MinAtar's games with random actions, environments only.

    python -m rltransfer.experiments.benchmarks.pgx_minatar --game breakout --num-envs 4096

pgx at its fastest: one compiled `lax.scan` per rollout over all environments, which also draws the
actions and reuses the state's memory (donated). Two halves on two host devices (`pmap`) were not
faster than one program, which XLA spreads over the cores. The games have minimal actions and pgx's
sticky actions (0.1), like `rltransfer/MinAtar-<Game>-v1`.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

from rltransfer.envs.minatar.ids import GAMES
from rltransfer.errors import unknown

from .script import Timing, main


@dataclass(frozen=True, kw_only=True)
class PgxMinAtar:
    """Steps per second of pgx's MinAtar."""

    timing: Timing = Timing()
    game: str = "breakout"
    """Name of the game."""
    num_envs: int = 4096
    """Number of environments."""
    rollout_length: int = 16
    """Steps per compiled loop."""
    seed: int = 0
    """Random seed."""

    def __post_init__(self) -> None:
        if self.game not in GAMES:
            raise unknown("game", self.game, GAMES)

    def run(self) -> dict[str, Any]:
        """Runs the measurement."""
        os.environ["JAX_PLATFORMS"] = "cpu"
        import jax
        import pgx
        from pgx.experimental import auto_reset

        env = pgx.make(f"minatar-{self.game}")
        step = jax.vmap(auto_reset(env.step, env.init))

        def once(carry: Any, _: None) -> tuple[Any, None]:
            state, key = carry
            key, for_actions, for_steps = jax.random.split(key, 3)
            # Every action of these games is available.
            action = jax.random.randint(for_actions, (self.num_envs,), 0, env.num_actions)
            return (step(state, action, jax.random.split(for_steps, self.num_envs)), key), None

        def rollout(carry: Any) -> Any:
            return jax.lax.scan(once, carry, None, length=self.rollout_length)[0]

        compiled = jax.jit(rollout, donate_argnums=0)
        key = jax.random.key(self.seed)
        carry = jax.jit(jax.vmap(env.init))(jax.random.split(key, self.num_envs)), key

        def work() -> int:
            nonlocal carry
            carry = jax.block_until_ready(compiled(carry))
            return self.num_envs * self.rollout_length

        return {"steps_per_second": self.timing.speed(work), "jax_devices": jax.device_count()}


if __name__ == "__main__":
    sys.exit(main(PgxMinAtar, "pgx_minatar"))
