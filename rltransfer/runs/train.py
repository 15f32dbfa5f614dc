"""Training, from Python: `train` runs a method on tasks in a directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rltransfer.aliases import accepts_aliases
from rltransfer.errors import InputError
from rltransfer.learning import methods
from rltransfer.learning.agent import Method
from rltransfer.learning.initial_weights import InitMatch, InitPart
from rltransfer.machine.threads import AUTO, Threads
from rltransfer.options import flag, path_value, whole_number
from rltransfer.runs.callbacks import Callback
from rltransfer.runs.config import RunOptions
from rltransfer.runs.generations import Chain
from rltransfer.runs.run import Run
from rltransfer.runs.sequence import TaskSequence, check_sequence
from rltransfer.tasks import families
from rltransfer.tasks.families import SuiteLike


@accepts_aliases
def train(
    method: Method,
    *,
    suite: SuiteLike,
    run_dir: str | Path,
    resume: bool = False,
    quiet: bool = False,
    generations: int = 0,
    sequential: bool = False,
    compress_steps: int = 0,
    callbacks: Sequence[Callback] = (),
    total_steps: int = 0,
    seed: int = 0,
    device: str = "auto",
    threads: Threads = AUTO,
    compile: bool = False,
    checkpoint_every: int = 0,
    evaluate_every: int = 0,
    evaluate_episodes: int = 16,
    evaluate_num_envs: int = 0,
    evaluate_max_steps: int = 0,
    episodes: int = 100,
    until: float = 0.0,
    init_from: str | Path | None = None,
    init_without: Sequence[InitPart] = (),
    init_layers: int = 0,
    init_match: InitMatch = "exact",
    freeze: str = "",
    l2_to_source: float = 0.0,
    ewc_from: Sequence[str | Path] = (),
    ewc_weight: float = 0.0,
) -> Run:
    """Trains to the end and returns the run, with `run.result`.

    Args:
        method: What learns and how, e.g. `rltransfer.agents.PPO()`.
        suite: The tasks: a suite, a task, the name of either, or several tasks or ids.
        run_dir: Directory of the run; must be empty or missing, unless the run is resumed.
        resume: Resume the run in `run_dir`; more `total_steps` extend it, and all options from
            `device` on may change.
        quiet: Hide progress.
        generations: Students in a chain, each the teacher of the next, see `generations.py`; the
            last one's run is returned. 0 trains a single run, in `run_dir` itself.
        sequential: Learn the tasks one after the other, each for `total_steps`; see `sequence.py`.
        compress_steps: Steps of the distillation of each column of a sequence into a knowledge base
            (Progress & Compress); 0 for none.
        callbacks: Functions that the run calls with a `RunEvent` at its start and end, rollouts,
            evaluations and checkpoints, e.g. to log or to stop early: see `callbacks.py`.
        total_steps: Environment steps over all tasks and environments; 0 for the method's own
            number, see `Method.default_steps`.
        seed: Seed of weights, environments and sampling order.
        device: "cpu", "cuda", "cuda:1", ...; "auto" uses CUDA if available.
        threads: CPU threads of torch; 0 for torch's default. "auto": one for small networks, more
            for large ones; a resumed run keeps its number, as results may depend on it.
        compile: Compile the policy's kernels with torch.compile.
        checkpoint_every: Environment steps between checkpoints; 0 means a tenth of the run.
        evaluate_every: Environment steps between evaluations; 0 means a tenth of the run, or more
            where episodes are long: evaluations then play about a tenth as many steps as training.
        evaluate_episodes: Episodes of each evaluation during training; 0 for none.
        evaluate_num_envs: Maximum number of environments per evaluation; 0 means the method's
            `num_envs`, or 64 if all environments are simulated on the device.
        evaluate_max_steps: Steps after which an evaluation cuts an episode; 0 means 108,000, or
            `total_steps` if fewer.
        episodes: Episodes of each evaluation at the end; 0 for none.
        until: Stop when evaluations are sure that the student keeps this fraction of its teacher's
            return on every task, see `reaching.py`; 0 for never.
        init_from: A run directory, or "zoo:ID", whose weights the policy starts from; see
            `run.initial_weights` for what was loaded.
        init_without: Parts that start fresh: "head", "value", "statistics".
        init_layers: Layers that are loaded, from the observation up; 0 for all.
        init_match: "exact", "inputs" or "any", see `initial_weights.py`.
        freeze: Layers that do not train, e.g. "encoder", see `trainable.py`.
        l2_to_source: Weight of the squared distance to the loaded weights.
        ewc_from: Runs whose tasks are to be remembered (EWC), see `consolidation.py`.
        ewc_weight: Weight of the pull to their weights.

    Raises:
        InputError: An argument is invalid; nothing was written.
        Exception: What a callback raised, after a checkpoint.
    """
    if not isinstance(method, Method):
        raise InputError(f"The method is {method!r}: pass an instance, e.g. rt.agents.PPO().")
    options = RunOptions(
        total_steps=total_steps,
        seed=seed,
        device=str(device),
        threads=threads,
        compile=compile,
        checkpoint_every=checkpoint_every,
        evaluate_every=evaluate_every,
        evaluate_episodes=evaluate_episodes,
        evaluate_num_envs=evaluate_num_envs,
        evaluate_max_steps=evaluate_max_steps,
        episodes=episodes,
        until=until,
        init_from=None if init_from is None else str(init_from),
        init_without=tuple(init_without),
        init_layers=init_layers,
        init_match=init_match,
        freeze=freeze,
        l2_to_source=l2_to_source,
        ewc_from=tuple(map(str, ewc_from)),
        ewc_weight=ewc_weight,
    )
    folder = path_value("run_dir", run_dir)
    name = methods.method_name(type(method))
    settings = (
        name, method, families.as_suite(suite), options, folder, flag("quiet", quiet), callbacks
    )  # fmt: skip
    resume, count = flag("resume", resume), whole_number("generations", generations, "at least 0")
    compress = whole_number("compress_steps", compress_steps, "at least 0")
    check_sequence(flag("sequential", sequential), compress, count)
    if sequential:
        return TaskSequence(*settings, compress_steps=compress).train(resume)
    if count:
        return Chain(*settings, generations=count).train(resume)
    run = Run(*settings)
    run.begin(resume)
    run.execute()
    return run
