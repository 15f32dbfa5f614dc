"""A squashed Gaussian against torch's own distributions."""

from __future__ import annotations

import torch
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import AffineTransform, TanhTransform

from rltransfer.policies.output import PolicyOutput
from rltransfer.policies.squashed import SquashedGaussian

LOW, HIGH = torch.tensor([-1.0, 3.0]), torch.tensor([5.0, 3.5])


def output_of(squashed: SquashedGaussian) -> PolicyOutput:
    output = PolicyOutput(mean=squashed.mean)
    output.squashed = squashed
    return output


def test_log_probabilities_are_torchs() -> None:
    torch.manual_seed(0)
    mean, log_std, u = 0.5 * torch.randn(3, 50, 2, dtype=torch.float64)
    ours = SquashedGaussian(mean, log_std, LOW.double(), HIGH.double())
    half = 0.5 * (HIGH - LOW).double()
    steps = [TanhTransform(), AffineTransform(LOW.double() + half, half)]
    theirs = TransformedDistribution(Normal(mean, log_std.exp()), steps)
    action = LOW + half * (u.tanh() + 1)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action).sum(-1))
    assert torch.equal(output_of(ours).log_prob(action), ours.log_prob(action))


def test_samples_stay_within_the_bounds_and_have_a_density_there() -> None:
    wide = SquashedGaussian(torch.zeros(2_000, 2), torch.full((2_000, 2), 3.0), LOW, HIGH)
    actions = output_of(wide).sample(torch.Generator().manual_seed(0))
    assert bool((actions >= LOW).all() and (actions <= HIGH).all())
    # In float32 some are at a bound, whose inverse is infinite.
    assert bool((actions == HIGH).any()) and bool(wide.log_prob(actions).isfinite().all())
