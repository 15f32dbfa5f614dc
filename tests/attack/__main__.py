"""Opens changed files through the public interface, and counts what becomes of them.

    make attack                                    # 20,000 inputs
    python tests/attack --inputs 2000 --seed 1     # fewer, and others
    python tests/attack --case 137                 # one input again, with its traceback
    python tests/attack --log attack.jsonl         # what was opened before is not opened again

Every input must load, or be refused in one sentence, within 2 GiB and 20 seconds of computing.
Nothing may run, and nothing outside the folder of the input may be written. Workers are forked from
one process that has built the files, with a limit on memory and a timer that ends them; an audit
hook of Python and the folder itself show what was run or written.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import multiprocessing
import os
import platform
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from inputs import Inputs
from seeds import MOVES, Seeds, build, copied_run, offline
from worker import OPTIONS, START, TASKS, Worker, is_left_behind, resumed, shell

import rltransfer as rt
from rltransfer.errors import InputError

MEMORY = 2 * 2**30
"""Bytes that a worker may take beyond what it begins with."""

LONGEST_LINE = 300
"""Characters of a line of an error that are printed."""

EVERY = 1_000
"""Inputs after which progress is printed."""

LEFT_BEHIND = 77
"""Exit code of a process that is replaced, as a thread of it still runs."""

GOOD = ("loaded", "refused")
BAD = ("traceback", "memory", "hang", "killed", "executed", "written")
"""What must not become of an input: "written" is outside of the folder of a run."""


def _work(inputs: Inputs, folder: Path, numbers: list[int], results: Connection) -> None:
    """A process that opens inputs."""
    worker = Worker(inputs, folder)
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    sys.path.insert(0, "")
    sys.dont_write_bytecode = True
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.addaudithook(worker.audit)
    for number in numbers:
        results.send((number, *worker.open(number)))
        if is_left_behind():
            os._exit(LEFT_BEHIND)


def attack(
    inputs: Inputs, numbers: Sequence[int], workers: int, folder: Path
) -> Iterator[tuple[int, str, str, str]]:
    """Opens inputs in several processes.

    Args:
        inputs: What makes them.
        numbers: The inputs.
        workers: Number of processes.
        folder: A folder for them.

    Yields:
        Number, kind, outcome and error of each input.
    """
    context = multiprocessing.get_context("fork")
    shares = [list(numbers[first::workers]) for first in range(workers)]
    running: dict[Connection, tuple[Any, int, list[int]]] = {}

    def start(index: int, left: list[int]) -> None:
        here, there = context.Pipe(duplex=False)
        process = context.Process(
            target=_work, args=(inputs, folder / f"worker-{index}" / "input", left, there)
        )
        process.start()
        there.close()
        running[here] = (process, index, left)

    for index, share in enumerate(shares):
        (folder / f"worker-{index}").mkdir()
        start(index, share)
    while running:
        for results in wait(list(running)):
            assert isinstance(results, Connection)
            process, index, left = running[results]
            try:
                found = results.recv()
                left.remove(found[0])
                yield found
            except EOFError:
                del running[results]
                process.join()
                if left and process.exitcode == LEFT_BEHIND:
                    start(index, left)
                elif left:
                    ended = -process.exitcode
                    kind = "hang" if ended in (signal.SIGPROF, signal.SIGALRM) else "killed"
                    number = left.pop(0)
                    yield number, inputs.kind(number), kind, f"exit code {process.exitcode}"
                    start(index, left)


def _shortened(text: str) -> str:
    return "\n".join(line[:LONGEST_LINE] for line in text.splitlines()[-24:])


def _warm_up(seeds: Seeds, folder: Path) -> None:
    """Opens every file as it is: they must load, and what is imported late is imported now."""
    folder.mkdir()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for name, content in seeds.files.items():
            path = folder / name
            path.write_bytes(content)
            if not name.endswith(".pkl"):
                source = f"{path}{OPTIONS.get(name, '')}"
                rt.evaluate(source, TASKS.get(name, MOVES), 1, device="cpu")
        rt.load_teacher(folder / "sac.zip", vecnormalize=folder / "sac.pkl")
        for name in seeds.runs:
            run = copied_run(seeds, name, folder / name)
            rt.evaluate(run, episodes=1, device="cpu")
            resumed(run)
            more = ["--total-steps", "80", "--episodes", "1"]
            for words in (["evaluate"], ["curves"], ["train", *more, "--resume"]):
                shell([*words, str(run)])()
            shell(["report", str(run), "--out", f"{run}/report.md"])()
        first = next(iter(seeds.runs))
        with contextlib.suppress(InputError):
            shell([*START, "--run-dir", f"{run}/started", "--init-from", f"{folder / first}"])()
        rt.load_teacher("zoo:rltransfer/MinAtar-Breakout-v0")
        with contextlib.suppress(InputError):
            rt.load_teacher("hf:owner/name/file.zip")


def report(found: Sequence[Any]) -> str:
    """The counts of each kind of input."""
    rows = collections.defaultdict(collections.Counter)
    for _, kind, outcome, _ in found:
        rows[kind][outcome] += 1
        rows["all"][outcome] += 1
    lines = [f"{'input':9}" + "".join(f"{name:>10}" for name in (*GOOD, *BAD))]
    lines += [
        f"{kind:9}" + "".join(f"{rows[kind][name]:10}" for name in (*GOOD, *BAD))
        for kind in sorted(rows, key=lambda one: (one == "all", one))
    ]
    return "\n".join(lines)


def _known(path: Path | None) -> list[Any]:
    """What a log tells of earlier inputs; its last line may be cut short."""
    lines = path.read_text().splitlines() if path is not None and path.exists() else []
    found = []
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def main() -> int:
    """Runs the attack; 1 if any input did something else than load or be refused."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--case", type=int, help="one input only, with its traceback")
    parser.add_argument("--show", type=int, default=5, help="errors to print")
    parser.add_argument("--log", type=Path, help="what became of each input, a line of JSON each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = _known(options.log)
    known = {one[0] for one in found}
    numbers = range(options.inputs) if options.case is None else [options.case]
    numbers = [number for number in numbers if number not in known]
    folder = Path(tempfile.mkdtemp(prefix="attack-"))
    try:
        (folder / "seeds").mkdir()
        offline(folder / "hub")
        seeds: Seeds = build(folder / "seeds")
        _warm_up(seeds, folder / "warm")
        began = time.monotonic()
        with open(options.log or os.devnull, "a") as log:
            inputs, workers = Inputs(seeds, options.seed), min(options.workers, len(numbers))
            for one in attack(inputs, numbers, workers, folder):
                found.append(one)
                log.write(json.dumps(one) + "\n")
                log.flush()
                if len(found) % EVERY == 0:
                    print(f"{len(found):,} inputs", file=sys.stderr, flush=True)
        seconds = time.monotonic() - began
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    bad = sorted(one for one in found if one[2] in BAD)
    for number, kind, outcome, error in bad[: options.show]:
        print(f"--- input {number} ({kind}): {outcome}\n{_shortened(error)}")
    print(report(found))
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "gymnasium"))
    print(f"seed {options.seed}, {seconds:.0f} s, Python {platform.python_version()}, {versions}")
    if bad:
        print(
            f"again: python tests/attack --seed {options.seed} --case N, where N is one of "
            f"{', '.join(str(one[0]) for one in bad[:50])}"
        )
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
