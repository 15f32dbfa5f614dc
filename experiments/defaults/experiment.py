"""What a student keeps with default options, at a quarter of its teacher's size.

    rltransfer experiment run defaults --teachers FOLDER

Each run is what a user types first:

    rltransfer train policy-distillation --task TASK --teacher FILE --size 25%

The teachers are the zoo's of MinAtar's five games, alone and all in one student, and every
Stable-Baselines3 zip in a folder whose name tells its task: ALGORITHM-TASK.zip, as in
`sac-Walker2d-v3.zip`. Tasks that Gymnasium has replaced are played in the version with the same
observations and actions.

Measured is the return relative to the teacher's, random play being 0, on the same episodes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltransfer.agents import PolicyDistillation
from rltransfer.errors import InputError
from rltransfer.experiments.common.checks import choice
from rltransfer.experiments.common.experiment import PaperExperiment
from rltransfer.experiments.common.intervals import interval_json
from rltransfer.experiments.common.page import Page, format_hardware, markdown_table
from rltransfer.experiments.common.trials import Trial
from rltransfer.experiments.zoo.experiment import GAMES, task_of
from rltransfer.metrics.intervals import mean_interval
from rltransfer.metrics.teacher_ratio import return_ratio
from rltransfer.tasks.families import as_suite

SIZE, BAR = "25%", 0.95
"""The students' size, and the fraction of the teacher's return to reach."""
ALL = "all five"
"""One student of the five games."""
NEWER = {
    "LunarLander-v2": "LunarLander-v3",
    **{
        f"{name}-v3": f"{name}-v4"
        for name in ("Ant", "HalfCheetah", "Hopper", "Humanoid", "Swimmer", "Walker2d")
    },
}
"""Tasks with the observations and actions of one that no longer exists."""


@dataclass(frozen=True, kw_only=True)
class Defaults(PaperExperiment):
    """Default options at a quarter of the size: 18 runs, half an hour on two CPU cores.

    One to three minutes more for each zip and seed.
    """

    games: tuple[str, ...] = choice("game", (*GAMES, ALL))
    """Games of MinAtar; "all five" is one student of them all."""
    teachers: Path | None = None
    """Folder of Stable-Baselines3 zips, named ALGORITHM-TASK.zip."""
    seeds: int = 3
    """Number of seeds per teacher, counted from 0."""
    steps: int = 0
    """Environment steps of each run; 0 means the default."""
    episodes: int = 100
    """Episodes of each evaluation."""
    out: Path = Path("runs/defaults")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teachers is not None and not self.zips():
            raise InputError(
                f"teachers is {self.teachers}, a folder without zips named ALGORITHM-TASK.zip."
            )

    def zips(self) -> dict[str, Path]:
        """The zips by name."""
        found = sorted(self.teachers.glob("*.zip")) if self.teachers is not None else []
        return {path.stem: path for path in found if re.fullmatch(r"[a-z0-9]+-.+", path.stem)}

    def make_page(self) -> Page:
        """Trains the students, and builds the page of what they keep."""
        results = self.run_trials(self.trials())
        kept = {
            case: [_kept(results[_name(case, seed)]) for seed in range(self.seeds)]
            for case in self.cases()
        }
        return Page(
            text=self._text(kept, results),
            data={
                **self.option_values("steps", "seeds", "episodes", "games"),
                "hardware": format_hardware(results.values()),
                "kept": {case: interval_json(mean_interval(each)) for case, each in kept.items()},
                "each_seed": kept,
                "wall_seconds": {name: one["wall_seconds"] for name, one in results.items()},
            },
        )

    def command(self) -> str:
        """The command that repeats the experiment, without a place on this machine."""
        return super().command().replace(f"--teachers {self.teachers}", "--teachers FOLDER")

    def cases(self) -> dict[str, tuple[str, str]]:
        """The tasks and the teacher of each case, by its name."""
        games = {game: ("minatar" if game == ALL else task_of(game), "zoo") for game in self.games}
        zips = {
            name: (NEWER.get(task := name.partition("-")[2], task), str(path))
            for name, path in self.zips().items()
        }
        return {**games, **zips}

    def trials(self) -> list[Trial]:
        """One run per case and seed."""
        return [
            self._trial(case, suite, teacher, seed)
            for case, (suite, teacher) in self.cases().items()
            for seed in range(self.seeds)
        ]

    def _trial(self, case: str, suite: str, teacher: str, seed: int) -> Trial:
        method = PolicyDistillation(teacher=teacher, size=SIZE)
        steps = self.steps or method.default_steps(as_suite(suite))
        options = {"total_steps": steps, "seed": seed, "episodes": self.episodes}
        return Trial(name=_name(case, seed), method=method, suite=suite, options=options)

    def _text(
        self, kept: Mapping[str, Sequence[float]], results: Mapping[str, Mapping[str, Any]]
    ) -> str:
        rows, reached = [], 0
        for case, each in kept.items():
            found = [results[_name(case, seed)] for seed in range(self.seeds)]
            good = mean_interval(each).estimate >= BAR
            reached += good
            rows.append([
                case,
                f"{found[0]['student_parameters']:,}",
                f"{100 * found[0]['student_parameters'] / found[0]['teacher_parameters']:.0f} %",
                mean_interval(each).format_percent(),
                "yes" if good else "no",
                f"{max(one['wall_seconds'] for one in found):.0f}",
            ])  # fmt: skip
        head = ["teacher", "parameters", "of the teacher's", "kept, %", f"{BAR:.0%}", "seconds"]
        return f"""# Default options, a quarter of the size

    rltransfer train policy-distillation --task TASK --teacher FILE --size 25%

What is kept is the student's return relative to its teacher's, random play being 0, on the same
{self.episodes} episodes: the mean over {self.seed_count}, with its 95 % interval; for {ALL!r} the
mean over games. **{reached} of {len(kept)} keep at least {BAR:.0%}**, before rounding. Seconds are
those of training, of the slowest seed, on one thread; other work makes them longer.

{markdown_table(head, rows)}

{self.footer(results.values())}
"""


def _name(case: str, seed: int) -> str:
    return f"{case.replace(' ', '-')}-{seed}"


def _kept(result: Mapping[str, Any]) -> float:
    """The fraction of the teacher's return, random play being 0: the mean over tasks."""
    ratios = [
        return_ratio(one["return_mean"], one["teacher_return_mean"], one["random_return_mean"])
        for one in result["tasks"].values()
    ]
    return sum(ratios) / len(ratios)
