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
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from inputs import CANARY, HUGE, ODD, Inputs
from seeds import MOVES, VECTOR, Seeds, build, copied_run, offline

import rltransfer as rt
from rltransfer.cli.task_options import with_options
from rltransfer.errors import InputError
from rltransfer.runs.config import configured, read_config
from rltransfer.runs.config_file import read_config_file, settings_of

MEMORY = 2 * 2**30
"""Bytes that a worker may take beyond what it begins with."""

SECONDS = 20
"""Seconds of computing that an input may take; three times as many by the clock."""

LONGEST_LINE = 300
"""Characters of a line of an error that are printed."""

EVERY = 1_000
"""Inputs after which progress is printed."""

GOOD = ("loaded", "refused")
BAD = ("traceback", "memory", "hang", "killed", "executed")

TASKS = {"ppo.zip": VECTOR, "dqn.zip": VECTOR}
"""The task of each file; the others play `MOVES`."""


class Worker:
    """Opens inputs in a folder of its own."""

    def __init__(self, inputs: Inputs, folder: Path) -> None:
        self.inputs = inputs
        self.folder = folder
        self.seen: list[str] = []
        self.watching = False

    def open(self, number: int) -> tuple[str, str, str]:
        """The kind of an input, what became of it, and the error if it was not expected."""
        draw, kind = self.inputs.random(number), self.inputs.kind(number)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        os.chdir(self.folder)
        for name, content in self.inputs.seeds.files.items():
            Path(name).write_bytes(content)
        # A name in a file that is imported would find this.
        Path(f"{CANARY}.py").write_text(f"import os; os.mkdir('{CANARY}')")
        prepared = getattr(self, f"_{kind}")(draw)
        before = self._listed()
        self.seen.clear()
        with _timed():
            self.watching = True
            outcome, reason = _outcome(prepared)
            self.watching = False
        written = self._listed() ^ before
        if self.seen or written:
            outcome, reason = "executed", f"{self.seen} {sorted(written)}"
        return kind, outcome, reason

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Notices what a file must not cause; a hook of `sys.addaudithook`."""
        if not self.watching:
            return
        if event == "import" and arguments[0] == CANARY:
            self.seen.append("import")
        elif event in FORBIDDEN:
            self.seen.append(f"{event} {arguments}")
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
            path = os.path.abspath(os.fsdecode(arguments[0])) if _is_path(arguments[0]) else ""
            if path and path != os.devnull and not path.startswith(f"{self.folder}{os.sep}run"):
                self.seen.append(f"open {path}")

    def _listed(self) -> set[str]:
        """What is in the folder and above it, but for run directories and the cache of the hub."""
        above = {f"../{path.name}" for path in self.folder.parent.iterdir()}
        return above | {path.name for path in self.folder.iterdir() if path.name != "hub"}

    # Each writes an input, and returns what opens it.

    def _file(self, draw: random.Random) -> Any:
        names = [*self.inputs.seeds.named(".zip"), *self.inputs.seeds.named(".pt")]
        name = draw.choice(names)
        content = self.inputs.seeds.files[name]
        archive = draw.random() < 0.7
        change = self.inputs.archived if archive else self.inputs.changed
        if name.startswith("rsl") and draw.random() < 0.5:
            change = self.inputs.saved
        Path(name).write_bytes(change(draw, content))
        return lambda: rt.evaluate(name, TASKS.get(name, MOVES), 1, num_envs=1, device="cpu")

    def _pickle(self, draw: random.Random) -> Any:
        change = draw.choice((self.inputs.pickled, self.inputs.changed))
        Path("sac.pkl").write_bytes(change(draw, self.inputs.seeds.files["sac.pkl"]))
        return lambda: rt.evaluate("sac.zip", MOVES, 1, vecnormalize="sac.pkl", device="cpu")

    def _changed_run(self, draw: random.Random, values: Sequence[Any]) -> Path:
        name = draw.choice(sorted(self.inputs.seeds.runs))
        run = copied_run(self.inputs.seeds, name, Path("run"))
        files = [path for path in sorted(run.rglob("*")) if path.is_file()]
        path = draw.choice(files)
        if path.suffix == ".json":
            odd = [*values] if path.name == "config.json" else [*values, *HUGE]
            path.write_bytes(self.inputs.json(draw, path.read_bytes(), odd))
        else:
            path.write_bytes(self.inputs.changed(draw, path.read_bytes()))
        return run

    def _run(self, draw: random.Random) -> Any:
        run = self._changed_run(draw, [*ODD, *HUGE])
        which, opened = draw.choice(("final", "best")), draw.random()
        if opened < 0.4:
            return lambda: rt.load_teacher(run, checkpoint=which)
        if opened < 0.8:
            return lambda: rt.evaluate(run, VECTOR, 1, checkpoint=which, num_envs=1, device="cpu")
        return lambda: _read(run)

    def _resume(self, draw: random.Random) -> Any:
        # Without huge numbers in the options: a user may ask for a million environments.
        run = self._changed_run(draw, ODD)
        return lambda: _resumed(run)

    def _text(self, draw: random.Random) -> Any:
        kind, text = self.inputs.text(draw)
        if kind == "teacher":
            return lambda: rt.load_teacher(text, suite=VECTOR)
        if kind == "objective":
            return lambda: rt.Objective.of(text)
        if kind == "schedule":
            return lambda: rt.Schedule.of(text)
        return lambda: with_options(rt.Suite.of(VECTOR), [text])

    def _place(self, draw: random.Random) -> Any:
        name = draw.choice(("ppo.zip", "rsl.pt", "scripted.pt", "sac.pkl", "run"))
        if name == "run":
            run = copied_run(self.inputs.seeds, "ppo", Path("run"))
            files = [path for path in sorted(run.rglob("*")) if path.is_file()]
            self.inputs.place(draw, draw.choice(files))
            return lambda: (rt.load_teacher(run), _resumed(run))
        self.inputs.place(draw, Path(name))
        if name == "sac.pkl":
            return lambda: rt.load_teacher("sac.zip", vecnormalize=name)
        return lambda: rt.load_teacher(name)


FORBIDDEN = {
    "os.chmod", "os.chown", "os.exec", "os.fork", "os.forkpty", "os.link", "os.mkdir",
    "os.posix_spawn", "os.remove", "os.rename", "os.rmdir", "os.spawn", "os.symlink", "os.system",
    "os.truncate", "pty.spawn", "shutil.copyfile", "shutil.move", "shutil.rmtree",
    "socket.connect", "socket.getaddrinfo", "subprocess.Popen",
}  # fmt: skip
"""Events that no input may cause."""

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _is_path(value: object) -> bool:
    return isinstance(value, str | bytes | os.PathLike)


def _read(run_dir: Path) -> None:
    """Reads the curves of a run, and the options by which another one would start."""
    rt.curves(run_dir)
    path = run_dir / "config.json"
    settings_of(path, read_config_file(path))


def _resumed(run_dir: Path) -> None:
    """Resumes a run for one rollout."""
    config = read_config(run_dir)
    method, suite, options = configured(config)
    run = rt.Run(config["agent"], method, suite, options, run_dir, quiet=True)
    try:
        run.begin(resume=True)
        run.iterate()
    finally:
        run.engine.close()


@contextlib.contextmanager
def _timed() -> Iterator[None]:
    """Ends this process if the block computes or waits for too long."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, 3 * SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _outcome(opens: Any) -> tuple[str, str]:
    """What becomes of an input, and the error."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            opens()
    except BaseException as error:
        text = "".join(traceback.format_exception(error))
        if "MemoryError" in text or "allocate memory" in text:
            return "memory", text
        if isinstance(error, InputError) and _is_sentence(str(error)):
            return "refused", ""
        return "traceback", text
    return "loaded", ""


def _is_sentence(text: str) -> bool:
    return bool(text.strip()) and text.endswith((".", "?")) and len(text) < 10_000


def _work(inputs: Inputs, folder: Path, numbers: list[int], results: Connection) -> None:
    """A process that opens inputs."""
    worker = Worker(inputs, folder)
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    sys.path.insert(0, "")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.addaudithook(worker.audit)
    for number in numbers:
        results.send((number, *worker.open(number)))


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
                if left:
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
                rt.evaluate(str(path), TASKS.get(name, MOVES), 1, device="cpu")
        rt.load_teacher(folder / "sac.zip", vecnormalize=folder / "sac.pkl")
        for name in seeds.runs:
            run = copied_run(seeds, name, folder / name)
            rt.evaluate(run, episodes=1, device="cpu")
            _resumed(run)
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
