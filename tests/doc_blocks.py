"""What a page of Markdown shows, and how a test runs it: each command and each block of Python.

A page's blocks run in their order, in one folder, with small numbers in the place of large ones.
A block's language says what it is:

    bash       commands, run by `command`
    python     run; with a file's name as its first line, `# my_task.py`, it becomes that file
    toml       becomes the file that its first line names
    text       the output of the block before: its words are looked for in what was printed
    mermaid    a picture
"""

from __future__ import annotations

import contextlib
import importlib
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tensorboard.program import TensorBoard
from torch.distributed.run import get_args_parser

import rltransfer as rt
from rltransfer.cli.experiment import find_experiment
from rltransfer.cli.main import main
from rltransfer.cli.parsing import parse
from rltransfer.cli.train import default_folder
from rltransfer.errors import InputError
from rltransfer.importers import source
from rltransfer.importers.hub import FORM
from rltransfer.runs import teacher_check
from rltransfer.tasks import families
from rltransfer.teachers import zoo

ROOT = Path(__file__).parent.parent
DOCS = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
PAGES = ("README.md", "CONTRIBUTING.md", *DOCS)
"""Every page, by its path from the root."""

SMALL = {
    "train": {
        "total-steps": "64", "episodes": "1", "evaluate-episodes": "0", "num-envs": "2",
        "rollout-length": "16", "evaluate-max-steps": "20",
    },
    "train sb3": {"total-steps": "64", "episodes": "1", "evaluate-max-steps": "20"},
    "evaluate": {"episodes": "1", "num-envs": "1", "max-steps": "20"},
    "export": {"samples": "4"},
    "teachers": {"episodes": "2", "num-envs": "1", "max-steps": "20"},
    "sensitivity": {"episodes": "1", "states": "16", "max-steps": "20"},
    "benchmark rollout": {"num-envs": "2", "rollout-length": "4"},
    "benchmark train": {"num-envs": "2", "rollout-length": "8"},
    "benchmark learner": {"batch-size": "4", "memory-steps": "64"},
    "benchmark teachers": {"num-envs": "2"},
    "experiment run": {"total-steps": "64"},
}  # fmt: skip
"""Options that every command of a kind is run with, whatever the page says."""
ONLY_IF_GIVEN = {
    "batch-size": "16", "epochs": "1", "device": "cpu", "evaluate-episodes": "1",
    "compress-steps": "32",
}  # fmt: skip
"""Options that are run with these values where the page has them."""
EXTENDED = "128"
"""The steps that a run is extended to."""
MEASURING = {"seconds": "0.001", "repeats": "1"}
BROUGHT = (".zip", ".pkl", ".pt")
"""How files end that a reader brings."""


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    language: str
    text: str


def blocks(page: str) -> list[Block]:
    """Returns a page's fenced blocks."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)
    return [Block(language, text) for language, text in found]


def commands(text: str) -> Iterator[list[str]]:
    """Yields the words of each command; one may go over several lines."""
    so_far = ""
    for line in text.splitlines():
        so_far += line + "\n"
        if line.endswith("\\"):
            continue
        with contextlib.suppress(ValueError):  # a quotation is still open
            if words := shlex.split(so_far.replace("\\\n", " "), comments=True):
                yield words
            so_far = ""
    assert not so_far, f"a command has no end: {so_far}"


def run_folders(page: str) -> list[str]:
    """The folders of the runs that a page starts."""
    folders = []
    for block in blocks(page):
        if block.language == "python":
            folders += re.findall(r'run_dir="([^"]+)"', block.text)
        if block.language != "bash":
            continue
        for words in commands(block.text):
            words = words[words.index("rltransfer") + 1 :] if "rltransfer" in words else []
            if words[:1] == ["train"] and not {"--resume", "--help"} & set(words):
                agent = "" if words[1].startswith("--") else words[1]  # --config names it
                folders.append(_run_folder(agent, words[2 if agent else 1 :]))
    return folders


def _run_folder(agent: str, words: list[str]) -> str:
    """The folder of a run that trains an agent with these options."""
    values: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            values[word] = []
        else:
            values[list(values)[-1]].append(word)
    if "--run-dir" in values:
        return values["--run-dir"][0]
    seed = int(values.get("--seed", ["0"])[0])
    if "--config" in values:  # the agent and the tasks of another run
        return f"{Path(values['--config'][0]).parent.as_posix().rpartition('-')[0]}-{seed}"
    suite = values.get("--suite") or ["+".join(values["--task"])]
    return str(default_folder(agent, rt.Suite(suite[0], (rt.Task("a task"),)), seed))


def run_page(
    page: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs everything that a page shows, in the present folder."""
    monkeypatch.setattr(source, "fetch", _no_hub)
    for bound in ("CHECK_EPISODES", "MAX_EPISODES"):
        monkeypatch.setattr(teacher_check, bound, 1)
    printed = ""
    for block in blocks(page):
        if block.language == "text":
            _check_output(block.text, printed)
            continue
        capsys.readouterr()
        RUNNERS[block.language](block.text, monkeypatch, capsys)
        printed = "".join(capsys.readouterr())


def _check_output(text: str, printed: str) -> None:
    """Checks that each word of a page's output is in what was printed; numbers differ."""
    for word in re.findall(r"[A-Za-z][\w/.-]*[A-Za-z]", text):
        assert word in printed, f"{word!r} is not in the output:\n{printed}"


def _no_hub(place: str) -> None:
    """Stands for the Hugging Face hub, which no test asks."""
    assert FORM.fullmatch(place), place
    raise InputError(f"There is no teacher {place!r} in a test.")


def _python(text: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Runs a block of Python with small numbers, or writes it to the file that it names."""
    if _written(text):
        return
    few = "total_steps=64, evaluate_episodes=0, episodes=1, evaluate_max_steps=20"
    small = re.sub(r"\btotal_steps=[\d_]+", few, text)
    small = re.sub(r"\bepisodes=\d+", "episodes=2", small)
    small = re.sub(r"\.learn\([\d_]+\)", ".learn(64)", small)
    small = re.sub(r"\brange\([\d_]+\)", "range(2)", small)
    exec(compile(small, "a page", "exec"), {"__name__": "page"})


def _toml(text: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Writes a block of TOML to the file that it names."""
    tomllib.loads(text)
    assert _written(text), f"no file is named:\n{text}"


def _written(text: str) -> bool:
    """Writes a block to the file that its first line names, if it does."""
    name = re.match(r"# ([\w.-]+\.(?:py|toml))\n", text)
    if name:
        Path(name[1]).write_text(text)
    return name is not None


def _bash(text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs a block's commands."""
    for words in commands(text):
        while re.match(r"[A-Z_]+=", words[0]):
            assert words.pop(0) == "PYTHONPATH=."
            monkeypatch.syspath_prepend(Path.cwd())
        assert words[0] in COMMANDS, f"nobody knows how to test {words}"
        COMMANDS[words[0]](words[1:], monkeypatch, capsys)


def _rltransfer(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs a command, or sees it refused for nothing but a file that the reader brings."""
    if "--help" in words:
        show_help(words)
        return
    if words[:2] == ["experiment", "run"]:
        experiment = find_experiment(words[2])
        if experiment.__module__.startswith("rltransfer."):
            # Minutes to hours of work; tests/experiments runs each.
            parse(experiment, words[3:], "rltransfer experiment run")
            return
    words = small(words)
    brought = [name for name in _brought(" ".join(words)) if not Path(name).exists()]
    if not brought:
        assert main(words) == 0, f"{words}: {capsys.readouterr().err}"
        return
    assert main(words) == 2, words
    refusal = capsys.readouterr().err
    assert any(name in refusal for name in brought), refusal
    assert "here is no teacher" in refusal, refusal


def show_help(words: list[str]) -> None:
    """Prints the help on a command."""
    try:
        code: str | int | None = main(words)
    except SystemExit as ended:
        code = ended.code
    assert not code, words


def _brought(line: str) -> list[str]:
    """Returns the files of a command that a reader brings, or that are on the hub."""
    names = re.findall(r"[\w./:@-]+", re.sub(r"--out \S+", "", line))
    return [name for name in names if name.partition("@")[0].endswith(BROUGHT)]


def small(words: list[str]) -> list[str]:
    """Returns a command with small numbers; one that resumes has those of its run."""
    if "--resume" in words:
        more = words.index("--total-steps") + 1 if "--total-steps" in words else len(words)
        return [*words[:more], *[EXTENDED] * (more < len(words)), *words[more + 1 :]]
    two = words[0] in ("benchmark", "experiment") or words[:2] == ["train", "sb3"]
    kind = " ".join(words[:2]) if two else words[0]
    wanted = dict(SMALL.get(kind, {}))
    if words[0] == "benchmark":
        wanted.update(MEASURING)
    given = [word[2:] for word in words if word.startswith("--")]
    wanted.update({name: value for name, value in ONLY_IF_GIVEN.items() if name in given})
    if "until" in given:  # which evaluations during training decide
        wanted["evaluate-episodes"] = "1"
    words = [word for word in words if word != "--compile"]  # which takes up to a minute
    for name, value in wanted.items():
        if name in given:
            words[words.index(f"--{name}") + 1] = value
        else:
            words += [f"--{name}", value]
    return words


def _torchrun(words: list[str], *rest: Any) -> None:
    """Checks torchrun's own options, and runs in one process what it would run in several."""
    parsed = get_args_parser().parse_args(words)
    assert parsed.no_python and parsed.training_script == "rltransfer"
    _rltransfer(parsed.training_script_args, *rest)


def _tensorboard(words: list[str], *rest: Any) -> None:
    """Checks the options, and that there are curves to show; no server is started."""
    board = TensorBoard()
    board.configure(["tensorboard", *words])
    assert list(Path(board.flags.logdir).rglob("events.*")), words


def _make(words: list[str], *rest: Any) -> None:
    for target in words:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), target


def _pip(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Checks what is installed; the present folder's package is found from now on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert words.pop(0) == "install"
    while words:
        word = words.pop(0)
        if word == "-c":
            assert (ROOT / words.pop(0)).is_file()
        elif extra := re.fullmatch(r"(?:\.|rltransfer)\[([\w,]+)\]", word):
            assert set(extra[1].split(",")) <= project["optional-dependencies"].keys()
        elif word == "-e" and words == ["."] and Path("pyproject.toml").exists():
            _install(tomllib.loads(Path("pyproject.toml").read_text()), monkeypatch)
            return
        else:
            assert word in (".", "-e"), word


def _install(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lays out the entry points of the present folder's package, as pip would."""
    project = config["project"]
    info = Path(f"{project['name'].replace('-', '_')}-{project['version']}.dist-info")
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(metadata)
    lines: list[str] = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(Path.cwd())
    importlib.invalidate_caches()
    forget_installed()
    families.register_environments()


def forget_installed() -> None:
    """Lets what is installed be looked for anew."""
    families.families.cache_clear()
    zoo.zoo_folders.cache_clear()


def _pytest(words: list[str], *rest: Any) -> None:
    """Checks that the tests are there which a page tells to run."""
    for word in (word for word in words if word.startswith("tests/")):
        path, _, name = word.partition("::")
        assert f"def {name}" in (ROOT / path).read_text(), word


def _shell(words: list[str], *rest: Any) -> None:
    """Leaves alone what sets up a shell."""


Command = Callable[[list[str], pytest.MonkeyPatch, pytest.CaptureFixture[str]], None]
COMMANDS: dict[str, Command] = {
    ".": _shell,
    "cd": _shell,
    "make": _make,
    "pip": _pip,
    "pytest": _pytest,
    "rltransfer": _rltransfer,
    "tensorboard": _tensorboard,
    "torchrun": _torchrun,
}
"""Every command that a page may show, by its first word, and what tests it."""
RUNNERS: dict[str, Callable[[str, pytest.MonkeyPatch, pytest.CaptureFixture[str]], None]] = {
    "bash": _bash,
    "mermaid": lambda text, *rest: None,
    "python": _python,
    "toml": _toml,
}
"""What runs a block, by its language."""
