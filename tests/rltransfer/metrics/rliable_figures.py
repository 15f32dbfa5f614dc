"""Writes rliable.json: what the package rliable finds for a table of scores.

rliable 1.2.0 needs an older pandas than the pinned one, so this runs in an environment of its own:

    python -m venv /tmp/rliable
    /tmp/rliable/bin/pip install rliable==1.2.0 arch==7.2.0 'pandas<3' 'numpy<2.3'
    /tmp/rliable/bin/python tests/rltransfer/metrics/rliable_figures.py
"""

import json
from pathlib import Path

import numpy as np
from rliable import library, metrics

# Some scores above 1, one below 0, a tie between the methods in each of the first two tasks.
SCORES = [
    [0.91, 0.40, 1.35, 0.10],
    [0.85, 0.55, 0.95, 0.62],
    [1.02, 0.37, 1.10, 0.48],
    [0.88, 0.71, 0.80, -0.05],
    [0.97, 0.50, 1.21, 0.33],
]
BASELINE = [
    [0.70, 0.40, 0.90, 0.55],
    [0.91, 0.28, 0.75, 0.71],
    [0.64, 0.44, 1.05, 0.60],
    [0.80, 0.31, 0.88, 0.93],
]
THRESHOLDS = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]
REPETITIONS = 50_000


def main() -> None:
    """Computes all figures and writes them next to this file."""
    scores, baseline = np.array(SCORES), np.array(BASELINE)

    def aggregates(table):
        return np.array(
            [
                metrics.aggregate_iqm(table),
                metrics.aggregate_median(table),
                metrics.aggregate_mean(table),
                metrics.aggregate_optimality_gap(table),
            ]
        )

    estimates, intervals = library.get_interval_estimates(
        {"ours": scores}, aggregates, reps=REPETITIONS, random_state=np.random.RandomState(0)
    )
    improvement, improved = library.get_interval_estimates(
        {"ours": [scores, baseline]},
        metrics.probability_of_improvement,
        reps=REPETITIONS // 10,
        random_state=np.random.RandomState(0),
    )
    profile, band = library.create_performance_profile(
        {"ours": scores}, np.array(THRESHOLDS), reps=REPETITIONS // 10
    )
    found = {
        "scores": SCORES,
        "baseline": BASELINE,
        "thresholds": THRESHOLDS,
        "names": ["IQM", "median", "mean", "optimality gap"],
        "estimates": estimates["ours"].tolist(),
        "intervals": intervals["ours"].T.tolist(),
        "improvement": float(improvement["ours"]),
        "improvement interval": improved["ours"][:, 0].tolist(),
        "profile": profile["ours"].tolist(),
        "profile intervals": band["ours"].T.tolist(),
    }
    Path(__file__).with_name("rliable.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
