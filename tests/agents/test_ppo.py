"""PPO learns, on discrete and continuous actions, with memory and over several tasks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import SHORT_TASK, TASK

import rltransfer as rt
from rltransfer.agents.ppo import PPO, Surrogate
from rltransfer.learning.minibatches import Batch
from rltransfer.policies.output import PolicyOutput
from rltransfer.rollouts.rollout import Rollout

SMALL = {"num_envs": 32, "rollout_length": 20, "batch_size": 160, "learning_rate": 3e-3}


def trained(
    tmp_path: Path, method: rt.agents.PPO, task: str = TASK, total_steps: int = 20_000
) -> float:
    run = rt.train(
        method, suite=task, total_steps=total_steps, run_dir=tmp_path / "run", episodes=64,
        evaluate_episodes=0, quiet=True,
    )  # fmt: skip
    return run.result["tasks"][task]["return_mean"]


@pytest.mark.parametrize("task", [TASK, SHORT_TASK])
def test_learns_to_name_the_symbol(tmp_path: Path, task: str) -> None:
    # Random actions earn 2.5 of 10; a flipped advantage earns less still.
    assert trained(tmp_path, PPO(**SMALL), task) > 9.5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("task", [TASK, "rltransfer/MinAtar-Breakout-v0", "CartPole-v1"])
def test_trains_on_cuda(tmp_path: Path, task: str) -> None:
    run = rt.train(
        PPO(**SMALL), suite=task, total_steps=20_000, run_dir=tmp_path / "run", device="cuda",
        episodes=64, evaluate_episodes=0, quiet=True,
    )  # fmt: skip
    assert run.result["device"] == "cuda"
    assert (
        run.result["tasks"][task]["return_mean"] > run.result["tasks"][task]["random_return_mean"]
    )


def test_a_flipped_advantage_does_not_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = Surrogate.advantages

    def flipped(self: Surrogate, rollout: Rollout, policy: rt.Policy) -> Batch:
        batch = straight(self, rollout, policy)
        return {**batch, "advantage": -batch["advantage"]}

    monkeypatch.setattr(Surrogate, "advantages", flipped)
    assert trained(tmp_path, PPO(**SMALL)) < 2.0


def test_learns_with_a_gru(tmp_path: Path) -> None:
    method = PPO(**SMALL, network=rt.policies.mlp(hidden=(32,), gru=32), epochs=6)
    assert trained(tmp_path, method, total_steps=30_000) > 9.0


def test_learns_continuous_actions(tmp_path: Path) -> None:
    # Pendulum: random actions earn about -1200; standing upright most of the time, above -400.
    method = PPO(
        num_envs=16, rollout_length=64, batch_size=256, epochs=10, learning_rate=1e-3,
        surrogate=Surrogate(gamma=0.9, entropy_coefficient=0.0),
    )  # fmt: skip
    run = rt.train(
        method, suite="Pendulum-v1", total_steps=120_000, run_dir=tmp_path / "run", episodes=32,
        evaluate_episodes=0, quiet=True,
    )  # fmt: skip
    assert run.result["tasks"]["Pendulum-v1"]["return_mean"] > -600


def test_advantages_bootstrap_from_what_followed_a_cut_off_episode(tmp_path: Path) -> None:
    # A constant value of 5, no reward, gamma 0.5, lambda 0: advantage = 0.5 * 5 - 5 = -2.5 at
    # each step, at a cut-off too; at a termination it is 0 - 5.
    class Constant(torch.nn.Module):
        def forward(self, observation: rt.Observation, *_: object) -> PolicyOutput:
            rows = observation["policy"].shape[0]
            return PolicyOutput(value=torch.full((rows,), 5.0))

    from rltransfer.rollouts.engine import RolloutEngine

    class Actor:
        state_size = 0

        def act(self, observation, task, state, start):  # type: ignore[no-untyped-def]
            rows = len(task)
            # Never the symbol that is shown: no reward.
            wrong = (observation["policy"].argmax(-1) + 1) % 4
            return {
                "action": wrong,
                "value": torch.full((rows,), 5.0),
                "log_prob": torch.zeros(rows),
            }

    for task, at_the_end in ((TASK, -5.0), (SHORT_TASK, -2.5)):
        engine = RolloutEngine(rt.Suite.of(task), 3, torch.device("cpu"), seed=0)
        rollout = engine.collect(Actor(), 12)
        batch = Surrogate(gamma=0.5, gae_lambda=0.0).advantages(rollout, Constant())
        expected = torch.full((12, 3), -2.5)
        expected[9] = at_the_end
        torch.testing.assert_close(batch["advantage"], expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_envs": 0}, "num_envs is 0: it must be at least 1."),
        ({"epochs": 0}, "epochs is 0: it must be at least 1."),
        ({"batch_size": -1}, "batch_size is -1: it must be at least 1."),
        ({"learning_rate": -1e-3}, "learning_rate is -0.001: it must be finite and at least 0."),
        ({"learning_rate": math.inf}, "learning_rate is inf: it must be finite and at least 0."),
        ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0: it must be above 0."),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(rt.InputError) as caught:
        PPO(**options)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gamma": 1.1}, "gamma is 1.1: it must be from 0 to 1."),
        ({"gae_lambda": -0.1}, "gae_lambda is -0.1: it must be from 0 to 1."),
        ({"clip_range": 0.0}, "clip_range is 0.0: it must be above 0."),
        (
            {"entropy_coefficient": -0.1},
            "entropy_coefficient is -0.1: it must be finite and at least 0.",
        ),
        (
            {"value_coefficient": math.nan},
            "value_coefficient is nan: it must be finite and at least 0.",
        ),
    ],
)
def test_a_surrogate_out_of_range_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(rt.InputError) as caught:
        Surrogate(**options)
    assert str(caught.value) == words


def test_same_seed_same_weights_other_seed_others(tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> torch.Tensor:
        run = rt.train(
            PPO(**SMALL), suite=TASK, total_steps=2_000, seed=seed, run_dir=tmp_path / name,
            episodes=1, evaluate_episodes=0, quiet=True,
        )  # fmt: skip
        return torch.cat([p.flatten() for p in run.agent.policy.parameters()])

    first, again, other = weights("a", 0), weights("b", 0), weights("c", 1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_each_part_of_the_surrogate_has_its_weight() -> None:
    torch.manual_seed(0)
    output = PolicyOutput(logits=torch.randn(64, 4), value=torch.zeros(64))
    batch = {
        "action": torch.randint(4, (64,)), "old_log_prob": torch.full((64,), -1.4),
        "advantage": torch.randn(64), "return": torch.randn(64),
    }  # fmt: skip
    loss = Surrogate(entropy_coefficient=0.1, value_coefficient=0.5).loss(output, batch)
    parts = loss.metrics
    total = parts["policy_loss"] + 0.5 * parts["value_loss"] - 0.1 * parts["entropy"]
    torch.testing.assert_close(loss.total, total)
    wider = Surrogate(clip_range=0.5).loss(output, batch)
    assert wider.metrics["policy_loss"] != parts["policy_loss"]
