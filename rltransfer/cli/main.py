"""The command `rltransfer`.

Exit codes: 0 success, 2 invalid input, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import rltransfer
from rltransfer.cli.parsing import choose
from rltransfer.errors import InputError, InterruptedRunError
from rltransfer.machine.terminal import ignore_closed_pipe

COMMANDS = {
    "list": "List agents, suites, zoo teachers and experiments; `list tasks` lists every task.",
    "train": "Train an agent; `train AGENT --help` shows its options.",
    "evaluate": "Play whole episodes with a run's policy or any other teacher.",
    "curves": "List the curves of runs, or print them as CSV.",
    "export": "Export a run's policy to ONNX.",
    "benchmark": "Measure the speed of environments, training, learners or teachers.",
    "experiment": "List the experiments behind the published results, or run one.",
}
"""Each command is `run` in the module of its name, which is loaded only for that command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    code = 0
    with ignore_closed_pipe():
        code = _run(words) if words else _run(["--help"]) or 2
    return code


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
    except SystemExit as ended:  # tyro printed help
        return int(ended.code or 0)
    except InputError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except (InterruptedRunError, KeyboardInterrupt) as stopped:
        print(str(stopped) or "Stopped.", file=sys.stderr)
        return getattr(stopped, "exit_code", 130)
    return 0


if __name__ == "__main__":
    sys.exit(main())
