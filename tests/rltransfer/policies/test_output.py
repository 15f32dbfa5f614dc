"""Distributions: sampling, log-probabilities and entropies against torch.distributions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical, Normal

from rltransfer.policies.output import MASKED, PolicyOutput, upcast


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_preferences_are_logits_before_q_values():
    logits, q_values = torch.tensor([1.0, 2.0]), torch.tensor([5.0, 4.0])
    assert PolicyOutput(logits=logits, q_values=q_values).preferences() is logits
    assert PolicyOutput(q_values=q_values).preferences() is q_values
    with pytest.raises(ValueError, match="neither logits nor Q-values"):
        PolicyOutput(mean=logits).preferences()


def test_greedy():
    assert PolicyOutput(logits=torch.tensor([[0.0, 2.0, 1.0]])).greedy().tolist() == [1]
    assert PolicyOutput(q_values=torch.tensor([[3.0, 2.0], [0.0, 1.0]])).greedy().tolist() == [0, 1]
    mean = torch.tensor([[0.3, -0.4]])
    assert PolicyOutput(mean=mean, log_std=torch.zeros(1, 2)).greedy() is mean


def test_samples_follow_the_softmax():
    # Probabilities 1/8, 2/8, 5/8.
    probabilities = torch.tensor([1.0, 2.0, 5.0]) / 8
    # Any constant may be added to logits.
    logits = (probabilities.log() + 7).expand(40_000, 3)
    actions = PolicyOutput(logits=logits).sample(generator())
    assert actions.dtype == torch.int64 and actions.shape == (40_000,)
    shares = actions.bincount(minlength=3) / 40_000
    # Tolerance: 4 standard deviations of a share, sqrt(p (1 - p) / 40,000) <= 0.0025.
    torch.testing.assert_close(shares, probabilities, atol=0.01, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_illegal_actions_are_never_sampled(dtype: torch.dtype):
    # Legal logits far below zero do not help the illegal ones.
    logits = torch.tensor([-1e4, MASKED, -1e4, MASKED]).to(dtype).expand(100_000, 4)
    counts = PolicyOutput(logits=logits).sample(generator()).bincount(minlength=4)
    assert counts[1] == counts[3] == 0
    assert counts[0] > 49_000 and counts[2] > 49_000


def test_noise_of_zero_elects_no_illegal_action(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda noise, **_: noise.zero_())
    assert PolicyOutput(logits=torch.tensor([[MASKED, 0.0, -1.0]])).sample().tolist() == [1]


def test_same_generator_same_samples():
    output = PolicyOutput(logits=torch.zeros(100, 4))
    one, same, other = (output.sample(generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_q_values_are_sampled_greedily():
    output = PolicyOutput(q_values=torch.tensor([[0.0, 1e-3]]).expand(50, 2))
    assert output.sample(generator()).tolist() == [1] * 50


def test_discrete_log_prob_and_entropy():
    torch.manual_seed(0)
    logits = 3 * torch.randn(5, 7, 4)
    actions = torch.randint(4, (5, 7))
    output, oracle = PolicyOutput(logits=logits), Categorical(logits=logits)
    # Tolerance: float32.
    torch.testing.assert_close(output.log_prob(actions), oracle.log_prob(actions))
    torch.testing.assert_close(output.entropy(), oracle.entropy())


def test_entropy_by_hand_and_without_nan():
    # Two equal actions and one that is illegal: ln 2. One action alone: 0.
    logits = torch.tensor([[3.0, MASKED, 3.0], [1e4, -1e4, MASKED]])
    entropy = PolicyOutput(logits=logits).entropy().tolist()
    assert entropy == pytest.approx([math.log(2), 0], abs=1e-6)


def test_illegal_actions_have_no_probability():
    output = PolicyOutput(logits=torch.tensor([[0.0, MASKED]]))
    assert output.log_prob(torch.tensor([1])).exp().item() == 0.0
    assert output.log_prob(torch.tensor([0])).item() == 0.0


def test_continuous_log_prob_and_entropy():
    torch.manual_seed(0)
    mean, log_std, action = torch.randn(3, 6, 2)
    output, oracle = PolicyOutput(mean=mean, log_std=log_std), Normal(mean, log_std.exp())
    # Dimensions are independent: log-probabilities and entropies add. Tolerance: float32.
    torch.testing.assert_close(output.log_prob(action), oracle.log_prob(action).sum(-1))
    torch.testing.assert_close(output.entropy(), oracle.entropy().sum(-1))


def test_continuous_samples_have_mean_and_deviation():
    mean, std = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    output = PolicyOutput(mean=mean.expand(40_000, 2), log_std=std.log().expand(40_000, 2))
    samples = output.sample(generator())
    # Tolerance: 4 standard errors, 3 / sqrt(40,000) = 0.015 of the mean, 0.0106 of the deviation.
    torch.testing.assert_close(samples.mean(0), mean, atol=0.06, rtol=0)
    torch.testing.assert_close(samples.std(0), std, atol=0.045, rtol=0)


def test_deterministic_policy_samples_its_mean_and_has_no_density():
    mean = torch.tensor([[0.25, -0.5]])
    output = PolicyOutput(mean=mean)
    assert output.sample(generator()) is mean
    with pytest.raises(ValueError, match="Only a stochastic policy"):
        output.log_prob(mean)
    with pytest.raises(ValueError, match="Only a stochastic policy"):
        output.entropy()


def test_q_network_has_no_density():
    output = PolicyOutput(q_values=torch.zeros(1, 2))
    with pytest.raises(ValueError, match="Only a stochastic policy"):
        output.log_prob(torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="Only a stochastic policy"):
        output.entropy()


def test_wide_is_float32_at_least():
    for dtype, expected in (
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        assert upcast(torch.zeros(1, dtype=dtype)).dtype == expected


def test_log_probabilities_of_a_metric_do_not_cost_the_loss_its_gradient() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    output = PolicyOutput(logits=logits)
    with torch.no_grad():
        output.entropy()
    output.entropy().sum().backward()
    assert logits.grad is not None and logits.grad.abs().sum() > 0
    # Computed once more, and kept then.
    assert output.log_probs() is output.log_probs()
