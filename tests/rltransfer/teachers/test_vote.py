"""Votes: who wins, how often noise decides, what it costs, and that nothing else is handed on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fitting import fitted_teacher
from toy import TASK

import rltransfer as rt
from rltransfer.policies.output import MASKED, PolicyOutput
from rltransfer.policies.scores import LOSING
from rltransfer.rollouts.evaluation import evaluate_teacher, probe_spaces
from rltransfer.teachers.privacy import laplace_epsilon

CPU = torch.device("cpu")
SHARE_TOLERANCE = 0.015
"""Above four standard errors of a share of 20,000 draws."""


def voter(*scores: float, name: str = "logits") -> rt.CallableTeacher:
    """A teacher that says the same of each row."""

    def function(observation: dict[str, torch.Tensor], task: torch.Tensor) -> PolicyOutput:
        table = torch.tensor([scores]).expand(len(task), -1).clone()
        return PolicyOutput(**{name: table}, features=table, value=table[:, 0])

    return rt.CallableTeacher(function)


def label(teacher: rt.Teacher, rows: int = 1) -> PolicyOutput:
    return teacher({"policy": torch.zeros(rows, 4)}, torch.zeros(rows, dtype=torch.int64))


def votes(counts: Sequence[int]) -> list[rt.CallableTeacher]:
    """Voters, so many for each action."""
    eye = np.eye(len(counts)).tolist()
    return [voter(*eye[action]) for action, count in enumerate(counts) for _ in range(count)]


def test_the_majority_wins_as_finite_logits() -> None:
    # Two of three name the last, though the mean probability is the first's.
    teachers = [voter(9.0, 0.0, 0.0), voter(0.0, 0.0, 0.1), voter(0.0, 0.0, 0.1)]
    output = label(rt.Vote(teachers, noise_scale=0.0))
    assert output.logits.tolist() == [[LOSING, LOSING, 0.0]]
    assert output.logits.log_softmax(-1).isfinite().all()
    assert output.logits.softmax(-1).tolist()[0][2] == 1.0
    values = [voter(3.0, 1.0, name="q_values"), voter(1.0, 0.0, name="q_values")]
    assert label(rt.Vote(values, noise_scale=0.0)).logits.tolist() == [[0.0, LOSING]]


def test_policies_and_q_networks_vote_together() -> None:
    # Action 1 is the best of two: of the policy though its logits are small, of the Q-network
    # though another one's logit is larger. The third teacher knows two actions, and no third.
    teachers = [
        voter(0.1, 0.2, 0.0),
        voter(100.0, 200.0, 0.0, name="q_values"),
        voter(300.0, 0.0),
    ]
    output = label(rt.Vote(teachers, noise_scale=0.0))
    assert output.logits.tolist() == [[LOSING, 0.0, LOSING]] and output.q_values is None
    with pytest.raises(rt.InputError, match="those of a function are continuous"):
        label(rt.Vote([*teachers, voter(1.0, name="mean")], noise_scale=0.0))


def one_hot(observation: rt.Observation, task: torch.Tensor) -> PolicyOutput:
    """A teacher that is known by its actions alone: right on the left half, left on the right."""
    right = observation["policy"][:, 0] < 0
    return PolicyOutput(logits=torch.stack([~right, right], -1).float() * 1e4)


def test_the_count_differs_from_row_to_row() -> None:
    teachers = [
        rt.CallableTeacher(one_hot),
        rt.CallableTeacher(lambda seen, _: PolicyOutput(logits=seen["policy"][:, 1:3])),
        rt.CallableTeacher(lambda seen, _: PolicyOutput(q_values=-7 * seen["policy"][:, 1:3])),
        rt.CallableTeacher(lambda seen, _: PolicyOutput(q_values=seen["policy"][:, 2:])),
    ]
    seen = torch.tensor([
        [-1.0, 0.2, 0.1, 0.3],  # 1, 0, 1, 1
        [1.0, 0.2, 0.1, 0.3],  # 0, 0, 1, 1: of a tie, the first wins
        [1.0, 0.1, 0.3, 0.2],  # 0, 1, 0, 0
        [-1.0, 0.1, 0.3, 0.2],  # 1, 1, 0, 0
        [-1.0, 0.1, 0.2, 0.3],  # 1, 1, 0, 1
    ])  # fmt: skip
    output = rt.Vote(teachers, noise_scale=0.0)({"policy": seen}, torch.zeros(5, dtype=torch.int64))
    assert output.greedy().tolist() == [1, 0, 0, 0, 1]


def test_a_student_learns_the_winner_by_kl() -> None:
    output = label(rt.Vote([*votes([1, 2]), voter(0.0, 1.0, MASKED)], noise_scale=0.0))
    target = output.logits.log_softmax(-1)
    guess = torch.tensor([[1.0, 2.0, MASKED]]).log_softmax(-1)
    # -log softmax(1, 2)[1] = log(1 + 1 / e)
    found = F.kl_div(guess, target, reduction="sum", log_target=True)
    assert found.item() == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-5)


def test_noise_decides_as_often_as_it_should() -> None:
    # Two actions, 3 votes ahead, scale 2: the gap is 1.5 scales, and the difference of two Laplace
    # variables is above it with probability (2 + 1.5) / 4 exp(-1.5) = 0.1952.
    output = label(rt.Vote(votes([5, 2]), noise_scale=2.0), 20_000)
    lost = (output.greedy() == 1).float().mean()
    assert lost == pytest.approx(3.5 / 4 * math.exp(-1.5), abs=SHARE_TOLERANCE)
    # Pure noise: each third.
    output = label(rt.Vote(votes([1, 1, 1]), noise_scale=1e6), 20_000)
    shares = torch.bincount(output.greedy(), minlength=3) / 20_000
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), atol=SHARE_TOLERANCE, rtol=0)


def test_noise_elects_no_action_that_is_illegal() -> None:
    pair = [voter(1.0, 0.0, MASKED), voter(0.0, 1.0)]
    output = label(rt.Vote(pair, noise_scale=1e3), 2_000)
    assert set(output.greedy().tolist()) == {0, 1}
    assert (output.logits[:, 2] == MASKED).all()


def test_nothing_of_a_member_is_handed_on() -> None:
    output = label(rt.Vote(votes([2, 1]), noise_scale=1.0))
    there = [name for name, value in vars(output).items() if value is not None]
    assert there == ["logits"]


def test_labels_are_counted_and_cost() -> None:
    teacher = rt.Vote(votes([60, 5]), noise_scale=20.0, delta=1e-6)
    assert teacher.epsilon() == 0 and teacher.epsilon_of_these_votes() == 0
    label(teacher, 30)
    label(teacher, 70)
    assert teacher.num_labels == 100
    # gamma = 0.05: 2 * 0.0025 * 100 + 2 * 0.05 * sqrt(200 * 13.8155)
    assert teacher.epsilon() == pytest.approx(0.5 + 0.1 * math.sqrt(200 * 13.8155), abs=1e-3)
    assert 0 < teacher.epsilon_of_these_votes() < teacher.epsilon()
    assert teacher.figures() == {
        "labels": 100.0,
        "epsilon": teacher.epsilon(),
        "epsilon_of_these_votes": teacher.epsilon_of_these_votes(),
    }
    described = teacher.describe()
    assert described["epsilon_of_a_label"] == 0.1 and described["delta"] == 1e-6
    # What is spent is no part of which teacher it is: a run that goes on is compared by that.
    assert described == rt.Vote(votes([60, 5]), noise_scale=20.0, delta=1e-6).describe()


def test_labels_that_are_gone_back_from_cost_nothing() -> None:
    teacher = rt.Vote(votes([2, 1]), noise_scale=5.0)
    blank = teacher.label_state()
    label(teacher, 5)
    assert not blank["labels"] and not blank["moments"].any()
    teacher.load_label_state(blank)
    assert set(teacher.figures().values()) == {0.0}


def test_a_plain_majority_promises_nothing() -> None:
    teacher = rt.Vote(votes([2, 1]), noise_scale=0.0)
    label(teacher, 5)
    assert teacher.figures() == {"labels": 5.0}
    assert teacher.epsilon() == math.inf
    assert teacher.describe()["epsilon_of_a_label"] is None


def test_a_fitted_teacher_begins_its_own_account() -> None:
    suite = rt.Suite.of(TASK)
    teacher = rt.Vote([voter(1.0, 0.0, 0.0, 0.0)] * 3, noise_scale=5.0)
    label(teacher, 10)
    fitted = fitted_teacher(teacher, suite, CPU)
    assert fitted.figures()["labels"] == 0
    # What an evaluation asks is counted too: a return is published as well.
    fitted_to = probe_spaces(suite, CPU)
    found = evaluate_teacher(fitted, suite, 2, seed=0, device=CPU, num_envs=2, fitted_to=fitted_to)[
        TASK
    ]
    assert fitted.figures()["labels"] >= sum(found.lengths)


def test_accounts_of_several_votes_are_told_apart() -> None:
    suite = rt.Suite.of(TASK, "tests/EchoTruncated-v0")
    one = rt.Vote([voter(1.0, 0.0, 0.0, 0.0)] * 3, noise_scale=5.0)
    each = fitted_teacher(rt.PerTask(dict.fromkeys(suite.names(), one)), suite, CPU)
    each({"policy": torch.zeros(5, 4)}, torch.tensor([0, 0, 1, 1, 1]))
    figures = each.figures()
    assert figures[f"labels/{suite.tasks[0].id}"] == 2
    assert figures["labels/tests/EchoTruncated-v0"] == 3
    assert figures["epsilon/tests/EchoTruncated-v0"] == pytest.approx(laplace_epsilon(3, 5, 1e-5))
    both = rt.Ensemble([one, rt.Noisy(one, sigma=1.0)])
    label(both, 4)
    # One teacher in two places: its labels are those of both.
    assert both.figures()["labels/0"] == both.figures()["labels/1"] == 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "was given no noise_scale: use 0 for a plain majority, or the scale of its noise"),
        ({"noise_scale": -1.0}, "noise_scale of Vote is -1.0"),
        ({"noise_scale": math.inf}, "must be finite"),
        ({"noise_scale": 1.0, "delta": 0.0}, "delta of Vote is 0.0"),
        ({"noise_scale": 1.0, "delta": 1.0}, "below 1"),
    ],
)
def test_refusals(options: dict[str, float], words: str) -> None:
    with pytest.raises(rt.InputError, match=words):
        rt.Vote(votes([1, 1]), **options)


def test_votes_are_between_discrete_actions() -> None:
    with pytest.raises(rt.InputError, match="continuous: use Ensemble"):
        label(rt.Vote([voter(1.0, name="mean")], noise_scale=1.0))
