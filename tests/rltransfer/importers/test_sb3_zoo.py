"""The observation statistics of a zip are found where people keep them, or asked for."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from rltransfer.cli.main import main
from rltransfer.errors import InputError
from rltransfer.importers.sb3_zoo import ZooConfig, is_normalized
from rltransfer.tasks.history import OPTION as HISTORY
from rltransfer.tasks.making import make_vector_env
from rltransfer.tasks.observation import grouped
from rltransfer.tasks.suite_spaces import SuiteSpaces, TaskSpaces
from rltransfer.tasks.task import Suite, Task
from rltransfer.teachers.file_teacher import FileTeacher
from rltransfer.teachers.loading import load_teacher

CONFIG = """!!python/object/apply:collections.OrderedDict
- - - ent_coef
    - 0.0
  - - normalize
    - {}
  - - policy
    - MlpPolicy
"""
"""What rl-zoo writes into `config.yml`."""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("true", True),
        ("false", False),
        ("null", False),
        ("'{''norm_obs'': True, ''norm_reward'': False}'", True),
        ("'{''norm_obs'': False, ''norm_reward'': True}'", False),
        ("dict(norm_obs=False, norm_reward=True)", False),
        ("'{''norm_reward'': False}'", True),
        ("'{''clip_obs'': 10.0, ''norm_reward'': True,\n      ''norm_obs'': False}'", False),
        # A tag that Python's own YAML would run: it is only searched.
        ("!!python/object/apply:os.mkdir ['ran']", True),
    ],
)
def test_the_entry_of_a_configuration(
    value: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_normalized(CONFIG.format(value)) == expected
    assert not (tmp_path / "ran").exists()


def test_other_forms_of_a_configuration() -> None:
    assert is_normalized("n_envs: 8\nnormalize: true\npolicy: MlpPolicy\n") is True
    assert is_normalized("  normalize: false\n  policy: MlpPolicy\n") is False
    assert is_normalized("normalize:\n  norm_obs: false\n  norm_reward: true\nx: 1\n") is False
    assert is_normalized("normalize:\n  norm_reward: false\nx: 1\n") is True
    assert is_normalized("normalize_kwargs: {norm_obs: true}\npolicy: normalize\n") is None
    assert is_normalized("\x00" * 100) is None
    # Of two entries the last counts, unless it is one of another mapping.
    assert is_normalized("normalize: true\nx: 1\nnormalize: false\n") is False
    assert is_normalized("  normalize: false\n  normalize: true\n  x: 1\n") is True
    assert is_normalized(CONFIG.format("true") + "  - - normalize\n    - false\n") is False
    assert is_normalized("normalize: true\nkwargs:\n  normalize: false\n") is True


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A zip that was trained on normalised observations, and their statistics."""
    folder = tmp_path_factory.mktemp("files")
    env = VecNormalize(DummyVecEnv([lambda: gymnasium.make("MountainCar-v0")]))
    model = A2C("MlpPolicy", env, policy_kwargs={"net_arch": [4]}, seed=0, device="cpu").learn(20)
    model.save(folder / "model.zip")
    env.save(str(folder / "model.pkl"))
    return folder / "model.zip", folder / "model.pkl"


def laid_out(folder: Path, files: tuple[Path, Path], names: dict[str, Any]) -> None:
    """Copies a zip (z), its statistics (s) or a configuration's value of `normalize`."""
    for name, kind in names.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind in ("z", "s"):
            shutil.copy(files["zs".index(kind)], path)
        else:
            path.write_text(CONFIG.format(kind))


FOUND = {
    "rl-zoo": ({"E.zip": "z", "E/vecnormalize.pkl": "s", "E/config.yml": "true"}, "E.zip"),
    "rl-zoo without a configuration": ({"E.zip": "z", "E/vecnormalize.pkl": "s"}, "E.zip"),
    "rl-zoo's best": (
        {"E.zip": "z", "best_model.zip": "z", "E/vecnormalize.pkl": "s", "E/config.yml": "true"},
        "best_model.zip",
    ),
    "rl-zoo on the hub": (
        {"a.zip": "z", "metrics.zip": "z", "vec_normalize.pkl": "s", "config.yml": "true"}, "a.zip"
    ),
    "named alike": ({"a.zip": "z", "b.zip": "z", "a.vecnormalize.pkl": "s"}, "a.zip"),
    "a checkpoint": (
        {"rl_8_steps.zip": "z", "b.zip": "z", "rl_vecnormalize_8_steps.pkl": "s"}, "rl_8_steps.zip"
    ),
    "alone": ({"a.zip": "z", "vec_normalize.pkl": "s"}, "a.zip"),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND)
def test_statistics_are_found(case: str, files: tuple[Path, Path], tmp_path: Path) -> None:
    names, zip_name = FOUND[case]
    laid_out(tmp_path, files, names)
    (statistics,) = (tmp_path / name for name, kind in names.items() if kind == "s")
    teacher = load_teacher(tmp_path / zip_name)
    assert isinstance(teacher, FileTeacher) and teacher.vecnormalize == str(statistics)
    assert teacher.spec().preprocessing["normalizer"]["kind"] == "VecNormalize"
    (note,) = teacher.notes()
    assert str(statistics) in note and "found next to it" in note
    # As text it names them, and what a user passes himself needs no note.
    again = load_teacher(str(teacher))
    assert again.spec() == teacher.spec() and again.notes() == ()
    without = load_teacher(tmp_path / zip_name, vecnormalize="none")
    assert without.spec().preprocessing["normalizer"] is None and without.notes() == ()
    assert load_teacher(str(without)).spec() == without.spec()


NOT_USED = {
    "nothing there": {"a.zip": "z"},
    "rewards alone": {"a.zip": "z", "vec_normalize.pkl": "s", "config.yml": "false"},
    "another's": {"a.zip": "z", "b.zip": "z", "b.vecnormalize.pkl": "s"},
}


@pytest.mark.parametrize("case", NOT_USED)
def test_what_does_not_belong_to_it_is_not_used(
    case: str, files: tuple[Path, Path], tmp_path: Path
) -> None:
    laid_out(tmp_path, files, NOT_USED[case])
    teacher = load_teacher(tmp_path / "a.zip")
    assert teacher.spec().preprocessing["normalizer"] is None and teacher.notes() == ()


MISSING = {
    "rl-zoo": ({"a.zip": "z", "a/config.yml": "true"}, r"as \S+a/config.yml tells, but .* missing"),
    "on the hub": ({"a.zip": "z", "config.yml": "true"}, "was trained on normalised observations"),
    "of one of two": (
        {"a.zip": "z", "b.zip": "z", "vec_normalize.pkl": "s"}, "may be those of another zip"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISSING)
def test_statistics_that_are_needed_are_asked_for(
    case: str, files: tuple[Path, Path], tmp_path: Path
) -> None:
    names, sentence = MISSING[case]
    laid_out(tmp_path, files, names)
    with pytest.raises(InputError, match=f"{sentence}.*`vecnormalize`, or 'none' to play without"):
        load_teacher(tmp_path / "a.zip")
    assert load_teacher(tmp_path / "a.zip", vecnormalize="none").notes() == ()
    assert load_teacher(tmp_path / "a.zip", vecnormalize=files[1]).notes() == ()


def test_the_shell_says_once_what_it_found(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    laid_out(tmp_path, files, FOUND["rl-zoo"][0])
    teacher = ["--task", "MountainCar-v0", "--episodes", "1"]
    assert main(["evaluate", str(tmp_path / "E.zip"), *teacher, "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err.count("found next to it") == 1 and json.loads(printed.out)
    run = tmp_path / "run"
    words = [
        "train", "policy-distillation", "--teacher", str(tmp_path / "E.zip"), *teacher,
        "--num-envs", "2", "--rollout-length", "8", "--batch-size", "8", "--total-steps", "32",
        "--evaluate-episodes", "0", "--hidden", "4", "--run-dir", str(run), "--device", "cpu",
    ]  # fmt: skip
    assert main(words) == 0
    assert capsys.readouterr().err.count("found next to it") == 1
    config = (run / "config.json").read_text()
    assert "E/vecnormalize.pkl" in config and '"kind": "VecNormalize"' in config


TIME = "sb3_contrib.common.wrappers.TimeFeatureWrapper"
ENTRIES: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "neither": ("    - x\n", 1, ()),
    "one wrapper": (f"    - {TIME}\n", 1, (TIME,)),
    "no wrapper": ("    - null\n", 1, ()),
    "several, with arguments": (
        "    - - rl_zoo3.wrappers.FrameSkip:\n          skip: 2\n"
        f"      - {TIME}:\n          test_mode: false\n",
        1,
        ("rl_zoo3.wrappers.FrameSkip", TIME),
    ),
    "a stack": ("    - null\n  - - frame_stack\n    - 4\n", 4, ()),
}


@pytest.mark.parametrize("case", ENTRIES)
@pytest.mark.parametrize("first", [True, False])
def test_wrappers_and_stacks_of_an_ordered_dictionary(case: str, first: bool) -> None:
    """Classes of other entries, such as activations, are no wrappers."""
    entry, stacked, wrappers = ENTRIES[case]
    before = "- - - env_wrapper\n" if first else "- - - ent_coef\n    - 0.0\n  - - env_wrapper\n"
    text = (
        f"!!python/object/apply:collections.OrderedDict\n{before}{entry}"
        "  - - policy_kwargs\n    - dict(activation_fn=nn.ReLU)\n"
    )
    found = ZooConfig.of("config.yml", text)
    assert (found.frame_stack, found.wrappers) == (stacked, wrappers)


def test_wrappers_and_stacks_of_a_plain_mapping() -> None:
    text = f"env_wrapper:\n- a.b.One:\n    x: 1\n- {TIME}\nframe_stack: 4\npolicy: p.Policy\n"
    found = ZooConfig.of("config.yml", text)
    assert (found.frame_stack, found.wrappers) == (4, ("a.b.One", TIME))
    indented = ZooConfig.of("c", "  env_wrapper: a.Two\n  frame_stack: '3'\n  x: nn.ReLU\n")
    assert (indented.frame_stack, indented.wrappers) == (3, ("a.Two",))
    for odd in ("", "env_wrapper", "env_wrapper:", "frame_stack: many\nenv_wrapper: 3\n", "\x00"):
        assert ZooConfig.of("c", odd) == ZooConfig("c", None, 1, ())


def test_no_configuration_takes_long() -> None:
    """Texts on which a careless pattern takes quadratic time."""
    begun = time.perf_counter()
    for odd in ("a." * 500_000, "- " * 500_000, "env_wrapper:" + "a." * 500_000, " " * 1_000_000):
        ZooConfig.of("c", odd)
        ZooConfig.of("c", f"frame_stack:{odd}\nenv_wrapper:{odd}")
    assert time.perf_counter() - begun < SECONDS


SECONDS = 5.0
"""Far more than a pattern of linear time takes for a megabyte, far less than one of quadratic."""


def test_a_wrapper_that_is_not_applied_is_said(tmp_path: Path, files: tuple[Path, Path]) -> None:
    shutil.copy(files[0], tmp_path / "a.zip")
    (tmp_path / "config.yml").write_text(f"env_wrapper:\n- my.Skip\n- {TIME}\n- x.AtariWrapper\n")
    (note,) = load_teacher(tmp_path / "a.zip").notes()
    assert "trained with the wrapper my.Skip, as " in note and "which is not applied" in note


def test_a_stacked_zip_says_what_would_fit(tmp_path: Path) -> None:
    """`--history` shows what VecFrameStack shows: zeros before the start, the newest last."""
    env = VecFrameStack(DummyVecEnv([lambda: gymnasium.make("MountainCar-v0")]), 3)
    model = A2C("MlpPolicy", env, policy_kwargs={"net_arch": [4]}, seed=0, device="cpu")
    path = tmp_path / "a.zip"
    model.save(path)
    plain = spaces_of(Task("MountainCar-v0"))
    with pytest.raises(InputError, match=r"observes float32\[6\]") as error:
        load_teacher(path).fitted(plain)
    assert "stacks" not in str(error.value)
    (tmp_path / "config.yml").write_text("frame_stack: 3\n")
    sentence = (
        rf"\({re.escape(str(tmp_path / 'config.yml'))} stacks 3 observations: add --history 3 and "
        r"use \"Adapted\(.*a.zip', observation=\{'policy': 'history'\}\)\"\)"
    )
    with pytest.raises(InputError, match=sentence):
        load_teacher(path).fitted(plain)
    teacher = f"Adapted({str(path)!r}, observation={{'policy': 'history'}})"
    fitted = load_teacher(teacher).fitted(spaces_of(Task("MountainCar-v0", {HISTORY: 3})))
    # Step by step, both see the same.
    ours = make_vector_env(Task("MountainCar-v0", {HISTORY: 3}), 1, torch.device("cpu"))
    seen, _ = ours.reset(seed=5)
    env.seed(5)
    theirs = env.reset()
    for step in range(5):
        np.testing.assert_array_equal(seen["history"].numpy(), theirs)
        output = fitted(seen, torch.zeros(1, dtype=torch.int64))
        expected, _ = model.predict(theirs, deterministic=True)
        assert output.greedy().tolist() == expected.tolist()
        action = np.array([step % 3])
        seen = ours.step(torch.from_numpy(action))[0]
        theirs, *_ = env.step(action)
    ours.close()


def test_a_stack_of_other_sizes_says_how_many(tmp_path: Path, files: tuple[Path, Path]) -> None:
    shutil.copy(files[0], tmp_path / "a.zip")
    (tmp_path / "config.yml").write_text("frame_stack: 4\n")
    with pytest.raises(InputError, match="stacks 4 observations: use a task that shows as many"):
        load_teacher(tmp_path / "a.zip").fitted(spaces_of(Task("Pendulum-v1")))


def spaces_of(task: Task) -> SuiteSpaces:
    """The spaces of a task with the actions of MountainCar, whatever its own."""
    env = make_vector_env(task, 1, torch.device("cpu"))
    own = TaskSpaces(grouped(env.single_observation_space), spaces.Discrete(3))
    env.close()
    return SuiteSpaces.of(Suite.of(task), [own])
