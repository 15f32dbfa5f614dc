"""A specification is the same after JSON, and options stand behind a source."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from rltransfer.errors import InputError
from rltransfer.teacher_spec import TeacherSpec, split_source

FULL = TeacherSpec(
    source="hf:owner/name/model.zip@v1",
    kind="stable-baselines3",
    sha256="ab" * 32,
    origin={"repo": "owner/name", "file": "model.zip", "revision": "1" * 40},
    observation_space=spaces.Dict({"policy": spaces.Box(-np.inf, 3.0, (4,), np.float32)}),
    action_space=spaces.Discrete(2),
    preprocessing={"scale": 1 / 255, "normalizer": {"sha256": "cd" * 32}, "frame_stack": 4},
    recorded_return={"CartPole-v1": 500.0},
)


@pytest.mark.parametrize("spec", [FULL, TeacherSpec(source="a function", kind="callable")])
def test_json_says_everything(spec: TeacherSpec) -> None:
    assert TeacherSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_another_version_is_refused() -> None:
    newer = {**FULL.to_json(), "version": 2}
    with pytest.raises(InputError, match="has the version 2: this rltransfer reads version 1"):
        TeacherSpec.from_json(newer)


def test_options_stand_behind_a_source() -> None:
    assert split_source("runs/a") == ("runs/a", {})
    assert split_source("a.pt?activation=tanh&group=policy&group=privileged") == (
        "a.pt",
        {"activation": ["tanh"], "group": ["policy", "privileged"]},
    )
    for bad in ("a.pt?tanh", "a.pt?activation=tanh&"):
        with pytest.raises(InputError, match="write NAME=VALUE"):
            split_source(bad)


def test_a_file_may_have_a_question_mark(tmp_path: Path) -> None:
    path = tmp_path / "a?b=c.pt"
    path.touch()
    assert split_source(str(path)) == (str(path), {})
