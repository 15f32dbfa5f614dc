"""Compositions: numbers worked by hand, invariances, masks, randomness and nesting."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from fitting import fitted_teacher
from gymnasium import spaces
from toy import TASK

import rltransfer as rt
from rltransfer.policies.network import Network
from rltransfer.policies.output import MASKED, PolicyOutput
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.policies.scores import is_masked, log_policy
from rltransfer.rollouts.evaluation import evaluate_teacher
from rltransfer.teachers.policy_teacher import PolicyTeacher
from rltransfer.teachers.teacher import Teacher

CPU = torch.device("cpu")
NOISE_TOLERANCE = 0.02
"""Four standard errors of the moments below, which are of 40,000 draws with deviations near 1."""

ROWS = {"policy": torch.zeros(1, 4)}
FIRST = torch.zeros(1, dtype=torch.int64)


def says(source: str = "a function", **fields: Sequence[float]) -> rt.CallableTeacher:
    """A teacher that says the same of each row."""

    def function(observation: dict[str, torch.Tensor], task: torch.Tensor) -> PolicyOutput:
        table = {name: torch.tensor([value]).float() for name, value in fields.items()}
        return PolicyOutput(**{n: t.expand(len(task), -1).clone() for n, t in table.items()})

    return rt.CallableTeacher(function, source)


def policy(probabilities: Sequence[float]) -> rt.CallableTeacher:
    return says(logits=[math.log(p) if p else MASKED for p in probabilities])


def label(teacher: Teacher) -> PolicyOutput:
    return teacher(ROWS, FIRST)


def probabilities(teacher: Teacher) -> list[float]:
    return label(teacher).preferences().softmax(-1)[0].tolist()


def fresh_policy(
    seed: int = 0, actions: int = 3, q_values: bool = False, box: bool = False
) -> PolicyTeacher:
    """A small policy whose probabilities are far from equal."""
    torch.manual_seed(seed)
    observation = spaces.Dict({"policy": spaces.Box(-1, 1, (4,), np.float32)})
    acts = spaces.Box(-1, 1, (actions,), np.float32) if box else spaces.Discrete(actions)
    spec = PolicySpec(
        Network(hidden=(16,), normalize=False), observation, acts, q_values=q_values, value=False
    )
    made = Policy(spec)
    torch.nn.init.normal_(made.action_head.weight)
    return PolicyTeacher(made, f"runs/{seed}", "0")


# --- means


def test_what_an_output_worked_out_for_itself_is_not_passed_on() -> None:
    def says_more(observation: dict[str, torch.Tensor], task: torch.Tensor) -> PolicyOutput:
        output = PolicyOutput(logits=torch.zeros(len(task), 2))
        output.entropy()
        return output

    teacher = rt.PerTask({"a": rt.CallableTeacher(says_more), "b": rt.CallableTeacher(says_more)})
    output = teacher({"policy": torch.zeros(2, 4)}, torch.arange(2))
    assert output.entropy().tolist() == pytest.approx([math.log(2)] * 2)


def test_an_ensemble_is_the_mixture_of_its_members() -> None:
    pair = [policy([0.5, 0.5]), policy([0.9, 0.1])]
    # (0.5 + 0.9) / 2; with weights 1 and 3 it is 0.25 * 0.5 + 0.75 * 0.9.
    assert probabilities(rt.Ensemble(pair)) == pytest.approx([0.7, 0.3])
    assert probabilities(rt.Ensemble(pair, weights=(1, 3))) == pytest.approx([0.8, 0.2])
    # Only the weights' ratios matter.
    assert probabilities(rt.Ensemble(pair, weights=(2, 6))) == pytest.approx([0.8, 0.2])


def test_an_ensemble_of_logits_takes_their_mean() -> None:
    pair = [says(logits=[2.0, 0.0]), says(logits=[0.0, 4.0])]
    # 0.75 * 2, 0.25 * 4
    found = label(rt.Ensemble(pair, weights=(3, 1), of="logits")).logits
    assert found.tolist() == [[1.5, 1.0]]


def test_q_values_are_averaged_as_they_are() -> None:
    pair = [says(q_values=[1.0, 5.0]), says(q_values=[3.0, -1.0])]
    for of in ("probabilities", "logits"):
        output = label(rt.Ensemble(pair, of=of))
        assert output.q_values.tolist() == [[2.0, 2.0]]
        assert output.logits is None


def bounded(mean: Sequence[float], high: float) -> rt.CallableTeacher:
    """A Gaussian of standard deviation 1 whose actions are clipped to bounds."""
    size = len(mean)
    return says(mean=mean, log_std=[0.0] * size, low=[-high] * size, high=[high] * size)


def test_gaussians_are_composed_before_their_actions_are_clipped() -> None:
    free = says(mean=[1.0], log_std=[0.0])
    for kind in (rt.Ensemble, rt.ProductOfExperts):
        output = label(kind([bounded([6.0], 2.0), free]))
        # (6 + 1) / 2, whatever the bounds; the task's actions end at 2.
        assert output.mean.tolist() == [[3.5]] and output.greedy().tolist() == [[2.0]]
    # The mean of actions that are clipped first would be 1.5.
    swapped = label(rt.Adapted(bounded([6.0, -0.5], 2.0), action=(1, 0)))
    assert swapped.mean.tolist() == [[-0.5, 6.0]] and swapped.greedy().tolist() == [[-0.5, 2.0]]


def test_teachers_of_tasks_with_other_bounds_keep_them_side_by_side() -> None:
    rows = {"policy": torch.zeros(3, 4)}, torch.arange(3)
    members = [bounded([6.0], 2.0), bounded([6.0, -6.0], 4.0), says(mean=[9.0], log_std=[0.0])]
    output = rt.PerTask(dict(zip("abc", members, strict=True)))(*rows)
    assert output.mean.tolist() == [[6.0, 0.0], [6.0, -6.0], [9.0, 0.0]]
    assert output.greedy().tolist() == [[2.0, 0.0], [4.0, -4.0], [9.0, 0.0]]
    # Next to a deterministic teacher, all say the action that they would take.
    output = rt.PerTask({"a": members[0], "b": members[1], "c": says(mean=[9.0])})(*rows)
    assert output.mean.tolist() == [[2.0, 0.0], [4.0, -4.0], [9.0, 0.0]]
    assert output.log_std is None and output.low is None


def test_gaussians_become_one_with_the_mixtures_moments() -> None:
    pair = [says(mean=[0.0], log_std=[0.0]), says(mean=[2.0], log_std=[math.log(2)])]
    output = label(rt.Ensemble(pair))
    # Variance: (1 + 4) / 2 and, of means 1 away from theirs, 1.
    assert output.mean.tolist() == [[1.0]]
    assert output.log_std.exp().square().item() == pytest.approx(3.5)
    # Deterministic actions are averaged.
    actions = label(rt.Ensemble([says(mean=[0.0, 1.0]), says(mean=[2.0, 3.0])]))
    assert actions.mean.tolist() == [[1.0, 2.0]]
    assert actions.log_std is None


def test_an_ensemble_of_equals_is_its_member() -> None:
    one = policy([0.2, 0.3, 0.5])
    assert probabilities(rt.Ensemble([one] * 3)) == pytest.approx([0.2, 0.3, 0.5])
    gaussian = says(mean=[0.3], log_std=[-1.0])
    output = label(rt.Ensemble([gaussian] * 3, weights=(1, 2, 3)))
    assert output.mean.item() == pytest.approx(0.3)
    assert output.log_std.item() == pytest.approx(-1.0, abs=1e-6)


# --- products


def test_a_product_multiplies_probabilities() -> None:
    pair = [policy([0.5, 0.5]), policy([0.8, 0.2])]
    assert probabilities(rt.ProductOfExperts(pair)) == pytest.approx([0.8, 0.2])
    # 0.8^2 : 0.2^2 = 16 : 1
    squared = rt.ProductOfExperts(pair, weights=(1, 2))
    assert probabilities(squared) == pytest.approx([16 / 17, 1 / 17])
    pair = [policy([0.5, 0.3, 0.2]), policy([0.1, 0.3, 0.6])]
    # 0.05 : 0.09 : 0.12
    expected = [5 / 26, 9 / 26, 12 / 26]
    assert probabilities(rt.ProductOfExperts(pair)) == pytest.approx(expected)


def test_a_product_of_gaussians_weighs_by_precision() -> None:
    # Precisions 1 and 4: mean (1 * 0 + 4 * 5) / 5, precision 5.
    pair = [says(mean=[0.0], log_std=[0.0]), says(mean=[5.0], log_std=[math.log(0.5)])]
    output = label(rt.ProductOfExperts(pair))
    assert output.mean.item() == pytest.approx(4.0)
    assert (-2 * output.log_std).exp().item() == pytest.approx(5.0)
    # With weights 8 and 1 the precisions are 8 and 4: mean 20 / 12.
    output = label(rt.ProductOfExperts(pair, weights=(8, 1)))
    assert output.mean.item() == pytest.approx(20 / 12)
    assert (-2 * output.log_std).exp().item() == pytest.approx(12.0)


@pytest.mark.parametrize("kind", [rt.Ensemble, rt.ProductOfExperts])
@pytest.mark.parametrize(
    "fields",
    [
        {"logits": [1.0, -3.0, MASKED]},
        {"q_values": [1.0, -3.0, MASKED]},
        {"mean": [0.5], "log_std": [0.1]},
        {"mean": [0.5]},
    ],
)
def test_one_teacher_alone_keeps_its_bits(kind: type[Teacher], fields: dict[str, list]) -> None:
    teacher = says(**fields)
    alone, composed = label(teacher), label(kind([teacher]))
    for name in fields:
        assert torch.equal(getattr(composed, name), getattr(alone, name))


# --- masks


def test_what_is_illegal_stays_so() -> None:
    masked = says(logits=[1.0, 0.0, MASKED])
    values = says(q_values=[1.0, 0.0, MASKED])
    for teacher in (
        rt.Ensemble([masked, masked]),
        rt.Ensemble([masked, masked], of="logits"),
        rt.Ensemble([values, values], weights=(1, 9)),
        rt.ProductOfExperts([masked, masked]),
        rt.ProductOfExperts([masked, masked], weights=(0.1, 0.1)),
        rt.Vote([masked, masked], noise_scale=100.0),
        rt.Noisy(masked, sigma=3.0),
        rt.Noisy(values, sigma=3.0),
        rt.Boltzmann(values),
        rt.Boltzmann(masked, temperature=10.0),
        rt.Adapted(masked, action=(1, 0, 2)),
        rt.Noisy(rt.Ensemble([rt.Noisy(masked, sigma=1.0), masked]), sigma=1.0),
    ):
        scores = label(teacher).preferences()
        assert scores.isfinite().all()
        assert scores[0, 2] == MASKED, teacher
        assert not is_masked(scores[0, :2]).any()


def test_where_members_disagree_on_what_is_legal() -> None:
    narrow, wide = says(logits=[0.0, 0.0]), says(logits=[0.0, 0.0, 0.0])
    # The mean of (1/2, 1/2, 0) and thirds.
    assert probabilities(rt.Ensemble([narrow, wide])) == pytest.approx([5 / 12, 5 / 12, 1 / 6])
    for teacher in (rt.Ensemble([narrow, wide], of="logits"), rt.ProductOfExperts([narrow, wide])):
        assert label(teacher).logits[0, 2] == MASKED
    # Of two that agree on nothing, what one of them does is left, and the third action is not.
    left, right = (
        says(logits=[0.0, MASKED, MASKED]),
        says(logits=[MASKED, 5.0, MASKED]),
    )
    for teacher in (rt.Ensemble([left, right], of="logits"), rt.ProductOfExperts([left, right])):
        assert probabilities(teacher) == [0.5, 0.5, 0.0]


def test_extreme_logits_stay_finite() -> None:
    sure = [says(logits=[1e4, -1e4]), says(logits=[-1e4, 1e4])]
    assert label(rt.Ensemble(sure)).logits.isfinite().all()
    assert probabilities(rt.Ensemble(sure)) == pytest.approx([0.5, 0.5])
    assert probabilities(rt.ProductOfExperts(sure)) == pytest.approx([0.5, 0.5])
    half = rt.CallableTeacher(
        lambda o, t: PolicyOutput(logits=torch.tensor([[3.0, 0.0, MASKED]], dtype=torch.bfloat16))
    )
    assert label(rt.Ensemble([half, half])).logits[0, 2] == MASKED


# --- noise


def repeated(teacher: Teacher, rows: int = 40_000) -> PolicyOutput:
    return teacher({"policy": torch.zeros(rows, 4)}, torch.zeros(rows, dtype=torch.int64))


def test_noise_has_the_moments_of_the_paper() -> None:
    # z (1 + xi): mean z, deviation sigma |z|.
    scores = repeated(rt.Noisy(says(logits=[2.0, -1.0, 0.0]), sigma=0.5)).logits
    expected = torch.tensor([2.0, -1.0, 0.0])
    torch.testing.assert_close(scores.mean(0), expected, atol=NOISE_TOLERANCE, rtol=0)
    torch.testing.assert_close(scores.std(0), expected.abs() / 2, atol=NOISE_TOLERANCE, rtol=0)
    # Actions are perturbed one by one: no correlation.
    assert torch.corrcoef(scores[:, :2].T)[0, 1].abs() < NOISE_TOLERANCE


def test_a_share_of_the_rows_is_perturbed() -> None:
    scores = repeated(rt.Noisy(says(q_values=[2.0, 1.0]), sigma=0.5, alpha=0.25)).q_values
    changed = scores != torch.tensor([2.0, 1.0])
    assert (changed[:, 0] == changed[:, 1]).all()
    assert changed[:, 0].float().mean() == pytest.approx(0.25, abs=NOISE_TOLERANCE)


def test_without_noise_it_is_the_teacher() -> None:
    one = says(logits=[2.0, -1.0])
    assert torch.equal(label(rt.Noisy(one, sigma=0.0)).logits, label(one).logits)
    assert torch.equal(label(rt.Noisy(one, sigma=1.0, alpha=0.0)).logits, label(one).logits)


def test_seeds() -> None:
    def drawn(seed: int) -> torch.Tensor:
        teacher.seed(seed)
        return repeated(teacher, 10).logits

    one = says(logits=[2.0, -1.0])
    teacher = rt.Noisy(one, sigma=0.5)
    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    # Two members draw apart, though both were made alike: their product is not a multiple.
    first, second = rt.Noisy(one, sigma=0.5), rt.Noisy(one, sigma=0.5)
    rt.Ensemble([first, second])
    assert not torch.equal(repeated(first, 10).logits, repeated(second, 10).logits)
    # A teacher that stands in a composition twice has its generator there once.
    assert len(rt.Ensemble([first, first, second]).generators()) == 2


def random_composition() -> Teacher:
    one = says(logits=[2.0, -1.0, 0.5])
    vote = rt.Vote([one, rt.Noisy(one, sigma=2.0)], noise_scale=1.0)
    dropped = rt.MonteCarloDropout(fresh_policy(), 3, 0.5)
    return rt.Ensemble([vote, rt.Noisy(one, sigma=0.5), dropped])


def test_a_state_is_gone_back_to() -> None:
    teacher = random_composition()
    repeated(teacher, 7)
    saved = copy.deepcopy(teacher.label_state())
    expected = [repeated(teacher, 7).logits for _ in range(3)]
    other = random_composition()
    other.load_label_state(saved)
    assert all(torch.equal(repeated(other, 7).logits, one) for one in expected)
    assert other.figures() == teacher.figures()


def test_an_evaluation_leaves_the_randomness_alone() -> None:
    suite = rt.Suite.of(TASK)

    def next_label(evaluated: bool) -> torch.Tensor:
        one = rt.Noisy(says(logits=[2.0, -1.0, 0.5, 0.0]), sigma=0.5)
        teacher = fitted_teacher(one, suite, CPU)
        teacher.seed(3)
        if evaluated:
            evaluate_teacher(teacher, suite, 2, seed=5, device=CPU, num_envs=2)
        return repeated(teacher, 5).logits

    assert torch.equal(next_label(True), next_label(False))
    # The same seed: the same returns, whenever it is asked.
    teacher = fitted_teacher(rt.Noisy(says(logits=[1.0, 1.1, 1.0, 1.0]), sigma=1.0), suite, CPU)
    first, second = (
        evaluate_teacher(teacher, suite, 4, seed=5, device=CPU)[TASK].returns for _ in range(2)
    )
    assert first == second


# --- Boltzmann


def test_q_values_become_a_policy() -> None:
    # Gaps of 0.01 and 0.02 at the temperature 0.01: 1 : e : e^2.
    values = says(q_values=[0.0, 0.01, 0.02])
    e = math.e
    expected = [share / (1 + e + e**2) for share in (1, e, e**2)]
    assert probabilities(rt.Boltzmann(values)) == pytest.approx(expected)
    output = label(rt.Boltzmann(values, temperature=0.02))
    assert output.logits[0].tolist() == pytest.approx([-1, -0.5, 0])
    assert output.q_values is None
    # Q-values and policies come together so.
    pair = [rt.Boltzmann(says(q_values=[0.0, 0.01])), policy([0.5, 0.5])]
    assert probabilities(rt.Ensemble(pair))[1] == pytest.approx((e / (1 + e) + 0.5) / 2)


def test_no_temperature_makes_a_legal_action_illegal() -> None:
    # Over 0.01 the first two are -1e9, which is `MASKED`; the third is so far below them again.
    scores = [-1e7, -1e7 - 1, -2e7, MASKED]
    logits = label(rt.Boltzmann(says(q_values=scores))).logits
    assert logits[0, :2].tolist() == [0, -100]
    for found in (logits, log_policy(torch.tensor([scores]), 0.01)):
        assert is_masked(found).tolist() == [[False, False, False, True]]


# --- dropout


@pytest.mark.parametrize("kind", [{}, {"q_values": True}, {"box": True}])
def test_dropout_of_nothing_is_the_policy(kind: dict[str, bool]) -> None:
    teacher = fresh_policy(**kind)
    seen, task = {"policy": torch.randn(5, 4)}, torch.zeros(5, dtype=torch.int64)
    expected, found = teacher(seen, task), rt.MonteCarloDropout(teacher, 3, 0.0)(seen, task)
    if kind:
        torch.testing.assert_close(found.greedy(), expected.greedy())
    else:
        torch.testing.assert_close(found.logits.softmax(-1), expected.logits.softmax(-1))


def test_dropout_is_the_mean_over_masks() -> None:
    teacher = fresh_policy()
    with torch.no_grad():
        # One feature alone, 2 at this observation: it is dropped, or doubled, in half of all cases.
        encoder, head = teacher.module.encoder.layers[0], teacher.module.action_head
        encoder.weight.zero_()
        encoder.bias.zero_()
        encoder.bias[0] = 2.0
        head.bias.zero_()
        head.weight.zero_()
        head.weight[0, 0] = 1.0
    output = repeated(rt.MonteCarloDropout(teacher, 64, 0.5), 2_000)
    # Logits (0, 0, 0) or (4, 0, 0).
    once = math.exp(4) / (math.exp(4) + 2)
    expected = 0.5 * 1 / 3 + 0.5 * once
    found = output.logits.softmax(-1)[:, 0]
    # Of 64 masks, each 1/3 or 0.965: a deviation of 0.04 in each row.
    assert found.mean() == pytest.approx(expected, abs=0.004)
    assert found.std() == pytest.approx(0.5 * (once - 1 / 3) / 8, abs=0.004)


def test_dropout_knows_only_own_policies() -> None:
    for other in (says(logits=[1.0]), rt.Ensemble([fresh_policy()])):
        with pytest.raises(rt.InputError, match="In a composition, wrap the individual pol"):
            rt.MonteCarloDropout(other, 3, 0.5)


def test_dropout_knows_no_policy_of_a_methods_own_kind() -> None:
    class Several(Policy):
        pass

    teacher = PolicyTeacher(Several(fresh_policy().module.spec), "runs/several", "0")
    with pytest.raises(rt.InputError, match="runs/several is a Several: use a teacher"):
        rt.MonteCarloDropout(teacher, 3, 0.5)


# --- one a task, and nesting

TWO = rt.Suite.of(TASK, "tests/EchoTruncated-v0")
BOTH = torch.tensor([0, 0, 1])


def rows(count: int) -> dict[str, torch.Tensor]:
    return {"policy": torch.eye(4)[:count]}


def test_one_teacher_through_the_path_of_many_keeps_its_bits() -> None:
    suite = rt.Suite.of(TASK)
    torch.manual_seed(0)
    seen, task = {"policy": torch.rand(9, 4)}, torch.zeros(9, dtype=torch.int64)
    alone = fitted_teacher(fresh_policy(actions=4), suite, CPU)
    expected = alone(seen, task)
    for teacher in (
        rt.PerTask({TASK: fresh_policy(actions=4)}),
        rt.Ensemble([fresh_policy(actions=4)]),
        rt.PerTask({TASK: rt.Ensemble([fresh_policy(actions=4)])}),
        rt.Ensemble([rt.PerTask({TASK: rt.PerTask({TASK: fresh_policy(actions=4)})})]),
    ):
        found = fitted_teacher(teacher, suite, CPU)(seen, task)
        assert torch.equal(found.logits, expected.logits)
        assert torch.equal(found.features, expected.features)


def test_a_composition_inside_per_task_and_around_it() -> None:
    first, second = TWO.tasks[0].id, TWO.tasks[1].id
    a, b, c = (policy(p) for p in ([0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.25] * 4))
    inside = rt.PerTask({first: rt.Ensemble([a, b]), second: rt.PerTask({second: c, first: a})})
    outside = rt.Ensemble([rt.PerTask({first: a, second: c}), rt.PerTask({first: b, second: c})])
    for teacher in (inside, outside):
        fitted = fitted_teacher(teacher, TWO, CPU)
        found = fitted(rows(3), BOTH).logits.softmax(-1)
        expected = torch.tensor([[0.4, 0.4, 0.1, 0.1]] * 2 + [[0.25] * 4])
        torch.testing.assert_close(found, expected)
        # The second task alone.
        alone = fitted(rows(2), torch.tensor([1, 1])).logits.softmax(-1)
        torch.testing.assert_close(alone, expected[2].expand(2, -1))


def test_a_task_that_a_suite_holds_twice() -> None:
    game = rt.Task("rltransfer/MinAtar-Breakout-v0")
    suite = rt.Suite.of(game, game.with_kwargs(sticky_action_prob=0.0))
    names = suite.names()
    own = dict(zip(names, (policy([1, 0]), policy([0, 1])), strict=True))
    seen = {"policy": torch.zeros(3, 4, 10, 10)}
    for teachers, expected in ((own, [0, 0, 1]), ({game.id: own[names[1]]}, [1, 1, 1])):
        teacher = fitted_teacher(rt.PerTask(teachers), suite, CPU)
        assert teacher(seen, BOTH).greedy().tolist() == expected


def test_features_are_passed_on_where_all_have_them() -> None:
    first, second = TWO.tasks[0].id, TWO.tasks[1].id
    own, other = fresh_policy(0, actions=4), fresh_policy(1, actions=4)
    both = fitted_teacher(rt.PerTask({first: own, second: other}), TWO, CPU)
    features = both(rows(3), BOTH).features
    torch.testing.assert_close(features[2:], other.module.encoder({"policy": torch.eye(4)[2:3]}))
    mixed = rt.PerTask({first: own, second: policy([0.25] * 4)})
    assert fitted_teacher(mixed, TWO, CPU)(rows(3), BOTH).features is None


def test_parameters_are_those_that_label_one_row() -> None:
    one = fresh_policy()
    count = one.num_parameters
    assert count == 4 * 16 + 16 + 16 * 3 + 3
    ensemble = rt.Ensemble([one, fresh_policy(1)])
    assert ensemble.num_parameters == 2 * count
    assert rt.Noisy(ensemble, sigma=1.0).num_parameters == 2 * count
    assert rt.PerTask({"a": ensemble, "b": one}).num_parameters == 2 * count


def test_descriptions_hold_every_members() -> None:
    ensemble = rt.Ensemble([fresh_policy(1), fresh_policy(2)], weights=(1, 2))
    found = rt.Noisy(ensemble, 0.5).describe()
    assert found["source"] == "Noisy(Ensemble('runs/1', 'runs/2', weights=(1, 2)), sigma=0.5)"
    members = found["members"][0]["members"]
    assert [member["source"] for member in members] == ["runs/1", "runs/2"]
    assert all("sha256" in member for member in members)


def test_gradients_by_the_observation_pass_through_where_they_are_needed() -> None:
    noisy = rt.Noisy(fresh_policy(2), sigma=0.1)
    teacher = rt.Ensemble([fresh_policy(1), noisy, policy([0.2] * 3)])
    seen = torch.rand(2, 4, requires_grad=True)
    task = torch.zeros(2, dtype=torch.int64)
    output = teacher({"policy": seen}, task, frozenset({"jacobian"}))
    (gradient,) = torch.autograd.grad(output.logits.sum(), seen)
    assert (gradient != 0).any()
    # No weight of a teacher ever has one.
    assert not label(rt.Ensemble([fresh_policy(1), fresh_policy(2)])).logits.requires_grad


# --- refusals


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda a: rt.Ensemble([]), "at least one"),
        (lambda a: rt.Ensemble(a), r"list: Ensemble\(\[one, another\]\)"),
        (lambda a: rt.Ensemble(a, a), r"list: Ensemble\(\["),
        (lambda a: rt.ProductOfExperts(a), r"list: ProductOfExperts\(\["),
        (lambda a: rt.Vote(a, 1.0), r"list: Vote\(\["),
        (lambda a: rt.Ensemble(["a.zip"]), "'a.zip', which is not a teacher"),
        (lambda a: rt.Noisy("a.zip", sigma=1.0), "'a.zip', which is not a teacher"),
        (lambda a: rt.Ensemble(x for x in [a]), r"list: Ensemble\(\["),
        (lambda a: rt.Ensemble([a, a], weights=(1,)), "2 teachers but 1 weights"),
        (lambda a: rt.Ensemble([a, a], weights=(1, 0)), "finite and above 0"),
        (lambda a: rt.Ensemble([a], weights=3), "weights of Ensemble are 3: set a number"),
        (lambda a: rt.Ensemble([a], weights=["a"]), "weight of Ensemble is 'a': it must be a num"),
        (lambda a: rt.ProductOfExperts([a], weights=(math.inf,)), "finite and above 0"),
        (lambda a: rt.Ensemble([a], of="logit"), "did you mean 'logits'"),
        (lambda a: rt.Noisy(a, sigma=-1.0), "sigma of Noisy is -1.0"),
        (lambda a: rt.Noisy(a, sigma=1.0, alpha=2.0), "from 0 to 1"),
        (lambda a: rt.Noisy(a, sigma="1"), "sigma of Noisy is '1': it must be a number"),
        (lambda a: rt.Vote([a], "1"), "noise_scale of Vote is '1': it must be a number"),
        (lambda a: rt.Vote([a], 1.0, delta=1.0), "above 0 and below 1"),
        (lambda a: rt.Boltzmann(a, temperature=0.0), "above 0"),
        (lambda a: rt.Boltzmann(a, "0.1"), "temperature of Boltzmann is '0.1'"),
        (
            lambda a: rt.MonteCarloDropout(fresh_policy(), "3", 0.5),
            "is '3': it must be a whole",
        ),
        (
            lambda a: rt.MonteCarloDropout(fresh_policy(), 2.5, 0.5),
            "is 2.5: it must be a whole",
        ),
        (lambda a: rt.MonteCarloDropout(fresh_policy(), 3, "a"), "p of MonteCarloDropout is 'a'"),
        (lambda a: rt.MonteCarloDropout(fresh_policy(), 0, 0.5), "at least 1"),
        (lambda a: rt.MonteCarloDropout(fresh_policy(), 3, 1.0), "below 1"),
    ],
)
def test_refusals(make: object, words: str) -> None:
    with pytest.raises(rt.InputError, match=words):
        make(policy([0.5, 0.5]))  # type: ignore[operator]


def test_with_a_deterministic_teacher_an_ensemble_averages_actions() -> None:
    # The Gaussian acts at its bound, 2, and not at its mean, 5: (2 + 1) / 2 = 1.5.
    gaussian = says(mean=[5.0], log_std=[0.0], low=[-2.0], high=[2.0])
    output = label(rt.Ensemble([gaussian, says(mean=[1.0])]))
    assert output.mean.tolist() == [[1.5]]
    assert output.log_std is None and output.low is None and not output.is_stochastic


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        (rt.Ensemble([says(logits=[1.0]), says(q_values=[1.0])]), "cannot be mixed"),
        (rt.ProductOfExperts([says(q_values=[1.0])] * 2), "use Ensemble, or Boltzmann"),
        (rt.ProductOfExperts([says(mean=[1.0])] * 2), "multiplies probabilities"),
        (rt.Noisy(says(mean=[1.0]), sigma=1.0), "needs logits or Q-values"),
        (rt.Boltzmann(says(mean=[1.0], log_std=[1.0])), "needs logits or Q-values"),
    ],
)
def test_teachers_that_cannot_be_composed(teacher: Teacher, words: str) -> None:
    with pytest.raises(rt.InputError, match=words):
        label(teacher)


def test_every_option_changes_something() -> None:
    one, other, own = policy([0.2, 0.8]), policy([0.6, 0.4]), fresh_policy(actions=2)
    teachers = [
        rt.Ensemble([one, other]), rt.Ensemble([one, other], weights=(1, 2)),
        rt.Ensemble([one, other], of="logits"), rt.Noisy(one, sigma=0.5), rt.Noisy(one, sigma=0.6),
        rt.Boltzmann(one), rt.Boltzmann(one, temperature=3.0), rt.MonteCarloDropout(own, 1, 0.5),
        rt.MonteCarloDropout(own, 2, 0.5), rt.MonteCarloDropout(own, 1, 0.4),
    ]  # fmt: skip
    found = [teacher({"policy": torch.ones(1, 4)}, FIRST).logits for teacher in teachers]
    for index, first in enumerate(found):
        assert not any(torch.equal(first, second) for second in found[:index])


def test_what_members_said_is_not_written_to() -> None:
    table = torch.tensor([[1.0, 2.0]])
    one = rt.CallableTeacher(lambda o, t: PolicyOutput(logits=table))
    for teacher in (rt.Noisy(one, sigma=1.0), rt.Ensemble([one, one]), rt.Boltzmann(one)):
        label(teacher)
    assert table.tolist() == [[1.0, 2.0]]


def test_features_stand_side_by_side_where_they_are_needed() -> None:
    def says(value: float, size: int) -> rt.CallableTeacher:
        return rt.CallableTeacher(
            lambda seen, task: PolicyOutput(
                logits=torch.zeros(len(task), 2), features=torch.full((len(task), size), value)
            )
        )

    task = torch.zeros(3, dtype=torch.int64)
    for both in (rt.Ensemble([says(1.0, 2), says(2.0, 1)]),
                 rt.ProductOfExperts([says(1.0, 2), says(2.0, 1)])):  # fmt: skip
        assert both({}, task).features is None
        assert both({}, task, frozenset({"features"})).features.tolist() == [[1.0, 1.0, 2.0]] * 3
