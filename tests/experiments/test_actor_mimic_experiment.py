"""Actor-Mimic's experiment: its runs, and its figures worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rltransfer.experiments.actor_mimic.experiment import (
    NETWORK,
    ActorMimicTransfer,
    Transfer,
    learning_method,
)
from rltransfer.experiments.actor_mimic_atari.experiment import ActorMimicAtari
from rltransfer.metrics.curves import Curve


def test_learners_start_from_mimics_of_the_other_games() -> None:
    experiment = ActorMimicTransfer(seeds=1)
    others = ["SpaceInvaders", "Asterix", "Breakout", "Freeway"]
    assert experiment.sources("Seaquest", "feature") == others
    assert experiment.sources("SpaceInvaders", "single") == ["Asterix"]
    assert len(experiment.mimics()) == 15 and len(experiment.trials()) == 40
    for learner in ("ppo", "pqn"):
        assert learning_method(learner).network == NETWORK
    assert all(mimic.method.student == NETWORK for mimic in experiment.mimics())


def test_on_atari_the_head_starts_fresh() -> None:
    experiment = ActorMimicAtari(seeds=1)
    assert len(experiment.mimics()) == 9 and len(experiment.trials()) == 12
    assert experiment.sources("Pong", "policy") == ["Qbert", "Boxing"]
    begun = [trial for trial in experiment.trials() if "init_from" in trial.options]
    assert {trial.options["init_match"] for trial in begun} == {"any"} and len(begun) == 9
    assert all(trial.suite.startswith("ALE/") for trial in experiment.trials())


def curve(*returns: float) -> Curve:
    return Curve(np.arange(1.0, len(returns) + 1), np.array(returns))


def test_figures_by_hand() -> None:
    # Areas 4 and 8, by the trapezoid rule over 4 steps 1 and 2 on average.
    slow, fast = curve(0, 0, 1, 1, 2), curve(2, 2, 2, 2, 2)
    found = Transfer.of([fast, fast], [slow, slow])
    assert found.area.estimate == pytest.approx(2 / (3 / 4))
    # The first tenth of the steps ends at 1.4, where the slow curve is still 0.
    assert found.jumpstart.estimate == pytest.approx(2.0)
    assert found.time.estimate == pytest.approx(1 / 5)
    assert found.censored == 0
    never = Transfer.of([curve(0, 0, 0, 0, 0), fast], [slow, slow])
    assert never.censored == 1 and never.time.estimate == pytest.approx(3 / 5)
