"""Pictures of the tasks of both soups.

rltransfer experiment run soups
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from gymnasium import spaces

from rltransfer.experiments.common.checks import check_options, page_folder
from rltransfer.experiments.common.page import Page
from rltransfer.experiments.common.pictures import new_figure
from rltransfer.machine.terminal import console
from rltransfer.tasks.families import find_suite
from rltransfer.tasks.making import make_vector_env
from rltransfer.tasks.picture import draw
from rltransfer.tasks.task import OBSERVATION_TRANSFORM, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 40
"""Random steps before the picture, so that there is something to see."""
SOUPS = ("minatar-soup", "pong-soup")


@dataclass(frozen=True, kw_only=True)
class Soups:
    """Pictures of the tasks of both soups, in seconds."""

    seed: int = 0
    """Seed of the episodes."""
    out: Path = Path("runs/soups")
    """Folder for the pictures."""
    results: Path | None = None
    """Another folder for the pictures."""

    def __post_init__(self) -> None:
        check_options(self)

    def run(self) -> None:
        """Plays each task and draws what a policy sees."""
        folder = page_folder(self.results, self.out)
        names = "\n\n".join(f"## {name}\n\n![{name}]({name}.png)" for name in SOUPS)
        Page(
            text=f"# What a policy sees of the soups\n\nThe same step of the same episode.\n\n"
            f"{names}\n\n    rltransfer experiment run soups",
            data={"seed": self.seed, "soups": list(SOUPS)},
            pictures={f"{name}.png": self._picture(name) for name in SOUPS},
        ).write(folder)
        console().print(f"written: {folder / 'RESULTS.md'}", highlight=False)

    def _picture(self, name: str) -> Figure:
        suite = find_suite(name)
        figure, grid = new_figure(2, (len(suite) + 1) // 2, (2.2 * len(suite) / 2, 4.9))
        for axes, task in zip(grid.flat, suite, strict=False):
            axes.imshow(self._pixels(task))
            view = str(task.kwargs.get(OBSERVATION_TRANSFORM, "as it is"))
            axes.set_title(view.replace("+", " +\n"), fontsize="small")
        for axes in grid.flat:
            axes.set_axis_off()
        return figure

    def _pixels(self, task: Task) -> Any:
        """What the policy sees after some random steps.    (height, width, 3)"""
        env = make_vector_env(task, 1, torch.device("cpu"))
        generator = torch.Generator().manual_seed(self.seed)
        observation, _ = env.reset(seed=self.seed)
        for _ in range(STEPS):
            actions = torch.randint(3, (1,), generator=generator)
            observation, *_ = env.step(actions)
        space = env.single_observation_space
        assert isinstance(space, spaces.Box)
        pixels = draw(observation[0].numpy(), space, env.frame_stack)
        env.close()
        return pixels
