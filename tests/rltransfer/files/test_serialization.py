"""Configurations as JSON and back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from rltransfer.errors import InputError
from rltransfer.files.serialization import from_json, to_builtin, to_json
from rltransfer.objectives.objective import Objective
from rltransfer.objectives.outputs import KL, MSE
from rltransfer.policies.network import Network
from rltransfer.schedule import Schedule


@dataclass(frozen=True)
class Inner:
    network: Network = Network()
    sizes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    count: int = 3
    rate: float = 1e-3
    on: bool = True
    nothing: int | None = None
    folder: Path | None = None
    inner: Inner = Inner()
    objective: str | Objective = "kl"
    share: str | float | Schedule = 1.0
    table: dict[str, int] = field(default_factory=dict)


CHANGED = Outer(
    name="grün",
    count=-7,
    rate=1 / 3,
    on=False,
    nothing=5,
    folder=Path("/some/where"),
    inner=Inner(Network(width=0.5, hidden=(32,), groups=("a", "b"), gru=8), ()),
    table={"x": 1},
)


@pytest.mark.parametrize("value", [Outer(name="plain"), CHANGED])
def test_nested_frozen_dataclasses_come_back_equal(value: Outer):
    assert from_json(Outer, json.loads(json.dumps(to_json(value)))) == value


def test_json_form():
    data = to_json(CHANGED)
    assert data["inner"]["sizes"] == [] and data["inner"]["network"]["hidden"] == [32]
    assert data["folder"] == "/some/where" and data["nothing"] == 5 and data["on"] is False


def test_what_has_a_text_form_becomes_text_that_means_the_same():
    value = Outer(
        name="", objective=KL(temperature=1 / 3) + 0.1 * MSE(), share=Schedule(1 / 3, 0, 0.7)
    )
    loaded = from_json(Outer, json.loads(json.dumps(to_json(value))))
    assert isinstance(loaded.objective, str) and isinstance(value.objective, Objective)
    assert Objective.of(loaded.objective).terms() == value.objective.terms()
    assert isinstance(loaded.share, str) and Schedule.of(loaded.share) == value.share
    # What is loaded is written the same: a resumed run is compared with the old one.
    assert to_json(loaded) == to_json(value)


def test_numbers_of_numpy_and_torch_become_pythons():
    given = {"a": np.float64(0.5), "b": (torch.tensor(2), np.arange(2)), "c": "x", "d": None}
    assert to_builtin(given) == {"a": 0.5, "b": (2, (0, 1)), "c": "x", "d": None}
    assert type(to_builtin(np.float32(0.5))) is float and type(to_builtin(np.bool_(True))) is bool
    assert to_json(np.float32(0.5)) == 0.5 and to_json(np.arange(2)) == [0, 1]


def test_what_describes_itself_is_asked():
    class Teacher:
        def describe(self) -> dict[str, str]:
            return {"sha256": "abc"}

    assert to_json({"teacher": Teacher()}) == {"teacher": {"sha256": "abc"}}


@pytest.mark.parametrize("name", ["count", "inner.sizes", "more", "inner.more"])
def test_configuration_of_another_version(name: str):
    data = to_json(CHANGED)
    *path, last = name.split(".")
    part = data["inner"] if path else data
    if last in part:
        del part[last]
    else:
        part[last] = 1
    with pytest.raises(InputError) as caught:
        from_json(Outer, data)
    assert str(caught.value) == (
        f"The field {last!r} of a {'Inner' if path else 'Outer'} is unknown or missing: "
        "the configuration was written by another version."
    )
