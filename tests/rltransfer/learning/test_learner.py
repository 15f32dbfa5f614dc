"""The learner: steps by hand, clipping, refusals, and states that go on bitwise the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from rltransfer.files.checkpoint import load_state, save_state
from rltransfer.learning.learner import Learner, Loss, NonFiniteGradientError
from rltransfer.learning.minibatches import Batch, minibatches

Optimizer = Literal["adam", "radam"]


def weight_of(*numbers: float) -> nn.ParameterDict:
    return nn.ParameterDict({"w": nn.Parameter(torch.tensor(numbers))})


def pull(module: nn.ParameterDict, *gradient: float) -> Callable[[Batch], Loss]:
    """A loss with this gradient in `w`, whatever the weights are."""
    direction = torch.tensor(gradient)
    return lambda batch: Loss((module["w"] * direction).sum())


ONCE: list[Batch] = [{}]


def test_first_step_of_radam_by_hand():
    # Its first steps have too short a memory to estimate a variance: w - lr * g.
    module = weight_of(1.0, 2.0)
    Learner(module, learning_rate=0.1, optimizer="radam").update(ONCE, pull(module, 3.0, -4.0))
    assert module["w"].tolist() == pytest.approx([0.7, 2.4], abs=1e-6)


def test_first_step_of_adam_by_hand():
    # w - lr * g / (|g| + epsilon): with epsilon 1, 1 - 0.1 * 3/4 and 2 + 0.1 * 4/5.
    module = weight_of(1.0, 2.0)
    learner = Learner(module, learning_rate=0.1, optimizer="adam", epsilon=1.0)
    learner.update(ONCE, pull(module, 3.0, -4.0))
    assert module["w"].tolist() == pytest.approx([0.925, 2.08], abs=1e-6)


def test_gradient_is_clipped_to_its_norm():
    # The norm of (3, -4) is 5: clipped to 1, the step is 0.1 * (0.6, -0.8). Logged is what it was.
    module = weight_of(1.0, 2.0)
    learner = Learner(module, learning_rate=0.1, optimizer="radam", max_grad_norm=1.0)
    metrics = learner.update(ONCE, pull(module, 3.0, -4.0))
    # Tolerance: clipping divides by the norm plus 1e-6.
    assert module["w"].tolist() == pytest.approx([0.94, 2.08], abs=1e-6)
    assert metrics["gradient_norm"] == pytest.approx(5.0)


def test_small_gradient_is_not_stretched():
    module = weight_of(1.0, 2.0)
    learner = Learner(module, learning_rate=0.1, optimizer="radam", max_grad_norm=10.0)
    learner.update(ONCE, pull(module, 3.0, -4.0))
    assert module["w"].tolist() == pytest.approx([0.7, 2.4], abs=1e-6)


def test_gradients_do_not_add_up_over_minibatches():
    # Two steps of momentum with the same gradient are two equal steps: 1 - 2 * 0.3.
    module = weight_of(1.0)
    learner = Learner(module, learning_rate=0.1, optimizer="radam")
    learner.update([{}, {}], pull(module, 3.0))
    assert module["w"].tolist() == pytest.approx([0.4], abs=1e-6)


def test_learning_rate_of_an_update_stays():
    module = weight_of(1.0)
    learner = Learner(module, learning_rate=100.0, optimizer="radam")
    learner.update(ONCE, pull(module, 1.0), learning_rate=0.1)
    learner.update(ONCE, pull(module, 1.0))
    assert module["w"].tolist() == pytest.approx([0.8], abs=1e-6)


def test_every_sample_is_learned_from_once_an_epoch():
    module = weight_of(0.0)
    learner = Learner(module, learning_rate=1e-3)
    seen: list[list[int]] = []

    def loss(batch: Batch) -> Loss:
        seen.append(batch["task"].tolist())
        return Loss(module["w"].sum())

    batch = {"task": torch.arange(10).view(5, 2)}
    learner.update(minibatches(batch, 4, 2, torch.Generator().manual_seed(0)), loss)
    # Ten samples by four: the last two are not dropped.
    assert [len(one) for one in seen] == [4, 4, 2, 4, 4, 2]
    for epoch in (seen[:3], seen[3:]):
        assert sorted(sample for one in epoch for sample in one) == list(range(10))
    assert learner.num_steps == 6


def test_metrics_are_means_over_minibatches():
    module = weight_of(0.0)
    learner = Learner(module, learning_rate=0.0)

    def loss(batch: Batch) -> Loss:
        return Loss(module["w"].sum() + batch["x"], {"x": batch["x"], "twice": 2 * batch["x"]})

    metrics = learner.update([{"x": torch.tensor(1.0)}, {"x": torch.tensor(4.0)}], loss)
    assert metrics == {"x": 2.5, "twice": 5.0, "loss": 2.5, "gradient_norm": 1.0}


def test_nothing_to_learn_from():
    assert (
        Learner(weight_of(0.0), learning_rate=0.1).update([], lambda batch: Loss(torch.ones(())))
        == {}
    )


def test_parameters_that_are_frozen_or_unused_stay():
    module = nn.ModuleDict(
        {"a": nn.Linear(2, 1), "frozen": nn.Linear(2, 1), "unused": nn.Linear(2, 1)}
    )
    module["frozen"].requires_grad_(False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    learner = Learner(module, learning_rate=0.1)
    data = torch.ones(4, 2)
    learner.update(ONCE, lambda batch: Loss((module["a"](data) + module["frozen"](data)).sum()))
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]) == (not name.startswith("a."))


def test_a_group_with_rate_zero_has_no_gradient():
    # The loss is 3 a + 4 b: without a, the norm of the gradient is 4, not 5.
    module = nn.ParameterDict({name: nn.Parameter(torch.tensor(1.0)) for name in ("a", "b")})
    learner = Learner(module, learning_rate=0.1, optimizer="sgd")
    learner.split(lambda parameter: int(parameter is module["b"]))
    learner.set_rates({0: 0.0, 1: 1.0})
    metrics = learner.update(ONCE, lambda _: Loss(3 * module["a"] + 4 * module["b"]))
    assert metrics["gradient_norm"] == 4.0 and module["a"].grad is None
    assert module["a"].item() == 1.0 and module["b"].item() == pytest.approx(0.6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("max_grad_norm", [0.5, float("inf")])
def test_gradient_that_is_not_finite(bad: float, max_grad_norm: float):
    module = nn.ModuleDict({"fine": nn.Linear(2, 1), "bad": nn.Linear(2, 1)})
    learner = Learner(module, learning_rate=0.1, max_grad_norm=max_grad_norm)
    data = torch.ones(3, 2)

    def loss(factor: float) -> Callable[[Batch], Loss]:
        def score(batch: Batch) -> Loss:
            part = factor * module["bad"].weight.sum()
            return Loss(
                module["fine"](data).sum() + part, {"part": part, "other": part.new_ones(())}
            )

        return score

    learner.update(ONCE, loss(1.0))
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    moments = learner.state_dict()
    with pytest.raises(NonFiniteGradientError) as caught:
        learner.update(ONCE, loss(bad))
    assert str(caught.value) == (
        "The gradient of bad.weight is not finite at optimizer step 1; "
        "these metrics are not finite: part."
    )
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
    for name, value in learner.state_dict()["tensors"].items():
        assert torch.equal(value, moments["tensors"][name])
    assert learner.num_steps == 1


def test_steps_skipped_on_the_device_leave_the_last_good_weights():
    # The second of four gradients is not finite: it and all later ones must change nothing.
    module = nn.Linear(2, 1)
    learner = Learner(module, learning_rate=0.1)
    learner.skip_on_device()
    seen: list[Tensor] = []

    def loss(batch: Batch) -> Loss:
        seen.append(module.weight.detach().clone())
        return Loss(module(torch.ones(3, 2)).sum() * batch["factor"])

    batches = [{"factor": torch.tensor(factor)} for factor in (1.0, float("nan"), 1.0, 1.0)]
    with pytest.raises(NonFiniteGradientError, match="within the 4 optimizer steps up to step 4"):
        learner.update(batches, loss)
    assert not torch.equal(seen[1], seen[0])
    for later in (*seen[2:], module.weight.detach()):
        assert torch.equal(later, seen[1])


def test_channels_last_goes_on_bitwise_the_same() -> None:
    # A fused optimizer goes through weights and moments as they lie in memory.
    def train(first: int, second: int) -> Tensor:
        torch.manual_seed(0)
        made = [nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last) for _ in range(2)]
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(first + second, 4, 3, 6, 6, generator=generator)

        def batches(part: Tensor) -> Iterator[Batch]:
            return ({"x": image} for image in part)

        def loss(module: nn.Module) -> Callable[[Batch], Loss]:
            return lambda batch: Loss(module(batch["x"]).square().mean())

        learner = Learner(made[0], learning_rate=0.1)
        learner.update(batches(images[:first]), loss(made[0]))
        if not second:
            return made[0].weight.detach()
        other = Learner(made[1], learning_rate=0.1)
        made[1].load_state_dict({n: v.contiguous() for n, v in made[0].state_dict().items()})
        state = learner.state_dict()
        tensors = {name: value.contiguous() for name, value in state["tensors"].items()}
        other.load_state_dict({**state, "tensors": tensors})
        other.update(batches(images[first:]), loss(made[1]))
        return made[1].weight.detach()

    assert torch.equal(train(3, 3), train(6, 0))


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))


def targets(seed: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(8):
        data = torch.randn(16, 3, generator=generator)
        yield {"x": data, "y": data[:, :2] - data[:, 1:]}


def regression(module: nn.Module) -> Callable[[Batch], Loss]:
    return lambda batch: Loss((module(batch["x"]) - batch["y"]).square().mean())


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("optimizer", ["adam", "radam"])
def test_going_on_from_a_state_is_bitwise_the_same(optimizer: Optimizer, tmp_path: Path):
    def fresh() -> tuple[nn.Module, Learner]:
        module = network(0)
        return module, Learner(module, learning_rate=9.0, optimizer=optimizer, max_grad_norm=0.5)

    unbroken, learner = fresh()
    # The second update keeps the first one's step size. RAdam's rule changes at its sixth step.
    learner.update(targets(1), regression(unbroken), learning_rate=1e-2)
    state = {"weights": dict(unbroken.state_dict()), "learner": learner.state_dict()}
    save_state(tmp_path, state)
    kept = {name: value.clone() for name, value in state["learner"]["tensors"].items()}
    learner.update(targets(2), regression(unbroken))

    resumed, learner = fresh()
    loaded = load_state(tmp_path)
    resumed.load_state_dict(loaded["weights"])
    learner.load_state_dict(loaded["learner"])
    assert learner.num_steps == 8
    learner.update(targets(2), regression(resumed))
    assert learner.num_steps == 16
    assert same_weights(resumed, unbroken)
    # The state is a copy: going on did not change it.
    assert all(
        torch.equal(state["learner"]["tensors"][name], value) for name, value in kept.items()
    )

    # Without the optimizer's state it is not the same.
    forgetful, learner = fresh()
    forgetful.load_state_dict(loaded["weights"])
    learner.update(targets(2), regression(forgetful), learning_rate=1e-2)
    assert not same_weights(forgetful, unbroken)


def test_loading_takes_a_copy_of_the_state():
    module = network(0)
    learner = Learner(module, learning_rate=1e-2)
    learner.update(targets(1), regression(module))
    state = learner.state_dict()
    kept = {name: value.clone() for name, value in state["tensors"].items()}
    learner.load_state_dict(state)
    learner.update(targets(2), regression(module))
    assert all(torch.equal(state["tensors"][name], value) for name, value in kept.items())


@pytest.mark.parametrize("optimizer", ["adam", "radam"])
def test_learns_and_same_seed_same_weights(optimizer: Optimizer):
    def learned(seed: int) -> tuple[nn.Module, float]:
        module = network(seed)
        learner = Learner(module, learning_rate=1e-2, optimizer=optimizer)
        for epoch in range(30):
            metrics = learner.update(targets(epoch % 3), regression(module))
        return module, metrics["loss"]

    (one, loss), (same, _), (other, _) = learned(0), learned(0), learned(1)
    assert same_weights(one, same) and not same_weights(one, other)
    # Differences of inputs of variance 1 have variance 2: knowing nothing costs 2.
    assert loss < 0.2


def test_bfloat16_is_for_arithmetic_and_not_for_weights():
    module = network(0)
    learner = Learner(module, learning_rate=1e-2, precision="bfloat16")
    seen: list[torch.dtype] = []

    def loss(batch: Batch) -> Loss:
        output: Tensor = module(batch["x"])
        seen.append(output.dtype)
        return Loss((output.float() - batch["y"]).square().mean())

    for epoch in range(30):
        metrics = learner.update(targets(epoch % 3), loss)
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert metrics["loss"] < 0.2


def test_float32_is_float32():
    module = network(0)

    def loss(batch: Batch) -> Loss:
        output: Tensor = module(batch["x"])
        assert output.dtype == torch.float32
        return Loss(output.sum())

    Learner(module, learning_rate=1e-2).update(targets(0), loss)
