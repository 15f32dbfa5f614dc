"""What is read from a zip of sb3-contrib acts like sb3-contrib itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import ARS, QRDQN, TQC, TRPO, CrossQ, MaskablePPO
from sb3_models import (
    FIRST,
    LAST,
    MOVES,
    NATURE,
    THREE,
    VECTOR,
    close,
    observations,
    saved,
    shown,
    trained,
)
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import NatureCNN
from torch import nn

from rltransfer.importers.sb3_zip import load_zip
from rltransfer.teachers.file_teacher import load_file_teacher
from rltransfer.teachers.loading import load_teacher

Q_NETWORKS = {
    "default": (VECTOR, {}),
    "few quantiles": (VECTOR, {"n_quantiles": 7, "net_arch": [8, 4], "activation_fn": nn.Tanh}),
    "one quantile": (VECTOR, {"n_quantiles": 1, "net_arch": [8]}),
    "linear": (VECTOR, {"n_quantiles": 5, "net_arch": []}),
    "matrix": (spaces.Box(-1.0, 1.0, (2, 3), np.float64), {"net_arch": [8]}),
    "discrete": (spaces.Discrete(6), {"net_arch": [8]}),
    "images, channels last": (LAST, {**NATURE, "n_quantiles": 5}),
    "images, channels first": (FIRST, {**NATURE, "n_quantiles": 5, "net_arch": [9]}),
    "images, flattened": (LAST, {"net_arch": [8]}),
}


@pytest.mark.parametrize("case", Q_NETWORKS)
def test_the_q_values_of_qr_dqn_are_the_means_of_its_quantiles(case: str, tmp_path: Path) -> None:
    space, kwargs = Q_NETWORKS[case]
    model = trained(QRDQN, space, THREE, steps=12, **kwargs)
    # Some quantiles far above the others, so that a maximum or a median is not the mean.
    with torch.no_grad():
        model.policy.quantile_net.quantile_net[-1].bias[1] += 9.0
    loaded = load_zip(saved(model, tmp_path))
    seen = observations(space)
    with torch.no_grad():
        quantiles = model.policy.quantile_net(model.policy.obs_to_tensor(seen)[0])
    output = loaded(shown(space, seen))
    close(output.q_values, quantiles.mean(1))
    assert output.greedy().tolist() == model.predict(seen, deterministic=True)[0].tolist()
    assert loaded.settings.algorithm == "QR-DQN"
    assert output.logits is None and output.value is None and output.mean is None


def test_the_features_of_qr_dqn_are_its_last_hidden_layer(tmp_path: Path) -> None:
    model = trained(QRDQN, VECTOR, THREE, net_arch=[8, 4])
    loaded = load_zip(saved(model, tmp_path))
    seen = torch.from_numpy(observations(VECTOR))
    with torch.no_grad():
        close(loaded({"policy": seen}).features, model.policy.quantile_net.quantile_net[:4](seen))
    # 5 x 8 + 8, 8 x 4 + 4 and, as the mean over quantiles is taken once, 4 x 3 + 3.
    assert loaded.num_parameters() == 48 + 36 + 15


SEARCHED = {
    "linear": (VECTOR, {"policy": "LinearPolicy"}),
    "linear with a bias": (VECTOR, {"policy": "LinearPolicy", "with_bias": True}),
    "linear and squashed": (VECTOR, {"policy": "LinearPolicy", "squash_output": True}),
    "default": (VECTOR, {}),
    "other": (VECTOR, {"net_arch": [7], "activation_fn": nn.Tanh, "squash_output": False}),
    "without a bias": (VECTOR, {"net_arch": [8, 4], "with_bias": False}),
    "without hidden layers": (VECTOR, {"net_arch": []}),
    "discrete": (spaces.Discrete(6), {"net_arch": [8]}),
    "images": (LAST, {"net_arch": [8]}),
}


def searched(
    observed: spaces.Space[Any], acted: spaces.Space[Any], kwargs: dict[str, Any]
) -> BaseAlgorithm:
    """A model of ARS, whose weights begin at 0, with large ones, and small biases."""
    model = trained(ARS, observed, acted, steps=20, **kwargs)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter *= 10.0 if parameter.dim() == 2 else 1.0
    return model


@pytest.mark.parametrize("case", SEARCHED)
def test_ars_clips_or_squashes_the_same_actions(case: str, tmp_path: Path) -> None:
    space, kwargs = SEARCHED[case]
    model = searched(space, MOVES, kwargs)
    loaded = load_zip(saved(model, tmp_path))
    seen = observations(space)
    output = loaded(shown(space, seen))
    expected, _ = model.predict(seen, deterministic=True)
    # Neither all at the bounds, where a squashed action equals a clipped one, nor all inside.
    at_bounds = ((expected == MOVES.low) | (expected == MOVES.high)).mean()
    assert at_bounds < 0.9 and (at_bounds > 0 or model.policy.squash_output)
    close(output.mean, expected)
    assert loaded.settings.squash == model.policy.squash_output
    assert output.squashed is None and output.log_std is None and not output.is_stochastic


@pytest.mark.parametrize("case", SEARCHED)
def test_ars_always_takes_its_best_discrete_action(case: str, tmp_path: Path) -> None:
    space, kwargs = SEARCHED[case]
    kwargs = {name: value for name, value in kwargs.items() if name != "squash_output"}
    model = searched(space, THREE, kwargs)
    loaded = load_zip(saved(model, tmp_path))
    seen = observations(space)
    output = loaded(shown(space, seen))
    greedy = torch.from_numpy(model.predict(seen, deterministic=True)[0])
    assert len(greedy.unique()) > 1
    # Nothing of the scale of the scores is left: a distribution of one action, sampled or not.
    assert torch.equal(output.log_probs().exp().round(decimals=6), nn.functional.one_hot(greedy, 3))
    assert torch.equal(output.sample(torch.Generator().manual_seed(0)), greedy)
    assert output.entropy().max() < 1e-6
    assert loaded.settings.algorithm == "ARS" and output.q_values is None


def test_the_features_of_ars_are_its_last_hidden_layer(tmp_path: Path) -> None:
    model = trained(ARS, VECTOR, THREE, net_arch=[8, 4])
    loaded = load_zip(saved(model, tmp_path))
    seen = torch.from_numpy(observations(VECTOR))
    with torch.no_grad():
        close(loaded({"policy": seen}).features, model.policy.action_net[:4](seen))
    assert loaded.num_parameters() == sum(p.numel() for p in model.policy.parameters())
    linear = load_zip(saved(trained(ARS, VECTOR, THREE, policy="LinearPolicy"), tmp_path))
    assert torch.equal(linear({"policy": seen}).features, seen)
    assert linear.num_parameters() == 5 * 3


RENORMALISED = {
    "default": (VECTOR, {}),
    "other": (VECTOR, {"net_arch": {"pi": [8, 4, 6], "qf": [4]}, "activation_fn": nn.Tanh}),
    "large epsilon": (VECTOR, {"net_arch": [8], "batch_norm_eps": 0.5}),
    "not normalised": (VECTOR, {"net_arch": [8], "batch_norm": False}),
    "linear": (VECTOR, {"net_arch": {"pi": [], "qf": [4]}}),
    "gSDE": (VECTOR, {"net_arch": [8], "use_sde": True}),
    "gSDE without a clip, expln": (
        VECTOR,
        {"net_arch": [8], "use_sde": True, "clip_mean": 0.0, "use_expln": True},
    ),
    "discrete": (spaces.Discrete(6), {"net_arch": [8]}),
    "images": (
        LAST,
        {
            "net_arch": [8],
            "features_extractor_class": NatureCNN,
            "features_extractor_kwargs": {"features_dim": 16},
        },
    ),
}


def crossq(space: spaces.Space[Any], kwargs: dict[str, Any]) -> BaseAlgorithm:
    """A model of CrossQ, whose running statistics are far from their beginning."""
    model = trained(CrossQ, space, MOVES, steps=12, **kwargs)
    with torch.no_grad():
        for name, buffer in model.policy.actor.named_buffers():
            if name.endswith("ra_mean"):
                buffer += 0.5 * torch.randn_like(buffer)
            elif name.endswith("ra_var"):
                buffer *= torch.rand_like(buffer) + 0.1
    return model


@pytest.mark.parametrize("case", RENORMALISED)
def test_crossq_has_the_same_squashed_gaussian(case: str, tmp_path: Path) -> None:
    space, kwargs = RENORMALISED[case]
    model = crossq(space, kwargs)
    loaded = load_zip(saved(model, tmp_path))
    seen = observations(space)
    output = loaded(shown(space, seen))
    # In evaluation mode, as `predict` leaves it.
    close(output.mean, model.predict(seen, deterministic=True)[0])
    actor = model.policy.actor
    with torch.no_grad():
        mean, log_std, rest = actor.get_action_dist_params(model.policy.obs_to_tensor(seen)[0])
        distribution = actor.action_dist.proba_distribution(mean, log_std, **rest).distribution
    assert output.squashed is not None
    close(output.squashed.mean, distribution.mean)
    close(output.squashed.log_std.exp(), distribution.stddev)
    assert loaded.settings.algorithm == "CrossQ"
    assert output.log_std is None and output.value is None


def test_the_features_of_crossq_are_its_last_hidden_layer(tmp_path: Path) -> None:
    model = crossq(VECTOR, {"net_arch": [8]})
    loaded = load_zip(saved(model, tmp_path))
    seen = torch.from_numpy(observations(VECTOR))
    model.policy.set_training_mode(False)
    with torch.no_grad():
        close(loaded({"policy": seen}).features, model.policy.actor.latent_pi(seen))
    # Scale and bias of 5 and of 8 features, 5 x 8 + 8 and 8 x 2 + 2.
    assert loaded.num_parameters() == 10 + 48 + 16 + 18


MASKED = {
    "default": (VECTOR, {}),
    "separate": (VECTOR, {"net_arch": {"pi": [8], "vf": [4, 6]}, "activation_fn": nn.ReLU}),
    "discrete": (spaces.Discrete(6), {"net_arch": [8]}),
    "images": (LAST, NATURE),
    "images, one extractor each": (FIRST, {**NATURE, "share_features_extractor": False}),
}


@pytest.mark.parametrize("case", MASKED)
def test_maskable_ppo_has_the_same_logits_and_value(case: str, tmp_path: Path) -> None:
    space, kwargs = MASKED[case]
    model = trained(MaskablePPO, space, THREE, steps=64, **kwargs)
    loaded = load_zip(saved(model, tmp_path))
    seen = observations(space)
    with torch.no_grad():
        tensor, _ = model.policy.obs_to_tensor(seen)
        expected = model.policy.get_distribution(tensor).distribution.logits
        value = model.policy.predict_values(tensor).squeeze(-1)
    output = loaded(shown(space, seen))
    close(output.logits.log_softmax(-1), expected)
    close(output.value, value)
    assert loaded.settings.algorithm == "MaskablePPO"


def test_a_note_says_that_masks_are_not_applied(tmp_path: Path) -> None:
    path = saved(trained(MaskablePPO, VECTOR, THREE, net_arch=[4]), tmp_path)
    (note,) = load_file_teacher(str(path)).notes()
    assert note == (
        f"{path} was trained by MaskablePPO, but the action masks of its environment are not "
        "applied: it may choose actions that the environment masks."
    )
    assert load_teacher(f"Ensemble('{path}', '{path}')").notes() == (note,)


def test_trpo_and_tqc_act_the_same(tmp_path: Path) -> None:
    seen = observations(VECTOR)
    for algorithm, kwargs in ((TRPO, {}), (TQC, {"net_arch": [8]})):
        model = trained(algorithm, VECTOR, MOVES, steps=12, **kwargs)
        loaded = load_zip(saved(model, tmp_path))
        output = loaded({"policy": torch.from_numpy(seen)})
        close(output.greedy(), model.predict(seen, deterministic=True)[0])
        assert loaded.settings.algorithm == algorithm.__name__


@pytest.mark.parametrize("algorithm", [ARS, QRDQN, CrossQ, MaskablePPO])
def test_statistics_normalise_as_vecnormalize_does(
    algorithm: type[BaseAlgorithm], tmp_path: Path
) -> None:
    space = spaces.Box(-30.0, 70.0, (4,), np.float64)
    actions = MOVES if algorithm is CrossQ else THREE
    model = trained(algorithm, space, actions, statistics=True, steps=64, net_arch=[8])
    env = model.get_vec_normalize_env()
    assert env is not None
    env.save(str(tmp_path / "model.vecnormalize.pkl"))
    teacher = load_teacher(saved(model, tmp_path))
    seen = observations(space)
    output = teacher(shown(space, seen), torch.zeros(len(seen), dtype=torch.int64))
    expected, _ = model.predict(env.normalize_obs(seen), deterministic=True)
    assert len(np.unique(expected, axis=0)) > 1
    close(output.greedy(), expected)
    if algorithm is QRDQN:
        with torch.no_grad():
            quantiles = model.policy.quantile_net(torch.from_numpy(env.normalize_obs(seen)))
        close(output.q_values, quantiles.mean(1))
    assert teacher.spec().preprocessing["normalizer"]["kind"] == "VecNormalize"
