"""Any Gymnasium id as a vector environment.

How the environments are stepped was measured on two cores (environment steps/s, random actions;
`sync` steps them in a row, `async` is Gymnasium's, one process for each environment):

    environment       sync      async
    CartPole-v1       131,000   18,000
    HalfCheetah-v5     22,300    8,300
    Humanoid-v5         3,850    3,600

so they are stepped in a row, and the task's keyword argument `vectorization_mode="async"`, which is
`gymnasium.make_vec`'s own, is there for environments of which one step takes milliseconds. A thread
that steps while the policy is computed pays for none but the slowest (Humanoid-v5 +40 %,
HalfCheetah-v5 -30 %, CartPole-v1 -50 %: Python's lock changes hands too seldom), so there is none.
"""

from __future__ import annotations

import importlib
import traceback
from typing import Any

import gymnasium
import torch
from gymnasium.envs.registration import EnvSpec, find_highest_version, get_env_id, parse_env_id
from gymnasium.vector import AutoresetMode

from rltransfer.errors import InputError, unknown
from rltransfer.tasks.host_env import STEP_HALVES, HostVectorEnv
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
"""The extra of Gymnasium that each of its folders of environments needs."""


_REFUSALS = (
    AssertionError,
    ImportError,
    LookupError,
    TypeError,
    ValueError,
    gymnasium.error.Error,
)
"""What environments raise at arguments that they do not take."""


def make_host_env(task: Task, num_envs: int, device: torch.device) -> VectorEnv:
    """Makes the vector environment of any Gymnasium id.

    An id whose `vector_entry_point` is one of this package's `VectorEnv` classes gives that one, on
    `device`; one whose `vector_entry_point` resets in the same step is adapted; every other one is
    made `num_envs` times and stepped in a row, or in processes of their own if the task's keyword
    argument `vectorization_mode` is "async".

    Args:
        task: The id and the environment's keyword arguments.
        num_envs: How many environments.
        device: Where the tensors live.

    Raises:
        InputError: There is no such id, it refuses its arguments, it needs what is not installed,
            or its spaces are not supported.
    """
    kwargs = dict(task.kwargs)
    mode = kwargs.pop("vectorization_mode", "sync")
    if mode not in ("sync", "async"):
        raise InputError(
            f"The vectorization_mode of {task.id!r} is {mode!r}: it must be 'sync' or 'async'."
        )
    for reserved in ("num_envs", "device", "vector_kwargs", "wrappers"):
        if reserved in kwargs:
            raise InputError(f"The environment {task.id!r} takes no keyword argument {reserved!r}.")
    spec = _find_spec(task)
    try:
        creator = _vector_creator(spec)
        if isinstance(creator, type) and issubclass(creator, VectorEnv):
            made = gymnasium.make_vec(task.id, num_envs, device=device, **kwargs)
            assert isinstance(made, VectorEnv)
            return made
        if _is_vector_only(spec, creator):
            env = gymnasium.make_vec(task.id, num_envs, "vector_entry_point", **kwargs)
        else:
            options = {"autoreset_mode": AutoresetMode.SAME_STEP}
            env = gymnasium.make_vec(task.id, num_envs, mode, options, **kwargs)
    except ModuleNotFoundError as failure:
        raise _not_installed(task, spec, failure) from failure
    except _REFUSALS as failure:
        raise _not_made(task, failure) from failure
    return HostVectorEnv(env, device, name=task.id)


def host_env_overlaps(task: Task) -> bool:
    """Whether `send` of the vector environment returns while the environments still step.

    It is known before one is made, as far as the class of the environment tells.
    """
    spec = _find_spec(task)
    try:
        creator = _vector_creator(spec)
    except ImportError:
        return False  # `make_host_env` says what is missing
    if isinstance(creator, type) and issubclass(creator, VectorEnv):
        return creator.overlaps
    if _is_vector_only(spec, creator):
        return any(hasattr(creator, a) and hasattr(creator, b) for a, b in STEP_HALVES)
    return task.kwargs.get("vectorization_mode") == "async"


def _is_vector_only(spec: EnvSpec, creator: Any) -> bool:
    """Whether the id is made as one vector environment, and not as many single ones."""
    metadata = getattr(creator, "metadata", {})
    same_step = metadata.get("autoreset_mode") is AutoresetMode.SAME_STEP
    return spec.entry_point is None or same_step


def _find_spec(task: Task) -> EnvSpec:
    """Returns the id's entry in Gymnasium's registry; "module:id" imports the module first."""
    module, _, name = task.id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return gymnasium.spec(name)
    except ModuleNotFoundError as failure:
        raise InputError(
            f"The environment {task.id!r} is in the module {module!r}: {failure}; PYTHONPATH says "
            "where modules are, e.g. PYTHONPATH=. for those of this folder."
        ) from failure
    except gymnasium.error.Error as failure:
        latest = _latest(name)
        if latest is not None:
            raise InputError(
                f"There is no environment {task.id!r}: the latest version is {latest!r}."
            ) from failure
        known = gymnasium.registry
        raise unknown("environment", name, known, "rltransfer list tasks") from failure


def _latest(name: str) -> str | None:
    """Returns the id of the latest version of an environment; None if there is none."""
    try:
        namespace, base, _ = parse_env_id(name)
    except gymnasium.error.Error:
        return None
    version = find_highest_version(namespace, base)
    return None if version is None else get_env_id(namespace, base, version)


def _vector_creator(spec: EnvSpec) -> Any:
    """Returns what an id's `vector_entry_point` stands for; None if it has none.

    A vector environment that cannot be loaded is no obstacle where there is a single one.
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
    """Returns the error for an environment that needs a package that is not there."""
    path = str(spec.entry_point or spec.vector_entry_point).split(".")
    extra = _EXTRAS.get(path[2]) if path[:2] == ["gymnasium", "envs"] else None
    remedy = f'install it with `pip install "gymnasium[{extra}]"`' if extra else "install it"
    return InputError(
        f"The environment {task.id!r} needs the package {failure.name!r}, which is not there: "
        f"{remedy}."
    )


def _not_made(task: Task, failure: Exception) -> InputError:
    """Returns the error for an environment that refused to be made."""
    told = str(failure)
    if isinstance(failure, LookupError):
        # It names a key and no reason: where it was missed tells more.
        place = traceback.extract_tb(failure.__traceback__)[-1]
        told = f"{failure!r} in {place.filename}, line {place.lineno}"
    # Gymnasium adds where the error was raised, and all arguments, to what the environment told.
    lines = told.split(" was raised from the environment creator")[0].splitlines()
    reason = (lines[0] if lines else type(failure).__name__).rstrip(".")
    arguments = f" with {dict(task.kwargs)}" if task.kwargs else ""
    name = task.id.rpartition(":")[2]
    latest = _latest(name)
    hint = f"; the latest version is {latest!r}" if latest not in (None, name) else ""
    return InputError(f"The environment {task.id!r} cannot be made{arguments}: {reason}{hint}.")
