"""Stable-Baselines3 zips as frozen torch modules, without executing anything that is in them.

Of a zip only two members are read: the JSON `data`, in which the pickles under `:serialized:` are
left closed and their readable forms are used, and the tensors of `policy.pth`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.importers.damage import DAMAGE
from rltransfer.importers.sb3_networks import Inputs
from rltransfer.importers.sb3_spaces import (
    StoredActionSpace,
    StoredObservationSpace,
    read_action_space,
    read_observation_space,
)
from rltransfer.importers.sb3_vecnormalize import ObservationNormalizer, load_vecnormalize
from rltransfer.importers.sb3_weights import (
    ACTIVATIONS,
    Settings,
    StoredTensors,
    build_actor_critic,
    build_q_network,
    build_squashed_actor,
)
from rltransfer.tasks.observation import describe_shape, describe_space

ALGORITHMS = ("A2C", "DDPG", "DQN", "PPO", "SAC", "TD3")
"""The algorithms whose policies can be read."""

READABLE = f"only MlpPolicy and CnnPolicy of {', '.join(ALGORITHMS[:-1])} and {ALGORITHMS[-1]} are"


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedPolicy:
    """A policy that was read from a zip, with what it observes and does."""

    module: nn.Module
    """`module(observation) -> PolicyOutput`, observation (batch, ...) in the environment's own
    units; frozen, in evaluation mode."""
    algorithm: str
    """One of `ALGORITHMS`."""
    observation_shape: tuple[int, ...]
    """The shape of an observation, images with the channels first; () where it is a number."""
    observation_dtype: np.dtype[Any]
    """The type of an observation's numbers."""
    is_image: bool
    """Whether observations are images, which the module takes with their channels last as well."""
    num_observations: int | None
    """Number of discrete observations; None where they are a Box."""
    num_actions: int | None
    """Number of discrete actions; None where they are continuous."""
    action_low: NDArray[np.float32] | None
    """The smallest continuous action; None where actions are discrete.    (action_dim,)"""
    action_high: NDArray[np.float32] | None
    """The largest continuous action; None where actions are discrete.     (action_dim,)"""
    divides: bool
    """Whether the module divides the bytes of images by 255."""
    normalizes: bool
    """Whether the module normalises observations by the statistics that were given with the zip."""
    sha256: str
    """Hash of the zip, in hexadecimal."""
    vecnormalize_sha256: str | None
    """Hash of the file of statistics, in hexadecimal; None where none was given."""


def load_zip(
    path: Path,
    vecnormalize: Path | None = None,
    action_space: spaces.Space[Any] | None = None,
) -> LoadedPolicy:
    """Returns the policy of a zip that `model.save` of Stable-Baselines3 wrote.

    DQN says Q-values; PPO and A2C say logits, or a mean that is clipped to the action bounds and
    its log standard deviation, and a value; SAC, TD3 and DDPG say the mean.

    Args:
        path: The zip.
        vecnormalize: The file that `VecNormalize.save` wrote beside it, if the policy was trained
            on normalised observations; a zip does not say.
        action_space: The environment's action space, whose bounds are then used; needed where the
            zip does not tell its own in full.

    Raises:
        InputError: A file is missing, damaged or of another kind, or does not fit the other or the
            action space.
    """
    content = _content(path)
    data, tensors = _open(content, path)
    algorithm = _algorithm(data, tensors, path)
    kwargs = _entry(data, "policy_kwargs", path)
    observed = read_observation_space(_entry(data, "observation_space", path), path)
    actions = read_action_space(_entry(data, "action_space", path), action_space, path)
    if algorithm in (("DDPG", "SAC", "TD3") if actions.discrete else ("DQN",)):
        kind = "discrete" if actions.discrete else "continuous"
        raise InputError(f"{path} does not fit itself: {algorithm} has no {kind} actions.")

    normalizer, vecnormalize_sha256 = _normalizer(vecnormalize, observed, path)
    inputs = Inputs(
        observed.shape,
        one_hot=observed.num,
        image=observed.is_image,
        divide=observed.is_image and _flag(kwargs, "normalize_images", True, path),
        normalizer=normalizer,
    )
    shape = observed.shape if observed.num is None else (observed.num,)
    stored = StoredTensors(tensors, algorithm, path)
    module = _build(stored, inputs, shape, _settings(kwargs, algorithm, path), actions)
    stored.check_all_taken()
    return LoadedPolicy(
        module=module.eval().requires_grad_(False),
        algorithm=algorithm,
        observation_shape=observed.shape,
        observation_dtype=observed.dtype,
        is_image=observed.is_image,
        num_observations=observed.num,
        num_actions=actions.num if actions.discrete else None,
        action_low=actions.low,
        action_high=actions.high,
        divides=inputs.divide,
        normalizes=normalizer is not None,
        sha256=hashlib.sha256(content).hexdigest(),
        vecnormalize_sha256=vecnormalize_sha256,
    )


def check_fit(
    loaded: LoadedPolicy,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    path: Path,
) -> None:
    """Checks that a policy can act in an environment.

    Args:
        loaded: The policy.
        observation_space: What the environment shows.
        action_space: What it takes.
        path: Where the policy comes from, for the error.

    Raises:
        InputError: A shape, a number or the kind of a space is another.
    """
    if not _observation_fits(loaded, observation_space):
        seen = describe_shape(
            loaded.num_observations, loaded.observation_dtype, loaded.observation_shape
        )
        raise InputError(
            f"{path} observes {seen}, but the task shows {describe_space(observation_space)}: "
            "both must be the same."
        )
    if isinstance(action_space, spaces.Discrete):
        fits = loaded.num_actions == int(action_space.n) and int(action_space.start) == 0
    else:
        fits = (
            isinstance(action_space, spaces.Box)
            and loaded.action_low is not None
            and loaded.action_low.shape == action_space.shape
        )
    if not fits:
        shape = () if loaded.action_low is None else loaded.action_low.shape
        done = describe_shape(loaded.num_actions, np.dtype(np.float32), shape)
        raise InputError(
            f"{path} acts in {done}, but the task takes {describe_space(action_space)}: "
            "both must be the same."
        )


def _observation_fits(loaded: LoadedPolicy, space: spaces.Space[Any]) -> bool:
    if isinstance(space, spaces.Discrete):
        return loaded.num_observations == int(space.n) and int(space.start) == 0
    if not isinstance(space, spaces.Box):
        return False
    if loaded.num_observations is not None:
        # Tasks show numbers as one-hot vectors.
        between = bool((space.low == 0).all() and (space.high == 1).all())
        return space.shape == (loaded.num_observations,) and between
    if (loaded.observation_dtype == np.uint8) != (space.dtype == np.uint8):
        return False
    shapes = [space.shape]
    if loaded.is_image and len(space.shape) == 3:
        height, width, channels = space.shape
        shapes.append((channels, height, width))
    return loaded.observation_shape in shapes


def _content(path: Path) -> bytes:
    """Returns the bytes of a file."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path} is no Stable-Baselines3 zip: there is no such file.") from error
    except OSError as error:
        raise InputError(f"{path} is no Stable-Baselines3 zip: it cannot be read.") from error


def _open(content: bytes, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns the JSON and the tensors of a zip.

    Args:
        content: The bytes of the zip.
        path: Where they come from, for the errors.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except DAMAGE as error:
        raise InputError(
            f"{path} is no Stable-Baselines3 zip: it is no zip file, or was cut short."
        ) from error
    with archive:
        for member in ("data", "policy.pth"):
            if member not in archive.namelist():
                raise InputError(
                    f"{path} is no whole Stable-Baselines3 zip: it holds no {member!r}, which "
                    "`model.save` always writes."
                )
        try:
            data = json.loads(archive.read("data"))
        except DAMAGE as error:
            raise InputError(f"{path} cannot be read: its 'data' is not whole JSON.") from error
        try:
            file = io.BytesIO(archive.read("policy.pth"))
            tensors = torch.load(file, map_location="cpu", weights_only=True)
        except DAMAGE as error:
            raise InputError(
                f"{path} cannot be read: its 'policy.pth' is damaged, or holds more than tensors."
            ) from error
    if not isinstance(data, dict):
        raise InputError(f"{path} cannot be read: its 'data' is no JSON object.")
    whole = isinstance(tensors, dict) and all(
        isinstance(name, str)
        and isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and tensor.is_floating_point()
        for name, tensor in tensors.items()
    )
    if not whole:
        raise InputError(f"{path} cannot be read: its 'policy.pth' is no table of named tensors.")
    return data, dict(tensors)


def _entry(data: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    """Returns an object of the JSON, whose pickle is ignored."""
    entry = data.get(name)
    if not isinstance(entry, dict):
        raise InputError(f"{path} is no Stable-Baselines3 zip: its 'data' says no {name!r}.")
    return entry


def _algorithm(data: dict[str, Any], tensors: dict[str, Tensor], path: Path) -> str:
    """Returns the name of the algorithm, which a zip does not say: its settings and tensors do."""
    module = _entry(data, "policy_class", path).get("__module__")
    if not isinstance(module, str) or not module.startswith("stable_baselines3."):
        raise InputError(f"{path} holds a policy that {module!r} defines: {READABLE} read.")

    def has(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in tensors)

    if has("q_net.q_net."):
        return "DQN"
    if has("action_net.") and "cg_max_steps" not in data:
        return "PPO" if "clip_range" in data else "A2C"
    if has("actor.mu.") and has("actor.log_std"):
        return "SAC"
    if has("actor.mu."):
        # DDPG is TD3 without the delay and the clipped noise.
        ddpg = data.get("policy_delay") == 1 and data.get("target_noise_clip") == 0
        return "DDPG" if ddpg else "TD3"
    raise InputError(f"{path} holds a policy of another algorithm: {READABLE} read.")


def _flag(kwargs: dict[str, Any], name: str, default: bool, path: Path) -> bool:
    """Returns a setting that is true or false."""
    value = kwargs.get(name, default)
    if not isinstance(value, bool):
        raise InputError(f"{path} cannot be read: its {name} is {value!r}, not true or false.")
    return value


def _normalizer(
    vecnormalize: Path | None, observed: StoredObservationSpace, path: Path
) -> tuple[ObservationNormalizer | None, str | None]:
    """Returns what observations are normalised by, if at all, and the hash of its file, if any."""
    if vecnormalize is None:
        return None, None
    statistics = load_vecnormalize(vecnormalize)
    if not statistics.norm_obs:
        return None, statistics.sha256
    if observed.num is not None or statistics.mean.shape != observed.shape:
        raise InputError(
            f"{vecnormalize} holds statistics of observations of the shape "
            f"{list(statistics.mean.shape)}, but {path} observes "
            f"{describe_shape(observed.num, observed.dtype, observed.shape)}: both must be "
            "the same."
        )
    return ObservationNormalizer(statistics), statistics.sha256


def _settings(kwargs: dict[str, Any], algorithm: str, path: Path) -> Settings:
    """Returns what the keyword arguments of the policy say about its networks."""
    on_policy = algorithm in ("A2C", "PPO")
    text = kwargs.get("activation_fn")
    activation: type[nn.Module] | None = nn.Tanh if on_policy else nn.ReLU
    if text is not None:
        match = re.fullmatch(r"<class 'torch\.nn\.modules\.\w+\.(\w+)'>", str(text))
        activation = ACTIVATIONS.get(match[1]) if match else None
    if activation is None:
        raise InputError(
            f"{path} cannot be read: its activation_fn is {text!r}, not one of "
            f"{', '.join(sorted(ACTIVATIONS))} of torch.nn."
        )
    extractor = kwargs.get("features_extractor_class")
    own = r"<class 'stable_baselines3\.common\.torch_layers\.(FlattenExtractor|NatureCNN)'>"
    if extractor is not None and not re.fullmatch(own, str(extractor)):
        raise InputError(
            f"{path} cannot be read: its features_extractor_class is {extractor!r}, not "
            "Stable-Baselines3's own FlattenExtractor or NatureCNN."
        )
    clip_mean = kwargs.get("clip_mean", 2.0)
    if not isinstance(clip_mean, int | float):
        raise InputError(f"{path} cannot be read: its clip_mean is {clip_mean!r}, not a number.")
    squash = on_policy and _flag(kwargs, "squash_output", False, path)
    return Settings(activation, squash, float(clip_mean))


def _build(
    stored: StoredTensors,
    inputs: Inputs,
    shape: tuple[int, ...],
    settings: Settings,
    actions: StoredActionSpace,
) -> nn.Module:
    """Returns the policy.

    Args:
        stored: The tensors.
        inputs: The first stage.
        shape: The shape of what it hands on.
        settings: What the tensors do not say.
        actions: The action space.
    """
    if stored.algorithm == "DQN":
        return build_q_network(stored, inputs, shape, settings, actions.num)
    limits = None
    if actions.low is not None and actions.high is not None:
        limits = (torch.tensor(actions.low), torch.tensor(actions.high))
    if stored.algorithm in ("A2C", "PPO"):
        _check_limits(limits, settings.squash, stored.path)
        return build_actor_critic(stored, inputs, shape, settings, actions.num, limits)
    _check_limits(limits, True, stored.path)
    assert limits is not None
    return build_squashed_actor(stored, inputs, shape, settings, actions.num, limits)


def _check_limits(limits: tuple[Tensor, Tensor] | None, squash: bool, path: Path) -> None:
    """Checks that actions can be brought into their bounds.

    Args:
        limits: The smallest and the largest action.    (action_dim,) each
        squash: Whether they are squashed, which needs finite bounds.
        path: Where they come from, for the error.
    """
    if limits is None:
        return
    low, high = limits
    # Written so that NaN fails as well.
    ordered = all(a <= b for a, b in zip(low.tolist(), high.tolist(), strict=True))
    finite = all(math.isfinite(bound) for bound in [*low.tolist(), *high.tolist()])
    if not ordered or (squash and not finite):
        raise InputError(
            f"{path} cannot act between the bounds {low.tolist()} and {high.tolist()}: "
            f"{'finite ' if squash else ''}bounds in ascending order would be right."
        )
