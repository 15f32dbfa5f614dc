"""Functions as teachers: what they see, which actions count, and what they may not say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fitting import fitted_teacher, spaces_of
from gymnasium import spaces

import rltransfer as rt
from rltransfer.policies.output import MASKED
from rltransfer.rollouts.evaluation import evaluate_teacher
from rltransfer.tasks.observation import Observation

CPU = torch.device("cpu")
CARTPOLE, ACROBOT = "CartPole-v1", "Acrobot-v1"
FIRST = torch.zeros(2, dtype=torch.int64)


def says(**fields: Any) -> rt.CallableTeacher:
    return rt.CallableTeacher(lambda observation, task: rt.PolicyOutput(**fields))


def fit(teacher: rt.Teacher, *acted: spaces.Space[Any]) -> rt.Teacher:
    """Fits a teacher to tasks of two numbers, which do this."""
    seen = spaces.Dict(policy=spaces.Box(-1, 1, (2,)))
    suite = rt.Suite("tasks", tuple(rt.Task("T-v0", {"n": n}) for n in range(len(acted))))
    return teacher.fitted(spaces_of(suite, [(seen, one) for one in acted]))


def test_a_function_sees_what_its_task_shows() -> None:
    shapes = set()

    def balance(observation: Observation, task: torch.Tensor) -> rt.PolicyOutput:
        seen = observation["policy"]
        shapes.add(tuple(seen.shape[1:]))
        # Counted from the end, where a suite would pad.
        right = seen[:, -2] + 0.5 * seen[:, -1]
        return rt.PolicyOutput(logits=torch.stack([-right, right], -1))

    swing = rt.CallableTeacher(lambda o, t: rt.PolicyOutput(logits=o["policy"][:, :3]))
    both = rt.PerTask({CARTPOLE: rt.CallableTeacher(balance), ACROBOT: swing})
    found = evaluate_teacher(both, rt.Suite.of(CARTPOLE, ACROBOT), 2, seed=0, device=CPU)
    assert found[CARTPOLE].mean > 200
    assert shapes == {(4,)}


def test_what_it_does_in_place_reaches_nobody() -> None:
    def function(observation: Observation, task: torch.Tensor) -> rt.PolicyOutput:
        observation["policy"] -= 0.5
        return rt.PolicyOutput(logits=observation["policy"])

    seen = torch.ones(2, 2)
    alone = rt.CallableTeacher(function)
    for teacher in (alone, fit(alone, spaces.Discrete(2))):
        assert teacher({"policy": seen}, FIRST).logits.tolist() == [[0.5, 0.5]] * 2
    assert seen.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("tasks", [(CARTPOLE, ACROBOT), (ACROBOT, CARTPOLE)])
def test_with_several_tasks_it_sees_the_largest(tasks: tuple[str, str]) -> None:
    widths = []

    def function(observation: Observation, task: torch.Tensor) -> rt.PolicyOutput:
        widths.append(observation["policy"].shape[1])
        return rt.PolicyOutput(logits=torch.zeros(len(task), 3))

    teacher = fitted_teacher(rt.CallableTeacher(function), rt.Suite.of(*tasks), CPU)
    teacher({"policy": torch.zeros(2, 9)}, torch.tensor([0, 1]))
    assert widths == [6]


def test_only_actions_of_a_rows_task_count() -> None:
    logits = torch.tensor([[1.0, 2.0, 9.0]]).expand(2, -1)
    both = fit(says(logits=logits), spaces.Discrete(2), spaces.Discrete(3))
    found = both({"policy": torch.zeros(2, 2)}, torch.tensor([0, 1])).logits
    assert found.tolist() == [[1, 2, MASKED], [1, 2, 9]]
    # Masked before every softmax and every vote, not after.
    uneven = says(logits=torch.tensor([[2.0, 1.0, 9.0]]).expand(2, -1))
    sizes = spaces.Discrete(2), spaces.Discrete(3)
    mixed = fit(rt.Ensemble([says(logits=logits), uneven]), *sizes)
    shares = mixed({"policy": torch.zeros(2, 2)}, FIRST).logits.softmax(-1)
    torch.testing.assert_close(shares, torch.tensor([[0.5, 0.5, 0.0]] * 2))
    elected = fit(rt.Vote([says(logits=logits)], 0.0), *sizes)
    assert elected({"policy": torch.zeros(2, 2)}, FIRST).logits.argmax(-1).tolist() == [1, 1]
    arm = spaces.Box(-1, 1, (1,)), spaces.Box(-1, 1, (3,))
    moved = fit(says(mean=logits), *arm)({"policy": torch.zeros(2, 2)}, torch.tensor([0, 1]))
    assert moved.mean.tolist() == [[1, 0, 0], [1, 2, 9]]


@pytest.mark.parametrize("name", ["logits", "q_values"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_minus_infinity_is_illegal(name: str, dtype: torch.dtype) -> None:
    said = torch.tensor([[0.0, -torch.inf, 1.0]], dtype=dtype)
    found = getattr(says(**{name: said})({}, torch.zeros(1, dtype=torch.int64)), name)
    assert found.tolist() == [[0, MASKED, 1]]
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    for objective in ("kl", "js", "reversekl", "nll", "mse"):
        student = rt.PolicyOutput(logits=torch.zeros(1, 3, requires_grad=True))
        teacher = rt.PolicyOutput(**{name: found})
        total = sum(rt.Objective.of(objective)(student, teacher).values())
        assert torch.as_tensor(total).isfinite()


def test_gradients_pass_where_they_are_needed() -> None:
    function = rt.CallableTeacher(lambda o, t: rt.PolicyOutput(logits=3 * o["policy"]))
    seen = torch.zeros(2, 5, requires_grad=True)
    teacher = fit(function, spaces.Discrete(2))
    teacher({"policy": seen}, FIRST, frozenset({"jacobian"})).logits.sum().backward()
    assert seen.grad is not None and seen.grad.tolist() == [[3, 3, 0, 0, 0]] * 2
    assert not teacher({"policy": seen}, FIRST).logits.requires_grad


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, "an empty PolicyOutput: it must contain logits, q_values or a mean"),
        ({"log_std": torch.zeros(2, 1)}, "an empty PolicyOutput"),
        ({"logits": torch.zeros(2)}, r"logits of \[2\] for 2 rows"),
        ({"logits": torch.zeros(3, 2)}, r"logits of \[3, 2\] for 2 rows"),
        ({"q_values": torch.zeros(2, 2).numpy()}, "q_values of ndarray for 2 rows"),
        ({"mean": torch.zeros(())}, r"mean of \[\] for 2 rows"),
    ],
)
def test_what_cannot_be_learned_is_refused(said: dict[str, Any], words: str) -> None:
    with pytest.raises(rt.InputError, match=f"^a function returned {words}"):
        says(**said)({"policy": torch.zeros(2, 2)}, FIRST)


INF, NAN = torch.inf, torch.nan


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"logits": torch.zeros(2, 3)}, "logits with 3 columns, but its tasks have at most 2 act"),
        ({"logits": torch.zeros(2, 2, dtype=torch.complex64)}, "tensor of torch.complex64 on cpu"),
        ({"logits": torch.zeros(2, 2, dtype=torch.bool)}, "tensor of torch.bool on cpu"),
        ({"logits": torch.zeros(2, 2, device="meta")}, "on meta: it must be .* on cpu"),
        ({"q_values": torch.eye(2).to_sparse()}, "torch.sparse_coo tensor of torch.float32"),
        ({"logits": torch.tensor([[0.0, NAN], [0, 0]])}, "outputs logits that are not finite"),
        ({"q_values": torch.tensor([[0.0, INF], [0, 0]])}, "outputs q_values that are not finite"),
        ({"logits": torch.tensor([[0.0, -INF], [-INF, -INF]])}, "for every action of a row"),
    ],
)
def test_labels_that_say_nothing_are_refused(said: dict[str, Any], words: str) -> None:
    with pytest.raises(rt.InputError, match=words):
        fit(says(**said), spaces.Discrete(2))({"policy": torch.zeros(2, 2)}, FIRST)


def test_a_mean_that_is_not_finite_is_the_teachers_fault() -> None:
    wide = says(mean=torch.zeros(2, 3))
    for teacher, words in (
        (says(mean=torch.full((2, 1), NAN)), "a function outputs mean that are not finite"),
        (wide, "mean with 3 columns, but its tasks have at most 1"),
    ):
        with pytest.raises(rt.InputError, match=words):
            fit(teacher, spaces.Box(-1, 1, (1,)))({"policy": torch.zeros(2, 2)}, FIRST)


def test_functions_that_cannot_teach_are_refused() -> None:
    function: Callable[..., Any] = lambda observation: observation  # noqa: E731
    with pytest.raises(
        rt.InputError, match="a function cannot be a teacher: it must take two arguments"
    ):
        rt.CallableTeacher(function)
    tensor = rt.CallableTeacher(lambda observation, task: observation["policy"])  # type: ignore[arg-type,return-value]
    with pytest.raises(rt.InputError, match="a function returned a Tensor: it must return a Pol"):
        tensor({"policy": torch.zeros(1, 2)}, torch.zeros(1, dtype=torch.int64))
