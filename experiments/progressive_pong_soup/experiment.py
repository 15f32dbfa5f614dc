"""Progressive networks on the Pong Soup of the paper (Rusu 2016, section 5.1).

    rltransfer experiment run progressive-pong-soup

See the experiment progressive-minatar-soup, of which this is the same on Atari's Pong, with the
paper's column: three convolutions of 12 channels, and 256 units. Differs from the paper, besides:
its last convolution has kernels of 3 x 4, these are 3 x 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltransfer.experiments.common.checks import choice
from rltransfer.experiments.progressive_minatar_soup.experiment import (
    PLAIN,
    ProgressiveSoup,
    views_of,
)
from rltransfer.policies.network import Network

VIEWS = views_of("pong-soup")


@dataclass(frozen=True, kw_only=True)
class ProgressivePongSoup(ProgressiveSoup):
    """Progressive networks on Pong (Rusu 2016): 265 runs, hundreds of hours on two CPU cores.

    Two and three columns against the paper's baselines.
    """

    sources: tuple[str, ...] = choice("view", VIEWS, (PLAIN, "noise", "flip_horizontal"))
    """Ways to see the game that are learned first, in their order."""
    targets: tuple[str, ...] = choice("view", VIEWS, ("black", "white", "zoom", "flip_vertical"))
    """Ways to see the game that are learned then."""
    steps: int = 1_000_000
    """Environment steps of each run on a target."""
    source_steps: int = 2_000_000
    """Environment steps of each run on a source."""
    out: Path = Path("runs/progressive-pong-soup")

    @property
    def task_id(self) -> str:
        """Atari's Pong."""
        return "ALE/Pong-v5"

    @property
    def settings(self) -> dict[str, Any]:
        """Those of PPO's Atari runs, with the paper's column."""
        return {
            "num_envs": 16,
            "rollout_length": 128,
            "batch_size": 512,
            "epochs": 3,
            "learning_rate": 5e-4,
            "network": Network(encoder="nature", channels=(12, 12, 12), hidden=(256,)),
        }
