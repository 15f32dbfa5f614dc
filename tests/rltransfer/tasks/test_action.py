"""Actions of tasks that differ: padded, masked, and what is padded reaches nobody."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fitting import spaces_of
from gymnasium import spaces
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import rltransfer as rt
from rltransfer.agents.policy_distillation import _agreement_metrics, _half_ranges
from rltransfer.files.checkpoint import newest_checkpoint
from rltransfer.policies.network import Network
from rltransfer.policies.output import PolicyOutput
from rltransfer.policies.policy import LOG_STD_RANGE, Policy, PolicySpec
from rltransfer.policies.saving import load_policy
from rltransfer.rollouts.actors import RandomActor
from rltransfer.rollouts.engine import RolloutEngine
from rltransfer.rollouts.evaluation import evaluate_policy
from rltransfer.runs.benchmark import benchmark_rollout
from rltransfer.runs.stopwatch import Measuring
from rltransfer.tasks.action import action_mask, action_size, joint_action_space
from rltransfer.tasks.observation import Observation
from rltransfer.tasks.suite_spaces import check_actions
from rltransfer.teachers.callable_teacher import CallableTeacher
from rltransfer.teachers.composition import labels_of
from rltransfer.teachers.labeller import Labeller

CPU = torch.device("cpu")
PENDULUM, LANDER = "Pendulum-v1", rt.Task("LunarLander-v3", {"continuous": True})
TWO = rt.Suite.of(PENDULUM, LANDER)
"""Tasks of 3 observations and 1 number from -2 to 2, and of 8 observations and 2 from -1 to 1."""
BOTH = spaces.Box(np.float32([-2, -1]), np.float32([2, 1]))
MASK = ((True, False), (True, True))
TASK = torch.tensor([0, 1, 1])

ONE, PAIR = spaces.Box(-2, 2, (1,), np.float32), spaces.Box(-1, 1, (2,), np.float32)


def policy(**more: Any) -> Policy:
    """Returns a policy whose log standard deviations are 0.3 and -0.4."""
    seen = spaces.Dict(policy=spaces.Box(-9, 9, (3,), np.float32))
    torch.manual_seed(0)
    made = Policy(PolicySpec(Network(**more), seen, BOTH, MASK, num_tasks=2))
    torch.nn.init.orthogonal_(made.action_head.weight)
    assert made.log_std is not None
    with torch.no_grad():
        made.log_std.copy_(torch.tensor([0.3, -0.4]))
    return made


def observed(rows: int = 3) -> Observation:
    return {"policy": torch.randn(rows, 3, generator=torch.Generator().manual_seed(1))}


def test_the_joint_space_holds_every_task() -> None:
    joint = joint_action_space([("a", ONE), ("b", PAIR)])
    assert joint == BOTH and joint_action_space([("b", PAIR), ("a", ONE)]) == BOTH
    assert action_mask(joint, [ONE, PAIR]) == MASK
    assert action_mask(PAIR, [PAIR, PAIR]) is None
    assert joint_action_space([("a", ONE)]) == ONE
    # Without bounds in one task there are none.
    free = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    assert np.isinf(joint_action_space([("a", ONE), ("free", free)]).low).all()  # type: ignore[attr-defined]
    three, five = spaces.Discrete(3), spaces.Discrete(5)
    assert joint_action_space([("a", three), ("b", five)]) == five
    assert action_mask(five, [three]) == ((True, True, True, False, False),)
    assert [action_size(space) for space in (three, ONE, PAIR)] == [3, 1, 2]


@pytest.mark.parametrize(
    ("own", "known", "legal", "sentence"),
    [
        (PAIR, ONE, None, r"Box\(1\), the task's Box\(2\)"),
        (ONE, PAIR, None, r"Box\(2\), the task's Box\(1\)"),
        (PAIR, BOTH, MASK[0], r"Box\(1\), the task's Box\(2\)"),
        (spaces.Discrete(3), spaces.Discrete(5), None, r"Discrete\(5\), the task's Discrete\(3\)"),
        (ONE, spaces.Discrete(1), None, r"Discrete\(1\), the task's Box\(1\)"),
    ],
)
def test_a_policy_of_other_actions_is_refused(
    own: Any, known: Any, legal: tuple[bool, ...] | None, sentence: str
) -> None:
    with pytest.raises(
        rt.InputError, match=f"does not fit the task 'a': its actions are {sentence}"
    ):
        check_actions("The policy", known, legal, "a", own)


def test_a_policy_of_the_same_actions_fits() -> None:
    check_actions("The policy", BOTH, MASK[0], "a", ONE)
    check_actions("The policy", BOTH, MASK[1], "b", PAIR)
    check_actions("The policy", PAIR, None, "b", PAIR)
    # Bounds are the environment's own affair.
    check_actions("The policy", BOTH, None, "b", PAIR)


@pytest.mark.parametrize("heads", ["shared", "per-task"])
def test_a_gaussian_is_over_the_numbers_of_its_task(heads: str) -> None:
    output = policy(heads=heads)(observed(), TASK)
    assert output.padding_mask is not None and output.padding_mask.tolist() == [
        [False, True],
        *[[False] * 2] * 2,
    ]
    mean, log_std = output.mean, output.log_std
    assert mean is not None and log_std is not None
    assert mean[0, 1] == log_std[0, 1] == 0 and mean[1:].all()
    # Row 0 against one normal distribution, the others against two.
    dists = [Normal(mean[0, :1], log_std[0, :1].exp()), *map(Normal, mean[1:], log_std[1:].exp())]
    action = torch.tensor([[0.7, 123.0], [0.2, -0.3], [-1.0, 0.5]])
    density = [d.log_prob(a[: len(d.mean)]).sum() for d, a in zip(dists, action, strict=True)]
    torch.testing.assert_close(output.log_prob(action), torch.stack(density))
    torch.testing.assert_close(
        output.entropy(), torch.stack([one.entropy().sum() for one in dists])
    )
    drawn = output.sample(torch.Generator().manual_seed(0))
    assert drawn[0, 1] == 0 and (drawn != mean)[~output.padding_mask].all()


def test_absent_numbers_have_no_gradient() -> None:
    student = policy(heads="per-task")
    output = student(observed(), TASK)
    action = torch.full((3, 2), 5.0)
    (output.log_prob(action).sum() + output.entropy().sum() + output.mean.square().sum()).backward()
    weight = student.action_head.weight.grad
    assert weight is not None and student.log_std is not None
    # Heads of two outputs for each task: the first task's second output is nobody's.
    assert weight[0].any() and not weight[1].any() and weight[2:].any(1).all()
    assert student.log_std.grad is not None
    assert student.log_std.grad[0, 1] == 0 and student.log_std.grad[0, 0] != 0


def said(observation: Observation, task: Tensor) -> PolicyOutput:
    """Returns what a teacher of one number says."""
    mean = observation["policy"][:, :1]
    return PolicyOutput(mean=mean, log_std=torch.full_like(mean, -1.0))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("text", ["KL", "ReverseKL"])
def test_divergences_leave_out_what_the_task_does_not_have(text: str, temperature: float) -> None:
    student = policy()
    labeller = Labeller(CallableTeacher(said), (), ("policy",), torch.tensor(MASK))
    task = torch.zeros(3, dtype=torch.int64)
    label, output = labeller(observed(), task), student(observed(), task)
    assert label.mean is not None and label.mean.shape == (3, 2)
    objective = rt.Objective.of(f"{text}(temperature={temperature})")
    fitted = objective.fitted(output, label, ("a", "b"))
    (found,) = fitted(output, label, task).values()
    # The same for torch, over the one number; the temperature multiplies the teacher's variance.
    teacher = Normal(label.mean[:, 0], math.exp(-1) * math.sqrt(temperature))
    own = Normal(output.mean[:, 0], output.log_std[:, 0].exp())
    pair = (teacher, own) if text == "KL" else (own, teacher)
    torch.testing.assert_close(found, kl_divergence(*pair).mean())


@pytest.mark.parametrize("text", ["KL", "ReverseKL", "MSE", "Huber", "NLL"])
def test_what_a_teacher_says_of_absent_numbers_changes_nothing(text: str) -> None:
    student, task = policy(), torch.zeros(3, dtype=torch.int64)
    values = []
    for beyond in (0.0, 7.0):

        def more(observation: Observation, task: Tensor, beyond: float = beyond) -> PolicyOutput:
            one = said(observation, task)
            assert one.mean is not None and one.log_std is not None
            rest = torch.full_like(one.mean, beyond)
            return PolicyOutput(
                mean=torch.cat([one.mean, rest], 1), log_std=torch.cat([one.log_std, -rest], 1)
            )

        labeller = Labeller(CallableTeacher(more), (), ("policy",), torch.tensor(MASK))
        label, output = labeller(observed(), task), student(observed(), task)
        fitted = rt.Objective.of(f"{text}()").fitted(output, label, ("a", "b"))
        (value,) = fitted(output, label, task).values()
        values.append(value.item())
        # The mean is over the numbers that there are.
        error = (output.mean - label.mean)[:, 0].abs().mean()
        torch.testing.assert_close(_agreement_metrics(output, label)["action_error"], error)
    assert values[0] == values[1] != 0


def test_the_gradient_by_observations_is_of_a_number_that_there_is() -> None:
    # Numbers below 0 are smaller than the 0 of the one that is absent.
    def below(observation: Observation, task: Tensor) -> PolicyOutput:
        return PolicyOutput(mean=-(observation["policy"][:, :1].square() + 1))

    labeller = Labeller(CallableTeacher(below), ("jacobian",), ("policy",), torch.tensor(MASK))
    seen, task = observed(), torch.zeros(3, dtype=torch.int64)
    label = labeller(seen, task)
    assert label.jacobian is not None
    torch.testing.assert_close(label.jacobian[:, 0], -2 * seen["policy"][:, 0])
    answered = labeller.student_output(lambda given: policy()(given, task), seen, label)
    assert answered.jacobian is not None and answered.jacobian.any(1).all()


def test_shorter_actions_are_padded_with_zeros() -> None:
    short = PolicyOutput(mean=torch.ones(2, 1), log_std=torch.ones(2, 1))
    long = PolicyOutput(mean=torch.ones(2, 2), log_std=torch.ones(2, 2))
    padded = labels_of([short, long])
    for name in ("mean", "log_std"):
        assert padded[name][0].tolist() == [[1, 0]] * 2 and padded[name][1].tolist() == [[1, 1]] * 2


def test_noise_has_the_size_of_each_tasks_own_bounds() -> None:
    free = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    assert _half_ranges([ONE, PAIR, free], CPU).tolist() == [[2, 0], [1, 1], [1, 1]]
    # Over discrete actions there is no noise.
    assert not _half_ranges([spaces.Discrete(3)], CPU).any()


class Constant:
    """Does the same all the time."""

    state_size = 0
    graph_key = None
    generators = ()

    def act(self, observation: Any, task: Tensor, state: Any, start: Any) -> dict[str, Tensor]:
        return {"action": torch.tensor([[1.5, 9.0], [0.25, -0.5]])[task]}


def test_each_environment_is_sent_its_own_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = RolloutEngine(TWO, 3, CPU, seed=0)
    assert engine.spaces.action_space == BOTH and engine.spaces.action_mask == MASK
    assert engine.spaces.action_sizes == (1, 2)
    sent: list[Tensor] = []
    for env_slice in engine.env_slices:

        def send(action: Tensor, send: Callable[[Tensor], None] = env_slice.env.send) -> None:
            sent.append(action)
            send(action)

        monkeypatch.setattr(env_slice.env, "send", send)
    engine.collect(Constant(), 1)
    rows = [row for actions in sent for row in actions.tolist()]
    assert sorted(rows) == [[0.25, -0.5]] * 3 + [[1.5]] * 3
    # A policy that was trained on both acts in one of them.
    alone = RolloutEngine(
        rt.Suite.of(PENDULUM),
        3,
        CPU,
        seed=0,
        pad=lambda own: own.padded_to(engine.spaces.observation_space, BOTH),
    )
    assert alone.collect(Constant(), 8).reward.isfinite().all()


def test_random_actions_are_each_tasks_own() -> None:
    task = torch.tensor([0, 1, 2]).repeat(1000)
    free = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def drawn(*own: spaces.Space[Any]) -> Tensor:
        suite, seen = rt.Suite.of(*map(str, range(len(own)))), spaces.Dict(policy=PAIR)
        joint = spaces_of(suite, [(seen, acted) for acted in own])
        actor = RandomActor(joint, torch.Generator().manual_seed(0))
        return actor.act({}, task, task, task)["action"]

    numbers = drawn(ONE, PAIR, free)
    one, pair, normal = (numbers[task == index] for index in range(3))
    assert not one[:, 1].any()
    # Tolerance: four standard errors of a thousand draws, of 1.15, 0.58 and 1.
    assert abs(one[:, 0].std() - 2 / 3**0.5) < 0.1 and one[:, 0].abs().max() <= 2
    assert (abs(pair.std(0) - 1 / 3**0.5) < 0.05).all() and pair.abs().max() <= 1
    assert (abs(normal.std(0) - 1) < 0.1).all() and normal.abs().max() > 2
    counts = drawn(spaces.Discrete(2), spaces.Discrete(3), spaces.Discrete(18))
    for index, size in enumerate((2, 3, 18)):
        assert counts[task == index].unique().tolist() == list(range(size))


def test_benchmarks_step_tasks_of_other_sizes() -> None:
    measuring = Measuring(repeats=1, seconds=0.01)
    for suite in (TWO, rt.Suite.of("CartPole-v1", "Acrobot-v1")):
        found = benchmark_rollout(suite, 2, 4, Network(hidden=(4,)), measuring)
        assert found["together"]["environments_only"]["median"] > 0


def test_a_teacher_that_says_too_little_is_refused() -> None:
    labeller = Labeller(CallableTeacher(said, "short"), (), ("policy",), torch.tensor(MASK))
    with pytest.raises(rt.InputError, match="short outputs 1 of a task's 2 action dimensions"):
        labeller(observed(), TASK)


def test_labels_hold_what_every_task_has() -> None:
    # One task's teacher is Gaussian, the other's is not: neither is, in any label.
    def both(observation: Observation, task: Tensor) -> PolicyOutput:
        mean = observation["policy"][:, :2]
        return PolicyOutput(mean=mean, log_std=None if task.any() else torch.ones_like(mean))

    labeller = Labeller(CallableTeacher(both), (), ("policy",), torch.tensor(MASK))
    assert labeller(observed(), TASK).log_std is None
    assert labeller.fields == ("mean",)
    assert labeller(observed(), torch.zeros(3, dtype=torch.int64)).log_std is None


@pytest.mark.parametrize("text", ["MSE", "Huber"])
def test_errors_leave_out_what_the_task_does_not_have(text: str) -> None:
    padding_mask = torch.tensor([[False, True]])
    student = PolicyOutput(mean=torch.tensor([[1.0, 0.0]]), padding_mask=padding_mask)
    teacher = PolicyOutput(mean=torch.tensor([[1.0, 7.0]]))
    objective = rt.Objective.of(f"{text}()").fitted(student, teacher, ("a",))
    (value,) = objective(student, teacher, torch.zeros(1, dtype=torch.int64)).values()
    assert value == 0
    teacher = PolicyOutput(mean=torch.tensor([[1.0]]))
    with pytest.raises(rt.InputError, match="1-dimensional continuous actions and the student 2-"):
        rt.Objective.of(f"{text}()").fitted(student, teacher, ("a",))(student, teacher, TASK[:1])


@pytest.mark.usefixtures("brief_check")
def test_ppo_and_its_students_in_tasks_of_other_sizes(tmp_path: Path) -> None:
    method = rt.agents.PPO(
        network=Network(heads="per-task", statistics="per-task"), num_envs=4, rollout_length=16,
        batch_size=32,
    )  # fmt: skip
    run = rt.train(
        method,
        suite=TWO,
        total_steps=600,
        run_dir=tmp_path / "run",
        episodes=2,
        evaluate_episodes=0,
        quiet=True,
    )
    assert all(math.isfinite(task["return_mean"]) for task in run.result["tasks"].values())
    learned = load_policy(newest_checkpoint(tmp_path / "run") / "policy")
    assert learned.spec.action_mask == MASK and learned.log_std is not None
    # It never acted with the pendulum's second number, and learned with every other one.
    moved = learned.log_std != 0
    assert moved.tolist() == [[True, False], [True, True]]
    assert LOG_STD_RANGE[0] < learned.log_std.min()

    # What knows one task by other actions is no policy of another.
    with pytest.raises(rt.InputError, match=r"its actions are Box\(1\), the task's Box\(2\)"):
        evaluate_policy(learned, rt.Suite.of(LANDER), 1, seed=0, device=CPU)
    assert evaluate_policy(learned, rt.Suite.of(LANDER), 1, seed=0, device=CPU, first=1)

    # A student of the whole, and of one task alone.
    for suite in (TWO, rt.Suite.of(LANDER), rt.Suite.of(PENDULUM)):
        student = rt.agents.PolicyDistillation(
            teacher=str(tmp_path / "run"), num_envs=4, rollout_length=16, batch_size=32
        )
        run_dir = tmp_path / f"of-{len(suite)}-{suite.names()[0]}"
        taught = rt.train(
            student, suite=suite, total_steps=200, run_dir=run_dir, episodes=2, evaluate_episodes=0,
            quiet=True,
        )  # fmt: skip
        joint = taught.agent.policy.spec.action_space
        assert action_size(joint) == (1 if suite.names() == (PENDULUM,) else 2)
