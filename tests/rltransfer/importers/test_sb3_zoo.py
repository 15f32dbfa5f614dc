"""The observation statistics of a zip are found where people keep them, or asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from stable_baselines3 import A2C
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from rltransfer.cli.main import main
from rltransfer.errors import InputError
from rltransfer.importers.sb3_zoo import is_normalized
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
