"""What is read from a zip says what Stable-Baselines3 itself says."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fitting import spaces_of
from gymnasium import spaces
from sb3_models import (
    FIRST,
    FLOATS,
    LAST,
    MOVES,
    NATURE,
    THREE,
    VECTOR,
    Noise,
    close,
    fitted,
    observations,
    saved,
    shown,
    trained,
)
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from rltransfer.errors import InputError
from rltransfer.importers import sb3_zip
from rltransfer.importers.sb3_networks import ActorCritic
from rltransfer.importers.sb3_zip import ZipPolicy, load_zip
from rltransfer.tasks.task import Suite
from rltransfer.teachers.file_teacher import load_file_teacher

Q_NETWORKS = {
    "default": (VECTOR, {}),
    "one layer": (VECTOR, {"net_arch": [7], "activation_fn": nn.Tanh}),
    "linear": (VECTOR, {"net_arch": []}),
    "matrix": (spaces.Box(-1.0, 1.0, (2, 3), np.float64), {"net_arch": [8, 4, 6]}),
    "discrete": (spaces.Discrete(6), {"net_arch": [8]}),
    "images, channels last": (LAST, NATURE),
    "images, channels first": (FIRST, {**NATURE, "net_arch": [9]}),
    "images, flattened": (LAST, {"net_arch": [8]}),
}


@pytest.mark.parametrize("case", Q_NETWORKS)
def test_dqn_says_the_same_q_values(case: str, tmp_path: Path) -> None:
    space, kwargs = Q_NETWORKS[case]
    model = trained(DQN, space, THREE, **kwargs)
    loaded = load_zip(saved(model, tmp_path))
    seen = observations(space)
    with torch.no_grad():
        expected = model.policy.q_net(model.policy.obs_to_tensor(seen)[0])
    output = loaded(shown(space, seen))
    close(output.q_values, expected)
    assert loaded.settings.algorithm == "DQN"
    assert output.logits is None and output.value is None and output.mean is None


ACTOR_CRITICS = {
    "default": (VECTOR, {}),
    "separate": (VECTOR, {"net_arch": {"pi": [8], "vf": [4, 6]}, "activation_fn": nn.ReLU}),
    "value only": (VECTOR, {"net_arch": {"vf": [4]}}),
    "old list": (VECTOR, {"net_arch": [{"pi": [8, 5], "vf": [4]}], "activation_fn": nn.ELU}),
    "linear": (VECTOR, {"net_arch": []}),
    "discrete": (spaces.Discrete(6), {"net_arch": [8]}),
    "images": (LAST, {**NATURE, "net_arch": {"pi": [8]}}),
    "images, one extractor each": (FIRST, {**NATURE, "share_features_extractor": False}),
    "normalised images": (
        FLOATS,
        {
            "policy": "CnnPolicy",
            "features_extractor_kwargs": {"features_dim": 16, "normalized_image": True},
            "normalize_images": False,
        },
    ),
    "undivided images": (LAST, {"normalize_images": False, "net_arch": [8]}),
}


@pytest.mark.filterwarnings("ignore:As shared layers:UserWarning")
@pytest.mark.parametrize("case", ACTOR_CRITICS)
@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_ppo_and_a2c_say_the_same_about_discrete_actions(
    algorithm: type[BaseAlgorithm], case: str, tmp_path: Path
) -> None:
    space, kwargs = ACTOR_CRITICS[case]
    model = trained(algorithm, space, THREE, **kwargs)
    loaded = load_zip(saved(model, tmp_path))
    seen = observations(space)
    policy = model.policy
    assert isinstance(policy, ActorCriticPolicy)
    with torch.no_grad():
        tensor, _ = policy.obs_to_tensor(seen)
        expected = policy.get_distribution(tensor).distribution.logits
        value = policy.predict_values(tensor).squeeze(-1)
    output = loaded(shown(space, seen))
    # Theirs are normalised to log-probabilities.
    close(output.logits.log_softmax(-1), expected)
    close(output.value, value)
    assert loaded.settings.algorithm == algorithm.__name__
    assert output.mean is None and output.q_values is None
    # An extractor that policy and value share runs once and not twice.
    apart = "one extractor each" in case
    assert isinstance(loaded.network, ActorCritic)
    assert (loaded.network.value_extractor is loaded.network.extractor) != apart


@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_ppo_and_a2c_keep_their_mean_and_clip_the_action(
    algorithm: type[BaseAlgorithm], tmp_path: Path
) -> None:
    model = trained(algorithm, VECTOR, MOVES)
    loaded = load_zip(saved(model, tmp_path))
    seen = observations(VECTOR)
    with torch.no_grad():
        distribution = model.policy.get_distribution(torch.from_numpy(seen)).distribution
    # The test means something only where some means are outside and some are inside.
    outside = (distribution.mean < torch.tensor(MOVES.low)).float().mean()
    assert 0.05 < outside < 0.95
    output = loaded({"policy": torch.from_numpy(seen)})
    close(output.mean, distribution.mean)
    close(output.log_std.exp(), distribution.stddev)
    close(output.greedy(), model.predict(seen, deterministic=True)[0])


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_ppo_and_a2c_with_gsde_act_the_same(
    algorithm: type[BaseAlgorithm], squash: bool, tmp_path: Path
) -> None:
    model = trained(algorithm, VECTOR, MOVES, use_sde=True, squash_output=squash)
    loaded = load_zip(saved(model, tmp_path))
    seen = observations(VECTOR)
    output = loaded({"policy": torch.from_numpy(seen)})
    close(output.greedy(), model.predict(seen, deterministic=True)[0])
    assert (output.squashed is not None) == squash == (output.log_std is None)
    assert output.value is not None


SQUASHED = {
    "default": (VECTOR, {}),
    "other": (VECTOR, {"net_arch": {"pi": [8], "qf": [4]}, "activation_fn": nn.Tanh}),
    "linear": (VECTOR, {"net_arch": []}),
    "images": (LAST, {**NATURE, "net_arch": [8]}),
    "shared extractor": (FIRST, {**NATURE, "net_arch": [8], "share_features_extractor": True}),
}


@pytest.mark.parametrize("case", SQUASHED)
@pytest.mark.parametrize("algorithm", [SAC, TD3, DDPG])
def test_sac_td3_and_ddpg_act_the_same(
    algorithm: type[BaseAlgorithm], case: str, tmp_path: Path
) -> None:
    space, kwargs = SQUASHED[case]
    model = trained(algorithm, space, MOVES, **kwargs)
    loaded = load_zip(saved(model, tmp_path))
    seen = observations(space)
    output = loaded({"policy": torch.from_numpy(seen)})
    close(output.mean, model.predict(seen, deterministic=True)[0])
    assert loaded.settings.algorithm == algorithm.__name__
    assert output.log_std is None and output.value is None


@pytest.mark.parametrize("clip_mean", [2.0, 0.5, 0.0])
def test_sac_with_gsde_clips_before_it_squashes(clip_mean: float, tmp_path: Path) -> None:
    kwargs = {} if clip_mean == 2.0 else {"clip_mean": clip_mean}
    model = trained(SAC, VECTOR, MOVES, use_sde=True, net_arch=[16], **kwargs)
    head = model.policy.actor.mu if clip_mean == 0.0 else model.policy.actor.mu[0]
    with torch.no_grad():
        head.weight *= 5.0
    loaded = load_zip(saved(model, tmp_path))
    seen = observations(VECTOR)
    output = loaded({"policy": torch.from_numpy(seen)})
    close(output.mean, model.predict(seen, deterministic=True)[0])
    # Without the clip at 2 some of these actions would be another.
    assert (head(output.features).abs() > 2.0).any()


def test_features_are_the_last_hidden_layer(tmp_path: Path) -> None:
    q_model = trained(DQN, VECTOR, THREE, net_arch=[8, 4])
    q_loaded = load_zip(saved(q_model, tmp_path))
    seen = torch.from_numpy(observations(VECTOR))
    groups = {"policy": seen}
    with torch.no_grad():
        close(q_loaded(groups).features, q_model.policy.q_net.q_net[:4](seen))
    model = trained(PPO, VECTOR, MOVES, net_arch={"pi": [6, 3], "vf": [5]})
    loaded = load_zip(saved(model, tmp_path))
    with torch.no_grad():
        close(loaded(groups).features, model.policy.mlp_extractor.forward_actor(seen))


def test_statistics_normalise_as_vecnormalize_does(tmp_path: Path) -> None:
    space = spaces.Box(-30.0, 70.0, (4,), np.float64)
    env = VecNormalize(DummyVecEnv([lambda: Noise(space, THREE)]), clip_obs=1.5)
    model = PPO("MlpPolicy", env, n_steps=16, batch_size=16, seed=0, device="cpu")
    model.learn(64)
    env.save(str(tmp_path / "statistics.pkl"))
    loaded = load_zip(saved(model, tmp_path), tmp_path / "statistics.pkl")
    seen = observations(space)
    normalised = torch.from_numpy(env.normalize_obs(seen))
    assert 0.05 < (normalised.abs() == 1.5).float().mean() < 0.95
    with torch.no_grad():
        expected = model.policy.get_distribution(normalised).distribution.logits
    close(loaded(shown(space, seen)).logits.log_softmax(-1), expected)
    content = (tmp_path / "statistics.pkl").read_bytes()
    assert loaded.preprocessing()["normalizer"] == {
        "kind": "VecNormalize", "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip


def test_statistics_of_rewards_alone_leave_observations_as_they_are(tmp_path: Path) -> None:
    env = VecNormalize(DummyVecEnv([lambda: Noise(VECTOR, THREE)]), norm_obs=False)
    env.reset()
    env.save(str(tmp_path / "statistics.pkl"))
    path = saved(trained(DQN, VECTOR, THREE, net_arch=[4]), tmp_path)
    seen = shown(VECTOR, observations(VECTOR))
    loaded = load_zip(path, tmp_path / "statistics.pkl")
    assert loaded.inputs.groups["policy"].normalizer is None
    close(loaded(seen).q_values, load_zip(path)(seen).q_values)


def test_a_loaded_policy_is_frozen_and_says_what_it_is(tmp_path: Path) -> None:
    path = saved(trained(SAC, LAST, MOVES, **NATURE, net_arch=[8]), tmp_path)
    loaded = load_zip(path)
    assert not any(module.training for module in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    stored = spaces.Dict(policy=spaces.Box(0, 255, (1, 40, 36), np.uint8))
    assert loaded.known_spaces() == (stored, MOVES)
    assert loaded.preprocessing() == {
        "algorithm": "SAC", "scale": 1 / 255, "channels": "first", "normalizer": None,
    }  # fmt: skip
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_loaded_policy_of_discrete_actions_says_what_it_is(tmp_path: Path) -> None:
    loaded = load_zip(saved(trained(A2C, spaces.Discrete(6), THREE), tmp_path))
    assert loaded.known_spaces() == (spaces.Dict(policy=spaces.Discrete(6)), THREE)
    assert loaded.preprocessing()["channels"] is None


def test_bounds_that_a_zip_leaves_out_are_those_of_the_task(tmp_path: Path) -> None:
    path = saved(trained(TD3, VECTOR, MOVES, net_arch=[8]), tmp_path)
    seen = shown(VECTOR, observations(VECTOR))
    loaded = load_zip(path)
    with pytest.raises(
        InputError, match=r"acts in .* use --rescale-actions or \"Adapted\(.*bounds='scale'"
    ):
        fitted(loaded, VECTOR, spaces.Box(2 * MOVES.low, 2 * MOVES.high))
    loaded.own_bounds = None
    own = loaded(seen).mean
    wide = spaces.Box(2 * MOVES.low, 2 * MOVES.high)
    # Bounds twice as far make actions twice as large: low + (tanh + 1) / 2 (high - low).
    twice = fitted(loaded, VECTOR, wide)
    close(twice(seen).mean, 2 * own)
    assert torch.equal(loaded(seen).mean, own)
    # The policy that it was made of, and one that is fitted to other bounds, keep theirs.
    close(fitted(loaded, VECTOR, MOVES)(seen).mean, own)
    assert torch.equal(loaded(seen).mean, own) and loaded.action_space is None
    assert loaded.known_spaces()[1] == MOVES and twice.known_spaces()[1] == wide
    # The weights are the same tensors.
    assert all(a is b for a, b in zip(loaded.parameters(), twice.parameters(), strict=True))


def test_a_zip_is_read_and_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(trained(SAC, VECTOR, MOVES, net_arch=[8]), tmp_path)
    calls = []
    for name in ("read_file", "build_network"):
        real = getattr(sb3_zip, name)

        def counted(*arguments: Any, name: str = name, real: Any = real) -> Any:
            calls.append(name)
            return real(*arguments)

        monkeypatch.setattr(sb3_zip, name, counted)
    teacher = load_file_teacher(str(path))
    own = [(spaces.Dict(policy=VECTOR), MOVES)] * 2
    teacher.fitted(spaces_of(Suite.of("a", "b"), own)).describe()
    teacher.fitted(spaces_of(Suite.of("a"), own[:1])).spec()
    assert calls == ["read_file", "build_network"]


def test_shared_layers_of_old_policies(tmp_path: Path) -> None:
    """A shared layer of one unit, worked by hand; Stable-Baselines3 no longer makes any."""
    tensors = {
        "mlp_extractor.shared_net.0.weight": torch.tensor([[2.0]]),
        "mlp_extractor.shared_net.0.bias": torch.tensor([-1.0]),
        "mlp_extractor.value_net.0.weight": torch.tensor([[3.0]]),
        "mlp_extractor.value_net.0.bias": torch.tensor([0.5]),
        "action_net.weight": torch.tensor([[1.0], [-4.0]]),
        "action_net.bias": torch.tensor([0.0, 0.25]),
        "value_net.weight": torch.tensor([[5.0]]),
        "value_net.bias": torch.tensor([0.125]),
    }
    data = {
        "policy_class": {"__module__": "stable_baselines3.common.policies"},
        "policy_kwargs": {"net_arch": [1, {"vf": [1]}]},
        "observation_space": {
            ":type:": "<class 'gym.spaces.box.Box'>",
            "dtype": "float32",
            "shape": [1],
            "low": "[-inf]",
            "high": "[inf]",
        },
        "action_space": {":type:": "<class 'gym.spaces.discrete.Discrete'>", "n": 2},
    }
    with zipfile.ZipFile(tmp_path / "old.zip", "w") as archive:
        archive.writestr("data", json.dumps(data))
        buffer = io.BytesIO()
        torch.save(tensors, buffer)
        archive.writestr("policy.pth", buffer.getvalue())
    output = load_zip(tmp_path / "old.zip")({"policy": torch.tensor([[0.75]])})
    # 2 * 0.75 - 1 = 0.5, through tanh; the value has one more layer of its own.
    shared = math.tanh(0.5)
    close(output.features, torch.tensor([[shared]]))
    close(output.logits, torch.tensor([[shared, 0.25 - 4.0 * shared]]))
    close(output.value, torch.tensor([5.0 * math.tanh(3.0 * shared + 0.5) + 0.125]))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ZipPolicy:
    model = trained(DQN, LAST, THREE, **NATURE)
    return load_zip(saved(model, tmp_path_factory.mktemp("images")))


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> ZipPolicy:
    model = trained(PPO, VECTOR, MOVES, net_arch=[4])
    return load_zip(saved(model, tmp_path_factory.mktemp("vectors")))


def test_a_policy_fits_its_own_spaces(images: ZipPolicy, vectors: ZipPolicy) -> None:
    fitted(images, LAST, THREE)
    fitted(images, spaces.Box(0, 255, (1, 40, 36), np.uint8), THREE)
    fitted(vectors, VECTOR, MOVES)
    # MuJoCo's tasks show float64 where an old one showed float32, or the other way round.
    fitted(vectors, spaces.Box(-3.0, 3.0, (5,), np.float64), MOVES)


@pytest.mark.parametrize(
    ("observed", "acted", "task"),
    [
        (spaces.Box(-1.0, 1.0, (6,), np.float32), MOVES, "shows float32[6] and takes float32[2]"),
        (spaces.Box(0, 255, (5,), np.uint8), MOVES, "shows uint8[5] and takes float32[2]"),
        (spaces.Discrete(5), MOVES, "shows Discrete(5) and takes float32[2]"),
        (VECTOR, spaces.Box(-1.0, 1.0, (3,)), "shows float32[5] and takes float32[3]"),
        (VECTOR, THREE, "shows float32[5] and takes Discrete(3)"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(
    vectors: ZipPolicy, observed: spaces.Space[Any], acted: spaces.Space[Any], task: str
) -> None:
    with pytest.raises(InputError) as error:
        fitted(vectors, observed, acted)
    assert str(error.value) == (
        f"The teacher {vectors.path} does not fit the task 'a task': it observes float32[5] and "
        f"acts in float32[2], but the task {task}."
    )


def test_a_policy_reads_one_group_of_the_default_name(vectors: ZipPolicy) -> None:
    sentence = r"the group 'policy', but the task shows 'camera'; rename .*Adapted\(teacher, obs"
    with pytest.raises(InputError, match=sentence):
        vectors.fitted("a task", spaces.Dict(camera=VECTOR), MOVES)


def test_a_number_fits_the_one_hot_vector_that_shows_it(tmp_path: Path) -> None:
    loaded = load_zip(saved(trained(DQN, spaces.Discrete(6), THREE), tmp_path))
    for fits in (spaces.Discrete(6), spaces.Box(0.0, 1.0, (6,), np.float32)):
        fitted(loaded, fits, THREE)
    for other in (
        spaces.Discrete(5),
        spaces.Box(0.0, 1.0, (5,), np.float32),
        spaces.Box(-1.0, 1.0, (6,), np.float32),
        spaces.Box(0.0, 1.0, (6, 1), np.float32),
    ):
        with pytest.raises(InputError, match=r"observes Discrete\(6\) .*, but the task shows"):
            fitted(loaded, other, THREE)


def test_images_of_another_size_or_actions_of_another_number_are_refused(
    images: ZipPolicy,
) -> None:
    with pytest.raises(InputError, match=r"observes uint8\[1, 40, 36\].* shows uint8\[36, 40, 1\]"):
        fitted(images, spaces.Box(0, 255, (36, 40, 1), np.uint8), THREE)
    with pytest.raises(InputError, match=r"acts in Discrete\(3\), .* takes Discrete\(4\)"):
        fitted(images, LAST, spaces.Discrete(4))


def test_bounds_into_which_nothing_can_be_squashed_are_refused(tmp_path: Path) -> None:
    unbounded = spaces.Box(-np.inf, np.inf, (2,))
    squashed = load_zip(saved(trained(SAC, VECTOR, MOVES, net_arch=[4]), tmp_path))
    squashed.own_bounds = None  # as in zips that leave bounds out
    with pytest.raises(InputError, match=r"between the bounds \[-inf, -inf\] .* must be finite"):
        fitted(squashed, VECTOR, unbounded)
    # What is only clipped may be without bounds.
    clipped = load_zip(saved(trained(PPO, VECTOR, MOVES, net_arch=[4]), tmp_path))
    clipped.own_bounds = None
    fitted(clipped, VECTOR, unbounded)
