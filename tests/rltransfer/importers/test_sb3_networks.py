"""Sampled actions and log-probabilities of zips are those of Stable-Baselines3 itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.importers.sb3_zip import load_zip
from rltransfer.policies.output import PolicyOutput
from rltransfer.rollouts.actors import TeacherActor
from rltransfer.teachers.adapted import Adapted
from rltransfer.teachers.file_teacher import load_file_teacher

SEEN = spaces.Box(-3.0, 3.0, (5,), np.float32)
MOVES = spaces.Box(np.array([-1.0, -0.125], np.float32), np.array([0.3, 2.5], np.float32))
SAMPLES = 20_000
"""Samples of each of three observations."""


class Still(gymnasium.Env[Any, Any]):
    """Only has spaces."""

    observation_space, action_space = SEEN, MOVES


def built(algorithm: type[BaseAlgorithm], use_sde: bool = False, **kwargs: Any) -> BaseAlgorithm:
    """A model whose standard deviations differ between dimensions and observations."""
    rest = {} if algorithm in (PPO, A2C) else {"buffer_size": 10}
    if algorithm is not TD3:
        rest["use_sde"] = use_sde
    kwargs = {"net_arch": [8], **kwargs}
    model = algorithm("MlpPolicy", Still(), policy_kwargs=kwargs, seed=0, device="cpu", **rest)
    with torch.no_grad():
        for name, parameter in model.policy.named_parameters():
            if name.endswith("log_std") and use_sde:
                parameter.copy_(torch.linspace(-2.5, 0.5, parameter.numel()).view_as(parameter))
            else:
                parameter += 0.3 * torch.randn_like(parameter)
    return model


def output_of(model: BaseAlgorithm, folder: Path, seen: Tensor) -> PolicyOutput:
    """What the zip of a model outputs."""
    model.save(folder / "model.zip")
    return load_zip(folder / "model.zip")({"policy": seen})


def observations(repeated: int = 1) -> Tensor:
    """Three observations, each several times.    (3 * repeated, 5)"""
    torch.manual_seed(3)
    return (2 * torch.randn(3, 5)).repeat_interleave(repeated, 0)


def their_distribution(model: BaseAlgorithm, seen: Tensor) -> Any:
    """The distribution of Stable-Baselines3, whose actions are unscaled if squashed."""
    if not isinstance(model, SAC):
        return model.policy.get_distribution(seen)
    actor = model.policy.actor
    mean, log_std, rest = actor.get_action_dist_params(seen)
    return actor.action_dist.proba_distribution(mean, log_std, **rest)


def their_samples(model: BaseAlgorithm, seen: Tensor, use_sde: bool) -> Tensor:
    """Actions that it takes in its environment, each with its own noise.    (rows, 2)"""
    if use_sde:
        where = model.policy.actor if isinstance(model, SAC) else model.policy
        where.reset_noise(len(seen))
    actions, _ = model.predict(seen.numpy(), deterministic=False)
    return torch.from_numpy(actions)


CASES: dict[str, tuple[type[BaseAlgorithm], bool, dict[str, Any]]] = {
    "PPO": (PPO, False, {}),
    "A2C": (A2C, False, {}),
    "SAC": (SAC, False, {}),
    "PPO, gSDE": (PPO, True, {}),
    "PPO, squashed gSDE": (PPO, True, {"squash_output": True}),
    "A2C, gSDE of one column, expln": (A2C, True, {"full_std": False, "use_expln": True}),
    "SAC, gSDE": (SAC, True, {}),
    "SAC, gSDE without a clip, expln": (SAC, True, {"clip_mean": 0.0, "use_expln": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_samples_are_distributed_like_theirs(case: str, tmp_path: Path) -> None:
    algorithm, use_sde, kwargs = CASES[case]
    model = built(algorithm, use_sde, **kwargs)
    seen = observations(SAMPLES)
    ours = output_of(model, tmp_path, seen).sample(torch.Generator().manual_seed(1))
    theirs = their_samples(model, seen, use_sde)
    low, high = torch.tensor(MOVES.low), torch.tensor(MOVES.high)
    assert bool((ours >= low).all() and (ours <= high).all())
    # Quantiles show what a clip or a squash leaves of a Gaussian, which no two moments tell.
    levels = torch.linspace(0.05, 0.95, 7)
    ours, theirs = (one.view(3, SAMPLES, 2) for one in (ours, theirs))
    # P(a <= theirs' quantile) is the level; 5 standard errors of two samples of 20,000 are 0.025.
    for quantile, level in zip(theirs.quantile(levels, 1), levels, strict=True):
        # What is clipped has no quantile, and a tanh in float32 rounds what comes close to 1.
        inside = (quantile > low + 1e-4) & (quantile < high - 1e-4)
        below = (ours <= quantile.unsqueeze(1)).float().mean(1)
        assert bool(((below - level).abs() <= 0.025)[inside].all())
    for edge in (low, high):
        at = [((one - edge).abs() < 1e-4).float().mean(1) for one in (ours, theirs)]
        torch.testing.assert_close(*at, atol=0.025, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_log_probabilities_are_theirs(case: str, tmp_path: Path) -> None:
    algorithm, use_sde, kwargs = CASES[case]
    model = built(algorithm, use_sde, **kwargs)
    seen = observations(40)
    output = output_of(model, tmp_path, seen)
    squashed = algorithm is SAC or kwargs.get("squash_output", False)
    distribution = their_distribution(model, seen)
    with torch.no_grad():
        theirs = distribution.distribution.sample()
        if squashed:
            theirs = theirs.tanh()
        expected = distribution.log_prob(theirs)
    low, high = torch.tensor(MOVES.low), torch.tensor(MOVES.high)
    if not squashed:
        # Actions before they are clipped, as it learns from them: some are out of bounds.
        assert bool((theirs > high).any())
        torch.testing.assert_close(output.log_prob(theirs), expected)
        return
    action = low + 0.5 * (theirs + 1) * (high - low)
    # Their actions are in [-1, 1]: a density in the units of the bounds is narrower by half of
    # their distance. They add 1e-6 to 1 - a^2, which counts close to the bounds.
    expected = expected - (0.5 * (high - low)).log().sum()
    central = (theirs.abs() < 0.99).all(-1)
    assert central.float().mean() > 0.25
    torch.testing.assert_close(
        output.log_prob(action)[central], expected[central], atol=1e-3, rtol=1e-3
    )


def test_the_mean_of_the_gaussian_is_not_clipped(tmp_path: Path) -> None:
    # By hand: mean 4, standard deviation 1, bounds of 2. log p(4) is -ln sqrt(2 pi) = -0.92; of a
    # Gaussian around 2 it would be 2 less.
    model = built(PPO, net_arch=[])
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.zero_()
        model.policy.action_net.bias.fill_(4.0)
    output = output_of(model, tmp_path, observations())
    four = torch.full((3, 2), 4.0)
    assert torch.equal(output.mean, four)
    torch.testing.assert_close(output.log_prob(four), torch.full((3,), 2 * -0.9189385))
    assert torch.equal(output.greedy(), torch.tensor(MOVES.high).expand(3, 2))


def test_the_standard_deviation_of_sac_is_bounded_like_theirs(tmp_path: Path) -> None:
    model = built(SAC)
    with torch.no_grad():
        model.policy.actor.log_std.bias.copy_(torch.tensor([9.0, -40.0]))
    output = output_of(model, tmp_path, observations())
    _, log_std, _ = model.policy.actor.get_action_dist_params(observations())
    assert torch.equal(log_std, torch.tensor([2.0, -20.0]).expand(3, 2))
    assert torch.equal(output.squashed.log_std, log_std)


def test_a_squashed_gaussian_may_be_reordered(tmp_path: Path) -> None:
    built(SAC).save(tmp_path / "model.zip")
    teacher = load_file_teacher(str(tmp_path / "model.zip"))
    seen, rows = {"policy": observations(10)}, torch.zeros(30, dtype=torch.int64)
    action = teacher(seen, rows).sample(torch.Generator().manual_seed(0))
    swapped = Adapted(teacher, action=(1, 0))(seen, rows)
    expected = teacher(seen, rows).log_prob(action)
    torch.testing.assert_close(swapped.log_prob(action.flip(-1)), expected)


def test_what_has_no_distribution_is_not_sampled(tmp_path: Path) -> None:
    built(TD3).save(tmp_path / "model.zip")
    teacher = load_file_teacher(str(tmp_path / "model.zip"))
    actor = TeacherActor(teacher, torch.Generator())
    rows = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(InputError, match=r"outputs a single action for .* without --stochastic"):
        actor.act({"policy": observations()}, rows, rows, rows)
