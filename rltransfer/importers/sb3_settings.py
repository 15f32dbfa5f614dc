"""The algorithm and the settings of a Stable-Baselines3 zip, read from its JSON."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rltransfer.errors import InputError

ALGORITHMS = (
    "A2C", "ARS", "CrossQ", "DDPG", "DQN", "MaskablePPO", "PPO", "QR-DQN", "RecurrentPPO", "SAC",
    "TD3", "TQC", "TRPO",
)  # fmt: skip
"""The algorithms whose policies can be read. TQC acts like SAC, TRPO and MaskablePPO like PPO."""

ON_POLICY = ("A2C", "MaskablePPO", "PPO", "RecurrentPPO", "TRPO")
"""Those with an actor and a critic in one policy."""

CONTRIB = {
    "sb3_contrib.ars.": "ARS",
    "sb3_contrib.common.maskable.": "MaskablePPO",
    "sb3_contrib.crossq.": "CrossQ",
    "sb3_contrib.common.recurrent.": "RecurrentPPO",
    "sb3_contrib.qrdqn.": "QR-DQN",
    "sb3_contrib.tqc.": "TQC",
}
"""The algorithms of sb3-contrib that have policies of their own, by the beginning of the module."""

MOST_QUANTILES = 100_000
"""More quantiles than any QR-DQN has."""

POLICIES = {
    "ARS": ("MlpPolicy", "LinearPolicy"),
    "CrossQ": ("MlpPolicy",),
    "RecurrentPPO": ("MlpLstmPolicy", "CnnLstmPolicy", "MultiInputLstmPolicy"),
}
"""The policies that can be read of each algorithm; `USUAL_POLICIES` of the others."""

USUAL_POLICIES = ("MlpPolicy", "CnnPolicy", "MultiInputPolicy")

*_MOST, _LAST = (name for name in ALGORITHMS if name not in POLICIES)

READABLE = (
    f"only {', '.join(USUAL_POLICIES[:-1])} and {USUAL_POLICIES[-1]} of "
    f"{', '.join(_MOST)} and {_LAST}, MlpPolicy of ARS and CrossQ, LinearPolicy of ARS, and "
    "MlpLstmPolicy, CnnLstmPolicy and MultiInputLstmPolicy of RecurrentPPO are"
)
"""What can be read, for errors: the beginning of a sentence that ends with "read"."""

ACTIVATIONS: dict[str, type[nn.Module]] = {
    activation.__name__: activation
    for activation in (
        nn.CELU, nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Identity,
        nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid,
        nn.Softplus, nn.Softsign, nn.Tanh, nn.Tanhshrink,
    )
}  # fmt: skip
"""The activations without parameters, by name."""


EXTRACTORS = ("FlattenExtractor", "NatureCNN", "CombinedExtractor")
"""The feature extractors that can be read: those of the policies that can be."""


@dataclass(frozen=True)
class Settings:
    """The settings of a policy that do not follow from its tensors."""

    algorithm: str
    """One of `ALGORITHMS`."""
    activation: type[nn.Module]
    """The activation between fully connected layers."""
    squash: bool
    """Whether a tanh maps actions into their bounds; else they are clipped."""
    clip_mean: float
    """Bound on the output of the head of SAC with gSDE, before the tanh."""
    expln: bool
    """Whether the standard deviation of gSDE grows only like a logarithm: its `use_expln`."""
    separate_sde: bool
    """Whether gSDE has layers of its own, perhaps none: `sde_net_arch` of old versions."""
    n_quantiles: int
    """Quantiles of each action's return in QR-DQN."""
    renorm_epsilon: float
    """Added to the variances of CrossQ's batch renormalisation: its `batch_norm_eps`."""


def entry(data: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    """An object of the JSON, without its pickle.

    Raises:
        InputError: There is no such object.
    """
    value = data.get(name)
    if not isinstance(value, dict):
        raise InputError(
            f"{path} is not a Stable-Baselines3 zip: its 'data' does not contain {name!r}."
        )
    return value


def find_algorithm(data: dict[str, Any], tensors: dict[str, Tensor], path: Path) -> str:
    """The name of the algorithm. A zip omits it: it follows from settings and tensors.

    Raises:
        InputError: It is not one of `ALGORITHMS`.
    """
    module = entry(data, "policy_class", path).get("__module__")
    name = str(module)
    for beginning, algorithm in CONTRIB.items():
        if name.startswith(beginning):
            return algorithm
    if not name.startswith("stable_baselines3."):
        raise InputError(
            f"{path} contains a policy that {module!r} defines, but {READABLE} read: load it with "
            "the library that trained it, and pass a function that calls it, as a CallableTeacher."
        )

    def has(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in tensors)

    if has("q_net.q_net."):
        return "DQN"
    if has("action_net."):
        return "TRPO" if "cg_max_steps" in data else "PPO" if "clip_range" in data else "A2C"
    if has("actor.mu.") and has("actor.log_std"):
        return "SAC"
    if has("actor.mu."):
        # DDPG is TD3 without the delay and the clipped noise.
        ddpg = data.get("policy_delay") == 1 and data.get("target_noise_clip") == 0
        return "DDPG" if ddpg else "TD3"
    raise InputError(f"{path} contains a policy of another algorithm: {READABLE} read.")


def flag(kwargs: dict[str, Any], name: str, default: bool, path: Path) -> bool:
    """A setting that is true or false.

    Raises:
        InputError: It is something else.
    """
    value = kwargs.get(name, default)
    if not isinstance(value, bool):
        raise InputError(f"{path} cannot be read: its {name} is {value!r}, not true or false.")
    return value


def _number(kwargs: dict[str, Any], name: str, default: float, path: Path) -> float:
    """A setting that is a number.

    Raises:
        InputError: It is something else, or not finite.
    """
    value = kwargs.get(name, default)
    # Integers of any size are compared, and not turned into floats, until they are known to fit.
    if not isinstance(value, int | float) or not abs(value) < 1e300:
        raise InputError(f"{path} cannot be read: its {name} is {value!r}, not a number.")
    return float(value)


def read_settings(data: dict[str, Any], algorithm: str, path: Path) -> Settings:
    """The settings of a policy.

    Args:
        data: The JSON.
        algorithm: One of `ALGORITHMS`.
        path: The zip, for errors.

    Raises:
        InputError: A setting has another type, or is a class that cannot be read.
    """
    kwargs = entry(data, "policy_kwargs", path)
    on_policy = algorithm in ON_POLICY
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
    own = r"<class 'stable_baselines3\.common\.torch_layers\.(\w+)'>"
    match = re.fullmatch(own, str(extractor))
    if extractor is not None and (match is None or match[1] not in EXTRACTORS):
        raise InputError(
            f"{path} cannot be read: its features_extractor_class is {extractor!r}, not "
            f"Stable-Baselines3's own {', '.join(EXTRACTORS[:-1])} or {EXTRACTORS[-1]}."
        )
    renorm_epsilon = _number(kwargs, "batch_norm_eps", 0.001, path)
    if renorm_epsilon <= 0:
        raise InputError(
            f"{path} is inconsistent: its batch_norm_eps is {renorm_epsilon}, but must be above 0."
        )
    n_quantiles = kwargs.get("n_quantiles", 200)
    if type(n_quantiles) is not int or not 1 <= n_quantiles <= MOST_QUANTILES:
        raise InputError(
            f"{path} cannot be read: its n_quantiles is {n_quantiles!r}, not a whole number from 1 "
            f"to {MOST_QUANTILES}."
        )
    squash = True
    if on_policy:
        squash = flag(kwargs, "squash_output", False, path)
    elif algorithm == "ARS":
        squash = flag(kwargs, "squash_output", not _is_linear(data, path), path)
    if algorithm == "RecurrentPPO" and _lstm_kwargs(kwargs, path).get("batch_first"):
        raise InputError(
            f"{path} cannot be read: its lstm_kwargs set batch_first, with which sb3-contrib takes "
            "environments for steps."
        )
    return Settings(
        algorithm, activation, squash, _number(kwargs, "clip_mean", 2.0, path),
        expln=flag(kwargs, "use_expln", False, path),
        separate_sde=kwargs.get("sde_net_arch") is not None,
        n_quantiles=n_quantiles, renorm_epsilon=renorm_epsilon,
    )  # fmt: skip


def _lstm_kwargs(kwargs: dict[str, Any], path: Path) -> dict[str, Any]:
    """The arguments of the LSTM.

    Raises:
        InputError: They are not a dictionary.
    """
    value = kwargs.get("lstm_kwargs")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{path} cannot be read: its lstm_kwargs are {value!r}, not a dictionary.")
    return value


def _is_linear(data: dict[str, Any], path: Path) -> bool:
    """Whether a policy of ARS is its LinearPolicy, whose actions are clipped and not squashed.

    Raises:
        InputError: It is neither this nor its MlpPolicy.
    """
    text = str(entry(data, "policy_class", path).get("__init__"))
    match = re.match(r"<function ARS(Linear)?Policy\.__init__ at ", text)
    if match is None:
        raise InputError(f"{path} contains a policy of ARS of another kind: {READABLE} read.")
    return match[1] is not None
