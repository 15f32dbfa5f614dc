"""Other names of options, from earlier versions and other libraries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rltransfer.options import TUPLE

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
