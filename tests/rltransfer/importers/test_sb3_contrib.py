"""What is read from a zip of sb3-contrib acts like sb3-contrib itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import QRDQN
from sb3_models import (
    FIRST,
    LAST,
    NATURE,
    THREE,
    VECTOR,
    close,
    observations,
    saved,
    shown,
    trained,
)
from torch import nn

from rltransfer.importers.sb3_zip import load_zip

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
