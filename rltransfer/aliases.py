"""Other names of options, from earlier versions and other libraries."""

from __future__ import annotations

import abc
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from rltransfer.errors import InputError
from rltransfer.options import TUPLE

P = ParamSpec("P")
T = TypeVar("T")

FORMER = {
    "clip": "clip_range",
    "discount": "gamma",
    "horizon": "rollout_length",
    "share": "alpha",
    "steps": "total_steps",
    "stochastic_free": "actions_only",
    "trace": "gae_lambda",
}
"""Option names of earlier versions, as in their `config.json` and zoo cards."""

ELSEWHERE = {
    "clip_coef": "clip_range",
    "ent_coef": "entropy_coefficient",
    "env": "task",
    "env_id": "task",
    "lr": "learning_rate",
    "n_envs": "num_envs",
    "n_epochs": "epochs",
    "n_steps": "rollout_length",
    "num_steps": "rollout_length",
    "timesteps": "total_steps",
    "total_timesteps": "total_steps",
    "update_epochs": "epochs",
    "vf_coef": "value_coefficient",
}
"""Option names of Stable-Baselines3 and CleanRL."""


def option_name(name: str, known: Iterable[str]) -> str:
    """The known option that a name (with underscores) is an alias of; else the name itself."""
    options = list(known)
    if name in options:
        return name
    return next((one for one in options if _current(one) == _current(name)), name)


def with_known_names(given: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Keyword arguments under the known names that theirs are aliases of.

    Raises:
        InputError: Two of them are the same option.
    """
    options = list(known)
    found: dict[str, str] = {}
    for name in given:
        option = option_name(name, options)
        if option in found:
            raise InputError(f"{found[option]} and {name} are the same option: pass one of them.")
        found[option] = name
    return {option: given[name] for option, name in found.items()}


def accepts_aliases(function: Callable[P, T]) -> Callable[P, T]:
    """A function whose options may have their other names."""
    known = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        named: Any = with_known_names(kwargs, known)
        return function(*args, **named)

    return call


class AcceptsAliases(abc.ABCMeta):
    """The metaclass of configurations, dataclasses whose fields may have their other names."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Creates a configuration."""
        known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        return super().__call__(*args, **with_known_names(kwargs, known))


def _current(name: str) -> str:
    return FORMER.get(name) or ELSEWHERE.get(name) or name


def with_current_names(data: Any) -> Any:
    """Stored JSON with current option names, for comparison; "preprocessing" has no options.

    Tuples count as lists, as earlier versions stored them.
    """
    if isinstance(data, dict):
        if data.keys() == {TUPLE}:
            return with_current_names(data[TUPLE])
        return {
            FORMER.get(name, name): value if name == "preprocessing" else with_current_names(value)
            for name, value in data.items()
        }
    if isinstance(data, list):
        return [with_current_names(value) for value in data]
    if isinstance(data, str) and "Noisy(" in data:
        return data.replace("share=", "alpha=")
    return data
