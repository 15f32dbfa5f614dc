"""Other names of options: those of earlier versions and those of other libraries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

FORMER = {
    "clip": "clip_range",
    "discount": "gamma",
    "horizon": "rollout_length",
    "share": "alpha",
    "steps": "total_steps",
    "stochastic_free": "actions_only",
    "trace": "gae_lambda",
}
"""What earlier versions called an option, which `config.json` and cards of theirs still do."""

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
"""What Stable-Baselines3 and CleanRL call an option."""


def option_name(name: str, known: Iterable[str]) -> str:
    """The option that a name stands for; a name that stands for none is returned as it is.

    Args:
        name: What the user wrote, with underscores.
        known: The names of the options that there are.
    """
    options = list(known)
    if name in options:
        return name
    return next((one for one in options if _current(one) == _current(name)), name)


def _current(name: str) -> str:
    return FORMER.get(name) or ELSEWHERE.get(name) or name


def with_current_names(data: Any) -> Any:
    """Stored JSON with each option under the name that it has in this version.

    The preprocessing of a teacher's observations has names of its own and stays as it is.
    """
    if isinstance(data, dict):
        return {
            FORMER.get(name, name): value if name == "preprocessing" else with_current_names(value)
            for name, value in data.items()
        }
    if isinstance(data, list):
        return [with_current_names(value) for value in data]
    if isinstance(data, str) and "Noisy(" in data:
        return data.replace("share=", "alpha=")
    return data
