"""Sums over episodes are those of adding step by step."""

from __future__ import annotations

import torch

from rltransfer.rollouts.episodes import episode_totals


def test_sums_are_those_of_adding_step_by_step() -> None:
    generator = torch.Generator().manual_seed(0)
    running = torch.tensor([0.0, 2.0, -1.5, 7.0, 0.0])
    expected_running = running.clone()
    for _ in range(3):
        step = torch.randn(40, 5, generator=generator)
        done = torch.rand(40, 5, generator=generator) < 0.2
        done[:, 3] = False
        done[-1, 4] = True
        expected = torch.zeros(40, 5)
        for time in range(40):
            expected_running += step[time]
            expected[time] = expected_running * done[time]
            expected_running[done[time]] = 0
        torch.testing.assert_close(episode_totals(step, done, running), expected)
        torch.testing.assert_close(running, expected_running)
    assert running[3] != 0
    assert running[4] == 0


def test_a_long_history_costs_no_precision() -> None:
    # Rewards of a million before, and of one after, an episode's end.
    step = torch.full((2_000, 1), 1e6)
    step[1_000:] = 1
    done = torch.zeros(2_000, 1, dtype=torch.bool)
    done[999] = done[1_999] = True
    found = episode_totals(step, done, torch.zeros(1))
    assert found[[999, 1_999], 0].tolist() == [1e9, 1_000]
