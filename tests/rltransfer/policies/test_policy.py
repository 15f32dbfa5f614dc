"""Policies: sizes by hand, masks, recurrence, statistics, and their form on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.objectives.outputs import KL, MSE
from rltransfer.policies.network import Network, conv, mlp
from rltransfer.policies.output import MASKED, PolicyOutput
from rltransfer.policies.policy import LOG_STD_RANGE, Policy, PolicySpec
from rltransfer.policies.saving import load_policy, save_policy

GRID = spaces.Dict({"policy": spaces.Box(0, 1, (4, 10, 10), np.uint8)})
VECTOR = spaces.Dict({"policy": spaces.Box(-np.inf, np.inf, (3,), np.float32)})
ARM = spaces.Box(-1.0, 1.0, (2,), np.float32)


def spec_of(
    network: Network,
    space: spaces.Dict = VECTOR,
    action: spaces.Space[Any] | None = None,
    **more: Any,
) -> PolicySpec:
    return PolicySpec(network, space, spaces.Discrete(4) if action is None else action, **more)


def small(seed: int = 0, network: Network | None = None, **more: Any) -> Policy:
    torch.manual_seed(seed)
    return Policy(spec_of(network or mlp((8,)), **more))


def num_parameters(policy: Policy) -> int:
    return sum(parameter.numel() for parameter in policy.parameters())


def test_grid_policy_size():
    with torch.device("meta"):
        policy = Policy(spec_of(conv(), GRID, spaces.Discrete(6)))
    # Convolution 3 * 3 * 4 * 16 + 16 = 592; 8 * 8 * 16 = 1024 to 128: 131,200; actions
    # 128 * 6 + 6 = 774; the value's head 128 + 1 is not needed for acting.
    assert policy.num_acting_parameters() == 592 + 131_200 + 774 == 132_566
    assert num_parameters(policy) == 132_566 + 129


@pytest.mark.parametrize(("space", "side"), [("grid", 10), ("nature", 84)])
def test_half_the_width_has_a_quarter_of_the_parameters(space: str, side: int):
    image = spaces.Dict({"policy": spaces.Box(0, 1, (4, side, side), np.uint8)})
    with torch.device("meta"):
        whole, half = (Policy(spec_of(conv(width=width), image)) for width in (1.0, 0.5))
    # The first layer's inputs, the biases and the heads are only halved: a bit more than a quarter.
    share = half.num_acting_parameters() / whole.num_acting_parameters()
    assert 0.25 < share < 0.26


def test_vector_policy_keeps_a_second_encoder_for_the_value():
    # 3 * 8 + 8 = 32 twice, actions 8 * 4 + 4 = 36, value 8 + 1 = 9.
    policy = small()
    assert policy.num_acting_parameters() == 32 + 36
    assert num_parameters(policy) == 2 * 32 + 36 + 9
    assert num_parameters(small(value=False)) == 32 + 36


def test_what_each_kind_of_policy_says():
    observation = {"policy": torch.randn(5, 3)}
    discrete = small()(observation)
    assert discrete.logits.shape == (5, 4) and discrete.value.shape == (5,)
    assert discrete.q_values is None and discrete.mean is None
    assert discrete.features.shape == (5, 8) and discrete.state is None
    q_network = small(q_values=True, value=False)(observation)
    assert q_network.q_values.shape == (5, 4)
    assert q_network.logits is None and q_network.value is None
    continuous = small(action=ARM)(observation)
    assert continuous.mean.shape == continuous.log_std.shape == (5, 2)
    assert continuous.logits is None and not continuous.log_std.any()


@pytest.mark.parametrize("gru", [0, 6])
def test_maps_and_attention_are_there_only_where_they_are_needed(gru: int):
    torch.manual_seed(0)
    policy = Policy(spec_of(conv(gru=gru), GRID))
    observation = {"policy": torch.randint(0, 2, (3, 2, 4, 10, 10), dtype=torch.uint8)}
    plain = policy(observation)
    assert plain.maps is None and plain.attention is None
    asked = policy(observation, needs=frozenset({"maps", "attention"}))
    # Time and batch, 16 channels and 8 x 8 places.
    assert asked.maps.shape == (3, 2, 16, 8, 8)
    torch.testing.assert_close(asked.attention, asked.maps.square().sum(2))
    # Nothing else changes where they are needed.
    assert torch.equal(asked.logits, plain.logits) and torch.equal(asked.features, plain.features)
    attention = policy(observation, needs=frozenset({"attention"}))
    assert attention.maps is None and attention.attention is not None


def test_fresh_policy_is_close_to_uniform():
    torch.manual_seed(1)
    output = small()({"policy": torch.randn(100, 3)})
    # The head's gain of 0.01 leaves logits near 0: the entropy is nearly ln 4.
    assert output.entropy().min().item() == pytest.approx(np.log(4), abs=1e-3)


def test_log_std_is_bounded():
    policy = small(action=ARM)
    assert policy.log_std is not None
    with torch.no_grad():
        policy.log_std.copy_(torch.tensor([100.0, -100.0]))
    output = policy({"policy": torch.zeros(1, 3)})
    assert output.log_std.tolist() == [[LOG_STD_RANGE[1], LOG_STD_RANGE[0]]]


@pytest.mark.parametrize("outside", LOG_STD_RANGE)
def test_a_log_std_outside_its_bounds_comes_back(outside: float):
    policy = small(action=ARM)
    away = 0.1 if outside > 0 else -0.1
    with torch.no_grad():
        policy.log_std.fill_(outside + away)
    for back in (True, False):
        policy.log_std.grad = None
        said = policy({"policy": torch.zeros(1, 3)}).log_std.sum()
        # A step goes against the gradient: back in, or further out.
        (said if back == (away > 0) else -said).backward()
        moved = -policy.log_std.grad * away
        assert bool((moved < 0).all()) if back else not policy.log_std.grad.any()


def test_same_seed_same_weights():
    one, same, other = (small(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["action_head.weight"], other["action_head.weight"])


MASK = ((True, True, False, False), (True, False, True, True))


@pytest.mark.parametrize("q_values", [False, True])
def test_masks_are_each_tasks_own(q_values: bool):
    torch.manual_seed(0)
    policy = small(action_mask=MASK, q_values=q_values)
    output: PolicyOutput = policy({"policy": torch.randn(2, 3)}, torch.tensor([0, 1]))
    assert (output.preferences() == MASKED).tolist() == [[False, False, True, True],
                                                          [False, True, False, False]]  # fmt: skip
    probabilities = output.preferences().softmax(-1)
    assert probabilities[0, 2:].tolist() == [0, 0] and probabilities[1, 1] == 0


def test_masked_actions_are_never_greedy():
    policy = small(action_mask=MASK)
    with torch.no_grad():
        policy.action_head.bias.copy_(torch.tensor([-1e6, -1e6, 1e6, 1e6]))
    output: PolicyOutput = policy(
        {"policy": torch.randn(50, 3)}, torch.zeros(50, dtype=torch.int64)
    )
    assert output.greedy().max() <= 1
    assert output.sample(torch.Generator().manual_seed(0)).max() <= 1


def test_mask_needs_the_task():
    with pytest.raises(ValueError, match="pass the task index"):
        small(action_mask=MASK)({"policy": torch.zeros(1, 3)})


def test_masked_policy_learns_in_bfloat16():
    student = small(action_mask=MASK)
    task = torch.zeros(6, dtype=torch.int64)
    teacher = torch.tensor([[1.0, 0.0, MASKED, MASKED]]).expand(6, 4)
    with torch.autocast("cpu", torch.bfloat16):
        output = student({"policy": torch.randn(6, 3)}, task)
    assert output.logits.dtype == torch.float32
    assert KL()(output, PolicyOutput(logits=teacher))["kl"] < 1
    # The student's scores are near 0: (1 - 0)^2 + 0^2.
    assert MSE()(output, PolicyOutput(q_values=teacher))["mse"].item() == pytest.approx(1, abs=0.1)


def test_the_learner_in_bfloat16_finds_the_probabilities_of_acting():
    policy = small(action=ARM)
    torch.nn.init.constant_(policy.action_head.bias, 100.0)
    torch.nn.init.constant_(policy.value_head.bias, 1001.0)
    seen = {"policy": torch.randn(64, 3)}
    acting = policy(seen)
    action = acting.sample()
    with torch.autocast("cpu", torch.bfloat16):
        learning = policy(seen)
        # Of 8 bits a mean near 100 would be up to 0.25 away, a value near 1000 up to 2.
        apart = learning.log_prob(action) - acting.log_prob(action)
    assert learning.features.dtype == torch.bfloat16
    assert apart.abs().max() < 1e-2
    torch.testing.assert_close(learning.value, acting.value, atol=0.1, rtol=0)


def test_heads_in_bfloat16_learn():
    policy = small(q_values=True)
    with torch.autocast("cpu", torch.bfloat16):
        output = policy({"policy": torch.randn(8, 3)})
        (output.q_values.square().sum() + output.value.square().sum()).backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.any() for p in policy.parameters())


RECURRENT = Network(encoder="mlp", hidden=(8,), gru=6)
OWN_STATISTICS = Network(hidden=(8,), statistics="per-task")


@pytest.mark.parametrize("network", [RECURRENT, Network(hidden=(8,)), OWN_STATISTICS])
def test_sequence_equals_its_steps(network: Network):
    torch.manual_seed(0)
    policy = small(network=network, action_mask=MASK, num_tasks=2)
    with torch.no_grad():  # Weights that say something.
        policy.action_head.weight.mul_(100)
    time, rows = 7, 3
    observation = torch.randn(time, rows, 3)
    task = torch.tensor([0, 1, 1]).expand(time, rows)
    policy.update_statistics({"policy": observation + 5 * task.unsqueeze(-1)}, task)
    start = torch.rand(time, rows) < 0.3
    initial = torch.randn(rows, policy.state_size)
    whole: PolicyOutput = policy({"policy": observation}, task, initial, start)
    state: Tensor | None = initial
    for step in range(time):
        one: PolicyOutput = policy({"policy": observation[step]}, task[step], state, start[step])
        state = one.state
        assert whole.logits is not None and one.logits is not None
        assert whole.value is not None and one.value is not None
        # Tolerance: matrices of another height are multiplied in another order.
        torch.testing.assert_close(whole.logits[step], one.logits)
        torch.testing.assert_close(whole.value[step], one.value)
    if policy.state_size:
        torch.testing.assert_close(whole.state, state)


def test_start_forgets_what_was_before():
    torch.manual_seed(0)
    policy = small(network=RECURRENT)
    observation = {"policy": torch.randn(2, 3)}
    state = torch.randn(2, 6)
    blank = policy(observation).features
    forgotten = policy(observation, state=state, start=torch.tensor([True, False])).features
    remembered = policy(observation, state=state, start=torch.tensor([False, False])).features
    # Only the row that starts is as if there had been nothing.
    torch.testing.assert_close(forgotten[0], blank[0])
    torch.testing.assert_close(forgotten[1], remembered[1])
    assert not torch.allclose(remembered[0], blank[0])
    assert not torch.allclose(remembered[1], blank[1])


def test_start_forgets_amid_a_sequence():
    torch.manual_seed(0)
    policy = small(network=RECURRENT)
    observation = torch.randn(4, 1, 3)
    start = torch.tensor([[False], [False], [True], [False]])
    whole = policy({"policy": observation}, start=start).features
    torch.testing.assert_close(whole[2:], policy({"policy": observation[2:]}).features)


def test_recurrent_state_scales_with_the_width():
    assert Policy(spec_of(Network(encoder="mlp", hidden=(8,), gru=6, width=0.5))).state_size == 3
    assert small().state_size == 0
    assert small(network=RECURRENT).initial_state(5).shape == (5, 6)


def test_each_task_is_normalised_by_its_own_statistics():
    torch.manual_seed(0)
    policy = small(network=OWN_STATISTICS, num_tasks=2)
    seen, task = torch.randn(40, 3), torch.arange(40) % 2
    # The second task shows the same in other units: the policy says the same of it.
    units = torch.where(task.bool(), 1_000.0, 1.0).unsqueeze(-1)
    pairs = seen[task == 0].repeat_interleave(2, 0) * units
    policy.update_statistics({"policy": pairs}, task)
    output = policy({"policy": pairs}, task)
    # Tolerance: float32 sums of larger numbers.
    torch.testing.assert_close(output.logits[1::2], output.logits[::2], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(output.value[1::2], output.value[::2], rtol=1e-3, atol=1e-5)
    shared = small(num_tasks=2)
    shared.update_statistics({"policy": pairs}, task)
    apart = shared({"policy": pairs}, task).value
    assert (apart[1::2] - apart[::2]).abs().mean() > 0.1
    with pytest.raises(ValueError, match="pass the task index"):
        policy({"policy": pairs})


def test_statistics_are_of_all_that_was_seen():
    policy = small()
    # 1, 3 and 5, 7, over time and rows: mean 4, variance (9 + 1 + 1 + 9) / 4.
    seen = torch.tensor([[1.0, 3.0], [5.0, 7.0]]).unsqueeze(-1).expand(2, 2, 3)
    policy.update_statistics({"policy": seen})
    for encoder in (policy.encoder, policy.value_encoder):
        assert encoder is not None and encoder.normalizer is not None
        assert encoder.normalizer.mean.tolist() == [4, 4, 4]
        assert encoder.normalizer.variance.tolist() == [5, 5, 5]


SPECS: dict[str, PolicySpec] = {
    "vector": spec_of(mlp((8, 6))),
    "masked": spec_of(mlp((8,)), action_mask=MASK),
    "q_values": spec_of(Network(hidden=(8,), layer_norm=True), q_values=True, value=False),
    "continuous": spec_of(Network(hidden=(8,), activation="tanh"), action=ARM),
    "recurrent": spec_of(RECURRENT),
    "own statistics": spec_of(OWN_STATISTICS, num_tasks=2),
    "grid": spec_of(conv(width=0.1), GRID),
    "two groups": spec_of(
        Network(hidden=(8,), groups=("joints", "policy")),
        spaces.Dict({"policy": VECTOR["policy"], "joints": ARM}),
    ),
}


def seen_by(spec: PolicySpec) -> tuple[dict[str, Tensor], Tensor]:
    """Returns five observations of a policy and their tasks."""
    observation = {}
    for name, space in spec.observation_space.spaces.items():
        assert space.shape is not None
        observation[name] = 3 + 2 * torch.randn(5, *space.shape)
    return observation, torch.tensor([0, 1, 0, 1, 1])


@pytest.mark.parametrize("name", SPECS)
def test_saved_policy_says_the_same(name: str, tmp_path: Path):
    torch.manual_seed(0)
    policy = Policy(SPECS[name])
    observation, task = seen_by(policy.spec)
    policy.update_statistics(observation, task)
    save_policy(policy, tmp_path / "policy")
    assert {path.name for path in tmp_path.iterdir()} == {"policy.json", "policy.safetensors"}
    loaded = load_policy(tmp_path / "policy")
    assert not loaded.training and loaded.spec == policy.spec
    one, same = policy(observation, task), loaded(observation, task)
    for field in ("logits", "q_values", "mean", "log_std", "value", "features", "state"):
        before, after = getattr(one, field), getattr(same, field)
        assert (before is None) == (after is None)
        assert before is None or torch.equal(before, after)


def test_half_precision_is_for_weights_and_not_for_statistics(tmp_path: Path):
    torch.manual_seed(0)
    policy = small()
    # Observations beyond float16's 65,504, and their count as well.
    observation = {"policy": 1e6 + 1e5 * torch.randn(70_000, 3)}
    policy.update_statistics(observation)
    save_policy(policy, tmp_path / "whole")
    save_policy(policy, tmp_path / "half", half=True)
    tensors = load_file(tmp_path / "half.safetensors")
    weights = {name for name, _ in policy.named_parameters()}
    for name, tensor in tensors.items():
        assert tensor.dtype == (torch.float16 if name in weights else torch.float32)
    sizes = [(tmp_path / f"{stem}.safetensors").stat().st_size for stem in ("half", "whole")]
    assert sizes[0] < sizes[1]
    loaded = load_policy(tmp_path / "half")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    few = {"policy": observation["policy"][:50]}
    # Tolerance: float16 keeps 11 bits, of weights up to about 1.5.
    torch.testing.assert_close(loaded(few).features, policy(few).features, atol=5e-3, rtol=5e-3)


def cut_short(stem: Path) -> None:
    path = stem.with_suffix(".safetensors")
    path.write_bytes(path.read_bytes()[:-10])


def emptied(stem: Path) -> None:
    stem.with_suffix(".safetensors").write_bytes(b"")


def of_another_kind(stem: Path) -> None:
    stem.with_suffix(".safetensors").write_bytes(b"PK\x03\x04" + bytes(range(256)))


def json_cut_short(stem: Path) -> None:
    path = stem.with_suffix(".json")
    path.write_text(path.read_text()[:-20])


def json_no_text(stem: Path) -> None:
    stem.with_suffix(".json").write_bytes(b"\xff\xfe\x00\x80")


def json_list(stem: Path) -> None:
    stem.with_suffix(".json").write_text("[1, 2]")


def edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(stem: Path) -> None:
        path = stem.with_suffix(".json")
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        emptied,
        of_another_kind,
        json_cut_short,
        json_no_text,
        json_list,
        edited(lambda data: data.pop("network")),
        edited(lambda data: data.update(network=3)),
        edited(lambda data: data["network"].update(depth=3)),
        edited(lambda data: data["network"].update(width="wide")),
        edited(lambda data: data["network"].update(encoder="transformer")),
        edited(lambda data: data.update(observation_space={"discrete": 3})),
        edited(lambda data: data.update(action_space={"triangle": 3})),
    ],
)
def test_damaged_files(damage: Callable[[Path], None], tmp_path: Path):
    stem = tmp_path / "policy"
    save_policy(small(), stem)
    damage(stem)
    with pytest.raises(InputError) as caught:
        load_policy(stem)
    assert str(caught.value) == f"{stem} is not a complete policy: one of its files is damaged."


def test_weights_that_git_lfs_has_not_fetched(tmp_path: Path):
    stem = tmp_path / "policy"
    save_policy(small(), stem)
    stem.with_suffix(".safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match=r"is a pointer of git-lfs .* `git lfs pull`"):
        load_policy(stem)


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_missing_files(suffix: str, tmp_path: Path):
    stem = tmp_path / "policy"
    save_policy(small(), stem)
    stem.with_suffix(suffix).unlink()
    with pytest.raises(InputError) as caught:
        load_policy(stem)
    assert str(caught.value) == f"{stem} is not a policy: {stem.with_suffix(suffix)} is missing."


def test_files_that_do_not_fit_each_other(tmp_path: Path):
    stem = tmp_path / "policy"
    save_policy(small(), stem)
    edited(lambda data: data["network"].update(hidden=[9]))(stem)
    with pytest.raises(InputError) as caught:
        load_policy(stem)
    assert str(caught.value) == (
        f"{stem}.safetensors does not fit the policy that {stem}.json describes."
    )


def test_missing_group_names_those_that_there_are():
    with pytest.raises(InputError, match="'camera', but there are only 'policy'"):
        small(network=Network(groups=("camera",)))


@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("action", [spaces.Discrete(3), spaces.Box(-1, 1, (3,), np.float32)])
def test_each_task_has_its_own_head(action: spaces.Space[Any], sequence: bool) -> None:
    seen = spaces.Dict(policy=spaces.Box(-1, 1, (5,), np.float32))
    network = Network(hidden=(8,), heads="per-task")
    policy = Policy(PolicySpec(network, seen, action, num_tasks=2))
    with torch.no_grad():
        policy.action_head.weight.normal_()
        if policy.log_std is not None:
            policy.log_std.copy_(torch.tensor([[0.1] * 3, [0.2] * 3]))
    shape = (4, 6) if sequence else (6,)
    observation = {"policy": torch.randn(*shape, 5)}
    task = torch.randint(2, shape)
    output = policy(observation, task)
    # The first three outputs are the first task's, the others the second's.
    both = policy.action_head(output.features)
    chosen = torch.where(task.bool().unsqueeze(-1), both[..., 3:], both[..., :3])
    assert torch.equal(output.logits if output.mean is None else output.mean, chosen)
    values = policy.value_head(policy.value_encoder(
        {"policy": observation["policy"].reshape(-1, 5)}
    )).unflatten(0, shape)  # fmt: skip
    assert torch.equal(output.value, values.gather(-1, task.unsqueeze(-1)).squeeze(-1))
    if output.log_std is not None:
        torch.testing.assert_close(output.log_std[..., 0], 0.1 + 0.1 * task)
    with pytest.raises(ValueError, match="pass the task index"):
        policy(observation)


def test_learning_one_task_leaves_the_other_tasks_head_alone() -> None:
    seen = spaces.Dict(policy=spaces.Box(-1, 1, (5,), np.float32))
    spec = PolicySpec(
        Network(hidden=(8,), heads="per-task"), seen, spaces.Discrete(3), num_tasks=2, value=False
    )
    policy = Policy(spec)
    task = torch.ones(6, dtype=torch.int64)
    policy({"policy": torch.randn(6, 5)}, task).logits.square().sum().backward()
    gradient = policy.action_head.weight.grad
    assert gradient is not None and gradient[3:].abs().sum() > 0
    assert gradient[:3].abs().sum() == 0


def test_a_file_of_an_earlier_version_is_read() -> None:
    seen = spaces.Dict(policy=spaces.Box(-1, 1, (5,), np.float32))
    spec = PolicySpec(Network(hidden=(8,)), seen, spaces.Discrete(3))
    data = spec.to_json()
    del data["num_tasks"], data["network"]["heads"], data["network"]["statistics"]
    assert PolicySpec.from_json(data) == spec
