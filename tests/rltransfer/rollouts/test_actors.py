"""Actors sample only from what has a distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rltransfer.errors import InputError
from rltransfer.policies.network import Network
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.rollouts.actors import PolicyActor


@pytest.mark.parametrize("q_values", [False, True])
def test_a_q_network_is_not_sampled(q_values: bool) -> None:
    seen = spaces.Dict(policy=spaces.Box(-1, 1, (4,), np.float32))
    policy = Policy(PolicySpec(Network(hidden=(8,)), seen, spaces.Discrete(3), q_values=q_values))
    rows = torch.zeros(60, dtype=torch.int64)
    given = {"policy": torch.zeros(60, 4)}, rows, torch.zeros(60, 0), rows.bool()
    actor = PolicyActor(policy, torch.Generator().manual_seed(0))
    if q_values:
        with pytest.raises(InputError, match=r"The policy outputs Q-values .* --stochastic"):
            actor.act(*given)
        assert PolicyActor(policy).act(*given)["action"].unique().numel() == 1
        return
    assert actor.act(*given)["action"].unique().numel() == 3
