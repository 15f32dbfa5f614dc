"""pgx: one of MinAtar's games with random actions, environments alone.

    python -m rltransfer.experiments.benchmarks.pgx_minatar --game breakout --num-envs 4096

pgx at its best: every step of a rollout in one compiled `lax.scan` over all environments, actions
drawn inside of it, the state's memory reused (donated). Two halves on two host devices (`pmap`)
were not faster than one program, which XLA spreads over the cores itself. The games have their
minimal actions and pgx's sticky actions (0.1), as `rltransfer/MinAtar-<Game>-v1` has them.
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
    """The game."""
    num_envs: int = 4096
    """Environments."""
    rollout_length: int = 16
    """Steps that are one compiled loop."""
    seed: int = 0
    """Seed."""

    def __post_init__(self) -> None:
        if self.game not in GAMES:
            raise unknown("game", self.game, GAMES)

    def run(self) -> dict[str, Any]:
        """Measures."""
        os.environ["JAX_PLATFORMS"] = "cpu"
        import jax
        import pgx
        from pgx.experimental import auto_reset

        env = pgx.make(f"minatar-{self.game}")
        step = jax.vmap(auto_reset(env.step, env.init))

        def once(carry: Any, _: None) -> tuple[Any, None]:
            state, key = carry
            key, for_actions, for_steps = jax.random.split(key, 3)
            # Every action of these games is legal.
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
