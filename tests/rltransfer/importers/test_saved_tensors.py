"""Files of `torch.save` without torch's unpickler: the same tensors, and no surprises."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rltransfer.errors import InputError
from rltransfer.files.untrusted import DAMAGE, LimitError
from rltransfer.importers.saved_tensors import load_tensors

PATH = Path("model.pt")


def saved(value: Any, old: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=not old)
    return file.getvalue()


@pytest.mark.parametrize("old", [False, True])
def test_tensors_are_those_that_torch_reads(old: bool) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    value = {
        **nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).state_dict(),
        "view": base[1:, ::2], "turned": base.t(), "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3), "half": base.half(), "double": base.double(),
        "brain": base.bfloat16(), "whole": torch.tensor([1, -2]), "yes": torch.tensor([True]),
        "parameter": nn.Parameter(base), "nested": {"list": [base, (1, "x")], "none": None},
    }  # fmt: skip
    content = saved(value, old)
    expected = torch.load(io.BytesIO(content), weights_only=True)
    found = load_tensors(content, PATH)
    for name, tensor in expected.items():
        if isinstance(tensor, torch.Tensor):
            assert found[name].dtype == tensor.dtype
            torch.testing.assert_close(found[name], tensor.detach(), rtol=0, atol=0)
    torch.testing.assert_close(found["nested"]["list"][0], base)
    assert found["nested"]["list"][1] == (1, "x") and found["nested"]["none"] is None


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (10**10,)


ODD: dict[str, Any] = {
    "meta": torch.zeros(3, device="meta"),
    "quantised": torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
    "float8": torch.zeros(3).to(torch.float8_e4m3fn),
    "complex": torch.zeros(3, dtype=torch.complex64),
    "sparse": torch.zeros(3).to_sparse(),
    "nested": torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "a call": Bomb(),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ODD)
def test_other_tensors_and_calls_are_refused(name: str) -> None:
    with pytest.raises(DAMAGE):
        load_tensors(saved({"x": ODD[name]}), PATH)


@pytest.mark.parametrize("old", [False, True])
def test_a_small_file_of_a_large_tensor_is_refused(old: bool) -> None:
    content = saved({"x": torch.zeros(1).expand(40_000, 40_000)}, old)
    assert len(content) < 5_000
    with pytest.raises(LimitError, match=r"model.pt was not opened: its content takes 6,104 MiB"):
        load_tensors(content, PATH)
    # Each below the limit, but not all of them.
    many = {str(index): torch.zeros(1).expand(10_000, 10_000) for index in range(10)}
    with pytest.raises(LimitError):
        load_tensors(saved(many, old), PATH)


def test_an_archive_of_zeros_is_not_unpacked() -> None:
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("archive/data/0", "w") as member,
    ):
        for _ in range(520):
            member.write(bytes(2**20))
    assert len(file.getvalue()) < 4_000_000
    with pytest.raises(LimitError):
        load_tensors(file.getvalue(), PATH)


def test_a_storage_of_other_bytes_than_it_declares() -> None:
    """torch would read beyond the end of the file's bytes."""
    content = saved({"x": torch.zeros(8)})
    shorter = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(shorter, "w") as copy:
        for name in archive.namelist():
            part = archive.read(name)
            copy.writestr(name, part[:-4] if name.endswith("data/0") else part)
    with pytest.raises(pickle.UnpicklingError, match="other bytes than it declares"):
        load_tensors(shorter.getvalue(), PATH)


def test_files_that_are_cut_short_are_refused() -> None:
    for old in (False, True):
        content = saved({"x": torch.zeros(8), "y": [1, 2]}, old)
        for length in range(0, len(content), 23):
            with pytest.raises((*DAMAGE, InputError)):
                load_tensors(content[:length], PATH)
