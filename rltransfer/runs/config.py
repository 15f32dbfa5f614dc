"""A run's options, and its configuration as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltransfer.aliases import option_name
from rltransfer.errors import InputError, check_range
from rltransfer.files.checkpoint_names import check_not_checkpoint
from rltransfer.files.reading import must_be_readable
from rltransfer.files.serialization import from_json, to_json
from rltransfer.files.untrusted import damage_refused, read_json
from rltransfer.learning import methods
from rltransfer.learning.agent import Method
from rltransfer.learning.initial_weights import InitMatch, InitPart
from rltransfer.learning.trainable import Freeze
from rltransfer.machine.threads import AUTO, Threads, checked_threads
from rltransfer.options import normalize
from rltransfer.rollouts.evaluation import LONGEST
from rltransfer.tasks.task import Suite

FRAMES = "frame_stack"
"""The entry of config.json for the number of frames that an observation stacks."""
LARGEST_FRACTION = 10.0
"""The largest `until`: a student may be better than its teacher, but percentages are a slip."""
SCALED_ACTIONS = "scaled_actions"
"""The entry of config.json that is true where continuous actions are learned in [-1, 1]; runs of
earlier versions, which act in the environment's units, lack it."""
SOURCES = "sources"
"""The entry of config.json for the policies inside the run's policy, e.g. its earlier columns."""
SOURCE_OPTIONS = ("init_without", "init_layers", "init_match", "l2_to_source")
"""The options that need initial weights."""
TRANSFER = ("init_from", "freeze", "ewc_from", "ewc_weight", *SOURCE_OPTIONS)
"""The options on initial weights and on what trains; a resumed run must have the same."""
NOT_OPTIONS = (FRAMES, SCALED_ACTIONS)
"""Entries of config.json that follow from the options or from the version."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of every run, whatever the method."""

    total_steps: int = 0
    """Environment steps over all tasks and environments, rounded up to whole rollouts. 0 means
    1,000,000; for policy distillation 200,000 where environments run on the host."""
    seed: int = 0
    """Seed of weights, environments and sampling order."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", ...; "auto" uses CUDA if available."""
    threads: Threads = AUTO
    """CPU threads of torch; 0 for torch's default. "auto": one for small networks, more for large
    ones; a resumed run keeps its number, as results may depend on it."""
    compile: bool = False
    """Compile the policy's kernels with torch.compile, which takes up to a minute.
    Small networks become slower on a CPU: measure with `rltransfer benchmark train`."""
    checkpoint_every: int = 0
    """Environment steps between checkpoints; 0 means a tenth of the run."""
    evaluate_every: int = 0
    """Environment steps between evaluations; 0 means a tenth of the run, or more where episodes are
    long: evaluations then play about a tenth as many steps as training."""
    evaluate_episodes: int = 16
    """Episodes of each evaluation during training; 0 for none."""
    evaluate_num_envs: int = 0
    """Maximum number of environments per evaluation, which with --seed determines its episodes.
    0 means --num-envs, or 64 if all environments are simulated on the device."""
    evaluate_max_steps: int = 0
    """Steps after which an evaluation cuts an episode; 0 means 108,000, or --total-steps if fewer.
    """
    episodes: int = 100
    """Episodes of each evaluation at the end: policy, teacher and random policy; 0 for none."""
    until: float = 0.0
    """Stop when evaluations are sure that the student keeps this fraction of its teacher's return
    on every task, with random play as 0, e.g. 0.95; --total-steps is then the most. 0: never."""

    init_from: str | None = None
    """Start from the weights of another policy: a run directory, or zoo:ID. Prints what is loaded.
    """
    init_without: tuple[InitPart, ...] = ()
    """Parts that start fresh all the same: head, value, statistics."""
    init_layers: int = 0
    """Layers that are loaded, counted from the observation up; 0 for all."""
    init_match: InitMatch = "exact"
    """exact: refuse tensors of another shape. inputs: a first layer with another number of inputs
    is loaded as far as it goes. any: what has another shape starts fresh."""
    freeze: str = ""
    """Layers that do not train: encoder; layers:2, the first two from the observation up;
    layers:2->0@0.5, fewer over time; freezeout:0.5, one after the other from that fraction of the
    run on (Brock 2017)."""
    l2_to_source: float = 0.0
    """Weight of the squared distance to the loaded weights (L2-SP, Li 2018)."""
    ewc_from: tuple[str, ...] = ()
    """Runs whose tasks are to be remembered: the weights are pulled to those of each run's policy,
    the more it needs them (EWC, Kirkpatrick 2017)."""
    ewc_weight: float = 0.0
    """Weight of that pull; lambda of EWC."""

    def __post_init__(self) -> None:
        normalize(self)
        object.__setattr__(self, "threads", checked_threads(self.threads))
        check_range(self, "at least 0", "total_steps", "init_layers")
        check_range(self, "finite and at least 0", "l2_to_source", "ewc_weight", "until")
        Freeze.of(self.freeze)
        if not self.init_from:
            given = [
                name for name in SOURCE_OPTIONS if getattr(self, name) != getattr(RunOptions, name)
            ]
            if given:
                raise InputError(
                    f"{given[0]} is {getattr(self, given[0])!r}, but nothing is loaded: set "
                    "init_from, or leave it out."
                )
        check_range(
            self, "at least 0", "episodes", "evaluate_episodes", "evaluate_num_envs",
            "evaluate_max_steps", "checkpoint_every", "evaluate_every", "seed",
        )  # fmt: skip
        check_range(self, "at most 10,000,000", "episodes", "evaluate_episodes")
        if self.until > LARGEST_FRACTION:
            raise InputError(
                f"until is {self.until:g}, a multiple of the teacher's return: it must be a "
                "fraction, e.g. 0.95 for 95 %."
            )
        if self.until and not self.evaluate_episodes:
            raise InputError(
                f"until is {self.until:g}, but evaluate_episodes is 0: evaluations tell when the "
                "student is there, so set it above 0."
            )

    @property
    def max_episode_steps(self) -> int:
        """Steps after which an evaluation cuts an episode; for short runs at least 1,000."""
        longest = min(max(self.total_steps, 1_000), LONGEST) if self.total_steps else LONGEST
        return self.evaluate_max_steps or longest


def with_total_steps(options: RunOptions, method: Method, suite: Suite) -> RunOptions:
    """The options with the method's own number of steps, if they leave it to the method."""
    if options.total_steps:
        return options
    return dataclasses.replace(options, total_steps=method.default_steps(suite))


def check_consolidation(options: RunOptions) -> None:
    """Refuses earlier tasks without a weight, or a weight without earlier tasks.

    Raises:
        InputError: One of ewc_from and ewc_weight is set, and the other is not; or a run is named
            twice.
    """
    if len(set(options.ewc_from)) < len(options.ewc_from):
        raise InputError("ewc_from contains a run twice: pass each run once.")
    if options.ewc_from and not options.ewc_weight:
        raise InputError("ewc_from names earlier runs, but ewc_weight is 0: set both or neither.")
    if options.ewc_weight and not options.ewc_from:
        raise InputError(
            f"ewc_weight is {options.ewc_weight:g}, but there are no earlier runs: set ewc_from, "
            "or train a sequence of tasks."
        )


def settings(name: str, method: Method, suite: Suite, options: RunOptions) -> dict[str, Any]:
    """A run's settings as JSON, as `configured` reads them."""
    return {
        "agent": name,
        "method": to_json(method),
        "suite": suite.to_json(),
        "options": to_json(options),
    }


def with_default_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Stored options, with the defaults of those that earlier versions lacked."""
    fields = {field.name for field in dataclasses.fields(RunOptions)}
    known = {option_name(name, fields) for name in options}
    return {**options, **{k: v for k, v in to_json(RunOptions()).items() if k not in known}}


def with_earlier_fields(agent: str, method: Mapping[str, Any]) -> dict[str, Any]:
    """A stored method, with the fields that earlier versions lacked."""
    if agent not in methods.method_names():  # it was passed in Python
        return dict(method)
    return {**getattr(methods.find_method(agent), "earlier", {}), **method}


def with_default_method(agent: str, method: Mapping[str, Any]) -> dict[str, Any]:
    """A method's stored options, with the defaults of those that earlier versions lacked.

    They stay as they are if the method is not installed.
    """
    try:
        kind: Any = methods.find_method(agent)
    except InputError:
        return dict(method)
    defaults = {
        field.name: to_json(field.default)
        for field in dataclasses.fields(kind)
        if field.default is not dataclasses.MISSING
    }
    return _merged(defaults, with_earlier_fields(agent, method))


def _merged(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the defaults of those that are missing, in nested ones too."""
    merged = {**defaults, **given}
    for name, value in defaults.items():
        if isinstance(value, dict) and isinstance(given.get(name), dict):
            merged[name] = _merged(value, given[name])
    return merged


def read_config(run_dir: Path) -> dict[str, Any]:
    """Reads a run's configuration.

    Raises:
        InputError: The folder is not a run, or its configuration is damaged.
    """
    path = run_dir / "config.json"
    try:
        with must_be_readable():
            entries = read_json(path)
    except OSError as error:  # it is missing, or the name is too long
        check_not_checkpoint(run_dir)
        raise InputError(f"{run_dir} is not a run: it has no config.json.") from error
    except InputError:
        raise
    except ValueError as error:
        raise _damaged(run_dir) from error
    with damage_refused(str(_damaged(run_dir))):
        Suite.from_json(entries["suite"])
        return _Config(run_dir, entries)


class _Config(dict[str, Any]):
    """The contents of config.json; a missing entry means that the file is damaged."""

    def __init__(self, run_dir: Path, entries: Mapping[str, Any]) -> None:
        super().__init__(entries)
        self.run_dir = run_dir

    def __missing__(self, name: str) -> Any:
        raise _damaged(self.run_dir)


def _damaged(run_dir: Path) -> InputError:
    return InputError(f"{run_dir} is not a complete run: its config.json is damaged.")


def configured(config: Mapping[str, Any]) -> tuple[Method, Suite, RunOptions]:
    """The method, suite and options of a configuration.

    Raises:
        InputError: It was written by another version, or one of its values is damaged.
    """
    suite = Suite.from_json(config["suite"])
    with damage_refused(
        f"The configuration of this run of {config['agent']!r} is damaged: one of its options has "
        "the wrong type."
    ):
        agent = config["agent"]
        stored = with_earlier_fields(agent, config["method"])
        method = from_json(methods.find_method(agent), stored)
        return method, suite, from_json(RunOptions, with_default_options(config["options"]))
