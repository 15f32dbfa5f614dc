"""Several policies in one forward pass say what each says alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fitting import spaces_of
from gymnasium import spaces

import rltransfer as rt
from rltransfer.agents.distral_policy import DistralSpec
from rltransfer.policies.network import Network
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.policies.stacked_policies import can_stack
from rltransfer.teachers.per_task import PerTask
from rltransfer.teachers.policy_teacher import PolicyTeacher

IMAGE = spaces.Box(0, 1, (6, 10, 10), np.uint8)
VECTOR = spaces.Box(-1, 1, (5,), np.float32)


def policies(network: Network, seen: spaces.Box, action: spaces.Space, q_values: bool = False):
    spec = PolicySpec(network, spaces.Dict(policy=seen), action, q_values=q_values)
    return [Policy(spec).eval() for _ in range(3)]


@pytest.mark.parametrize(
    ("network", "seen", "action", "q_values"),
    [
        (Network(encoder="grid", layer_norm=True), IMAGE, spaces.Discrete(4), False),
        (Network(hidden=(8,)), VECTOR, spaces.Discrete(4), True),
        (Network(hidden=(8,)), VECTOR, spaces.Box(-1, 1, (2,), np.float32), False),
    ],
)
def test_stacked_teachers_say_what_each_says(network, seen, action, q_values) -> None:
    tasks = rt.Suite.of("a", "b", "c")
    teachers = [PolicyTeacher(one, "x", "") for one in policies(network, seen, action, q_values)]
    own = spaces_of(tasks, [(spaces.Dict(policy=seen), action)] * 3)
    apart = PerTask(dict(zip(tasks.names(), teachers, strict=True))).fitted(own)
    stacked = PerTask(dict(zip(tasks.names(), teachers, strict=True))).fitted(own)
    assert isinstance(stacked, PerTask)
    stacked.stack()
    # The suite pads one channel, or one number, that no teacher reads.
    shape = (12, seen.shape[0] + 1, *seen.shape[1:])
    observation = {"policy": torch.rand(shape).to(torch.from_numpy(np.zeros(1, seen.dtype)).dtype)}
    for task in (torch.arange(3).repeat_interleave(4), torch.tensor([0] * 2 + [1] * 4 + [2] * 6)):
        expected, found = apart(observation, task), stacked(observation, task)
        for name in ("logits", "q_values", "mean", "log_std"):
            one, other = getattr(expected, name), getattr(found, name)
            assert (one is None) == (other is None)
            if one is not None:
                # Tolerance: float32 sums in another order.
                torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)


def test_only_policies_of_one_shape_are_stacked() -> None:
    small, large = Network(hidden=(8,)), Network(hidden=(16,))
    discrete = spaces.Discrete(4)
    one, other = policies(small, VECTOR, discrete)[0], policies(large, VECTOR, discrete)[0]
    values = policies(small, VECTOR, discrete, q_values=True)[0]
    assert can_stack([one, policies(small, VECTOR, discrete)[1]])
    assert not can_stack([one])
    assert not can_stack([one, other])
    assert not can_stack([one, values])
    network = Network(hidden=(8,), statistics="per-task")
    spec = PolicySpec(network, spaces.Dict(policy=VECTOR), discrete, num_tasks=2)
    assert not can_stack([Policy(spec), Policy(spec)])


def test_policies_of_different_kinds_are_not_stacked() -> None:
    spec = (Network(hidden=(8,)), spaces.Dict(policy=VECTOR), spaces.Discrete(4))
    half, whole = (DistralSpec(*spec, shared_weight=weight).build() for weight in (0.5, 1.0))
    assert can_stack([half, DistralSpec(*spec, shared_weight=0.5).build()])
    assert not can_stack([half, whole])
    assert not can_stack([half, Policy(PolicySpec(*spec))])


def test_rows_are_counted_again_where_a_task_tensor_changes() -> None:
    tasks = rt.Suite.of("a", "b")
    discrete = spaces.Discrete(4)
    made = policies(Network(hidden=(8,)), VECTOR, discrete)[:2]
    teachers = dict(zip(tasks.names(), [PolicyTeacher(p, "x", "") for p in made], strict=True))
    each = PerTask(teachers).fitted(spaces_of(tasks, [(spaces.Dict(policy=VECTOR), discrete)] * 2))
    observation = {"policy": torch.randn(4, 5)}
    task = torch.tensor([0, 0, 1, 1])
    each(observation, task)
    task.fill_(1)
    with torch.no_grad():
        expected = made[1](observation).logits
    torch.testing.assert_close(each(observation, task).logits, expected)
