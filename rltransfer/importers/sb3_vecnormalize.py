"""Observation statistics from a VecNormalize pickle, without executing it.

A pickle is a program that names functions and calls them. Here each name that a VecNormalize file
contains is replaced by a class that only keeps its arguments. Any other name is refused.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.importers.damage import DAMAGE, read_file
from rltransfer.importers.pickles import InertUnpickler
from rltransfer.tasks.observation import DEFAULT_GROUP

FLOATS = ("f4", "f8")
"""The dtypes of the arrays that are read: numpy's names without the byte order."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Running mean and variance of one observation group."""

    mean: NDArray[np.float64]
    """The mean.        (*shape)"""
    var: NDArray[np.float64]
    """The variance.    (*shape)"""


@dataclass(frozen=True, eq=False)
class ObservationStatistics:
    """The statistics that VecNormalize normalises observations with."""

    groups: Mapping[str, Moments]
    """Those of each group that is normalised: the keys of a Dict space, or "policy" alone; none
    where only rewards are."""
    epsilon: float
    """Added to the variance."""
    clip_obs: float
    """Bound on the absolute value of a normalised observation."""
    sha256: str
    """Hash of the file, in hexadecimal."""


class ObservationNormalizer(nn.Module):
    """Normalises observations as VecNormalize does: in float64, with a float32 result."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, statistics: ObservationStatistics, group: str = DEFAULT_GROUP) -> None:
        """Creates it.

        Args:
            statistics: The statistics.
            group: The group that it normalises.
        """
        super().__init__()
        self.clip = statistics.clip_obs
        moments = statistics.groups[group]
        self.register_buffer("mean", torch.tensor(moments.mean))
        deviation = np.sqrt(moments.var + statistics.epsilon)
        self.register_buffer("deviation", torch.tensor(deviation))

    def forward(self, observation: Tensor) -> Tensor:
        """The normalised observations, float32.    (batch, *shape)

        Args:
            observation: Observations in the units of the environment.    (batch, *shape)
        """
        scaled = (observation.double() - self.mean) / self.deviation
        return scaled.clamp(-self.clip, self.clip).float()


class _Inert:
    """Replaces a class or function of the pickle: keeps its arguments and does nothing.

    The unpickler may call it, instantiate it, set its state or fill it like a dictionary.
    """

    arguments: tuple[object, ...]
    state: object

    def __new__(cls, *arguments: object) -> Self:
        made = super().__new__(cls)
        made.arguments = arguments
        made.state = None
        return made

    def __setstate__(self, state: object) -> None:
        # Without this method the unpickler would set attributes, also on the class itself.
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        pass


class _VecNormalize(_Inert):
    """Replaces VecNormalize."""


class _RunningMeanStd(_Inert):
    """Replaces RunningMeanStd."""


class _Array(_Inert):
    """Replaces numpy's `_reconstruct(...)`; the array is in its state."""


class _BufferArray(_Inert):
    """Replaces numpy's `_frombuffer(buffer, dtype, shape, order)`."""


class _Scalar(_Inert):
    """Replaces numpy's `scalar(dtype, bytes)`."""


class _Dtype(_Inert):
    """Replaces numpy's `dtype(...)`; the byte order is in its state."""


def _admitted() -> dict[tuple[str, str], type[_Inert]]:
    """The replacement of each permitted name, in the spelling of every version."""
    baselines = "stable_baselines3.common"
    names: dict[tuple[str, str], type[_Inert]] = {
        (f"{baselines}.vec_env.vec_normalize", "VecNormalize"): _VecNormalize,
        (f"{baselines}.running_mean_std", "RunningMeanStd"): _RunningMeanStd,
        ("numpy", "ndarray"): _Inert,
        ("numpy", "dtype"): _Dtype,
        ("collections", "OrderedDict"): _Inert,
        ("builtins", "set"): _Inert,
        ("numpy.random.bit_generator", "SeedSequence"): _Inert,
        ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"): _Inert,
    }
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray", "_reconstruct"] = _Array
        names[f"{core}.multiarray", "scalar"] = _Scalar
        names[f"{core}.numeric", "_frombuffer"] = _BufferArray
    for gym in ("gym", "gymnasium"):
        for kind in ("Box", "Dict", "Discrete", "Tuple"):
            names[f"{gym}.spaces.{kind.lower()}", kind] = _Inert
        names[f"{gym}.spaces.multi_discrete", "MultiDiscrete"] = _Inert
        names[f"{gym}.spaces.multi_binary", "MultiBinary"] = _Inert
    for constructor in ("__randomstate_ctor", "__generator_ctor", "__bit_generator_ctor"):
        names["numpy.random._pickle", constructor] = _Inert
    for generator in ("MT19937", "PCG64", "Philox", "SFC64"):
        names[f"numpy.random._{generator.lower()}", generator] = _Inert
    return names


ADMITTED = _admitted()


class _InertUnpickler(InertUnpickler):
    """Builds a VecNormalize pickle from replacements."""

    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__(content)
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        """The replacement of a name.

        Raises:
            InputError: No VecNormalize file contains this name.
        """
        stand_in = ADMITTED.get((module, name))
        if stand_in is None:
            raise InputError(
                f"{self.path} was not opened: it names {f'{module}.{name}'!r}, which no file from "
                "`VecNormalize.save` contains."
            )
        return stand_in


def load_vecnormalize(path: Path) -> ObservationStatistics:
    """The observation statistics of a file that `VecNormalize.save` wrote.

    Args:
        path: The file.

    Raises:
        InputError: The file is missing, damaged or not a VecNormalize file, contains a name that
            such a file does not contain, or its statistics cannot be used.
    """
    content = read_file(path, "a VecNormalize file")
    refusal = f"{path} is not a VecNormalize file"
    try:
        root = _InertUnpickler(content, path).load()
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"{refusal}: it is damaged or cut short.") from error
    if not isinstance(root, _VecNormalize) or not isinstance(root.state, dict):
        raise InputError(f"{refusal}: it contains something else.")
    return _statistics(root.state, path, hashlib.sha256(content).hexdigest())


def _statistics(state: dict[Any, Any], path: Path, sha256: str) -> ObservationStatistics:
    # Files from before 2021 omit the attribute where it has its default.
    if state.get("norm_obs", True) is False:
        return ObservationStatistics({}, 0.0, math.inf, sha256)
    running = state.get("obs_rms")
    if isinstance(running, dict):
        # Versions before `norm_obs_keys` normalised every key.
        keys = state.get("norm_obs_keys")
        running = {key: running.get(key) for key in (running if keys is None else _texts(keys))}
        if not running or not all(isinstance(key, str) for key in running):
            raise InputError(
                f"{path} is not a VecNormalize file: the keys of its observations are not texts."
            )
    else:
        running = {DEFAULT_GROUP: running}
    epsilon, clip_obs = _number(state.get("epsilon")), _number(state.get("clip_obs"))
    groups = {key: _moments(one, path) for key, one in running.items()}
    if epsilon is None or clip_obs is None:
        raise _not_numbers(path)
    for one in groups.values():
        usable = (
            one.mean.shape == one.var.shape
            and bool(np.isfinite(one.mean).all() and np.isfinite(one.var).all())
            and bool((one.var + epsilon > 0).all())
            and clip_obs > 0
        )
        if not usable:
            raise InputError(
                f"{path} cannot be used: its mean and variance must be finite and have one shape, "
                "and its bound must be above 0."
            )
    return ObservationStatistics(groups, epsilon, clip_obs, sha256)


def _texts(keys: object) -> list[Any]:
    """The keys of a list; none of any other value."""
    return keys if isinstance(keys, list) else []


def _moments(running: object, path: Path) -> Moments:
    """The statistics of one group."""
    if not isinstance(running, _RunningMeanStd) or not isinstance(running.state, dict):
        raise InputError(
            f"{path} is not a VecNormalize file: it does not contain observation statistics."
        )
    mean, var = _array(running.state.get("mean")), _array(running.state.get("var"))
    if mean is None or var is None:
        raise _not_numbers(path)
    return Moments(mean, var)


def _not_numbers(path: Path) -> InputError:
    return InputError(
        f"{path} is not a VecNormalize file: its statistics are not all arrays and numbers."
    )


def _array(value: object) -> NDArray[np.float64] | None:
    """The floats of a pickled array; None for any other value."""
    match value:
        case _Array(state=(_, tuple() as shape, dtype, bool() as fortran, bytes() as content)):
            column_major = fortran
        case _BufferArray(
            arguments=(bytes() | bytearray() as content, dtype, tuple() as shape, order)
        ):
            column_major = order == "F"
        case _:
            return None
    kind = _float_type(dtype)
    if kind is None or not all(isinstance(size, int) and size >= 0 for size in shape):
        return None
    if len(content) != math.prod(shape) * kind.itemsize:
        return None
    flat = np.frombuffer(content, kind).astype(np.float64)
    return flat.reshape(shape, order="F" if column_major else "C")


def _number(value: object) -> float | None:
    """The value of a Python or numpy number; None for any other value."""
    match value:
        case int() | float():
            return float(value)
        case _Scalar(arguments=(dtype, bytes() as content)):
            kind = _float_type(dtype)
            if kind is not None and len(content) == kind.itemsize:
                return float(np.frombuffer(content, kind)[0])
    return None


def _float_type(dtype: object) -> np.dtype[Any] | None:
    """A pickled float dtype; None for any other value."""
    match dtype:
        case _Dtype(arguments=(str() as name, *_), state=(_, "<" | ">" | "=" as order, *_)):
            return np.dtype(f"{order}{name}") if name in FLOATS else None
    return None
