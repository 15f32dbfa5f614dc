"""PQN learns Q-values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toy import TASK

import rltransfer as rt
from rltransfer.agents.pqn import PQN, PQNAgent
from rltransfer.policies.output import PolicyOutput
from rltransfer.rollouts.rollout import Rollout, TruncatedObservations
from rltransfer.runs.config import RunOptions
from rltransfer.runs.run import Run

SMALL = {"num_envs": 32, "rollout_length": 20, "batch_size": 160, "learning_rate": 3e-3}


def test_learns_values_that_are_right(tmp_path: Path) -> None:
    # With discount 0 the value of naming the symbol is 1 and of every other action 0.
    run = rt.train(
        PQN(**SMALL, gamma=0.0), suite=TASK, total_steps=40_000, run_dir=tmp_path / "run",
        episodes=64, evaluate_episodes=0, quiet=True,
    )  # fmt: skip
    assert run.result["tasks"][TASK]["return_mean"] > 9.5
    values = run.agent.policy({"policy": torch.eye(4)}).q_values
    torch.testing.assert_close(values, torch.eye(4), atol=0.15, rtol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epsilon": "often"}, "'often' is not a schedule"),
        ({"epsilon": "2->0"}, "epsilon is 2->0: it must be from 0 to 1"),
        ({"epsilon": -0.1}, "epsilon is -0.1: it must be from 0 to 1"),
        ({"gae_lambda": 2.0}, "gae_lambda is 2.0: it must be from 0 to 1"),
        ({"gamma": -1.0}, "gamma is -1.0: it must be from 0 to 1"),
        ({"epochs": 0}, "epochs is 0: it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0: it must be at least 1"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0: it must be finite and at least 0"),
        ({"max_grad_norm": -1.0}, "max_grad_norm is -1.0: it must be above 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(rt.InputError, match=words):
        PQN(**options)


def test_continuous_actions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(rt.InputError, match="pqn needs discrete actions"):
        Run("pqn", PQN(), rt.Suite.of("Pendulum-v1"), RunOptions(), tmp_path / "run")


def started(tmp_path: Path, **options: Any) -> tuple[Run, Rollout]:
    run = Run("pqn", PQN(rollout_length=10, **options), rt.Suite.of(TASK), RunOptions(), tmp_path)
    run.agent.begin_rollout(0.0)
    return run, run.engine.collect(run.agent, 10)


@pytest.mark.parametrize("epsilon", [0.0, 0.4])
def test_epsilon_is_the_fraction_of_random_actions(tmp_path: Path, epsilon: float) -> None:
    run, rollout = started(tmp_path, num_envs=1000, epsilon=epsilon)
    with torch.no_grad():
        greedy = run.agent.policy(rollout.observation).greedy()
    # One random action in four is the greedy one. Of 10,000 actions, 0.03 are six standard errors.
    other = (rollout.extras["action"] != greedy).float().mean().item()
    assert other == pytest.approx(0.75 * epsilon, abs=0.03)


def test_gamma_and_lambda_reach_the_targets(tmp_path: Path) -> None:
    def targets(**options: Any) -> torch.Tensor:
        run, rollout = started(tmp_path, num_envs=8, **options)
        assert isinstance(run.agent, PQNAgent)
        with torch.no_grad():
            return run.agent._targets(rollout)

    plain = targets()
    assert torch.equal(plain, targets())
    assert not torch.equal(plain, targets(gae_lambda=0.0))
    assert not torch.equal(plain, targets(gamma=0.5))


class Shown:
    """A policy whose greatest Q-value is the observation's first number, plus the state's."""

    state_size = 0

    def __call__(
        self,
        observation: rt.Observation,
        task: torch.Tensor,
        state: torch.Tensor | None = None,
        start: torch.Tensor | None = None,
    ) -> PolicyOutput:
        best = observation["policy"][..., 0]
        if state is not None:
            best = best + state[..., 0]
        return PolicyOutput(q_values=torch.stack([best - 3, best, best - 1, best - 2], -1))


def test_targets_by_hand(tmp_path: Path) -> None:
    # Rewards 1, 2, 4, 8; greatest values 10, 20, 40, 80, and 96 + 4 after the last step, where the
    # recurrent state adds 4. Step 1 of row 1 terminates; row 2 is truncated there, at a value of
    # 60. Gamma and lambda are 1/2: R_t = r_t + (V_{t+1} + R_{t+1}) / 4; r_t + V_{t+1} / 2 where an
    # episode or the rollout ends.
    here = torch.tensor([False, True, False, False])
    never = torch.zeros(4, dtype=torch.bool)
    shown = torch.tensor([10.0, 20.0, 40.0, 80.0]).unsqueeze(1).expand(4, 3)
    index = torch.arange(12.0).view(4, 3)
    rollout = Rollout(
        observation={"policy": torch.stack([shown, index], -1)},
        last_observation={"policy": torch.full((3, 2), 96.0)},
        reward=torch.tensor([1.0, 2.0, 4.0, 8.0]).unsqueeze(1).repeat(1, 3),
        terminated=torch.stack([never, here, never], 1),
        truncated=torch.stack([never, never, here], 1),
        start=torch.zeros(4, 3, dtype=torch.bool), task=torch.zeros(4, 3, dtype=torch.int64),
        initial_state=torch.zeros(3, 1), last_state=torch.full((3, 1), 4.0),
        extras={"action": torch.ones(4, 3, dtype=torch.int64), "best_value": shown},
        final_obs=TruncatedObservations(
            torch.tensor([1]), torch.tensor([2]), {"policy": torch.tensor([[60.0, 0.0]])}
        ),
    )  # fmt: skip
    rollout.extras["action"][0, 0] = 3
    # The last two steps of all rows: 8 + 100 / 2 = 58 and 4 + (80 + 58) / 4 = 38.5.
    expected = torch.tensor(
        [
            # 1 + (20 + 21.625) / 4, 1 + (20 + 2) / 4, 1 + (20 + 32) / 4.
            [11.40625, 6.5, 14.0],
            # 2 + (40 + 38.5) / 4, 2, 2 + 60 / 2.
            [21.625, 2.0, 32.0],
            [38.5, 38.5, 38.5],
            [58.0, 58.0, 58.0],
        ]
    )
    method = PQN(gamma=0.5, gae_lambda=0.5, batch_size=12, epochs=1)
    agent = Run("pqn", method, rt.Suite.of(TASK), RunOptions(), tmp_path).agent
    agent.policy = Shown()
    (batch,) = agent.batches(rollout)
    where = batch["observation"]["policy"][:, 1].long()
    torch.testing.assert_close(batch["target"], expected.flatten()[where])
    # Action 1 is the best everywhere, but for the first sample: its value is 2 less.
    chosen = shown.clone()
    chosen[0, 0] -= 2
    loss = agent.loss(batch)
    assert loss.total.item() == pytest.approx(0.5 * (chosen - expected).square().mean().item())
    assert loss.metrics["q_value"].item() == pytest.approx(chosen.mean().item())


def test_the_greatest_values_are_kept_when_acting(tmp_path: Path) -> None:
    run, rollout = started(tmp_path, num_envs=50, epsilon=1.0)
    with torch.no_grad():
        values = run.agent.policy(rollout.observation).q_values
    torch.testing.assert_close(rollout.extras["best_value"], values.amax(-1))
