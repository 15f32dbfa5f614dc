"""Files of `torch.save`, read without torch: plain values and tensors, and nothing that runs.

`torch.load(weights_only=True)` runs no code of a file, but it allocates what a file declares
(`bytearray(10**10)`, a storage of any size), and makes tensors of kinds that no policy has (meta,
nested, sparse, quantised). Here every storage has the bytes that the file contains, tensors are
dense and of plain numbers, and their sizes are added up before they are made.

Both formats are read: the zip of torch 1.6 and newer, and the pickles in a row of earlier versions.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import sys
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from rltransfer.files.untrusted import check_size
from rltransfer.importers.archive import unpacked
from rltransfer.importers.pickles import InertUnpickler

DTYPES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}
"""The type of the numbers in each kind of storage."""

LEGACY = 0x1950A86A20F9469CFC6C
"""The first value of a file before torch 1.6."""

DATA = re.compile(r"(?P<folder>[^/]+/)data\.pkl")


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite; `torch.isfinite` takes twice the memory of the tensor."""
    if not tensor.numel() or not tensor.is_floating_point():
        return True
    return all(bool(bound.isfinite()) for bound in tensor.aminmax())


class Record:
    """Stands for something that is made by a call; it keeps the arguments and does nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: object) -> None:
        pass


class _Table(dict[Any, Any]):
    """An OrderedDict, a Counter or a defaultdict."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        pass  # e.g. the versions of the modules in a state_dict


class _Storage(Record):
    """The kind of a storage."""

    dtype: ClassVar[torch.dtype]


class SavedTensor(Record):
    """`_rebuild_tensor_v2(storage, offset, shape, strides, ...)`."""


class _Parameter(Record):
    """`_rebuild_parameter(tensor, ...)`."""


class _Shape(tuple[Any, ...]):
    """A torch.Size."""

    def __new__(cls, *arguments: Any) -> Self:
        return super().__new__(cls, *arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a state of a shape")


STORAGES = {name: type(name, (_Storage,), {"dtype": dtype}) for name, dtype in DTYPES.items()}

KNOWN: dict[tuple[str, str], type] = {
    # Numbers of NumPy, e.g. the best return in a checkpoint of rl_games.
    ("_codecs", "encode"): Record,
    ("numpy", "dtype"): Record,
    ("numpy.core.multiarray", "scalar"): Record,
    ("numpy._core.multiarray", "scalar"): Record,
    ("builtins", "set"): Record,
    ("collections", "Counter"): _Table,
    ("collections", "OrderedDict"): _Table,
    ("collections", "defaultdict"): _Table,
    ("torch", "Size"): _Shape,
    ("torch", "device"): Record,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch._utils", "_rebuild_tensor"): SavedTensor,
    ("torch._utils", "_rebuild_tensor_v2"): SavedTensor,
    **{("torch", name): kind for name, kind in STORAGES.items()},
    **{("torch", str(dtype).removeprefix("torch.")): Record for dtype in DTYPES.values()},
}
"""The names that a file may contain."""


class StorageReader(InertUnpickler):
    """Reads a pickle whose references are storages.

    Attributes:
        storages: Type and number of the values of each storage, by key.
    """

    def __init__(self, content: bytes | io.BytesIO) -> None:
        super().__init__(content)
        self.storages: dict[str, tuple[torch.dtype, int]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """The class that records a name of `KNOWN`."""
        known = KNOWN.get((module, name))
        return super().find_class(module, name) if known is None else known

    def persistent_load(self, reference: Any) -> Any:
        """The key of a storage, with its type.

        Raises:
            pickle.UnpicklingError: The reference is not one to a storage, or contradicts another.
        """
        match reference:
            case ("storage", type() as kind, str() as key, str(), int() as count, *rest) if (
                issubclass(kind, _Storage) and count >= 0 and rest in ([], [None])
            ):
                stored = (kind.dtype, count)
                if self.storages.setdefault(key, stored) != stored:
                    raise pickle.UnpicklingError("a storage of two kinds")
                return _Reference(key)
        raise pickle.UnpicklingError("a reference to something other than a storage")


class _Reference(Record):
    """A storage in use."""


def load_tensors(content: bytes, path: Path) -> Any:
    """The value in a file of `torch.save`, with its tensors on the CPU.

    Args:
        content: The bytes of the file.
        path: The file, for errors.

    Raises:
        InputError: The file is larger than the limit of `files/untrusted.py`.
        Exception: One of `DAMAGE`: the file is damaged, or contains more than tensors and plain
            values.
    """
    if content.startswith(b"PK"):
        files = unpacked(content, path, lambda name: True)
        found = [match for match in map(DATA.fullmatch, files) if match]
        if len(found) != 1:
            raise pickle.UnpicklingError("not a file of torch.save")
        folder = found[0]["folder"]
        if files.get(f"{folder}byteorder", sys.byteorder.encode()) != sys.byteorder.encode():
            raise NotImplementedError("the byte order of another machine")
        reader = StorageReader(files[found[0][0]])
        value = reader.load()
        data = {key: files.pop(f"{folder}data/{key}") for key in reader.storages}
    else:
        value, reader, data = _legacy(content)
    return TensorBuilder(reader.storages, data, path).built(value)


def _legacy(content: bytes) -> tuple[Any, StorageReader, dict[str, bytes]]:
    """The parts of a file before torch 1.6: pickles in a row, then each storage after its size."""
    file = io.BytesIO(content)
    if InertUnpickler(file).load() != LEGACY:
        raise pickle.UnpicklingError("not a file of torch.save")
    InertUnpickler(file).load()  # the version of the format
    InertUnpickler(file).load()  # the sizes of C's types on the machine that wrote it
    reader = StorageReader(file)
    value = reader.load()
    keys = InertUnpickler(file).load()
    if sorted(keys) != sorted(reader.storages):
        raise pickle.UnpicklingError("other storages than those in use")
    data = {}
    for key in keys:
        dtype, count = reader.storages[key]
        if int.from_bytes(file.read(8), "little") != count:
            raise pickle.UnpicklingError("a storage of another size")
        data[key] = file.read(count * dtype.itemsize)
    return value, reader, data


class TensorBuilder:
    """Makes the tensors of a file.

    Args:
        storages: Type and number of the values of each storage, by key.
        data: The bytes of each storage; emptied, as both together may take much memory.
        path: The file, for errors.

    Raises:
        pickle.UnpicklingError: A storage has fewer bytes than it declares.
    """

    def __init__(
        self, storages: dict[str, tuple[torch.dtype, int]], data: dict[str, bytes], path: Path
    ) -> None:
        self.path = path
        self.total = 0
        self.done: dict[int, Any] = {}
        self.storages: dict[str, Tensor] = {}
        for key, (dtype, count) in storages.items():
            content = data.pop(key)
            if len(content) != count * dtype.itemsize:
                raise pickle.UnpicklingError("a storage with other bytes than it declares")
            # A copy in torch's own memory, which may be written to, and whose alignment makes
            # results the same, bit for bit, wherever the file's bytes are.
            flat = torch.empty(count, dtype=dtype)
            flat.view(torch.uint8).numpy()[:] = np.frombuffer(content, np.uint8)
            self.storages[key] = flat

    def built(self, value: Any, depth: int = 100) -> Any:
        """A value with its tensors, in containers of its own; other records become None."""
        if depth == 0:
            raise pickle.UnpicklingError("nested too deeply")
        # Each part once: a small file may name one part in exponentially many places.
        if id(value) not in self.done:
            self.done[id(value)] = self._built(value, depth)
        return self.done[id(value)]

    def _built(self, value: Any, depth: int) -> Any:
        match value:
            case _Parameter(arguments=(SavedTensor() as inner, *_)):
                return self.tensor(*inner.arguments)
            case SavedTensor():
                return self.tensor(*value.arguments)
            case dict():
                return {key: self.built(one, depth - 1) for key, one in value.items()}
            case list() | tuple():
                return type(value)([self.built(one, depth - 1) for one in value])
            case Record():
                return self.other(value, depth - 1)
            case type():
                return None
        return value

    def other(self, record: Record, depth: int) -> Any:
        """What stands for any other record."""
        return None

    def tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Tensor:
        """A tensor, whose values may overlap in the file but not in memory."""
        sizes = (offset, *shape, *strides)
        if not (
            isinstance(storage, _Reference)
            and len(shape) == len(strides)
            and all(type(size) is int and size >= 0 for size in sizes)
        ):
            raise pickle.UnpicklingError("a tensor of impossible sizes")
        flat = self.storages[storage.arguments[0]]
        self.total += math.prod(shape) * flat.dtype.itemsize
        check_size(self.total, self.path)
        last = sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
        if 0 not in shape and offset + last >= len(flat):
            raise pickle.UnpicklingError("a tensor beyond its storage")
        view = flat.as_strided(shape, strides, offset if 0 not in shape else 0)
        return view.contiguous()
