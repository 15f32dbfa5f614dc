"""Pictures for pages of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rltransfer.experiments.common.intervals import Interval


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
