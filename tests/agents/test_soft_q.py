"""Soft Q-learning in tables: its equations against plain loops, and soft value iteration."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exact_planner import ExactPlanner
from fitting import spaces_of
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor
from toy import SHORT_TASK, TASK

import rltransfer as rt
from rltransfer.agents import PPO
from rltransfer.agents.soft_q import SoftQ, SoftQAgent
from rltransfer.envs.gridworld.family import two_rooms
from rltransfer.envs.gridworld.layouts import make_layout
from rltransfer.envs.gridworld.rules import make_rules
from rltransfer.learning.agent import TrainingContext
from rltransfer.rollouts.rollout import Rollout, TruncatedObservations
from rltransfer.runs.config import RunOptions
from rltransfer.runs.folder import load_run_policy
from rltransfer.runs.run import Run
from rltransfer.tasks.task import Suite

Array = NDArray[np.float64]

STATES, ACTIONS = 3, 4
ROOMS = {"room": 2, "corridor": 1, "observation": "one-hot"}


def table_agent(*, tasks: int = 1, rows: int = 1, **options: Any) -> SoftQAgent:
    """An agent of tasks that show a state as a one-hot vector."""
    seen = spaces.Dict(policy=spaces.Box(0, 1, (STATES,), np.float32))
    acted = spaces.Discrete(ACTIONS)
    context = TrainingContext(
        spaces_of(Suite.of(*(f"task-{index}" for index in range(tasks))), [(seen, acted)] * tasks),
        frame_stack=0, num_rows=rows, seed=0, device=torch.device("cpu"),
    )  # fmt: skip
    return SoftQ(num_envs=rows // tasks, **options).build(context)


def write(agent: SoftQAgent, h: Array, q_values: Array) -> None:
    """Writes the tables h (STATES, ACTIONS) and Q (tasks, STATES, ACTIONS)."""
    assert agent.policy.columns is not None
    head = agent.policy.columns.action_head
    agent.policy.action_head.weight.data = torch.tensor(h.T, dtype=torch.float32)
    scores = torch.tensor(agent.method.beta * q_values, dtype=torch.float32)
    head.weight.data = scores - head.bias.data.unsqueeze(1)


def read(agent: SoftQAgent) -> tuple[Array, Array]:
    """Returns the tables h and Q."""
    assert agent.policy.columns is not None
    head = agent.policy.columns.action_head
    scores = (head.weight + head.bias.unsqueeze(1)).detach().double().numpy()
    return agent.policy.action_head.weight.detach().double().numpy().T, scores / agent.method.beta


def one_hot(states: Any) -> dict[str, Tensor]:
    return {"policy": torch.nn.functional.one_hot(torch.as_tensor(states), STATES).float()}


def rollout_of(
    states: Any, action: Any, reward: Any, *, last: Any, tasks: int = 1, terminated: Any = None,
    truncated: Any = None, start: Any = None, final_obs: TruncatedObservations | None = None,
) -> Rollout:  # fmt: skip
    """A rollout by hand; everything is (time, rows), what is seen last (rows,)."""
    reward = torch.as_tensor(reward, dtype=torch.float32)
    never = torch.zeros(reward.shape, dtype=torch.bool)
    flags = [never if one is None else torch.as_tensor(one) for one in (terminated, truncated)]
    rows = reward.shape[1]
    return Rollout(
        observation=one_hot(states), last_observation=one_hot(last), reward=reward,
        terminated=flags[0], truncated=flags[1],
        start=never if start is None else torch.as_tensor(start),
        task=torch.arange(tasks).repeat_interleave(rows // tasks).expand(reward.shape),
        initial_state=torch.zeros(rows, 0), extras={"action": torch.as_tensor(action)},
        last_state=torch.zeros(rows, 0), final_obs=final_obs,
    )  # fmt: skip


def policies(h: Array, q_values: Array, alpha: float, beta: float) -> tuple[Array, Array, Array]:
    """Returns pi_0, V and pi_i of tables, as eq. 2 and those below it say."""
    prior = np.exp(h) / np.exp(h).sum(-1, keepdims=True)
    value = np.log((prior**alpha * np.exp(beta * q_values)).sum(-1)) / beta
    own = prior**alpha * np.exp(beta * (q_values - value[..., None]))
    return prior, value, own


# Equations.


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        # alpha = 1, beta = 1, discount 1/2, step size 1/2, uniform pi_0. Q is 0 but in state 1,
        # where all Q are 4, and in state 2, where all are 8: V is 0, 4 and 8.
        # State 0, action 0, reward 1, then state 1, action 1, reward 2, then state 2:
        #     Q(1, 1) = 4 + (2 + 8/2 - 4) / 2 = 5;
        #     V(1) = log((3 e^4 + e^5) / 4) = 4.35737, Q(0, 0) = (1 + 4.35737/2) / 2 = 1.58934.
        (None, (1.58934, 5.0)),
        # The last state ends the episode: Q(1, 1) = 4 + (2 - 4) / 2 = 3,
        # V(1) = log((3 e^4 + e^3) / 4) = 3.82799, Q(0, 0) = (1 + 3.82799/2) / 2 = 1.45700.
        ("terminated", (1.45700, 3.0)),
        # The episode is cut short in state 1 and a new one is seen in state 2:
        # Q(1, 1) = 4 + (2 + 4/2 - 4) / 2 = 4, V(1) = 4, Q(0, 0) = (1 + 4/2) / 2 = 1.5.
        ("truncated", (1.5, 4.0)),
    ],
)
def test_two_steps_by_hand(end: str | None, expected: tuple[float, float]) -> None:
    agent = table_agent(beta=1.0, gamma=0.5, learning_rate=0.5, distillation_rate=0.0)
    q_values = np.repeat([[[0.0], [4.0], [8.0]]], ACTIONS, 2)
    write(agent, np.zeros((STATES, ACTIONS)), q_values)
    over = {end: [[False], [True]]} if end else {}
    final_obs = (
        TruncatedObservations(torch.tensor([1]), torch.tensor([0]), one_hot([1]))
        if end == "truncated"
        else None
    )
    agent.learn(
        rollout_of([[0], [1]], [[0], [1]], [[1.0], [2.0]], last=[2], final_obs=final_obs, **over)
    )
    q_values[0, 0, 0], q_values[0, 1, 1] = expected
    np.testing.assert_allclose(read(agent)[1], q_values, atol=1e-5)


def test_the_distilled_policy_goes_to_the_tasks_by_hand() -> None:
    # pi_0 uniform; the first task's pi_i is (1, 0, 0, 0) in state 0, the second's uniform. Step
    # size 0.8, discount 1/2: the first task's steps are at t = 0 and 1 of an episode and then at
    # t = 0 of the next, of weights 1 + 1/2 + 1, each up by 0.8 * (3/4, -1/4, -1/4, -1/4).
    agent = table_agent(tasks=2, rows=2, beta=1.0, gamma=0.5, learning_rate=0.0,
                        distillation_rate=0.8)  # fmt: skip
    q_values = np.zeros((2, STATES, ACTIONS))
    q_values[0, 0, 0] = 50.0
    write(agent, np.zeros((STATES, ACTIONS)), q_values)
    rollout = rollout_of(
        np.zeros((3, 2), int), np.zeros((3, 2), int), np.zeros((3, 2)), last=[0, 0], tasks=2,
        start=[[True, True], [False, False], [True, False]],
    )  # fmt: skip
    agent.learn(rollout)
    h, _ = read(agent)
    np.testing.assert_allclose(h[0], 2.5 * 0.8 * np.array([0.75, -0.25, -0.25, -0.25]), atol=1e-6)
    assert not h[1:].any()


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 2.0), (0.5, 0.7), (1.0, 5.0)])
def test_rollouts_are_learned_from_as_in_a_plain_loop(alpha: float, beta: float) -> None:
    rng = np.random.default_rng(0)
    time, tasks, rows = 5, 2, 8
    rates = {"learning_rate": 0.1, "distillation_rate": 0.1}
    agent = table_agent(tasks=tasks, rows=rows, alpha=alpha, beta=beta, gamma=0.9, **rates)
    h, q_values = rng.normal(size=(STATES, ACTIONS)), rng.normal(size=(tasks, STATES, ACTIONS))
    write(agent, h, q_values)
    age = np.full(rows, -1)
    for _ in range(3):
        states, action = (rng.integers(0, n, (time + 1, rows)) for n in (STATES, ACTIONS))
        reward, (ended, cut) = rng.normal(size=(time, rows)), rng.random((2, time, rows)) < 0.2
        cut &= ~ended
        where = cut.nonzero()
        seen_last = rng.integers(0, STATES, len(where[0]))
        start = rng.random((time, rows)) < 0.2
        indices = [torch.from_numpy(index) for index in where]
        agent.learn(
            rollout_of(
                states[:-1],
                action[:-1],
                reward,
                last=states[-1],
                tasks=tasks,
                terminated=ended,
                truncated=cut,
                start=start,
                final_obs=TruncatedObservations(*indices, one_hot(seen_last)),
            )
        )

        following = states[1:].copy()
        following[where] = seen_last
        for step in reversed(range(time)):
            _, value, _ = policies(h, q_values, alpha, beta)
            errors: dict[tuple[int, int, int], list[float]] = {}
            for row in range(rows):
                key = row // (rows // tasks), states[step, row], action[step, row]
                bootstrap = 0.9 * value[key[0], following[step, row]] * (not ended[step, row])
                errors.setdefault(key, []).append(reward[step, row] + bootstrap - q_values[key])
            for key, found in errors.items():
                # Of environments that did the same in the same state, the mean.
                q_values[key] += 0.1 * np.mean(found)
        prior, _, own = policies(h, q_values, alpha, beta)
        h = h.copy()
        for step in range(time):
            age = np.where(start[step], 0, age + 1)
            for row in range(rows):
                state = states[step, row]
                apart = own[row // (rows // tasks), state] - prior[state]
                h[state] += 0.1 * 0.9 ** age[row] * apart
        # Tolerance: float32.
        np.testing.assert_allclose(read(agent)[1], q_values, atol=1e-5)
        np.testing.assert_allclose(read(agent)[0], h, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_without_rewards_the_first_table_is_a_fixed_point(alpha: float) -> None:
    agent = table_agent(alpha=alpha, beta=3.0, gamma=0.9)
    # (1 - alpha) log 4 nats for ever: 0.9 * (1 - alpha) * log 4 / (1 - 0.9), in units of 1 / beta.
    expected = 9 * (1 - alpha) * math.log(ACTIONS) / 3.0
    np.testing.assert_allclose(read(agent)[1], expected, rtol=1e-6)
    told = agent.learn(rollout_of([[0], [1]], [[2], [3]], [[0.0], [0.0]], last=[2]))
    assert told["td_error"] == pytest.approx(0.0, abs=1e-5)
    assert told["kl/task-0"] == pytest.approx(0.0, abs=1e-5)
    np.testing.assert_allclose(read(agent)[1], expected, rtol=1e-5)


def test_logged_figures_are_in_rewards_and_nats() -> None:
    # Q = 0 and a reward of 3 at the end: an error of 3, whatever beta is.
    agent = table_agent(beta=7.0, learning_rate=0.0)
    rng = np.random.default_rng(0)
    h = rng.normal(size=(STATES, ACTIONS))
    write(agent, h, np.zeros((1, STATES, ACTIONS)))
    rollout = rollout_of([[0]], [[1]], [[3.0]], last=[0], terminated=[[True]])
    told = agent.learn(rollout)
    assert told["td_error"] == pytest.approx(3.0)
    assert told["kl/task-0"] == pytest.approx(0.0, abs=1e-6)
    q_values = rng.normal(size=(1, STATES, ACTIONS)) / 7
    write(agent, h, q_values)
    prior, _, own = policies(h, q_values, 1.0, 7.0)
    kl = (own[0, 0] * np.log(own[0, 0] / prior[0])).sum()
    # h has moved in the first call by nothing, as pi_1 was pi_0.
    assert agent.learn(rollout)["kl/task-0"] == pytest.approx(kl, abs=1e-5)


@pytest.mark.parametrize(("exploration", "other"), [(0.0, 0.0), (0.4, 0.3), (1.0, 0.75)])
def test_a_share_of_actions_is_random(exploration: float, other: float) -> None:
    # The policy takes action 0; a random one is another in three of four cases.
    agent = table_agent(rows=4_000, exploration=exploration)
    q_values = np.zeros((1, STATES, ACTIONS))
    q_values[..., 0] = 100.0
    write(agent, np.zeros((STATES, ACTIONS)), q_values)
    task, empty = torch.zeros(4_000, dtype=torch.int64), torch.zeros(4_000, 0)
    action = agent.act(one_hot([0] * 4_000), task, empty, torch.ones(4_000))["action"]
    # Of 4,000 draws the mean's deviation is below 0.008.
    assert float((action > 0).float().mean()) == pytest.approx(other, abs=0.04 * (other > 0))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_huge_rewards_stay_finite(alpha: float) -> None:
    # exp(beta Q) = exp(1e6) is far beyond float32.
    agent = table_agent(alpha=alpha, beta=100.0, learning_rate=1.0)
    for _ in range(50):
        agent.learn(rollout_of([[0], [1]], [[2], [3]], [[1e4], [-1e4]], last=[2]))
    h, q_values = read(agent)
    assert np.isfinite(h).all()
    assert q_values[0, 0, 2] > 9e3
    # Tolerance: float32 of numbers of 1e6 is to 0.06, over beta.
    assert q_values[0, 1, 3] == pytest.approx(-1e4, rel=1e-3)


# What reaches whom.


@pytest.mark.parametrize(("alpha", "coupled"), [(0.0, False), (0.5, True)])
def test_without_alpha_no_task_reaches_another(alpha: float, coupled: bool, tmp_path: Path) -> None:
    tables = []
    for factor in (1.0, -30.0):
        method = SoftQ(num_envs=4, alpha=alpha)
        suite = Suite.of(TASK, SHORT_TASK)
        run = Run("soft-q", method, suite, RunOptions(device="cpu"), tmp_path / "run", quiet=True)
        for _ in range(5):
            rollout = run.engine.collect(run.agent, 10)
            rollout.reward[:, 4:] *= factor
            run.agent.learn(rollout)
        run.engine.close()
        assert isinstance(run.agent, SoftQAgent)
        tables.append(read(run.agent)[1])
    assert (tables[0][1] != tables[1][1]).any()
    # Bit for bit: both runs are the same operations on numbers that are the same for this task.
    assert (tables[0][0] != tables[1][0]).any() == coupled


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha": 1.5}, "alpha is 1.5: it must be from 0 to 1"),
        ({"beta": -1.0}, "beta is -1.0: it must be finite and above 0"),
        ({"gamma": 1.0}, "gamma is 1.0: it must be at least 0 and below 1"),
        ({"learning_rate": 1.5}, "learning_rate is 1.5: it must be from 0 to 1"),
        ({"exploration": -0.1}, "exploration is -0.1: it must be from 0 to 1"),
        ({"distillation_rate": -1.0}, "distillation_rate is -1.0: it must be finite and at least"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(rt.InputError, match=words):
        SoftQ(**options)


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(rt.InputError, match="soft-q runs in one process"):
        table_agent()


def test_continuous_actions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(rt.InputError, match=r"soft-q needs discrete actions.*Pendulum.*distral"):
        Run("soft-q", SoftQ(), Suite.of("Pendulum-v1"), RunOptions(), tmp_path / "run")


# Rooms.


def planner_of(goal: int) -> ExactPlanner:
    rooms = {"room": ROOMS["room"], "corridor": ROOMS["corridor"]}
    return ExactPlanner(make_rules(make_layout("two-rooms", {**rooms, "goal": goal})))


def test_converges_to_soft_value_iteration(tmp_path: Path) -> None:
    # A prior that is not uniform and stays as it is; all that is done is random.
    method = SoftQ(
        num_envs=32, alpha=0.5, beta=3.0, gamma=0.8, learning_rate=0.5, distillation_rate=0.0,
        exploration=1.0,
    )  # fmt: skip
    suite = two_rooms(1, time_limit=20, **ROOMS)
    run = Run("soft-q", method, suite, RunOptions(device="cpu"), tmp_path / "run", quiet=True)
    agent = run.agent
    assert isinstance(agent, SoftQAgent)
    agent.policy.action_head.weight.data.normal_(generator=agent.generator)
    tried = torch.zeros_like(agent.policy.action_head.weight.data.T)
    for step in range(200):
        # Large steps to get there, small ones to average over the places after a goal.
        agent.method = replace(method, learning_rate=0.5 if step < 80 else 0.05)
        rollout = run.engine.collect(agent, 10)
        done = torch.nn.functional.one_hot(rollout.extras["action"], ACTIONS).float()
        tried += torch.einsum("tns,tna->sa", rollout.observation["policy"], done)
        agent.learn(rollout)
    run.engine.close()
    h, found = read(agent)
    log_prior = np.log(np.exp(h) / np.exp(h).sum(-1, keepdims=True))
    expected = planner_of(0).soft_values(log_prior, 0.5, 3.0, 0.8)
    often = (tried > 60).numpy()
    assert often.sum() > 100
    # The values' own deviation is 0.4; what is left is the noise of where a goal leads to.
    error = np.abs(found[0] - expected)[often]
    assert error.max() < 0.2
    assert error.mean() < 0.03


def test_a_run_that_is_gone_on_with_equals_an_unbroken_one(tmp_path: Path) -> None:
    # The time limit is no multiple of the rollout_length: episodes' ages are carried over.
    suite = two_rooms(2, time_limit=33, **ROOMS)
    asked = (
        "soft-q",
        SoftQ(),
        suite,
        RunOptions(total_steps=1_000, device="cpu"),
        tmp_path / "run",
        True,
    )
    unbroken, resumed = Run(*asked), Run(*asked)
    unbroken.begin(resume=False)
    for iteration in range(8):
        if iteration == 4:
            unbroken.save()
        unbroken.iterate()
    resumed.restore()
    for _ in range(4):
        resumed.iterate()
    tables = [run.agent.policy.state_dict() for run in (unbroken, resumed)]
    assert tables[0]["action_head.weight"].any()
    assert all(torch.equal(tables[0][name], tables[1][name]) for name in tables[0])
    unbroken.engine.close()
    resumed.engine.close()


def test_learns_two_rooms_and_distils_them(tmp_path: Path) -> None:
    run = rt.train(
        SoftQ(num_envs=4, beta=10.0),
        suite=two_rooms(2, time_limit=40, **ROOMS),
        total_steps=20_000,
        run_dir=tmp_path / "run",
        episodes=1,
        evaluate_episodes=0,
        quiet=True,
    )
    assert isinstance(run.agent, SoftQAgent)
    for goal in range(2):
        planner = planner_of(goal)
        task = torch.full((planner.num_states,), goal)
        both = run.agent.policy.both({"policy": torch.eye(planner.num_states)}, task)
        distilled, own = (
            planner.policy_return(one.log_probs().exp().detach().double().numpy(), 40)
            for one in both
        )
        # Random actions reach 0.08 of the best.
        assert own > 0.7 * planner.optimal_return(40)
        assert distilled > 0.3 * planner.optimal_return(40)


# New tasks.


def trained(folder: Path, **options: Any) -> Path:
    """Learns a small pair of rooms for a moment and returns the run's folder."""
    rt.train(
        SoftQ(**options),
        suite=two_rooms(2, **ROOMS),
        run_dir=folder,
        total_steps=2_000,
        episodes=1,
        evaluate_episodes=0,
        quiet=True,
        threads=1,
    )
    return folder


def test_new_tasks_begin_with_what_others_distilled(tmp_path: Path) -> None:
    known = trained(tmp_path / "known", distillation_rate=0.2)
    distilled = load_run_policy(known).action_head.weight
    assert distilled.abs().max() > 0.1
    new = trained(tmp_path / "new", distilled=str(known), distillation_rate=0.0)
    torch.testing.assert_close(load_run_policy(new).action_head.weight, distilled)


def test_only_a_fitting_run_of_distral_has_something_to_begin_with(tmp_path: Path) -> None:
    with pytest.raises(rt.InputError, match="nowhere"):
        trained(tmp_path / "a", distilled=str(tmp_path / "nowhere"))
    ppo = tmp_path / "ppo"
    rt.train(
        PPO(num_envs=2, rollout_length=4, batch_size=8),
        suite=two_rooms(2, **ROOMS),
        run_dir=ppo,
        total_steps=8,
        episodes=1,
        evaluate_episodes=0,
        quiet=True,
        threads=1,
    )
    with pytest.raises(rt.InputError, match="does not contain a distilled policy"):
        trained(tmp_path / "b", distilled=str(ppo))
    smaller = two_rooms(2, **{**ROOMS, "corridor": 2})
    known = trained(tmp_path / "known")
    with pytest.raises(rt.InputError, match="has the observation space"):
        rt.train(SoftQ(distilled=str(known)), suite=smaller, run_dir=tmp_path / "c", total_steps=8)
