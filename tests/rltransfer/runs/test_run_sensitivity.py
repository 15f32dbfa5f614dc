"""Sensitivities of trained policies: what noise does to returns, states, and refusals."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy
from torch import nn

import rltransfer as rt
from rltransfer.errors import InputError
from rltransfer.policies.policy import Policy
from rltransfer.rollouts.evaluation import Evaluation, evaluate_policy
from rltransfer.rollouts.visited_states import visited_states
from rltransfer.runs import sensitivity as module
from rltransfer.runs.folder import load_run_policy
from rltransfer.runs.sensitivity import LEAST_NOISE, MOST_NOISE, halving_noise, sensitivity
from rltransfer.tasks.observation import Observation
from rltransfer.tasks.task import Suite, Task

QUICK: dict[str, Any] = {"episodes": 0, "evaluate_episodes": 0, "quiet": True, "device": "cpu"}
NETWORK = rt.policies.mlp(hidden=(8, 8))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A column that has learned the task, and progressive ones on top of it."""
    toy.register()
    folder = tmp_path_factory.mktemp("runs")
    small: dict[str, Any] = {"num_envs": 16, "rollout_length": 20, "network": NETWORK}
    first = rt.agents.PPO(learning_rate=0.01, **small)
    rt.train(first, suite=toy.TASK, total_steps=12_800, run_dir=folder / "first", **QUICK)
    columns = (str(folder / "first"),)
    still = rt.agents.Progressive(columns=columns, start="previous", learning_rate=0.0, **small)
    rt.train(still, suite=toy.TASK, total_steps=320, run_dir=folder / "still", **QUICK)
    learns = rt.agents.Progressive(columns=columns, alpha=1.0, learning_rate=0.01, **small)
    rt.train(learns, suite=toy.TASK, total_steps=6_400, run_dir=folder / "second", **QUICK)
    return folder


def test_a_column_without_influence_has_no_sensitivity(runs: Path) -> None:
    found = sensitivity(runs / "still", episodes=8, states=64, device="cpu")
    assert found.task == toy.TASK and found.states == 64
    assert found.return_mean is not None and found.return_mean > 9
    assert found.random_return_mean is not None and found.random_return_mean < 5
    assert [(one.layer, one.column) for one in found.layers] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert [one.fisher for one in found.layers] == [1, 0, 1, 0]
    assert [one.perturbation for one in found.layers] == [1, 0, 1, 0]
    noises = [one.noise for one in found.layers]
    assert noises[1] is noises[3] is None
    assert noises[0] is not None and 0.1 < noises[0] < 100


def policy_features(policy: Policy, layer: nn.Module, seen: Observation) -> torch.Tensor:
    """What a layer outputs."""
    outputs: list[torch.Tensor] = []
    with layer.register_forward_hook(lambda _, __, output: outputs.append(output)):
        policy(seen)
    return outputs[0]


def test_the_noise_that_is_found_halves_the_return(runs: Path) -> None:
    """Plays the episodes again, with noise that is added here."""
    found = sensitivity(runs / "second", episodes=8, states=4_096, seed=3, device="cpu")
    assert found.states == 80  # 8 episodes of 10 steps
    policy, task = load_run_policy(runs / "second"), Task(toy.TASK)
    how: dict[str, Any] = {"seed": 3, "device": CPU}
    seen = visited_states(policy, task, 4_096, episodes=8, **how)
    half = (found.return_mean or 0) / 2 + (found.random_return_mean or 0) / 2
    moved = [one for one in found.layers if one.noise is not None]
    assert len(moved) >= 2
    for one in moved:
        layer = policy.feature_layers()[one.column - 1][one.layer - 1]
        std = policy_features(policy, layer, seen).std(0, correction=0)

        def played(sigma: float, layer: Any = layer, std: Any = std) -> float:
            generator = torch.Generator().manual_seed(3)

            def noisy(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
                return output + sigma * std * torch.randn(output.shape, generator=generator)

            with layer.register_forward_hook(noisy):
                evaluations = evaluate_policy(policy, Suite.of(task), 8, **how)
            return evaluations[toy.TASK].mean

        assert one.noise is not None
        assert played(one.noise * 2 ** (1 / 32)) <= half < played(one.noise / 2 ** (1 / 32))
    for layer in (1, 2):
        of_layer = [one for one in found.layers if one.layer == layer]
        precisions = np.array([one.noise**-2 if one.noise else 0.0 for one in of_layer])
        expected = (precisions / precisions.sum()).tolist()
        assert [one.perturbation for one in of_layer] == pytest.approx(expected)
        assert sum(one.fisher for one in of_layer) == pytest.approx(1.0)
    again = sensitivity(runs / "second", episodes=8, states=4_096, seed=3, device="cpu")
    assert again == found


def test_sampled_actions_and_a_checkpoint(runs: Path) -> None:
    how: dict[str, Any] = {"episodes": 4, "states": 16, "device": "cpu", "checkpoint": 320}
    one, two = (sensitivity(runs / "still", deterministic=False, **how) for _ in range(2))
    assert one == two and one.layers[0].perturbation == 1


@pytest.mark.parametrize("threshold", [0.013, 0.3, 0.99, 1.0, 1.001, 7.0, 1_000.0])
def test_the_search_finds_the_noise_from_which_on_a_return_is_halved(threshold: float) -> None:
    tried: list[float] = []

    def halves(sigma: float) -> bool:
        tried.append(sigma)
        return sigma >= threshold

    found = halving_noise(halves)
    assert found is not None and abs(np.log2(found / threshold)) <= 1 / 32 + 1e-9
    assert len(tried) <= 16 and len(set(tried)) == len(tried)
    assert min(tried) >= LEAST_NOISE and max(tried) <= MOST_NOISE


def test_the_search_has_bounds() -> None:
    assert halving_noise(lambda sigma: False) is None
    assert halving_noise(lambda sigma: sigma > MOST_NOISE) is None
    tried: list[float] = []
    assert halving_noise(lambda sigma: tried.append(sigma) is None) == LEAST_NOISE
    assert min(tried) == LEAST_NOISE


def test_states_are_of_whole_episodes_and_sampled_from_all_of_their_steps(runs: Path) -> None:
    policy = load_run_policy(runs / "first")
    sample = functools.partial(visited_states, policy, Task(toy.TASK), seed=0, device=CPU)
    whole = sample(1_000, episodes=3)["policy"]
    assert whole.shape == (30, toy.SYMBOLS)
    assert sample(1_000, episodes=3, max_steps=4)["policy"].shape == (12, toy.SYMBOLS)
    assert len(sample(7, episodes=3)["policy"]) == 7
    # A sample has the symbols about as often as all states have.
    many, few = sample(10_000, episodes=400)["policy"], sample(1_000, episodes=400)["policy"]
    assert many.shape[0] == 4_000
    torch.testing.assert_close(few.mean(0), many.mean(0), atol=0.05, rtol=0.0)


def test_states_after_the_first_episode_of_an_environment_are_left_out(runs: Path) -> None:
    """Episodes of CartPole end after different numbers of steps."""
    folder = runs / "cartpole"
    method = rt.agents.PPO(num_envs=2, rollout_length=16, learning_rate=0.0)
    rt.train(method, suite="CartPole-v1", total_steps=32, run_dir=folder, **QUICK)
    policy = load_run_policy(folder)
    seen = visited_states(policy, Task("CartPole-v1"), 10**6, episodes=5, seed=1, device=CPU)
    played = evaluate_policy(policy, Suite.of("CartPole-v1"), 5, seed=1, device=CPU)
    assert len(set(played["CartPole-v1"].lengths)) > 1
    assert len(seen["policy"]) == sum(played["CartPole-v1"].lengths)
    # A few are not the first ones, in which the cart has hardly moved.
    few = visited_states(policy, Task("CartPole-v1"), 20, episodes=5, seed=1, device=CPU)
    speed, all_speed = (one["policy"][:, 1].abs().mean() for one in (few, seen))
    torch.testing.assert_close(speed, all_speed, rtol=0.25, atol=0.0)


def test_a_policy_that_has_learned_nothing_is_refused(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = {toy.TASK: Evaluation((10.0,), (10,))}
    monkeypatch.setattr(module, "evaluate_random", lambda *_, **__: random)
    with pytest.raises(InputError, match="no more than a random policy's 10, so that"):
        sensitivity(runs / "first", episodes=2, states=8, device="cpu")
    found = sensitivity(runs / "first", episodes=2, states=8, device="cpu", fisher_only=True)
    assert [one.fisher for one in found.layers] == [1, 1]
    assert found.return_mean is found.layers[0].perturbation is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"episodes": 0}, "episodes is 0: it must be at least 1"),
        ({"episodes": 2_000}, "episodes is 2000: it must be at most 1,024"),
        ({"states": 0}, "states is 0: it must be at least 1"),
        ({"states": "many"}, "states is 'many'"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"fisher_only": "yes"}, "fisher_only is 'yes'"),
        ({"task": ["CartPole-v1", "Acrobot-v1"]}, "2 tasks: pass one of them"),
        ({"task": "Acrobot-v1"}, "The policy"),
        ({"checkpoint": 17}, "There is no checkpoint '17'"),
    ],
)
def test_options_that_are_refused(runs: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        sensitivity(runs / "first", **{"device": "cpu", "fisher_only": True, **options})
