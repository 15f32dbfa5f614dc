"""Every term gives the value that was recorded: finished experiments stay repeatable."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rltransfer.objectives.objective import Objective
from rltransfer.policies.output import MASKED, PolicyOutput

TASK = torch.tensor([0, 1, 1, 0, 1, 0])
Pair = tuple[PolicyOutput, PolicyOutput]


def wave(step: float, *shape: int) -> Tensor:
    return 2 * (step * torch.arange(torch.Size(shape).numel())).sin().reshape(shape)


def scores(kind: str) -> Pair:
    student = wave(0.7, 6, 4)
    student[::2, 3] = MASKED
    return PolicyOutput(logits=student), PolicyOutput(**{kind: wave(1.3, 6, 4)})


def gaussians() -> Pair:
    mask = torch.arange(3) > 1 + torch.arange(6).unsqueeze(-1) % 2
    own = [wave(step, 6, 3).masked_fill(mask, 0) for step in (0.7, 1.1)]
    student = PolicyOutput(mean=own[0], log_std=own[1], padding_mask=mask)
    return student, PolicyOutput(mean=wave(1.3, 6, 3), log_std=wave(1.9, 6, 3))


def layers() -> Pair:
    student, teacher = (
        PolicyOutput(
            features=wave(step, 6, 5),
            maps=wave(step, 6, 5, 2, 3),
            attention=wave(step, 6, 5, 2, 3).square().sum(1),
            jacobian=wave(step, 6, 7),
        )
        for step in (0.7, 1.3)
    )
    return student, teacher


def value(text: str, pair: Pair) -> float:
    """The first term's value halfway through a run, with a weight on each sample."""
    fitted = Objective.of(text).fitted(*pair, ("a", "b"))
    for parameter in fitted.parameters():
        parameter.data.copy_(wave(0.9, *parameter.shape))
    return next(iter(fitted(*pair, TASK, 0.5, torch.arange(6.0)).values())).item()


# Values of torch 2.13 on one processor, where they are the same to the last bit. Tolerance: the
# kernels of other processors round differently.


@pytest.mark.parametrize(
    ("text", "logits", "q_values", "continuous"),
    [
        ("KL", 2.54549885, 4.90711784, 642.321716),
        ("KL(temperature=0.3)", 4.09051323, 4.09051323, 451.097565),
        ("ReverseKL", 2.7151134, 392.920441, 526.424072),
        ("ReverseKL(temperature=2)", 1.40553331, 1.40553331, 264.10611),
        ("JS(temperature=2)", 0.322191358, 0.322191358, None),
        ("NLL", 4.90714598, 4.90714598, 370.753632),
        ("MSE", 30.2685833, 30.2685833, 37.0491409),
        ("Huber(delta=0.5)", 5.58703089, 5.58703089, 5.95339918),
        ("'1->0.2' * KL(weights={'a': 2}) + 3 * kl", 9.78461647, 19.3274364, 2571.62769),
    ],
)
def test_outputs(text: str, logits: float, q_values: float, continuous: float | None):
    assert value(text, scores("logits")) == pytest.approx(logits, rel=1e-5)
    assert value(text, scores("q_values")) == pytest.approx(q_values, rel=1e-5)
    if continuous is not None:
        assert value(text, gaussians()) == pytest.approx(continuous, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FeatureRegression", 621.298523),
        ("FeatureRegression(map='conv')", 68.6590729),
        ("AttentionTransfer", 0.0934741721),
        ("RepresentationalDistance", 2.18028283),
        ("JacobianMatching(weights={'b': 0.5})", 4.38942719),
    ],
)
def test_layers(text: str, expected: float):
    assert value(text, layers()) == pytest.approx(expected, rel=1e-5)
