"""Summaries of trials: ratios to a teacher with intervals over seeds, tables, pictures."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from rltransfer.experiments.trials import THREADS
from rltransfer.hardware import hardware
from rltransfer.report import kept
from rltransfer.run import find_device

WHERE = ("jobs", "out", "results")
"""Options of experiments that say where something is computed or written, and not what."""

SMALLEST = 1e-3
"""What a share counts as at least, so that a student that failed has a logarithm."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % interval (Student's t)."""

    mean: float
    low: float
    high: float
    seeds: int

    def percent(self) -> str:
        """Returns the interval in per cent."""
        return Interval(100 * self.mean, 100 * self.low, 100 * self.high, self.seeds).told(0)

    def told(self, digits: int) -> str:
        """Returns the interval with so many digits after the point."""
        mean, low, high = (f"{one:.{digits}f}" for one in (self.mean, self.low, self.high))
        return f"{mean} ({low} to {high})" if self.seeds > 1 else f"{mean} (one seed)"

    def against(self, bound: float, above: str, below: str) -> str:
        """Returns one of two words if the whole interval lies on one side, else why neither.

        Args:
            bound: What the interval is compared with.
            above: The word if all of it is above.
            below: The word if all of it is below.
        """
        if self.seeds < 2:
            return "undecided: one seed has no interval"
        if self.low > bound:
            return above
        return below if self.high < bound else f"undecided: the interval contains {bound:g}"


def mean_interval(values: Sequence[float]) -> Interval:
    """Returns the mean of the seeds' values with its interval; one seed has none."""
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return Interval(mean, -math.inf, math.inf, count)
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    half = float(special.stdtrit(count - 1, 0.975)) * error
    return Interval(mean, mean - half, mean + half, count)


def geometric_mean_interval(ratios: Mapping[str, Sequence[float]]) -> Interval:
    """Returns the geometric mean over tasks, with its interval over seeds.

    The mean over tasks is taken within each seed, on logarithms; the interval is that of the seeds'
    means, so it says how far another set of seeds would lie off and not how far other tasks would.

    Args:
        ratios: For each task the seeds' ratios, in the same order.
    """
    logs = np.log(np.maximum(np.array(list(ratios.values()), dtype=float), SMALLEST))
    interval = mean_interval(logs.mean(0).tolist())
    low, mean, high = (math.exp(v) for v in (interval.low, interval.mean, interval.high))
    return Interval(mean, low, high, interval.seeds)


def share_row(ratios: Mapping[str, Sequence[float]]) -> dict[str, Interval]:
    """Returns the geometric mean over tasks as "all games", and each task's own mean.

    Args:
        ratios: For each task the seeds' ratios, in the same order.
    """
    each = {task: mean_interval(by_seed) for task, by_seed in ratios.items()}
    return {"all games": geometric_mean_interval(ratios), **each}


def kept_share(
    result: Mapping[str, Any],
    task: str | None = None,
    taught: Mapping[str, Any] | None = None,
) -> float:
    """Returns which share of its teacher's return a student keeps; see `report.kept`.

    Args:
        result: A run's result.
        task: Which of its tasks; its only one if None.
        taught: The result that holds the teacher's return, where `result` was learned without one:
            of the same tasks, seed and number of episodes.
    """
    name = task if task is not None else next(iter(result["tasks"]))
    teacher = (taught or result)["tasks"][name]["teacher_return_mean"]
    return kept({**result["tasks"][name], "teacher_return_mean": teacher})


def told_parameters(results: Iterable[Mapping[str, Any]]) -> str:
    """Returns the numbers of parameters of some runs' policies, each once."""
    counts = sorted({result["student_parameters"] for result in results})
    return " or ".join(f"{count:,}" for count in counts)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def told_hardware(results: Iterable[Mapping[str, Any]]) -> str:
    """Returns the machines of some runs in words, each once.

    Args:
        results: The runs' results. One that names no machine is of an earlier version, and counts
            as this machine's.
    """
    here = hardware(find_device("auto"))
    machines = [result.get("hardware", here) for result in results]
    told = [
        f"{one['device']}, {one['cores']} cores, Python {one['python']}, "
        f"torch {one['torch'].split('+')[0]}"
        for one in machines
    ]
    return "; ".join(dict.fromkeys(told))


def footer(name: str, experiment: Any, results: Collection[Mapping[str, Any]]) -> str:
    """Returns what an experiment has cost, and the command that repeats it, for its page.

    Args:
        name: The experiment's, as the command line knows it.
        experiment: Its options, a dataclass.
        results: Those of all runs.
    """
    minutes = sum(result["wall_seconds"] for result in results) / 60
    threads = "one thread a run; " if THREADS == 1 else ""
    return f"""\
{len(results)} runs, {minutes:.0f} minutes of training; {threads}{told_hardware(results)}.

    {told_command(name, experiment)}"""


def told_command(name: str, experiment: Any) -> str:
    """Returns the command that repeats an experiment: every option that is not its default.

    Args:
        name: The experiment's, as the command line knows it.
        experiment: Its options, a dataclass.
    """
    words = ["rltransfer", "experiment", "run", name]
    for field in fields(experiment):
        value = getattr(experiment, field.name)
        if field.name in WHERE or value == field.default:
            continue
        values = value if isinstance(value, tuple) else (value,)
        flag = f"--{field.name.replace('_', '-')}"
        words += [flag, *(f"{one:g}" if isinstance(one, float) else str(one) for one in values)]
    return shlex.join(words)


def write_results(folder: Path, text: str, data: Mapping[str, Any]) -> None:
    """Writes `RESULTS.md` and `results.json`.

    Args:
        folder: Where to.
        text: The page.
        data: Everything that it was made from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "RESULTS.md").write_text(text.rstrip() + "\n")
    (folder / "results.json").write_text(json.dumps(data, indent=1, allow_nan=False) + "\n")


def interval_json(interval: Interval) -> dict[str, float | None]:
    """Returns an interval as JSON, which has no infinity: one seed has nulls for its ends."""
    ends = {} if interval.seeds > 1 else {"low": None, "high": None}
    return {**asdict(interval), **ends}


def bar_picture(
    path: Path, groups: Sequence[str], bars: Mapping[str, Sequence[Interval]], label: str
) -> None:
    """Draws grouped bars with their intervals.

    Args:
        path: The PNG file.
        groups: Names below the axis.
        bars: For each colour its interval in each group.
        label: What the vertical axis says, in per cent.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(max(6.0, 1.3 * len(groups)), 3.5))
    width = 0.8 / len(bars)
    tops: list[float] = []
    for index, (name, intervals) in enumerate(bars.items()):
        places = np.arange(len(groups)) + (index - (len(bars) - 1) / 2) * width
        heights = [100 * one.mean for one in intervals]
        ends = [(one.low, one.high) if one.seeds > 1 else (one.mean, one.mean) for one in intervals]
        errors = np.abs(100 * np.array(ends).T - heights)
        axes.bar(places, heights, width, yerr=errors, capsize=2, label=name)
        tops += heights
    axes.axhline(100, color="gray", linewidth=0.8)
    # Two seeds may have an interval that would leave nothing of the bars.
    axes.set_ylim(0, min(axes.get_ylim()[1], 2 * max(100, *tops)))
    axes.set_xticks(np.arange(len(groups)), groups)
    axes.set_ylabel(label)
    # Above the bars, which may be as high as the picture.
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(bars))
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
