"""Opens one input after the other, and notices what becomes of each."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from inputs import CANARY, HUGE, LINKS, ODD, Inputs
from seeds import GOALS, MOVES, VECTOR, copied_run

import rltransfer as rt
from rltransfer.cli.main import main
from rltransfer.cli.task_options import with_options
from rltransfer.errors import InputError, printable
from rltransfer.files.checkpoint import write_hashes
from rltransfer.runs.config import configured, read_config
from rltransfer.runs.config_file import read_config_file, settings_of

SECONDS = 20
"""Seconds of computing that an input may take; three times as many by the clock."""

TASKS = {"ppo.zip": VECTOR, "dqn.zip": VECTOR, "goals.zip": GOALS}
"""The task of each file; the others play `MOVES`."""

OPTIONS = {
    "plain.pt": "?activation=tanh",
    "skrl.pt": "?activation=elu",
    "games.pt": "?activation=elu&clip_actions=true",
    "cleanrl.pt": "?library=cleanrl",
}
"""What some files do not contain."""

SAVED = ("rsl", "plain", "skrl", "games", "cleanrl.")
"""The beginnings of the names of those files of torch.save whose tensors are changed by name."""

FEW = ("--episodes", "1", "--max-steps", "50")
"""Options of evaluations."""

START = (
    "train", "ppo", "--task", VECTOR, "--total-steps", "32", "--num-envs", "2", "--rollout-length",
    "8", "--episodes", "0", "--evaluate-episodes", "0", "--device", "cpu",
)  # fmt: skip
"""A run that starts from the weights of another."""

VICTIMS = "victims"
"""A folder next to the input's, which nothing may change."""

FORBIDDEN = {
    "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn",
    "socket.connect", "socket.getaddrinfo", "subprocess.Popen",
}  # fmt: skip
"""Events that no input may cause."""

CHANGES = {
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir",
    "os.symlink", "os.truncate", "shutil.copyfile", "shutil.move", "shutil.rmtree",
}  # fmt: skip
"""Events that change files, which only those in a run's own folder may."""

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Worker:
    """Opens inputs in a folder of its own."""

    def __init__(self, inputs: Inputs, folder: Path) -> None:
        self.inputs = inputs
        self.folder = folder
        self.executed: list[str] = []
        self.written: list[str] = []
        self.watching = False

    def open(self, number: int) -> tuple[str, str, str]:
        """The kind of an input, what became of it, and the error if it was not expected."""
        draw, kind = self.inputs.random(number), self.inputs.kind(number)
        shutil.rmtree(self.folder, ignore_errors=True)
        victims = self.folder.parent / VICTIMS
        for folder in (self.folder, victims, victims / "step-000000000001"):
            folder.mkdir(exist_ok=True)
        (victims / "kept").write_text("kept")
        os.chdir(self.folder)
        for name, content in self.inputs.seeds.files.items():
            Path(name).write_bytes(content)
        # A name in a file that is imported would find this.
        Path(f"{CANARY}.py").write_text(f"import os; os.mkdir('{CANARY}')")
        prepared = getattr(self, f"_{kind}")(draw)
        before = self._listed()
        self.executed.clear()
        self.written.clear()
        with _timed():
            self.watching = True
            outcome, reason = _outcome(prepared)
            self.watching = False
        changed = sorted(map(str, self._listed() ^ before))
        if self.written or changed:
            outcome, reason = "written", f"{self.written} {changed}"
        if self.executed:
            outcome, reason = "executed", str(self.executed)
        return kind, outcome, reason

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Notices what a file must not cause; a hook of `sys.addaudithook`."""
        if not self.watching:
            return
        if event in FORBIDDEN or (event == "import" and arguments[0] == CANARY):
            self.executed.append(f"{event} {arguments}")
        elif event in CHANGES:
            paths = [one for one in arguments[:2] if isinstance(one, str | bytes | os.PathLike)]
            handles = [one for one in arguments[1:] if isinstance(one, int) and one >= 0]
            for path in paths:
                # The name itself is what changes, and not what it may lead to.
                self._check(event, os.path.dirname(_absolute(path, handles)))
        elif event == "open" and _writes(*arguments):
            self._check(event, _absolute(arguments[0], []))

    def _check(self, event: str, path: str) -> None:
        """Notices a change outside the folder of a run."""
        real, run = os.path.realpath(path), os.path.join(self.folder, "run")
        if real not in (os.devnull, run) and not real.startswith(f"{run}{os.sep}"):
            self.written.append(f"{event} {real}")

    def _listed(self) -> set[Any]:
        """What is next to the run, and in the folder of victims with its content."""
        victims = self.folder.parent / VICTIMS
        kept = {(path, path.is_file() and path.read_bytes()) for path in victims.rglob("*")}
        return {*self.folder.parent.iterdir(), *self.folder.iterdir(), *kept}

    # Each writes an input, and returns what opens it.

    def _changed_file(self, draw: random.Random) -> str:
        suffixes = (".zip", ".pt", ".onnx")
        name = draw.choice([one for end in suffixes for one in self.inputs.seeds.named(end)])
        content = self.inputs.seeds.files[name]
        archive = draw.random() < 0.7
        change = self.inputs.archived if archive else self.inputs.changed
        if name.startswith(SAVED) and draw.random() < 0.5:
            change = self.inputs.saved
        if name.endswith(".onnx"):
            change = self.inputs.graph if archive else self.inputs.changed
        Path(name).write_bytes(change(draw, content))
        return name

    def _file(self, draw: random.Random) -> Any:
        name = self._changed_file(draw)
        source, task = name + OPTIONS.get(name, ""), TASKS.get(name, MOVES)
        return lambda: rt.evaluate(source, task, 1, num_envs=1, device="cpu")

    def _pickle(self, draw: random.Random) -> Any:
        change = draw.choice((self.inputs.pickled, self.inputs.changed))
        Path("sac.pkl").write_bytes(change(draw, self.inputs.seeds.files["sac.pkl"]))
        return lambda: rt.evaluate("sac.zip", MOVES, 1, vecnormalize="sac.pkl", device="cpu")

    def _layout(self, draw: random.Random) -> Any:
        """Statistics and a configuration next to a zip, as rl-zoo stores them."""
        content = self.inputs.seeds.files["sac.pkl"]
        Path("sac.pkl").unlink()
        Path("sac").mkdir()
        places = ["sac/vecnormalize.pkl", "sac.vecnormalize.pkl", "vecnormalize.pkl"]
        changed = draw.choice((self.inputs.pickled, self.inputs.changed, lambda _, same: same))
        Path(draw.choice(places)).write_bytes(changed(draw, content))
        config = Path(draw.choice(("sac/config.yml", "config.yml")))
        config.write_bytes(self.inputs.changed(draw, self.inputs.config(draw)))
        if draw.random() < 0.2:
            self.inputs.place(draw, draw.choice((config, Path(places[0]))))
        return lambda: rt.load_teacher("sac.zip", suite=MOVES)

    def _changed_run(self, draw: random.Random, values: Sequence[Any]) -> Path:
        name = draw.choice(sorted(self.inputs.seeds.runs))
        run = copied_run(self.inputs.seeds, name, Path("run"))
        files = [path for path in sorted(run.rglob("*")) if path.is_file()]
        path = draw.choice(files)
        if path.suffix == ".json":
            odd = [*values] if path.name == "config.json" else [*values, *HUGE]
            changed = self.inputs.json(draw, path.read_bytes(), odd)
        elif path.suffix == ".safetensors":
            changed = self.inputs.safetensors(draw, path.read_bytes())
        else:
            changed = self.inputs.events(draw, path.read_bytes())
        path.write_bytes(changed)
        # A stranger's hashes are those of what the stranger wrote.
        has_hashes = path.parent.parent.name == "checkpoints" and path.name != "sha256.json"
        if has_hashes and draw.random() < 0.8:
            write_hashes(path.parent)
        return run

    def _run(self, draw: random.Random) -> Any:
        run = self._changed_run(draw, [*ODD, *HUGE])
        which, opened = draw.choice(("final", "best")), draw.random()
        if opened < 0.4:
            return lambda: rt.load_teacher(run, checkpoint=which)
        if opened < 0.8:
            few: Any = {"checkpoint": which, "num_envs": 1, "device": "cpu", "max_steps": 50}
            return lambda: rt.evaluate(run, draw.choice((VECTOR, None)), 1, **few)
        return lambda: _read(run)

    def _resume(self, draw: random.Random) -> Any:
        # Without huge numbers in the options: a user may ask for a million environments.
        run = self._changed_run(draw, ODD)
        return lambda: resumed(run)

    def _command(self, draw: random.Random) -> Any:
        if draw.random() < 0.3:
            name = self._changed_file(draw)
            source, task = name + OPTIONS.get(name, ""), TASKS.get(name, MOVES)
            return shell(["evaluate", source, "--task", task, *FEW])
        run = self._changed_run(draw, ODD)
        return shell(
            draw.choice((
                ["evaluate", str(run), *FEW],
                ["evaluate", str(run), *FEW, "--checkpoint", "best", "--json"],
                ["evaluate", str(run), *FEW, "--task", VECTOR],
                ["train", "--resume", str(run), "--total-steps", "80", "--episodes", "1"],
                ["curves", str(run)],
                ["curves", str(run), "--csv"],
                ["report", str(run), "--out", f"{run}/report.md"],
                [*START, "--init-match", draw.choice(("exact", "any")), "--init-from", str(run),
                 "--run-dir", f"{run}/started"],
            ))
        )  # fmt: skip

    def _links(self, draw: random.Random) -> Any:
        """A run that would write to other places."""
        name = draw.choice(sorted(self.inputs.seeds.runs))
        run = copied_run(self.inputs.seeds, name, Path("run"))
        if draw.random() < 0.2:
            config = json.loads((run / "config.json").read_text())
            config["method"][draw.choice(("memory_dir", "x"))] = f"../{VICTIMS}"
            (run / "config.json").write_text(json.dumps(config))
        else:
            for name in draw.sample(LINKS, draw.choice((1, 1, 2))):
                self.inputs.link(draw, run / name, Path("..") / VICTIMS)
        return shell(["train", "--resume", str(run), "--total-steps", "80", "--episodes", "1"])

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
        name = draw.choice(("ppo.zip", "rsl.pt", "scripted.pt", "actor.onnx", "sac.pkl", "run"))
        if name == "run":
            run = copied_run(self.inputs.seeds, "ppo", Path("run"))
            files = [path for path in sorted(run.rglob("*")) if path.is_file()]
            self.inputs.place(draw, draw.choice(files))
            return lambda: (rt.load_teacher(run), _read(run), resumed(run))
        self.inputs.place(draw, Path(name))
        if name == "sac.pkl":
            return lambda: rt.load_teacher("sac.zip", vecnormalize=name)
        return lambda: rt.load_teacher(name)


def _writes(path: object, mode: object, flags: object) -> bool:
    """Whether an event opens a file by its name to write to it."""
    named = isinstance(path, str | bytes | os.PathLike)
    return named and isinstance(flags, int) and bool(flags & WRITES)


def _absolute(path: Any, handles: Sequence[int]) -> str:
    """A path, which may be relative to an open folder."""
    name = os.fsdecode(path)
    if handles and not os.path.isabs(name):
        name = os.path.join(os.readlink(f"/proc/self/fd/{handles[0]}"), name)
    return os.path.abspath(name)


def _read(run_dir: Path) -> None:
    """Reads the curves of a run, and the options by which another one would start."""
    rt.curves(run_dir)
    path = run_dir / "config.json"
    settings_of(path, read_config_file(path))


def resumed(run_dir: Path) -> None:
    """Resumes a run for one rollout."""
    config = read_config(run_dir)
    method, suite, options = configured(config)
    run = rt.Run(config["agent"], method, suite, options, run_dir, quiet=True)
    try:
        run.begin(resume=True)
        run.iterate()
    finally:
        run.engine.close()


def shell(words: list[str]) -> Callable[[], None]:
    """Runs a command; an `InputError` with what it printed if it ended with the code for one."""

    def run() -> None:
        out, error = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            code = main(words)
        text = out.getvalue() + error.getvalue()
        if printable(text) != text or "\t" in text:
            raise AssertionError(f"control characters are printed: {text!r}")
        text.encode()
        if code == 2:
            raise InputError(error.getvalue().splitlines()[-1])
        if code:
            raise AssertionError(f"exit code {code}: {text}")

    return run


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


def is_left_behind() -> bool:
    """Whether a thread still runs, e.g. of a program that never ends."""
    return any(thread is not threading.current_thread() for thread in threading.enumerate())


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
