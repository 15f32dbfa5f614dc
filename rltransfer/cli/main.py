"""The command `rltransfer`.

Exit codes: 0 success, 2 invalid input, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence

import rltransfer
from rltransfer.cli.parsing import choose
from rltransfer.errors import InputError, InterruptedRunError
from rltransfer.machine.terminal import ignore_closed_pipe, print_line

COMMANDS = {
    "list": "List agents, suites, zoo teachers and experiments; `list tasks` lists every task.",
    "train": "Train an agent; `train AGENT --help` shows its options.",
    "evaluate": "Play whole episodes with a run's policy or any other teacher.",
    "teachers": "Say what a teacher is and how well it plays: `teachers check SOURCE --task ID`.",
    "sensitivity": "Measure how much a run's policy depends on each layer of its columns.",
    "curves": "List the curves of runs, or print them as CSV.",
    "report": "Compare runs on one page: curves, transfer, settings that differ.",
    "export": "Export a run's policy to ONNX or Stable-Baselines3.",
    "benchmark": "Measure the speed of environments, training, learners or teachers.",
    "experiment": "List the experiments behind the published results, or run one.",
}
"""Each command is `run` in the module of its name, which is loaded only for that command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    code = 0
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal without UTF-8 has no letters for some names and for "±".
        sys.stdout.reconfigure(errors="backslashreplace")
    with ignore_closed_pipe():
        code = _run(words) if words else _run(["--help"]) or 2
    if argv is None:
        _end(code)
    return code


def _end(code: int) -> None:
    """Ends the process at once if a program is left behind in it, which Python would trip over."""
    trial = sys.modules.get("rltransfer.importers.trial")
    if trial is not None and trial.is_left_behind():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(words: list[str]) -> int:
    if words[0] == "help":
        words = [*words[1:], "--help"]
    try:
        if words[0] == "--version":
            print(rltransfer.__version__)
            return 0
        about = f"{(rltransfer.__doc__ or '').splitlines()[0]}"
        name, rest = choose("command", COMMANDS, words, "rltransfer", about, COMMANDS.__getitem__)
        importlib.import_module(f"rltransfer.cli.{name}").run(rest)
    except SystemExit as ended:  # tyro printed help, or code of the user's ended the command
        if isinstance(ended.code, str):
            print_line(ended.code)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except InputError as error:
        print_line(" ".join(str(error).split()))
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        print_line(
            "There is not enough memory: use fewer environments, shorter rollouts, or smaller "
            "batches and networks."
        )
        return 2
    except (InterruptedRunError, KeyboardInterrupt) as stopped:
        print_line(str(stopped) or "Stopped.")
        return getattr(stopped, "exit_code", 130)
    return 0


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an error is Python's or torch's of a full memory; torch itself may not be loaded."""
    is_torchs = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or is_torchs


if __name__ == "__main__":
    sys.exit(main())
