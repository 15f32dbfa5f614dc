"""TorchScript files: torch reads only what was checked, and only known operators run."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.importers.torchscript import load_torchscript

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


class Good(nn.Module):
    """Computes."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def forward(self, seen: Tensor) -> Tensor:
        return seen[:, :1] * 0 + self.w


class Bad(nn.Module):
    """Writes a file when it is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def forward(self, seen: Tensor) -> Tensor:
        return seen[:, :1] * 0 + self.w

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, bool]:
        return self.w, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        torch.save(state[0], "written")
        self.w = state[0]
        self.training = state[1]


def parts(module: nn.Module) -> tuple[bytes, list[bytearray]]:
    """The files of an archive, stored, and the entries of its table."""
    packed, plain = io.BytesIO(), io.BytesIO()
    torch.jit.save(torch.jit.script(module), packed)
    with zipfile.ZipFile(packed) as source, zipfile.ZipFile(plain, "w") as copy:
        for name in source.namelist():
            copy.writestr(name, source.read(name))
    raw = plain.getvalue()
    size, start = struct.unpack("<II", raw[-10:-2])
    table, entries, place = raw[start : start + size], [], 0
    while place < size:
        length = 46 + sum(struct.unpack("<HHH", table[place + 28 : place + 34]))
        entries.append(bytearray(table[place : place + length]))
        place += length
    return raw[:start], entries


def padded(entries: list[bytearray], missing: int) -> None:
    """Adds a comment to the last entry of a table."""
    (length,) = struct.unpack("<H", entries[-1][32:34])
    struct.pack_into("<H", entries[-1], 32, length + max(missing, 0))
    entries[-1] += b"c" * max(missing, 0)


def test_two_tables_of_contents_show_torch_what_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python reads the table before the end of a zip, torch the one at the place that it names."""
    monkeypatch.chdir(tmp_path)
    (bad_body, bad), (good_body, good) = parts(Bad()), parts(Good())
    assert len(bad) == len(good)
    sizes = sum(map(len, bad)), sum(map(len, good))
    padded(bad, sizes[1] - sizes[0])
    padded(good, sizes[0] - sizes[1])
    first = b"".join(bad)
    for entry in good:
        (place,) = struct.unpack("<I", entry[42:46])
        struct.pack_into("<I", entry, 42, place + len(bad_body) - len(first))
    body, second = bad_body + good_body, b"".join(good)
    counts = (len(bad), len(bad), len(second), len(body))
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, *counts, 0)
    path = tmp_path / "policy.pt"
    path.write_bytes(body + first + second + end)
    with zipfile.ZipFile(path) as archive:
        assert not any(b"__setstate__" in archive.read(name) for name in archive.namelist())
    load_torchscript(path)
    assert not (tmp_path / "written").exists()
    torch.jit.load(path)
    assert (tmp_path / "written").exists(), "torch reads the same program: the test shows nothing"


MODULE = f"__torch__.{__name__}"
"""The name of this file in programs."""

Change = Callable[[str], str]


def rewritten(path: Path, change: Change) -> Path:
    """A program with other source."""
    packed = io.BytesIO()
    torch.jit.save(torch.jit.script(Good()), packed)
    with zipfile.ZipFile(packed) as source, zipfile.ZipFile(path, "w") as copy:
        for name in source.namelist():
            content = source.read(name)
            copy.writestr(name, change(content.decode()) if name.endswith(".py") else content)
    return path


def with_line(line: str) -> Change:
    """Puts a line at the beginning of `forward`."""
    head = re.compile(r"seen: Tensor\) -> Tensor:\n")
    return lambda text: head.sub(lambda match: f"{match[0]}    {line}\n", text)


def doubled(levels: int) -> Change:
    """Functions that each call the one before twice."""
    functions = "def f0(x: Tensor) -> Tensor:\n  return torch.neg(x)\n"
    for level in range(1, levels):
        call = f"{MODULE}.f{level - 1}"
        functions += f"def f{level}(x: Tensor) -> Tensor:\n  return {call}({call}(x, ), )\n"
    line = f"seen = {MODULE}.f{levels - 1}(seen, )"
    return lambda text: functions + with_line(line)(text)


REFUSED: dict[str, tuple[Change, str]] = {
    "an operator by its full name": (
        with_line("seen = ops.inductor._reinterpret_tensor(seen, [9], [1])"),
        "'inductor::_reinterpret_tensor', which is not known to compute with tensors only",
    ),
    "an operator that prints": (with_line('print("x")'), "the operator 'prim::Print'"),
    "a hook": (lambda text: text + "\n  __forward_hooks__ = []\n", "'__forward_hooks__'"),
    "a value taken for another": (
        with_line("seen, _b, = unchecked_cast(Tuple[Tensor, Tensor], (seen,))"),
        "its program takes a value of the type Tuple[Tensor] for one of the type Tuple[Tensor, Te",
    ),
    "an object taken for another": (
        lambda text: with_line(f"seen = unchecked_cast({MODULE}.Other, self).x")(text)
        + "\nclass Other(Module):\n  __parameters__ = []\n  __buffers__ = []\n  x : Tensor\n",
        f"its program takes a value of the type {MODULE}.Good for one of the type {MODULE}.Other",
    ),
    "a loop without an end": (
        with_line("while torch.gt(1, 0):\n      seen = torch.neg(seen)"), "a loop without a bound"
    ),
    "a division by 0": (
        with_line("seen = torch.add(seen, torch.floordiv(1, 0))"), "divides by a number in"
    ),
    "a division by an unknown number": (
        with_line("seen = torch.add(seen, torch.remainder(1, torch.len(seen)))"),
        "divides by a number in 'aten::remainder' that is not known to be above 0",
    ),
    "a list of any length": (
        with_line("seen = torch.view(seen, torch.mul([1], 99999999999))"), "repeats a list"
    ),
    "a warning that clears the screen": (
        with_line('ops.aten.warn("\\033[2J", 2)'), "its program prints control characters"
    ),
    "an attribute that changes": (with_line("self.training = True"), "changes an attribute other"),
    "an operator that writes outside of its memory": (
        with_line(
            "seen, _a, _b, = torch.native_batch_norm("
            "seen, None, None, None, None, True, 1., 1.)"
        ),
        "'aten::native_batch_norm', which is not known to compute with tensors only",
    ),
    "a packed sequence": (
        with_line("seen, _h, = torch.gru(seen, seen, seen, [seen], True, 1, 0., False, False)"),
        "recurrent layers, which keep a state",
    ),
    "functions that double": (doubled(30), "program is too large or too deeply nested"),
    "brackets": (
        with_line("seen = torch.add(seen, " + "(" * 5000 + "1" + ")" * 5000 + ")"),
        "is not a TorchScript file, or is damaged",
    ),
    "a long sum": (
        with_line("seen = seen" + " + seen" * 1000), "program is too large or too deeply nested"
    ),
    "a function that calls itself": (
        lambda text: f"def f(x: Tensor) -> Tensor:\n  return {MODULE}.f(x, )\n" + text,
        "is not a TorchScript file, or is damaged",
    ),
    "other letters": (with_line("s\u00e9en = 1"), "is not a TorchScript file"),
    "no program": (lambda text: text + "\n(", "is not a TorchScript file"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_programs_are_refused_before_they_run(name: str, tmp_path: Path) -> None:
    change, sentence = REFUSED[name]
    with pytest.raises(InputError, match=re.escape(sentence)):
        load_torchscript(rewritten(tmp_path / "policy.pt", change))


def test_a_few_levels_of_functions_are_read(tmp_path: Path) -> None:
    assert load_torchscript(rewritten(tmp_path / "policy.pt", doubled(5)))


def test_a_name_of_another_library_in_the_data_is_refused(tmp_path: Path) -> None:
    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.quantize_per_tensor(torch.zeros(1), 0.1, 0, torch.qint8)

        def forward(self, seen: Tensor) -> Tensor:
            return seen

    path = tmp_path / "policy.pt"
    torch.jit.save(torch.jit.script(Quantised()), path)
    with pytest.raises(InputError, match=r"it names .torch._utils._rebuild_qtensor."):
        load_torchscript(path)


class Usual(nn.Module):
    """What exported policies do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.rest = nn.Sequential(
            nn.LayerNorm(4), nn.ELU(), nn.SiLU(), nn.GELU(), nn.Softsign(), nn.Dropout(), nn.Mish()
        )
        self.cell = nn.GRUCell(4, 4)
        self.gru = nn.GRU(4, 4, batch_first=True)

    def forward(self, groups: dict[str, Tensor]) -> Tensor:
        seen = torch.clamp((groups["policy"] - self.mean) / 2, -5.0, 5.0)
        for layer in self.layers:
            seen = torch.tanh(layer(seen))
        seen = self.cell(self.rest(seen)) + self.gru(seen.unsqueeze(1))[0].squeeze(1)
        both = torch.cat([seen[:, :2], torch.where(seen > 0, seen, -seen)[..., 2:]], dim=-1)
        best = torch.softmax(both, -1).argmax(-1, keepdim=True)
        return both * torch.exp(seen.norm(p=2.0, dim=-1, keepdim=True)) + best


USUAL = [
    Usual(), nn.Conv2d(3, 4, 3), nn.BatchNorm1d(4), nn.GroupNorm(2, 4), nn.InstanceNorm1d(4),
    nn.TransformerEncoderLayer(4, 2, 8), nn.MultiheadAttention(4, 2), nn.Upsample(scale_factor=2),
]  # fmt: skip


@pytest.mark.parametrize("module", USUAL)
def test_usual_policies_have_known_operators(module: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "policy.pt"
    torch.jit.save(torch.jit.script(module), path)
    assert load_torchscript(path)
