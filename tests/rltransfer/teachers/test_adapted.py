"""Adapted teachers: other observations, other actions, by numbers worked by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from fitting import fitted_teacher, spaces_of
from gymnasium import spaces
from stable_baselines3 import DQN, SAC

import rltransfer as rt
from rltransfer.policies.output import MASKED, PolicyOutput
from rltransfer.teachers.teacher import Teacher

CPU = torch.device("cpu")
CARTPOLE = rt.Suite.of("CartPole-v1")
FIRST = torch.zeros(1, dtype=torch.int64)


def says(**fields: list[float]) -> rt.CallableTeacher:
    return rt.CallableTeacher(
        lambda o, t: PolicyOutput(**{n: torch.tensor([v]) for n, v in fields.items()})
    )


def sees(group: str = "policy") -> rt.CallableTeacher:
    """A teacher whose logits are what it sees."""
    return rt.CallableTeacher(lambda o, t: PolicyOutput(logits=o[group].flatten(1).float()))


def label(teacher: Teacher, **groups: torch.Tensor) -> PolicyOutput:
    return teacher(groups or {"policy": torch.zeros(1, 4)}, FIRST)


def fit(teacher: Teacher, observed: spaces.Space, acted: spaces.Space) -> Teacher:
    observed = observed if isinstance(observed, spaces.Dict) else spaces.Dict({"policy": observed})
    return teacher.fitted(spaces_of(CARTPOLE, [(observed, acted)]))


VECTOR = spaces.Box(-1, 1, (4,), np.float32)


def test_probabilities_of_actions_that_are_one_add() -> None:
    # 0.1, 0.2, 0.3, 0.4: the task's action 0 is the first and the last, 2 the two between.
    teacher = says(logits=[math.log(p) for p in (0.1, 0.2, 0.3, 0.4)])
    adapted = fit(rt.Adapted(teacher, action=(0, 2, 2, 0)), VECTOR, spaces.Discrete(4))
    output = label(adapted)
    assert output.logits.softmax(-1)[0].tolist() == pytest.approx([0.5, 0, 0.5, 0])
    # What no action of the teacher's is, is illegal.
    assert output.logits[0, [1, 3]].tolist() == [MASKED, MASKED]


def test_of_q_values_the_largest_counts() -> None:
    teacher = says(q_values=[1.0, 5.0, 3.0])
    adapted = fit(rt.Adapted(teacher, action=(1, 0, 1)), VECTOR, spaces.Discrete(3))
    assert label(adapted).q_values.tolist() == [[5.0, 3.0, MASKED]]


def test_a_permutation_moves_the_bits() -> None:
    teacher = says(logits=[0.1, -2.7, MASKED])
    # The teacher's action 0 is the task's 2, 1 is 0, 2 is 1.
    found = label(rt.Adapted(teacher, action=(2, 0, 1))).logits
    assert torch.equal(found, torch.tensor([[-2.7, MASKED, 0.1]]))
    # There and back again.
    again = label(rt.Adapted(rt.Adapted(teacher, action=(2, 0, 1)), action=(1, 2, 0))).logits
    assert torch.equal(again, label(teacher).logits)
    # An illegal action adds nothing to the one that it is.
    assert label(rt.Adapted(teacher, action=(0, 1, 1))).logits.tolist() == [
        pytest.approx([0.1, -2.7])
    ]


def test_continuous_actions_in_another_order() -> None:
    teacher = says(mean=[1.0, 2.0, 3.0], log_std=[-1.0, -2.0, -3.0])
    output = label(rt.Adapted(teacher, action=(2, 0, 1)))
    assert output.mean.tolist() == [[2.0, 3.0, 1.0]]
    assert output.log_std.tolist() == [[-2.0, -3.0, -1.0]]


class Bounded(rt.CallableTeacher):
    """A Gaussian teacher whose first dimension is in [-1, 1], and its second in [0, 4]."""

    def __init__(self) -> None:
        super().__init__(says(mean=[0.5, 3.0], log_std=[-1.0, -2.0]).function)

    def bounds_in(self, task: rt.Task) -> spaces.Box:
        return spaces.Box(np.array([-1, 0], np.float32), np.array([1, 4], np.float32))


def test_continuous_actions_in_another_order_and_scaled() -> None:
    acted = spaces.Box(np.array([-2, -6], np.float32), np.array([2, 6], np.float32))
    output = label(fit(rt.Adapted(Bounded(), action=(1, 0), bounds="scale"), VECTOR, acted))
    # Its second dimension, [0, 4], is the task's first, [-2, 2]; its first, [-1, 1], [-6, 6].
    assert output.mean.tolist() == [[1.0, 3.0]]
    assert output.log_std.tolist() == [pytest.approx([-2.0, -1.0 + math.log(6.0)])]


def test_channels_and_entries_are_picked() -> None:
    adapted = rt.Adapted(sees(), observation=(3, 0))
    assert label(adapted, policy=torch.tensor([[5.0, 6.0, 7.0, 8.0]])).logits.tolist() == [[8, 5]]
    image = torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2)
    found = label(rt.Adapted(sees(), observation=[2, 1]), policy=image).logits
    assert found.tolist() == [[8, 9, 10, 11, 4, 5, 6, 7]]


def test_groups_are_named() -> None:
    adapted = rt.Adapted(sees(), observation={"policy": "privileged"})
    groups = {"policy": torch.zeros(1, 2), "privileged": torch.ones(1, 3)}
    assert label(adapted, **groups).logits.tolist() == [[1, 1, 1]]
    # From the outside in: the group's name, then its entries.
    both = rt.Adapted(rt.Adapted(sees(), observation=(1,)), observation={"policy": "privileged"})
    assert label(both, **groups).logits.tolist() == [[1]]


def test_a_function_sees_what_the_task_shows_without_padding() -> None:
    def doubled(observation: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        assert observation["policy"].shape[1:] == (4,)
        return {"policy": 2 * observation["policy"][:, :3]}

    adapted = fit(rt.Adapted(sees(), observation=doubled), VECTOR, spaces.Discrete(3))
    # The task's four entries, padded to six.
    seen = torch.tensor([[1.0, 2.0, 3.0, 4.0, 0.0, 0.0]])
    assert label(adapted, policy=seen).logits.tolist() == [[2, 4, 6]]
    assert not adapted.loadable
    assert "the function doubled" in str(adapted)


def test_a_zip_of_another_task_plays(tmp_path: Path) -> None:
    path = tmp_path / "dqn.zip"
    DQN("MlpPolicy", "CartPole-v1", device="cpu", buffer_size=100).save(path)
    alone = fitted_teacher(rt.load_teacher(path), CARTPOLE, CPU)
    # The same zip behind a task whose entries and actions stand the other way round.
    mirrored = rt.Adapted(rt.load_teacher(path), observation=(3, 2, 1, 0), action=(1, 0))
    fitted = fitted_teacher(mirrored, CARTPOLE, CPU)
    seen, task = torch.randn(6, 4), torch.zeros(6, dtype=torch.int64)
    expected = alone({"policy": seen}, task).q_values
    assert torch.equal(fitted({"policy": seen.flip(1)}, task).q_values, expected.flip(1))
    # Acrobot shows six entries and has three actions: the zip sees four and takes two of them.
    acrobot = rt.Suite.of("Acrobot-v1")
    adapted = rt.Adapted(rt.load_teacher(path), observation=(0, 1, 2, 3), action=(0, 2))
    output = fitted_teacher(adapted, acrobot, CPU)({"policy": torch.randn(6, 6)}, task)
    assert output.q_values.shape == (6, 3)
    assert (output.q_values[:, 1] == MASKED).all()
    cropped = rt.Adapted(rt.load_teacher(path), lambda o: {"policy": o["policy"][:, :4]}, (0, 2))
    fitted_teacher(cropped, acrobot, CPU)
    # As it is, it does not fit.
    with pytest.raises(rt.InputError, match=r"observes float32\[4\].* shows float32\[6\]"):
        fitted_teacher(rt.Adapted(rt.load_teacher(path), action=(0, 2)), acrobot, CPU)
    with pytest.raises(rt.InputError, match=r"acts in Discrete\(2\), .* takes Discrete\(3\)"):
        fitted_teacher(rt.Adapted(rt.load_teacher(path), (0, 1, 2, 3)), acrobot, CPU)


def test_the_bounds_of_continuous_actions_go_with_them(tmp_path: Path) -> None:
    path = tmp_path / "sac.zip"
    SAC("MlpPolicy", "Pendulum-v1", device="cpu", buffer_size=100).save(path)
    teacher = rt.Adapted(rt.load_teacher(path), action=(0,))
    fitted = fitted_teacher(teacher, rt.Suite.of("Pendulum-v1"), CPU)
    output = fitted({"policy": torch.randn(64, 3)}, torch.zeros(64, dtype=torch.int64))
    assert output.mean.shape == (64, 1) and output.mean.abs().max() <= 2


def test_of_several_tasks_each_row_is_its_own() -> None:
    suite = rt.Suite.of("CartPole-v1", "Acrobot-v1")
    each = rt.PerTask(
        {
            "CartPole-v1": rt.Adapted(sees(), observation=(3, 0)),
            "Acrobot-v1": rt.Adapted(sees(), observation=(5, 4, 3), action=(2, 1, 0)),
        }
    )
    seen = torch.arange(12.0).view(2, 6)
    found = fitted_teacher(each, suite, CPU)({"policy": seen}, torch.tensor([0, 1])).logits
    assert found.tolist() == [[3, 0, MASKED], [9, 10, 11]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"observation": ()}, "observation of Adapted is"),
        ({"observation": (0, -1)}, "integers from 0"),
        ({"observation": "policy"}, "integers from 0"),
        ({"action": (0.5,)}, "action of Adapted is"),
        ({"action": {0: 1, 1: 0}}, "action of Adapted is"),
        ({"action": {0, 1}}, "action of Adapted is"),
        ({"action": 1}, "action of Adapted is 1"),
    ],
)
def test_refusals(options: dict, words: str) -> None:
    with pytest.raises(rt.InputError, match=words):
        rt.Adapted(sees(), **options)


def test_what_a_function_may_not_show_and_a_teacher_not_say() -> None:
    shows = rt.Adapted(sees(), observation=lambda observation: observation["policy"])
    with pytest.raises(rt.InputError, match="Adapted returned a Tensor: it must return the groups"):
        fit(shows, VECTOR, spaces.Discrete(3))
    few = rt.CallableTeacher(lambda o, t: rt.PolicyOutput(logits=torch.zeros(len(t), 1)))
    with pytest.raises(rt.InputError, match="maps 2 actions of a function, but it has 1"):
        label(fit(rt.Adapted(few, action=(0, 1)), VECTOR, spaces.Discrete(2)))


@pytest.mark.parametrize(
    ("options", "acted", "words"),
    [
        ({"observation": (0, 4)}, spaces.Discrete(2), "shows Box"),
        ({"observation": {"policy": "other"}}, spaces.Discrete(2), "shows only 'policy'"),
        ({"action": (0, 2)}, spaces.Discrete(2), "has only 2"),
        ({"action": (0, 0)}, spaces.Box(-1, 1, (2,)), "has 2: name each of them once"),
        ({"action": (0,)}, spaces.Box(-1, 1, (2,)), "name each of them once"),
    ],
)
def test_what_does_not_fit_a_task(options: dict, acted: spaces.Space, words: str) -> None:
    with pytest.raises(rt.InputError, match=words):
        fit(rt.Adapted(sees(), **options), VECTOR, acted)
