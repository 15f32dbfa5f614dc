"""PPO learns, on discrete and continuous actions, with memory and over several tasks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import SHORT_TASK, TASK

import rltransfer as rt
from rltransfer.agents import PolicyDistillation
from rltransfer.agents.ppo import PPO, Surrogate, evaluate
from rltransfer.cli.main import main
from rltransfer.learning.minibatches import Batch
from rltransfer.policies.network import Network
from rltransfer.policies.output import PolicyOutput
from rltransfer.rollouts.rollout import Rollout, TruncatedObservations
from rltransfer.runs.config import RunOptions
from rltransfer.runs.run import Run

SMALL = {"num_envs": 32, "rollout_length": 20, "batch_size": 160, "learning_rate": 3e-3}


def trained(
    tmp_path: Path, method: rt.agents.PPO, task: str = TASK, total_steps: int = 8_000
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
    # Seeds 0 and 1 earn 10.
    network = rt.policies.mlp(hidden=(32,), gru=32)
    method = PPO(**{**SMALL, "learning_rate": 6e-3}, network=network, epochs=6)
    assert trained(tmp_path, method, total_steps=12_000) > 9.0


def test_learns_continuous_actions(tmp_path: Path) -> None:
    # Pendulum: random actions earn about -1200; standing upright most of the time, above -400.
    # Seeds 0 to 2 earn -240 and more.
    method = PPO(
        num_envs=16, rollout_length=64, batch_size=256, epochs=10, learning_rate=2e-3,
        surrogate=Surrogate(gamma=0.9, entropy_coefficient=0.0),
    )  # fmt: skip
    run = rt.train(
        method, suite="Pendulum-v1", total_steps=30_000, run_dir=tmp_path / "run", episodes=16,
        evaluate_episodes=0, quiet=True,
    )  # fmt: skip
    assert run.result["tasks"]["Pendulum-v1"]["return_mean"] > -600


def test_the_defaults_learn_acrobot(tmp_path: Path) -> None:
    # A random policy never reaches the bar within 500 steps, and PPO with a third of the updates
    # and unscaled rewards does not either. The experiment `control` has the other tasks.
    assert trained(tmp_path, PPO(), "Acrobot-v1", total_steps=49_152) > -200


def nonlinearities(policy: rt.Policy) -> set[type[torch.nn.Module]]:
    kinds = {type(module) for module in policy.modules()}
    return kinds & {torch.nn.ReLU, torch.nn.Tanh}


@pytest.mark.parametrize(
    ("network", "task", "expected"),
    [
        (Network(), TASK, torch.nn.Tanh),
        (rt.policies.mlp(hidden=(8,)), TASK, torch.nn.Tanh),
        (Network(activation="relu"), TASK, torch.nn.ReLU),
        (Network(), "rltransfer/MinAtar-Breakout-v0", torch.nn.ReLU),
        (rt.policies.conv(), "rltransfer/MinAtar-Breakout-v0", torch.nn.ReLU),
        (Network(activation="tanh"), "rltransfer/MinAtar-Breakout-v0", torch.nn.Tanh),
    ],
)
def test_networks_on_vectors_have_tanh(
    tmp_path: Path, network: Network, task: str, expected: type[torch.nn.Module]
) -> None:
    method = PPO(num_envs=2, rollout_length=8, network=network)
    run = Run("a", method, rt.Suite.of(task), RunOptions(), tmp_path / "run")
    assert nonlinearities(run.agent.policy) == {expected}
    # A saved policy does not depend on what "auto" means.
    assert run.agent.policy.spec.network.activation in ("tanh", "relu")


def test_networks_of_other_methods_have_relu() -> None:
    # Stored as in runs of earlier versions, so that these resume.
    for network in (
        PolicyDistillation(teacher="zoo", student=Network(encoder="grid")).student,
        rt.agents.PQN().network, rt.agents.Distral().network,
        PPO(network=Network(encoder="grid")).network,
    ):  # fmt: skip
        assert network.activation == "relu"


@pytest.mark.parametrize(
    ("scaling", "task", "expected"),
    [
        ("auto", TASK, True), ("auto", "rltransfer/MinAtar-Breakout-v0", False),
        ("none", TASK, False), ("returns", "rltransfer/MinAtar-Breakout-v0", True),
    ],
)  # fmt: skip
def test_rewards_of_vector_tasks_are_scaled(
    tmp_path: Path, scaling: Any, task: str, expected: bool
) -> None:
    method = PPO(num_envs=4, rollout_length=8, reward_scaling=scaling)
    run = Run("a", method, rt.Suite.of(task), RunOptions(), tmp_path / "run")
    agent = run.agent
    rollout = run.engine.collect(agent, 8)
    before, values = rollout.reward.clone(), rollout.extras["value"]
    seen = []
    straight = Surrogate.advantages

    class Watched(Surrogate):
        def advantages(self, rollout: Rollout, policy: rt.Policy) -> Batch:
            seen.append(rollout.reward)
            return straight(self, rollout, policy)

    object.__setattr__(method, "surrogate", Watched())
    list(agent.batches(rollout))
    assert torch.equal(rollout.reward, before) and values is rollout.extras["value"]
    ratio = seen[0][before != 0] / before[before != 0]
    assert (agent.reward_scale is not None) == expected == ("reward_scale" in agent.state_dict())
    if task == TASK:
        assert len(ratio) and bool((ratio == 1).all()) == (not expected)


def test_a_run_of_an_earlier_version_has_no_scaled_rewards(tmp_path: Path) -> None:
    options: dict[str, Any] = {"suite": TASK, "episodes": 0, "evaluate_episodes": 0, "quiet": True}
    method = PPO(num_envs=4, rollout_length=8, reward_scaling="none")
    rt.train(method, total_steps=32, run_dir=tmp_path, **options)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    assert config["method"].pop("reward_scaling") == "none"
    path.write_text(json.dumps(config))
    words = ["train", "ppo", "--resume", str(tmp_path), "--total-steps", "64", "--quiet"]
    assert main(words) == 0
    rt.train(method, total_steps=96, run_dir=tmp_path, resume=True, **options)
    with pytest.raises(rt.InputError, match="another reward_scaling"):
        scaled = PPO(num_envs=4, rollout_length=8)
        rt.train(scaled, total_steps=96, run_dir=tmp_path, resume=True, **options)


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


def test_advantages_use_the_last_observation_of_a_truncated_episode() -> None:
    # No reward, gamma 0.5, lambda 0. Step 0 is truncated at an observation of value 7, not at the
    # next episode's 2: 0.5 * 7 - 1 = 2.5. Step 1 leads to 9: 0.5 * 9 - 2 = 2.5.
    class Shown(torch.nn.Module):
        def forward(self, observation: rt.Observation, *_: object) -> PolicyOutput:
            return PolicyOutput(value=observation["policy"].sum(-1))

    never = torch.zeros(2, 1, dtype=torch.bool)
    rollout = Rollout(
        observation={"policy": torch.tensor([[[1.0]], [[2.0]]])},
        last_observation={"policy": torch.tensor([[9.0]])},
        reward=torch.zeros(2, 1), terminated=never, truncated=torch.tensor([[True], [False]]),
        start=torch.tensor([[False], [True]]), task=torch.zeros(2, 1, dtype=torch.int64),
        initial_state=torch.zeros(1, 0), last_state=torch.zeros(1, 0),
        extras={
            "action": torch.zeros(2, 1), "log_prob": torch.zeros(2, 1),
            "value": torch.tensor([[1.0], [2.0]]),
        },
        final_obs=TruncatedObservations(
            torch.tensor([0]), torch.tensor([0]), {"policy": torch.tensor([[7.0]])}
        ),
    )  # fmt: skip
    batch = Surrogate(gamma=0.5, gae_lambda=0.0).advantages(rollout, Shown())
    assert batch["advantage"].tolist() == [[2.5], [2.5]]
    assert batch["return"].tolist() == [[3.5], [4.5]]


def test_advantages_end_where_another_policy_acts() -> None:
    # Values of 5, no reward, gamma 0.5, lambda 1: each step adds 0.5 * 5 - 5 = -2.5, halved with
    # each step that it lies ahead, up to the end of the rollout or an action of weight 0.
    class Constant(torch.nn.Module):
        def forward(self, observation: rt.Observation, *_: object) -> PolicyOutput:
            return PolicyOutput(value=torch.full((len(observation["policy"]),), 5.0))

    shape = (4, 2)
    never = torch.zeros(shape, dtype=torch.bool)
    rollout = Rollout(
        observation={"policy": torch.zeros(*shape, 1)},
        last_observation={"policy": torch.zeros(2, 1)},
        reward=torch.zeros(shape), terminated=never, truncated=never, start=never,
        task=torch.zeros(shape, dtype=torch.int64), initial_state=torch.zeros(2, 0),
        last_state=torch.zeros(2, 0),
        extras={
            "action": torch.zeros(shape), "log_prob": torch.zeros(shape),
            "value": torch.full(shape, 5.0),
            "weight": torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]),
        },
    )  # fmt: skip
    batch = Surrogate(gamma=0.5, gae_lambda=1.0).advantages(rollout, Constant())
    # The second row is the student's alone: -2.5 (1 + 1/2 + 1/4 + 1/8), and so on.
    expected = torch.tensor([[-3.75, -4.6875], [-2.5, -4.375], [-3.75, -3.75], [-2.5, -2.5]])
    torch.testing.assert_close(batch["advantage"], expected)
    torch.testing.assert_close(batch["return"], expected + 5)
    assert not rollout.done.any()


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


def test_the_surrogate_by_hand() -> None:
    # Two actions; pi = (3/4, 1/4) in all four states, pi_old = 1/2 of the actions that were taken.
    output = PolicyOutput(logits=torch.tensor([[math.log(3.0), 0.0]] * 4), value=torch.ones(4))
    batch = {
        "action": torch.tensor([0, 1, 0, 1]), "old_log_prob": torch.full((4,), math.log(0.5)),
        "advantage": torch.tensor([2.0, 2.0, -2.0, 6.0]),
        "return": torch.tensor([1.0, 3.0, 4.0, 1.0]),
    }  # fmt: skip
    entropy = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    options = {"entropy_coefficient": 0.1, "value_coefficient": 0.3}
    # Mean 2, variance (16 + 16) / 4 = 8: advantages 0, 0, -4/sqrt(8), 4/sqrt(8) = -+sqrt(2).
    # Ratios 3/2 and 1/2. A bad action: max(3/2, 1.2) sqrt(2). A good one: -min(1/2, 0.8) sqrt(2).
    policy_loss = (1.5 - 0.5) * math.sqrt(2) / 4
    value_loss = 0.5 * (0 + 4 + 9 + 0) / 4
    loss = Surrogate(**options).loss(output, batch)
    expected = policy_loss + 0.3 * value_loss - 0.1 * entropy
    assert loss.total.item() == pytest.approx(expected, abs=1e-6)
    assert loss.metrics["policy_loss"].item() == pytest.approx(policy_loss, abs=1e-6)
    assert loss.metrics["value_loss"].item() == pytest.approx(value_loss, abs=1e-6)
    assert loss.metrics["entropy"].item() == pytest.approx(entropy, abs=1e-6)
    # Both ratios are outside 1 +- 0.2, and inside 1 +- 0.6.
    assert loss.metrics["clip_fraction"].item() == 1
    # E[(rho - 1) - log rho] of 3/2 and 1/2.
    kl = (0.5 - math.log(1.5) - 0.5 - math.log(0.5)) / 2
    assert loss.metrics["approximate_kl"].item() == pytest.approx(kl, abs=1e-6)
    # Errors 0, -2, -3, 0: variance 13/4 - 25/16; returns 1, 3, 4, 1: 27/4 - 81/16.
    assert loss.metrics["explained_variance"].item() == pytest.approx(1 - 27 / 27, abs=1e-6)
    wide = Surrogate(clip_range=0.6, **options).loss(output, batch)
    assert wide.metrics["clip_fraction"].item() == 0

    # Weights 1, 1, 1, 0: mean 2/3, variance (16/9 + 16/9 + 64/9) / 3 = 32/9, deviation 4 sqrt(2)/3:
    # 1/sqrt(2), 1/sqrt(2), -sqrt(2). Ratios 3/2 (clipped to 1.2), 1/2, 3/2.
    weighted = {**batch, "weight": torch.tensor([1.0, 1.0, 1.0, 0.0])}
    policy_loss = (-1.2 / math.sqrt(2) - 0.5 / math.sqrt(2) + 1.5 * math.sqrt(2)) / 3
    expected = policy_loss + 0.3 * 0.5 * (0 + 4 + 9) / 3 - 0.1 * entropy
    found = Surrogate(**options).loss(output, weighted).total.item()
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("task", [TASK, SHORT_TASK])
@pytest.mark.parametrize("kickstarting", [False, True])
def test_a_gru_learns_from_the_states_in_which_it_acted(
    tmp_path: Path, task: str, kickstarting: bool
) -> None:
    # Rollouts of 24 steps of episodes of 10: one ends twice or three times in each, and rollouts
    # begin in its midst. Each minibatch is two rows of six.
    network = rt.policies.mlp(hidden=(16,), gru=8)
    options: dict[str, Any] = {
        "num_envs": 6, "rollout_length": 24, "batch_size": 48, "epochs": 1,
        "surrogate": Surrogate(gamma=0.5, gae_lambda=0.0),
    }  # fmt: skip
    method: rt.Method = PPO(network=network, **options)
    if kickstarting:
        teacher = rt.CallableTeacher(lambda seen, _: PolicyOutput(logits=5 * seen["policy"]))
        method = PolicyDistillation(
            teacher=teacher, student=network, teacher_acts=0.3, reinforcement_weight=1.0, **options
        )
    run = Run("a", method, rt.Suite.of(task), RunOptions(), tmp_path / "run")
    agent, policy = run.agent, run.agent.policy
    with torch.no_grad():
        # Fresh heads output nearly the same in every state; these do not.
        policy.action_head.weight.normal_(generator=torch.Generator().manual_seed(0))
    agent.begin_rollout(0.0)
    for _ in range(2):
        rollout = run.engine.collect(agent, 24)
    assert rollout.initial_state.abs().amax(-1).min() > 0
    ratios, values = [], []
    for batch in agent.batches(rollout):
        output = evaluate(policy, batch)
        # What the teacher did is not a sample of the student.
        own = batch.get("weight", torch.ones_like(batch["old_log_prob"])) > 0
        ratios.append((output.log_prob(batch["action"]) - batch["old_log_prob"]).exp()[own])
        values.append(output.value + batch["advantage"] - batch["return"])
    ratio, value = torch.cat(ratios), torch.cat(values, 1)
    torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-5, rtol=0)
    # The values of the states, too: returns are advantages plus these.
    torch.testing.assert_close(value, torch.zeros(24, 6), atol=1e-5, rtol=0)

    # The value of the observation after the last step is that of the state that the steps left.
    def followed(before: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        return torch.cat([before, last.unsqueeze(0)])

    with torch.no_grad():
        found = method.surrogate.advantages(rollout, policy)["return"][-1]
        seen = followed(rollout.observation["policy"], rollout.last_observation["policy"])
        start = followed(rollout.start, torch.zeros(6, dtype=torch.bool))
        last = policy({"policy": seen}, None, rollout.initial_state, start).value[-1]
    assert not rollout.done[-1].any()
    torch.testing.assert_close(found, rollout.reward[-1] + 0.5 * last)


def two_tasks(tmp_path: Path, method: rt.Method) -> tuple[Run, Batch]:
    """A run of two tasks, and the one minibatch of its first rollout."""
    run = Run("a", method, rt.Suite.of(TASK, SHORT_TASK), RunOptions(), tmp_path / "run")
    run.agent.begin_rollout(0.0)
    (batch,) = run.agent.batches(run.engine.collect(run.agent, method.rollout_length))
    return run, batch


@pytest.mark.parametrize("gru", [0, 8])
@pytest.mark.parametrize("kickstarting", [False, True])
def test_large_rewards_of_a_task_leave_the_others_as_they_are(
    tmp_path: Path, gru: int, kickstarting: bool
) -> None:
    network = rt.policies.mlp(hidden=(16,), gru=gru)
    whole = {"num_envs": 4, "rollout_length": 12, "batch_size": 96, "epochs": 1}
    method: rt.Method = PPO(network=network, **whole)
    if kickstarting:
        teacher = rt.CallableTeacher(lambda seen, _: PolicyOutput(logits=5 * seen["policy"]))
        method = PolicyDistillation(
            teacher=teacher, student=network, teacher_acts=0.3, reinforcement_weight=1.0, **whole
        )
    run, batch = two_tasks(tmp_path, method)
    # With ratios of 1 the loss would be 0, whatever the advantages.
    batch["old_log_prob"] = batch["old_log_prob"] + 0.1 * torch.rand(batch["task"].shape)
    factors = torch.tensor([1.0, 100.0])[batch["task"]]
    scaled = {**batch, "advantage": batch["advantage"] * factors}
    plain, found = (run.agent.loss(one).metrics["policy_loss"] for one in (batch, scaled))
    torch.testing.assert_close(found, plain)
