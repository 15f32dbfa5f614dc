"""Training with Stable-Baselines3's own algorithms, for a teacher as its users have one.

A folder holds what rl-zoo's have:

    NAME.zip                 the model, as `model.save` writes it
    NAME/vecnormalize.pkl    with `normalize`, the observation statistics
    options.json             the options
    result.json              the greedy policy's return, beside a random policy's
    ALGORITHM_1/             curves

A run that is interrupted saves the model so far. None resumes: an off-policy algorithm's memory is
not stored.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from rltransfer.errors import InputError, check_range
from rltransfer.files.named_values import named_values
from rltransfer.files.serialization import to_json
from rltransfer.machine.devices import find_device
from rltransfer.machine.hardware import hardware
from rltransfer.machine.terminal import console
from rltransfer.machine.threads import restored, use_threads
from rltransfer.options import normalize
from rltransfer.policies.encoder import SMALLEST_NATURE_IMAGE
from rltransfer.rollouts.evaluation import LONGEST, evaluate_random
from rltransfer.runs.evaluate import evaluate
from rltransfer.runs.folder import check_free, io_errors_as_input_errors, write_json
from rltransfer.runs.report import result_table
from rltransfer.tasks.gymnasium_env import find_spec, not_made
from rltransfer.tasks.task import Suite, Task
from rltransfer.teachers.loading import load_teacher

AlgorithmName = Literal["A2C", "DDPG", "DQN", "PPO", "SAC", "TD3"]
CONTINUOUS, DISCRETE = ("DDPG", "SAC", "TD3"), ("DQN",)
"""Algorithms of one kind of actions."""
FRAMES = "ALE/"
"""The beginning of the ids whose frames rltransfer shows in another way than Gymnasium."""


@dataclass(frozen=True, kw_only=True)
class SB3Training:
    """Stable-Baselines3's own algorithms, for a zip to learn from.

    Its own defaults hold for everything that is not an option here.
    """

    task: str | None = None
    """Any Gymnasium id whose environments are made one by one."""
    task_option: tuple[str, ...] = ()
    """Keyword arguments of the task, as NAME=VALUE."""
    algorithm: AlgorithmName = "SAC"
    """Stable-Baselines3's class."""
    algorithm_option: tuple[str, ...] = ()
    """Arguments of the algorithm, e.g. `learning_rate=1e-3 gamma=0.98 train_freq=8`."""
    total_steps: int = 100_000
    """Environment steps over all environments."""
    num_envs: int = 1
    """Environments, stepped one after the other."""
    hidden: tuple[int, ...] = ()
    """Units of each hidden layer; none for the algorithm's own."""
    normalize: bool = False
    """Normalise observations and rewards by running statistics (VecNormalize)."""
    run_dir: Path | None = None
    """Folder of the zip; defaults to runs/sb3-ALGORITHM-TASK-SEED."""
    seed: int = 0
    """Seed of weights, environments and exploration."""
    device: str = "auto"
    """"cpu", "cuda", ...; "auto" uses CUDA if available."""
    threads: int = 1
    """CPU threads of torch; one is fastest for small networks."""
    episodes: int = 100
    """Episodes of the evaluation at the end; 0 for none."""
    evaluate_max_steps: int = LONGEST
    """Steps after which the evaluation cuts an episode."""
    quiet: bool = False
    """Hide progress."""

    def __post_init__(self) -> None:
        normalize(self)
        check_range(self, "at least 1", "total_steps", "num_envs", "threads", "evaluate_max_steps")
        check_range(self, "at least 0", "seed", "episodes")
        if any(units < 1 for units in self.hidden):
            raise InputError(f"hidden is {self.hidden}: each layer needs at least 1 unit.")

    def run(self) -> None:
        """Trains a model and prints its return."""
        if self.task is None:
            raise InputError("sb3 needs a task: pass --task ID.")
        task = Task(self.task, named_values(self.task_option, "task option"))
        name = f"sb3-{self.algorithm}-{task.id.replace('/', '-')}-{self.seed}"
        run_dir = self.run_dir or Path("runs") / name
        arguments = named_values(self.algorithm_option, "algorithm option")
        result = train_sb3(self, arguments, task, run_dir)
        out = console()
        if result["final_evaluation"]:
            out.print(result_table([result]))
        student = ("rltransfer", "train", "policy-distillation", "--task", task.id, "--teacher")
        for line in (
            f"curves: tensorboard --logdir {run_dir}",
            f"train a student: {shlex.join([*student, str(model_path(run_dir, task))])}",
        ):
            out.print(line, highlight=False, soft_wrap=True)


def model_path(run_dir: Path, task: Task) -> Path:
    """The zip in the folder of a training."""
    return run_dir / f"{task.id.replace('/', '-').replace(':', '-')}.zip"


@restored()
def train_sb3(
    options: SB3Training, arguments: dict[str, Any], task: Task, run_dir: Path
) -> dict[str, Any]:
    """Trains a model, saves it, and plays episodes with it; returns the content of `result.json`.

    Args:
        options: The options.
        arguments: Further arguments of the algorithm.
        task: The task: an id whose environments Gymnasium makes one by one.
        run_dir: The folder; it must be empty or missing.

    Raises:
        InputError: The folder is not free, the task cannot be made, or does not fit the algorithm.
        KeyboardInterrupt: Training was interrupted; the model so far was saved.
    """
    check_free(run_dir, resumes=False)
    if task.id.startswith(FRAMES):
        raise InputError(
            f"sb3 does not train on {task.id}: rltransfer shows its frames smaller, grey and "
            "stacked, and Gymnasium as they are. Use ppo, or a zip of rl-zoo."
        )
    find_spec(task)
    device = find_device(options.device)
    use_threads(options.threads)
    env = _environments(task, options)
    try:
        model = _model(options, arguments, env, task, device, run_dir)
        with io_errors_as_input_errors(run_dir):
            run_dir.mkdir(parents=True, exist_ok=True)
            stored = {**to_json(options), "task": task.to_json()}
            write_json(run_dir / "options.json", stored)
        began = time.monotonic()
        with _saved(model, env, model_path(run_dir, task)):
            _learn(model, options, arguments, task)
        seconds = time.monotonic() - began
    finally:
        env.close()
    result = _result(options, model, task, run_dir, device, seconds)
    write_json(run_dir / "result.json", result)
    return result


def _environments(task: Task, options: SB3Training) -> VecEnv:
    """Environments as Stable-Baselines3's users make them.

    Raises:
        InputError: They cannot be made, or show something that its policies do not read.
    """
    make: Callable[[], gymnasium.Env[Any, Any]] = lambda: gymnasium.make(task.id, **task.kwargs)  # noqa: E731
    try:
        env = make_vec_env(make, n_envs=options.num_envs, seed=options.seed)
    except MemoryError:
        raise
    except (Exception, SystemExit) as failure:
        raise not_made(task, find_spec(task), failure) from failure
    fault = _fault(options.algorithm, env)
    if fault:
        env.close()
        raise InputError(f"{options.algorithm} does not learn {task.id}: {fault}.")
    return VecNormalize(env) if options.normalize else env


def _fault(algorithm: str, env: VecEnv) -> str:
    """Why an algorithm cannot learn a task; empty if it can."""
    actions, seen = env.action_space, env.observation_space
    discrete = isinstance(actions, spaces.Discrete)
    if not discrete and not isinstance(actions, spaces.Box):
        return f"its actions are {actions}"
    if discrete and algorithm in CONTINUOUS:
        return "its actions are discrete; use DQN, PPO or A2C"
    if not discrete and algorithm in DISCRETE:
        return "its actions are continuous; use SAC, TD3, PPO or A2C"
    if isinstance(seen, spaces.Discrete):
        return ""
    if not isinstance(seen, spaces.Box) or len(seen.shape) not in (1, 3):
        return f"its observations are {seen}, neither a vector nor an image"
    if len(seen.shape) == 3 and sorted(seen.shape)[-2] < SMALLEST_NATURE_IMAGE:
        return (
            f"its images of {list(seen.shape)} are too small for Stable-Baselines3's convolutions; "
            "use ppo or pqn"
        )
    return ""


def _model(
    options: SB3Training,
    arguments: dict[str, Any],
    env: VecEnv,
    task: Task,
    device: torch.device,
    run_dir: Path,
) -> BaseAlgorithm:
    """The model with fresh weights.

    Raises:
        InputError: The algorithm does not have an argument, or refuses its value.
    """
    image = len(env.observation_space.shape or ()) == 3
    kind: Any = getattr(stable_baselines3, options.algorithm)
    network = {"policy_kwargs": {"net_arch": list(options.hidden)}} if options.hidden else {}
    try:
        made: BaseAlgorithm = kind(
            "CnnPolicy" if image else "MlpPolicy", env, seed=options.seed, device=device,
            verbose=0 if options.quiet else 1, tensorboard_log=str(run_dir), **network, **arguments,
        )  # fmt: skip
    except (AssertionError, TypeError, ValueError) as error:
        raise _refusal(options, arguments, task, error) from error
    return made


def _learn(
    model: BaseAlgorithm, options: SB3Training, arguments: dict[str, Any], task: Task
) -> None:
    """Trains a model.

    Raises:
        InputError: An argument that was given has a value that only training refuses.
    """
    try:
        model.learn(options.total_steps)
    except InputError:
        raise
    except (AssertionError, TypeError, ValueError) as error:
        if not arguments:
            raise  # the environment's own error, or the library's
        raise _refusal(options, arguments, task, error) from error


def _refusal(
    options: SB3Training, arguments: dict[str, Any], task: Task, error: Exception
) -> InputError:
    """That the algorithm does not learn the task with these arguments."""
    reason = " ".join(str(error).split()).rstrip(".") or "it refuses an argument"
    return InputError(f"{options.algorithm} with {arguments} does not learn {task.id}: {reason}.")


@contextlib.contextmanager
def _saved(model: BaseAlgorithm, env: VecEnv, path: Path) -> Iterator[None]:
    """Saves the model and its statistics after the block, also if it is interrupted."""
    try:
        yield
    finally:
        with io_errors_as_input_errors(path.parent):
            model.save(path)
            if isinstance(env, VecNormalize):
                statistics = path.with_suffix("") / "vecnormalize.pkl"
                statistics.parent.mkdir(exist_ok=True)
                env.save(str(statistics))


def _result(
    options: SB3Training,
    model: BaseAlgorithm,
    task: Task,
    run_dir: Path,
    device: torch.device,
    seconds: float,
) -> dict[str, Any]:
    """The content of `result.json`, with the fields of other runs."""
    tasks: dict[str, Any] = {}
    suite, episodes = Suite.of(task), options.episodes
    if episodes:
        how: dict[str, Any] = {
            "seed": options.seed + 2, "num_envs": 16, "max_steps": options.evaluate_max_steps,
        }  # fmt: skip
        (found,) = evaluate(
            model_path(run_dir, task), suite, episodes, device=str(device), **how
        ).values()
        (random,) = evaluate_random(suite, episodes, device=device, **how).values()
        tasks[task.id] = {
            "return_mean": found.mean,
            "return_ci95": found.ci95 if episodes > 1 else None,
            "episodes": episodes,
            "random_return_mean": random.mean,
        }
    return {
        "agent": f"sb3 {options.algorithm}",
        "suite": suite.name,
        "seed": options.seed,
        "env_steps": int(model.num_timesteps),
        "wall_seconds": seconds,
        "env_steps_per_second": model.num_timesteps / max(seconds, 1e-9),
        "student_parameters": load_teacher(model_path(run_dir, task)).num_parameters,
        "teacher_parameters": None,
        "device": str(device),
        "hardware": hardware(device),
        "final_evaluation": bool(tasks),
        "tasks": tasks,
    }
