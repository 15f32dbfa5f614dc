"""ONNX files: what their protocol buffers contain, checked.

Only what acting needs is read: nodes, weights, inputs, outputs and metadata. The numbers of the
fields are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.files.untrusted import check_size
from rltransfer.importers.damage import DAMAGE, read_file
from rltransfer.importers.protobuf import Fields, Message

KINDS: dict[int, tuple[str, torch.dtype]] = {
    1: ("<f4", torch.float32), 2: ("u1", torch.uint8), 3: ("i1", torch.int8),
    5: ("<i2", torch.int16), 6: ("<i4", torch.int32), 7: ("<i8", torch.int64),
    9: ("?", torch.bool), 10: ("<f2", torch.float16), 11: ("<f8", torch.float64),
}  # fmt: skip
"""Types of tensors by the number in the file: NumPy's and torch's."""

OWN_DOMAINS = ("", "ai.onnx")
"""The names of ONNX's own operators."""

OPSETS = range(7, 27)
"""Versions of ONNX's operators that are known. Before 7, shapes were matched by other rules."""

DATA = ".data"
"""What torch appends to the name of a file for that of its weights."""

INSIDE = "export it again with `torch.onnx.export(..., external_data=False)`"
"""How weights get into the file itself."""


@dataclass(frozen=True)
class Value:
    """An input or output of the graph."""

    name: str
    dtype: torch.dtype | None
    """None for a type that is not read."""
    shape: tuple[int | None, ...] | None
    """None for a size that is not fixed; None for all of them if it is not declared."""


@dataclass(frozen=True)
class Node:
    """An operator with the names of what it reads and writes."""

    op: str
    inputs: tuple[str, ...]
    """Empty for an input that is left out."""
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    """Integers, floats, texts, lists of these, and tensors."""


@dataclass(frozen=True)
class OnnxFile:
    """The content of a file."""

    path: Path
    sha256: str
    """Hash of the file, and of the weights next to it."""
    opset: int
    nodes: list[Node]
    weights: dict[str, Tensor]
    inputs: list[Value]
    """Those without a value in the file."""
    outputs: list[Value]
    metadata: dict[str, str] = field(default_factory=dict)


def read_onnx(path: Path) -> OnnxFile:
    """Reads a file; nothing in it is run.

    Weights next to the file are read from NAME.onnx.data, where torch writes them.

    Args:
        path: The file.

    Raises:
        InputError: The file is missing, too large or damaged, stores weights elsewhere, or has an
            operator that is not ONNX's.
    """
    content = read_file(path, "an ONNX file")
    try:
        return _read(path, content)
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"{path} is not an ONNX file, or is damaged.") from error


def _read(path: Path, content: bytes) -> OnnxFile:
    model = Message(memoryview(content), Fields(path))
    graph = model.message(7)
    opset = _opset(model, path)
    tensors = _Tensors(path)
    nodes = [_node(node, tensors) for node in graph.messages(1)]
    weights = {}
    for one in graph.messages(5):
        weights[one.text(8)] = tensors.read(one)
    if graph.has(15):
        raise InputError(f"{path} cannot be used: it has sparse weights, which are not read.")
    outputs = [_value(one) for one in graph.messages(12)]
    if not nodes or not outputs:
        raise ValueError("no graph")
    sha256 = hashlib.sha256(content)
    sha256.update(tensors.data or b"")
    return OnnxFile(
        path=path,
        sha256=sha256.hexdigest(),
        opset=opset,
        nodes=nodes,
        weights=weights,
        inputs=[one for one in map(_value, graph.messages(11)) if one.name not in weights],
        outputs=outputs,
        metadata={one.text(1): one.text(2) for one in model.messages(14)},
    )


def _opset(model: Message, path: Path) -> int:
    versions = [one.integer(2) for one in model.messages(8) if one.text(1) in OWN_DOMAINS]
    if not versions:
        raise ValueError("no version of the operators")
    if versions[-1] not in OPSETS:
        raise InputError(
            f"{path} cannot be used: its operators have the version {versions[-1]}, but those of "
            f"{OPSETS[0]} to {OPSETS[-1]} are known; export it again with opset_version=18."
        )
    return versions[-1]


def _value(message: Message) -> Value:
    tensor = message.message(2).message(1)
    kind = KINDS.get(tensor.integer(1))
    shape: tuple[int | None, ...] | None = None
    if tensor.has(2):
        sizes = (
            one.integer(1) if one.has(1) and not one.has(2) else None
            for one in tensor.message(2).messages(1)
        )
        # Some exporters write 0 or -1 for a size that is not fixed.
        shape = tuple(size if size is not None and size > 0 else None for size in sizes)
    return Value(message.text(1), None if kind is None else kind[1], shape)


def _node(message: Message, tensors: _Tensors) -> Node:
    op, domain = message.text(4), message.text(7)
    if domain not in OWN_DOMAINS:
        raise InputError(
            f"{tensors.path} cannot be used: its operator {domain + '.' + op!r} is not one of "
            "ONNX's own; export the policy without custom operators and quantisation."
        )
    return Node(
        op,
        tuple(message.texts(1)),
        tuple(message.texts(2)),
        dict(_attributes(message, op, tensors)),
    )


def _attributes(node: Message, op: str, tensors: _Tensors) -> Iterator[tuple[str, Any]]:
    """The attributes of a node by name."""
    for one in node.messages(5):
        kind = one.integer(20)
        value: Any
        if kind == 1:
            value = one.number(2)
        elif kind == 2:
            value = one.integer(3)
        elif kind == 3:
            value = one.text(4)
        elif kind == 4:
            value = tensors.read(one.message(5))
        elif kind == 6:
            value = one.numbers(7).tolist()
        elif kind == 7:
            value = one.integers(8)
        elif kind == 8:
            value = one.texts(9)
        else:
            raise InputError(
                f"{tensors.path} cannot be used: its operator {op!r} contains other operators, "
                "such as those of a branch or a loop, which are not read."
            )
        yield one.text(1), value


class _Tensors:
    """Reads tensors, and opens the file of weights when the first one needs it.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.declared = 0
        """Bytes of the tensors so far."""
        self.data: bytes | None = None

    def read(self, message: Message) -> Tensor:
        """A tensor on the CPU.

        Raises:
            InputError: It has another type, is too large, or is stored elsewhere.
            ValueError: Its bytes and its shape do not match.
        """
        shape, number = message.integers(1), message.integer(2)
        if number not in KINDS:
            raise InputError(
                f"{self.path} cannot be used: its tensor {message.text(8)!r} has a type that is "
                "not read; export the policy in float32."
            )
        numpy, _ = KINDS[number]
        if any(size < 0 for size in shape):
            raise ValueError("a size is negative")
        size = math.prod(shape) * np.dtype(numpy).itemsize
        self.declared += size
        check_size(self.declared, self.path)
        if message.integer(14) == 1:
            found = np.frombuffer(self._external(message, size), numpy)
        elif message.has(9):
            found = np.frombuffer(message.bytes(9)[-1], numpy)
        elif number == 1:
            found = message.numbers(4)
        elif number == 11:
            found = message.numbers(10, 8)
        elif number == 7:
            found = np.array(message.integers(7), np.int64)
        elif number == 10:
            found = np.array(message.integers(5), np.uint16).view(np.float16)
        else:
            found = np.array(message.integers(5), np.int64).astype(numpy)
        return torch.from_numpy(found.reshape(shape).copy())

    def _external(self, message: Message, size: int) -> bytes:
        """The bytes of a tensor in the file next to this one."""
        places = {one.text(1): one.text(2) for one in message.messages(13)}
        name, expected = places.get("location", ""), self.path.name + DATA
        if name != expected:
            raise InputError(
                f"{self.path} cannot be used: its weights are in another file, {name!r}, but only "
                f"{expected!r} next to it is read; give both their names back, or {INSIDE}."
            )
        if self.data is None:
            data = self.path.with_name(expected)
            try:
                self.data = read_file(data, "the file of weights")
            except InputError as error:
                raise InputError(
                    f"{self.path} cannot be used without its weights, but "
                    f"{str(error).rstrip('.')}; copy both files, or {INSIDE}."
                ) from error
        start = int(places.get("offset", "0"))
        length = int(places.get("length", str(size)))
        if length != size or not 0 <= start <= len(self.data) - size:
            raise ValueError("weights are outside of their file")
        return self.data[start : start + size]
