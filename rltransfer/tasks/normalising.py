"""Tasks whose registration wraps the environment in Gymnasium's normalising wrappers."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from rltransfer.tasks.vector_env import VectorEnv

STATISTICS = {"obs_rms": "observations", "return_rms": "rewards"}
"""Attributes with the running statistics of a normalising wrapper, and what they normalise."""


def describe_normalising(env: VectorEnv, name: str) -> str | None:
    """A sentence on what a task's wrappers normalise, and what this means for evaluations.

    Args:
        env: The task's vector environment.
        name: The task's id.

    Returns:
        The sentence, or None if the task normalises nothing.
    """
    inner = getattr(env, "env", None)
    found = [what for attribute, what in STATISTICS.items() if _has(inner, attribute)]
    if not found:
        return None
    scores = ", and its returns are sums of normalised rewards" if "rewards" in found else ""
    return (
        f"The task {name!r} normalises {' and '.join(found)} in its own wrappers: each evaluation "
        f"begins with fresh running statistics{scores}."
    )


def _has(env: Any, attribute: str) -> bool:
    """Whether a vector environment, one of its wrappers or its environments has an attribute."""
    while env is not None:
        if attribute in vars(env):
            return True
        if isinstance(env, SyncVectorEnv | AsyncVectorEnv):
            return all(env.call("has_wrapper_attr", attribute))
        env = getattr(env, "env", None)
    return False
