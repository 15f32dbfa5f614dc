"""What the shell says of commands that have no options of their own: what can follow them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

from rltransfer.cli.benchmark import BENCHMARKS
from rltransfer.cli.experiment import experiments
from rltransfer.learning import methods

USAGE = """\
usage: rltransfer COMMAND ...

Move what one reinforcement-learning policy knows into another.

commands:
  list [NAME]                    agents, suites, teachers, experiments; tasks by `list tasks`
  train AGENT [options]          train an agent; `rltransfer train AGENT --help` shows its options
  evaluate RUN|TEACHER [options] play whole episodes with a run's policy or any teacher
  export RUN --out FILE          write a run's policy as an ONNX file
  benchmark WHAT [options]       speed: rollout, train AGENT, learner, teachers
  experiment list                the experiments that this repository's figures come from
  experiment run NAME [options]  repeat one
"""
ASKING = ("-h", "--help")


def requested_help(words: Sequence[str]) -> str | None:
    """Returns the help on a command that needs another word; None if no such help is asked for.

    Args:
        words: What follows `rltransfer`. `help COMMAND` is `COMMAND --help`.
    """
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    named = list(itertools.takewhile(lambda word: word not in ASKING, words))
    tells: dict[str, Callable[[], str]] = {
        "": lambda: USAGE,
        "list": _list_help,
        "train": lambda: _agents_help("train"),
        "benchmark": _benchmark_help,
        "benchmark train": lambda: _agents_help("benchmark train"),
        "experiment": _experiment_help,
        "experiment list": _experiment_help,
        "experiment run": _experiment_help,
    }
    tell = tells.get(" ".join(named))
    return tell() if tell is not None and len(named) < len(words) else None


def _list_help() -> str:
    return "usage: rltransfer list [agents|suites|teachers|experiments|tasks]\n"


def _agents_help(command: str) -> str:
    agents = {name: methods.find_method(name) for name in methods.method_names()}
    return _help(f"{command} AGENT [options]", "agents", agents)


def _benchmark_help() -> str:
    text = _help("benchmark WHAT [options]", "what", BENCHMARKS)
    return f"{text}  train AGENT  Steps per second of an agent's training.\n"


def _experiment_help() -> str:
    text = _help("experiment run NAME [options]", "experiments", experiments())
    return text.replace("\n", "\n       rltransfer experiment list\n", 1)


def _help(usage: str, title: str, kinds: Mapping[str, type]) -> str:
    """Returns a command's usage and what its first word may be, each with its first sentence."""
    width = max(len("train AGENT"), *map(len, kinds))
    first = {name: (kind.__doc__ or "").splitlines()[0] for name, kind in kinds.items()}
    rows = "".join(f"  {name:{width}}  {line}\n" for name, line in first.items())
    return f"usage: rltransfer {usage}\n\n{title}:\n{rows}"
