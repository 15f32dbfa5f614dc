"""The values in a TorchScript file: torch reads what was compared with the program's types."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.files.untrusted import DAMAGE
from rltransfer.importers.torchscript import load_torchscript

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

HERE = f"__torch__.{__name__}"


# TorchScript does not read the annotations of a class that are kept as text.
Pair = NamedTuple("Pair", [("number", int), ("tensor", Tensor)])  # noqa: UP014


class Rich(nn.Module):
    """Has attributes of every type that is read."""

    def __init__(self) -> None:
        super().__init__()
        values: dict[str, tuple[Any, Any]] = {
            "names": (["a", "é"], list[str]),
            "table": ({"x": 2**40, "y": -3}, dict[str, int]),
            "pair": ((1, 2.5), tuple[int, float]),
            "perhaps": ([0.5], list[float] | None),
            "tensors": ([torch.arange(3.0)], list[Tensor]),
            "whole": ([1, -2], list[int]),
            "flags": ([True, False], list[bool]),
            "place": (torch.device("cpu"), torch.device),
            "lists": ([[1], [2, 3]], list[list[int]]),
            "nothing": (None, int | None),
            "both": (Pair(7, torch.ones(3)), Pair),
            "weights": ({"w": torch.full((3,), 0.25)}, dict[str, Tensor]),
        }
        for name, (value, kind) in values.items():
            setattr(self, name, torch.jit.Attribute(value, kind))
        self.register_buffer("missing", None)
        self.register_buffer("turned", torch.arange(6.0).reshape(2, 3).t())
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("halves", torch.tensor([0.5, 1.5, 2.5], dtype=torch.float16))
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("scalar", torch.tensor(2, dtype=torch.int64))
        self.layers = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        self.tied = self.layers[0]

    def forward(self, seen: Tensor) -> Tensor:
        seen = self.tied(self.layers(seen)) * self.table["y"] + self.table["x"] % 7
        seen = seen + self.tensors[0] * self.whole[1] + self.pair[1] + self.both.tensor
        perhaps = self.perhaps
        if perhaps is not None and self.nothing is None and self.missing is None:
            seen = seen * perhaps[0] + len(self.names[1]) + self.lists[1][1] + self.both.number
        seen = seen @ (self.turned @ self.turned.t()) + self.halves + self.scalar + len(self.empty)
        seen = seen + self.weights["w"] + int(self.flags[0]) + (self.place.type == "cpu")
        return torch.where(self.mask, seen, -seen)


def saved(module: nn.Module, path: Path, change: Callable[[str, bytes], bytes] | None) -> Path:
    """Writes a program, with its files changed."""
    packed = io.BytesIO()
    torch.jit.save(torch.jit.script(module), packed)
    with zipfile.ZipFile(packed) as source, zipfile.ZipFile(path, "w") as copy:
        for name in source.namelist():
            content = source.read(name)
            copy.writestr(name, content if change is None else change(name, content))
    return path


def test_values_of_every_type_are_those_that_torch_reads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = saved(Rich(), tmp_path / "policy.pt", None)
    script = load_torchscript(path).script
    expected = torch.jit.load(path)
    seen = torch.randn(4, 3)
    torch.testing.assert_close(script(seen), expected(seen), rtol=0, atol=0)
    for name, tensor in expected.state_dict().items():
        found = script.state_dict()[name]
        assert found.dtype == tensor.dtype and torch.equal(found, tensor.detach())
    # Tied layers stay one layer.
    assert script.tied.weight.data_ptr() == getattr(script.layers, "0").weight.data_ptr()


class Inner(nn.Module):
    """Has more attributes than the other one."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = 1.0, 2.0, 3
        self.w = nn.Parameter(torch.ones(3))
        self.list: Any = torch.jit.Attribute([torch.ones(3)], list[Tensor])

    def forward(self, seen: Tensor) -> Tensor:
        return seen * self.one * self.two * self.three * self.w + self.list[0]


class Small(nn.Module):
    def forward(self, seen: Tensor) -> Tensor:
        return seen


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.small = Inner(), Small()
        both = (torch.ones(3), torch.ones(3))
        self.pair: Any = torch.jit.Attribute(both, tuple[Tensor, Tensor])

    def forward(self, seen: Tensor) -> Tensor:
        one, two = self.pair
        return self.small(self.inner(seen)) + one + two


def in_data(old: bytes, new: bytes) -> Callable[[str, bytes], bytes]:
    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("/data.pkl"):
            return content
        assert old in content
        return content.replace(old, new, 1)

    return change


def in_program(old: str, new: str) -> Callable[[str, bytes], bytes]:
    def change(name: str, content: bytes) -> bytes:
        return content.replace(old.encode(), new.encode()) if name.endswith(".py") else content

    return change


def global_of(name: str) -> bytes:
    return f"c{HERE}\n{name}\n".encode()


def text_of(name: str) -> bytes:
    return b"X" + bytes([len(name), 0, 0, 0]) + name.encode()


CONFUSED = {
    "an object of another class": (in_data(global_of("Inner"), global_of("Small")), "'inner'"),
    "an object that lacks an attribute": (in_data(text_of("one"), text_of("eno")), "'inner.one'"),
    "a number of another type": (in_program("three : int", "three : float"), "'inner.three'"),
    "a tensor for a number": (in_program("one : float", "one : Tensor"), "'inner.one'"),
    "a tuple of another length": (
        in_program("pair : Tuple[Tensor, Tensor]", "pair : Tuple[Tensor, Tensor, Tensor]"), "'pair'"
    ),
    "a list of others": (in_program("list : List[Tensor]", "list : List[int]"), "'inner.list'"),
    "any value": (in_program("one : float", "one : Any"), "declared as 'Any'"),
    "a class of another kind": (in_program("class Small(Module)", "class Small(Enum)"), "'small'"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFUSED)
def test_values_of_other_types_than_declared_are_refused(name: str, tmp_path: Path) -> None:
    change, sentence = CONFUSED[name]
    path = saved(Outer(), tmp_path / "policy.pt", change)
    with pytest.raises(InputError, match=f"was not opened: its .*{re.escape(sentence)}"):
        load_torchscript(path)


AMBIGUOUS = {
    "an attribute of two types": in_program("one : float\n", "one : float\n  one : Tensor\n"),
    "an attribute with escapes": in_program(
        "one : float\n", 'one : float\n  __annotations__["tw\\157"] = Tensor\n'
    ),
    "a class defined twice": in_program(
        "class Small(Module):", "class Small(Module):\n  x : int\nclass Small(Module):"
    ),
    "a method defined twice": in_program(
        "class Small(Module):\n", "class Small(Module):\n  def f(self: Tensor) -> int:\n"
        "    return 1\n  def f(self: Tensor) -> int:\n    return 1\n",
    ),
    "a form feed": in_program("  one : float\n", "\f  one : float\n"),
    "a named tuple of another form": in_program(
        "class Small(Module):", "class P(NamedTuple):\n  x : int\n  y = 1\nclass Small(Module):"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_torch_may_read_otherwise_is_refused(name: str, tmp_path: Path) -> None:
    path = saved(Outer(), tmp_path / "policy.pt", AMBIGUOUS[name])
    with pytest.raises(InputError, match="is not a TorchScript file, or is damaged"):
        load_torchscript(path)


def test_a_list_in_exponentially_many_places_is_refused(tmp_path: Path) -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            kind: Any = int
            for _ in range(9):
                kind = list[kind]
            self.lists: Any = torch.jit.Attribute([[[[[[[[[1]]]]]]]]], kind)

        def forward(self, seen: Tensor) -> Tensor:
            return seen * len(self.lists)

    doubled = b"](K\x01e"
    for level in range(8):
        # The list before, twenty times.
        doubled += b"r" + (900 + level).to_bytes(4, "little") + b"0]("
        doubled += (b"j" + (900 + level).to_bytes(4, "little")) * 20 + b"e"

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("/data.pkl"):
            return content
        place = content.index(text_of("lists")) + len(text_of("lists")) + 2
        return content[:place] + doubled + content[content.index(b"u", place) :]

    path = saved(Deep(), tmp_path / "policy.pt", change)
    with pytest.raises(InputError, match="is not a TorchScript file, or is damaged"):
        load_torchscript(path)


@pytest.mark.parametrize("value", [b"(K\x01t.", b"(N.", b"K\x01.", b"(c__torch__\nx\nt."])
def test_constants_are_tensors_and_text(value: bytes, tmp_path: Path) -> None:
    def change(name: str, content: bytes) -> bytes:
        return b"\x80\x02" + value if name.endswith("/constants.pkl") else content

    with pytest.raises((InputError, *DAMAGE)):
        load_torchscript(saved(Small(), tmp_path / "policy.pt", change))


def test_a_frozen_program_has_its_weights_as_constants(tmp_path: Path) -> None:
    module: Any = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).eval()
    path = tmp_path / "policy.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.freeze(torch.jit.script(module)), path)
    seen = torch.randn(5, 3)
    torch.testing.assert_close(load_torchscript(path).script(seen), module(seen))
