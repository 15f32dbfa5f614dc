"""The shell's face: parses, calls, prints. Exit codes: 0 done, 2 bad input, 130 interrupted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import rltransfer
from rltransfer.cli.benchmark import benchmark_command
from rltransfer.cli.evaluate import evaluate_command
from rltransfer.cli.experiment import experiment_command
from rltransfer.cli.export import export_command
from rltransfer.cli.help import USAGE, requested_help
from rltransfer.cli.listing import list_command
from rltransfer.cli.train import train_command
from rltransfer.errors import InputError, InterruptedRunError, unknown
from rltransfer.machine.terminal import ignore_closed_pipe


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[list[str]], None]] = {
        "list": list_command,
        "train": train_command,
        "evaluate": evaluate_command,
        "export": export_command,
        "benchmark": benchmark_command,
        "experiment": experiment_command,
    }
    told = requested_help(words) if words else USAGE
    if told is not None:
        with ignore_closed_pipe():
            print(told, end="")
        return 0 if words else 2
    if words[0] == "--version":
        print(rltransfer.__version__)
        return 0
    try:
        if words[0] not in commands:
            raise unknown("command", words[0], commands)
        commands[words[0]](words[1:])
    except InputError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except InterruptedRunError as stopped:
        print(stopped, file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
