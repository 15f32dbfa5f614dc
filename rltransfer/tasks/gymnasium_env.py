"""Any Gymnasium id as a vector environment.

Throughput on two cores (environment steps/s, random actions) if the environments step one after the
other (`sync`), or in one process each (`async`):

    environment       sync      async
    CartPole-v1       131,000   18,000
    HalfCheetah-v5     22,300    8,300
    Humanoid-v5         3,850    3,600

`sync` is therefore the default. The task's keyword argument `vectorization_mode="async"`, the same
as `gymnasium.make_vec`'s, suits environments whose steps take milliseconds. Stepping in a thread
while the policy runs pays off for the slowest only (Humanoid-v5 +40 %, HalfCheetah-v5 -30 %,
CartPole-v1 -50 %, because of Python's lock), so there is no such mode.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from typing import Any

import gymnasium
import torch
from gymnasium.envs.registration import EnvSpec, find_highest_version, get_env_id, parse_env_id
from gymnasium.vector import AutoresetMode

from rltransfer.errors import InputError, unknown
from rltransfer.tasks.async_envs import AsyncEnvs
from rltransfer.tasks.env_layer import EnvMaker, error_text
from rltransfer.tasks.host_env import ASYNC_STEP_METHODS, HostVectorEnv, NumpyVectorEnv
from rltransfer.tasks.sync_envs import SyncEnvs
from rltransfer.tasks.task import Task
from rltransfer.tasks.vector_env import VectorEnv

_EXTRAS = {
    "box2d": "box2d",
    "classic_control": "classic-control",
    "mujoco": "mujoco",
    "phys2d": "jax",
    "tabular": "jax",
    "toy_text": "toy-text",
}
"""The Gymnasium extra that each of its environment folders needs."""

USUAL = (AssertionError, ImportError, LookupError, TypeError, ValueError, gymnasium.error.Error)
"""Errors on invalid arguments, whose message says enough; others are named."""


def make_host_env(task: Task, num_envs: int, device: torch.device) -> VectorEnv:
    """Makes the vector environment of any Gymnasium id.

    - A `vector_entry_point` that is a `VectorEnv` class is made on `device`.
    - A `vector_entry_point` that resets in the same step is wrapped.
    - Any other id is made `num_envs` times and stepped one environment after the other, or in
      separate processes if the task's keyword argument `vectorization_mode` is "async".

    Raises:
        InputError: The id does not exist, it refuses its arguments, a package that it needs is not
            installed, or its spaces are not supported.
    """
    kwargs = dict(task.kwargs)
    mode = kwargs.pop("vectorization_mode", "sync")
    if mode not in ("sync", "async"):
        raise InputError(
            f"The vectorization_mode of {task.id!r} is {mode!r}: it must be 'sync' or 'async'."
        )
    layout = kwargs.pop("image_layout", None)
    for reserved in ("num_envs", "device", "vector_kwargs", "wrappers"):
        if reserved in kwargs:
            raise InputError(f"The environment {task.id!r} takes no keyword argument {reserved!r}.")
    spec = find_spec(task)
    try:
        creator = _vector_creator(spec)
        if isinstance(creator, type) and issubclass(creator, VectorEnv):
            made = gymnasium.make_vec(task.id, num_envs, device=device, **kwargs)
            assert isinstance(made, VectorEnv)
            return made
        if _is_vector_only(spec, creator):
            env = gymnasium.make_vec(task.id, num_envs, "vector_entry_point", **kwargs)
        else:
            env = _vectorized(EnvMaker(spec, kwargs, os.getpid()), num_envs, mode, task)
    except MemoryError:
        raise
    except (Exception, SystemExit) as failure:
        # Whatever the environment raises: a missing file, licence or port is the user's to mend.
        raise not_made(task, spec, failure, mode) from failure
    return HostVectorEnv(env, device, name=task.id, image_layout=layout)


def _vectorized(maker: EnvMaker, num_envs: int, mode: str, task: Task) -> NumpyVectorEnv:
    """Several environments, each in its layer."""
    name = task.id.rpartition(":")[2]
    latest = _latest(name)
    if latest not in (None, name):
        warnings.warn(f"{name} is out of date: the latest version is {latest}.", stacklevel=2)
    makers = [maker] * num_envs
    if mode == "async":
        return AsyncEnvs(makers, task.env_timeout)
    return SyncEnvs(makers)


def host_env_overlaps(task: Task) -> bool:
    """Whether `VectorEnv.overlaps` is true, as far as the environment's class tells."""
    spec = find_spec(task)
    try:
        creator = _vector_creator(spec)
    except ImportError:
        return False  # `make_host_env` reports the missing package
    if isinstance(creator, type) and issubclass(creator, VectorEnv):
        return creator.overlaps
    if _is_vector_only(spec, creator):
        return any(hasattr(creator, a) and hasattr(creator, b) for a, b in ASYNC_STEP_METHODS)
    return task.kwargs.get("vectorization_mode") == "async"


def _is_vector_only(spec: EnvSpec, creator: Any) -> bool:
    """Whether the id is made as one vector environment instead of several single ones."""
    metadata = getattr(creator, "metadata", {})
    same_step = metadata.get("autoreset_mode") is AutoresetMode.SAME_STEP
    return spec.entry_point is None or same_step


def find_spec(task: Task) -> EnvSpec:
    """The id's registry entry; "module:id" imports the module first, if the user named it.

    Raises:
        InputError: There is no such id, or its module cannot be imported.
    """
    module, _, name = task.id.rpartition(":")
    if task.from_file and module and module not in sys.modules:
        raise InputError(
            f"The run's task {task.id!r} would import the module {module!r}, which only happens if "
            f"you name it: if you trust that module, pass --task {task.id}, or import it in Python."
        )
    try:
        if module:
            importlib.import_module(module)
        return gymnasium.spec(name)
    except (ModuleNotFoundError, TypeError, ValueError) as failure:
        raise InputError(
            f"The module {module!r} of the environment {task.id!r} cannot be imported: {failure}; "
            "set PYTHONPATH to its folder, e.g. PYTHONPATH=. for the current one."
        ) from failure
    except gymnasium.error.Error as failure:
        latest = _latest(name)
        if latest is not None:
            raise InputError(
                f"There is no environment {task.id!r}: the latest version is {latest!r}."
            ) from failure
        raise unknown("environment", name, gymnasium.registry, "rltransfer list tasks") from failure


def _latest(name: str) -> str | None:
    try:
        namespace, base, _ = parse_env_id(name)
    except gymnasium.error.Error:
        return None
    version = find_highest_version(namespace, base)
    return None if version is None else get_env_id(namespace, base, version)


def _vector_creator(spec: EnvSpec) -> Any:
    """The object that an id's `vector_entry_point` names; None if it has none.

    A vector environment that cannot be loaded is ignored if the id has a single environment.
    """
    if not isinstance(spec.vector_entry_point, str):
        return spec.vector_entry_point
    module, _, attribute = spec.vector_entry_point.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError:
        if spec.entry_point is None:
            raise
        return None


def _not_installed(task: Task, spec: EnvSpec, failure: ModuleNotFoundError) -> InputError:
    path = str(spec.entry_point or spec.vector_entry_point).split(".")
    extra = _EXTRAS.get(path[2]) if path[:2] == ["gymnasium", "envs"] else None
    remedy = f'install it with `pip install "gymnasium[{extra}]"`' if extra else "install it"
    return InputError(
        f"The environment {task.id!r} needs the package {failure.name!r}, but it is not installed: "
        f"{remedy}."
    )


def not_made(task: Task, spec: EnvSpec, failure: BaseException, mode: str = "sync") -> InputError:
    """The error to raise when an environment's constructor has raised one."""
    if isinstance(failure, ModuleNotFoundError) and failure.name:
        return _not_installed(task, spec, failure)
    if isinstance(failure, EOFError) and mode == "async":
        return InputError(
            f"A process of the environment {task.id!r} ended before the environment was made."
        )
    message = error_text(failure)
    if isinstance(failure, LookupError):
        # The message is only the key; the place helps more.
        place = traceback.extract_tb(failure.__traceback__)[-1]
        message = f"{failure!r} in {place.filename}, line {place.lineno}"
    # Gymnasium appends the creator and all arguments to the environment's message.
    reason = message.split(" was raised from the environment creator")[0].rstrip(".")
    if not isinstance(failure, USUAL) or not reason:
        reason = f"{type(failure).__name__}{f' ({reason})' if reason else ''}"
    arguments = f" with {dict(task.kwargs)}" if task.kwargs else ""
    name = task.id.rpartition(":")[2]
    latest = _latest(name)
    hint = f"; the latest version is {latest!r}" if latest not in (None, name) else ""
    return InputError(f"The environment {task.id!r} cannot be made{arguments}: {reason}{hint}.")
