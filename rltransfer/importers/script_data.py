"""The values in a TorchScript file: checked against the types in its program, and written anew.

torch's interpreter trusts declared types. It reads an attribute at its place in the declared class,
so that an object of another class makes it read and write outside the object. And torch reads
pickles by rules of its own. So every value is compared with its declaration here, and torch gets a
pickle that is written from what was compared: plain values, lists, dictionaries, objects of the
program's classes, and each tensor in a storage of its own.
"""

from __future__ import annotations

import ast
import pickle
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.importers.saved_tensors import (
    DTYPES,
    Record,
    SavedTensor,
    StorageReader,
    TensorBuilder,
)

HELPERS = {
    "bool": "build_boollist",
    "float": "build_doublelist",
    "int": "build_intlist",
    "Tensor": "build_tensorlist",
}
"""The function of `torch.jit._pickle` that restores a list of each type; another for the rest."""

TAG = "restore_type_tag"
"""The function of `torch.jit._pickle` that restores any other list or dictionary."""

DEEPEST = 100
"""Levels of objects in objects."""

LONGEST = 2**24
"""Bytes of a pickle, without tensors."""

KEY = re.compile(r"[\w.-]+", re.ASCII)
"""Names of attributes that may not be identifiers."""

DEVICE = re.compile(r"[a-z]+(:\d{1,3})?", re.ASCII)


@dataclass
class ScriptClass:
    """A class of a program."""

    base: str
    """"Module", "NamedTuple", another name, or "" for none."""
    attributes: dict[str, ast.expr] = field(default_factory=dict)
    """The declared type of each attribute."""

    @staticmethod
    def of(node: ast.ClassDef) -> ScriptClass:
        """The class in a program.

        Raises:
            ValueError: It has several bases, or declares an attribute twice.
        """
        if len(node.bases) > 1 or node.keywords or node.decorator_list:
            raise ValueError("a class of another form")
        found = ScriptClass(ast.unparse(node.bases[0]) if node.bases else "")
        for statement in node.body:
            match statement:
                case ast.AnnAssign(ast.Name(name), kind):
                    pass
                case _ if found.base == "NamedTuple":
                    raise ValueError("a named tuple of another form")
                case ast.Assign([ast.Subscript(ast.Name("__annotations__"), key)], kind):
                    name = _plain_key(key)
                case _:
                    continue
            if name in found.attributes:
                raise ValueError("an attribute of two types")
            found.attributes[name] = kind
        if found.base != "NamedTuple":
            # These are constants of the program, and have no value in the data.
            for name, kind in list(found.attributes.items()):
                if ast.unparse(kind).startswith("Final["):
                    del found.attributes[name]
        return found


def _plain_key(key: ast.expr) -> str:
    """The name of an attribute that is not an identifier, e.g. "0".

    Raises:
        ValueError: It is written with escapes, which torch may read as another name.
    """
    match key:
        case ast.Constant(str() as name, col_offset=start, end_col_offset=end):
            if KEY.fullmatch(name) and end is not None and end - start == len(name) + 2:
                return name
    raise ValueError("an attribute of another form")


class _Object(Record):
    """An object of a class of the program."""

    name: ClassVar[str]
    state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Helper(Record):
    """A call of a function that restores the type of a list or dictionary."""


class _Device(Record):
    """A device."""


class ScriptReader(StorageReader):
    """Reads the pickles of a TorchScript file."""

    def __init__(self, content: bytes, path: Path, classes: Mapping[str, ScriptClass]) -> None:
        super().__init__(content)
        self.path = path
        self._kinds = {name: type("_Object", (_Object,), {"name": name}) for name in classes}

    def find_class(self, module: str, name: str) -> Any:
        """The class that records a name.

        Raises:
            InputError: It is neither a class of the program nor one of plain tensors.
        """
        if f"{module}.{name}" in self._kinds:
            return self._kinds[f"{module}.{name}"]
        if module == "torch.jit._pickle" and name in (*HELPERS.values(), TAG):
            return _Helper
        if (module, name) == ("torch", "device"):
            return _Device
        try:
            return super().find_class(module, name)
        except pickle.UnpicklingError:
            raise InputError(
                f"{self.path} was not opened: it names {f'{module}.{name}'!r}, but a policy "
                "contains plain tensors and classes of its program."
            ) from None


class ScriptWriter:
    """Writes a pickle that torch reads, of values that have the types of their declarations.

    Args:
        classes: The classes of the program, by name.
        builder: Makes the tensors.

    Attributes:
        storages: The content of each tensor, by key.
    """

    def __init__(self, classes: Mapping[str, ScriptClass], builder: TensorBuilder) -> None:
        self.classes = classes
        self.builder = builder
        self.storages: dict[str, bytes | memoryview] = {}
        self._out = bytearray(b"\x80\x02")
        self._places: dict[int, int] = {}

    def module(self, value: object) -> bytes:
        """The pickle of the program's own object.

        Raises:
            InputError: A value in it has another type than the program declares.
        """
        if not isinstance(value, _Object):
            raise pickle.UnpicklingError("not an object of the program")
        self._object(value, value.name, "", DEEPEST)
        return bytes(self._out) + b"."

    def constants(self, value: object) -> bytes:
        """The pickle of the program's constants: tensors and text.

        Raises:
            InputError: There is something else.
        """
        if type(value) is not tuple:
            raise pickle.UnpicklingError("not a tuple of constants")
        self._put(b"(")
        for number, one in enumerate(value):
            kind = "str" if isinstance(one, str) else "Tensor"
            self._value(one, ast.Name(kind), f"constant {number}", DEEPEST)
        return bytes(self._out) + b"t."

    def _put(self, content: bytes) -> None:
        self._out += content
        # One list may be in exponentially many places of a small file.
        if len(self._out) > LONGEST:
            raise pickle.UnpicklingError("too many values")

    def _value(self, value: Any, kind: ast.expr, where: str, depth: int) -> None:
        """Writes a value of a declared type.

        Args:
            value: The value.
            kind: The type, as the program writes it.
            where: The name of the value, for errors.
            depth: Levels that may follow.
        """
        if depth == 0:
            raise pickle.UnpicklingError("nested too deeply")
        match kind:
            case ast.Subscript(ast.Name("Optional"), inner):
                if value is None:
                    self._put(b"N")
                else:
                    self._value(value, inner, where, depth)
            case ast.Subscript(ast.Name("List" | "Dict" | "Tuple" as name), inner):
                parts = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
                write = {"List": self._list, "Dict": self._dict, "Tuple": self._tuple}[name]
                write(value, parts, kind, where, depth)
            case ast.Name(name):
                self._plain(value, name, where)
            case _:
                self._of_class(value, ast.unparse(kind), where, depth)

    def _plain(self, value: Any, name: str, where: str) -> None:
        match name, value:
            case "Tensor", SavedTensor():
                self._tensor(value)
            case ("NoneType", None):
                self._put(b"N")
            case "bool", bool():
                self._put(b"\x88" if value else b"\x89")
            case ("int", int()) if not isinstance(value, bool):
                self._integer(value)
            case "float", float():
                self._put(b"G" + struct.pack(">d", value))
            case "str", str():
                self._text(value)
            case "Device", _Device(arguments=(str() as text,)) if DEVICE.fullmatch(text):
                self._put(b"ctorch\ndevice\n")
                self._text(text)
                self._put(b"\x85R")
            case _:
                raise self._refusal(name, where)

    def _integer(self, value: int) -> None:
        short = -(2**31) <= value < 2**31
        self._put(
            b"J" + struct.pack("<i", value) if short else b"\x8a\x08" + struct.pack("<q", value)
        )

    def _text(self, value: str) -> None:
        content = value.encode()
        self._put(b"X" + struct.pack("<I", len(content)) + content)

    def _list(
        self, value: Any, parts: list[ast.expr], kind: ast.expr, where: str, depth: int
    ) -> None:
        values = self._unwrapped(value)
        if not isinstance(values, list) or len(parts) != 1:
            raise self._refusal(ast.unparse(kind), where)
        helper = HELPERS.get(ast.unparse(parts[0]))
        self._put(f"ctorch.jit._pickle\n{helper or TAG}\n".encode())
        self._put(b"(](" if helper else b"](")
        for one in values:
            self._value(one, parts[0], where, depth - 1)
        self._put(b"e")
        self._end(kind, helper)

    def _dict(
        self, value: Any, parts: list[ast.expr], kind: ast.expr, where: str, depth: int
    ) -> None:
        values = self._unwrapped(value)
        if not isinstance(values, dict) or len(parts) != 2:
            raise self._refusal(ast.unparse(kind), where)
        self._put(f"ctorch.jit._pickle\n{TAG}\n".encode())
        self._put(b"}(")
        for key, one in values.items():
            self._value(key, parts[0], where, depth - 1)
            self._value(one, parts[1], where, depth - 1)
        self._put(b"u")
        self._end(kind, None)

    def _end(self, kind: ast.expr, helper: str | None) -> None:
        """Ends a list or dictionary with its type."""
        if helper:
            self._put(b"tR")
            return
        self._text(ast.unparse(kind))
        self._put(b"\x86R")

    @staticmethod
    def _unwrapped(value: Any) -> Any:
        """The list or dictionary of which a helper restores the type."""
        return value.arguments[0] if isinstance(value, _Helper) and value.arguments else value

    def _tuple(
        self, value: Any, parts: list[ast.expr], kind: ast.expr, where: str, depth: int
    ) -> None:
        if type(value) is not tuple or len(value) != len(parts):
            raise self._refusal(ast.unparse(kind), where)
        self._put(b"(")
        for one, part in zip(value, parts, strict=True):
            self._value(one, part, where, depth - 1)
        self._put(b"t")

    def _of_class(self, value: Any, name: str, where: str, depth: int) -> None:
        known = self.classes.get(name)
        if known is not None and known.base == "NamedTuple":
            parts = list(known.attributes.values())
            self._tuple(value, parts, ast.Name(name), where, depth)
        elif isinstance(value, _Object) and value.name == name:
            self._object(value, name, where, depth)
        else:
            raise self._refusal(name, where)

    def _object(self, value: Any, name: str, where: str, depth: int) -> None:
        """Writes an object with its attributes, or its place if it was written before."""
        if id(value) in self._places:
            self._recall(value)
            return
        known = self.classes[name]
        if known.base not in ("", "Module") or not isinstance(value.state, dict):
            raise self._refusal(name, where)
        module, _, last = name.rpartition(".")
        self._put(f"c{module}\n{last}\n)\x81".encode("latin-1"))
        self._put(b"}(")
        for attribute, kind in known.attributes.items():
            inside = f"{where}.{attribute}".lstrip(".")
            if attribute not in value.state:
                raise self._refusal(ast.unparse(kind), inside)
            self._text(attribute)
            self._value(value.state[attribute], kind, inside, depth - 1)
        self._put(b"ub")
        self._remember(value)

    def _tensor(self, saved: Any) -> None:
        if id(saved) in self._places:
            self._recall(saved)
            return
        tensor: Tensor = self.builder.tensor(*saved.arguments)
        key, flat = str(len(self.storages)), tensor.reshape(-1)
        self.storages[key] = flat.view(torch.uint8).numpy().data if len(flat) else b""
        name = next(name for name, dtype in DTYPES.items() if dtype == tensor.dtype)
        self._put(b"ctorch._utils\n_rebuild_tensor_v2\n((")
        self._text("storage")
        self._put(f"ctorch\n{name}\n".encode())
        self._text(key)
        self._text("cpu")
        self._integer(tensor.numel())
        self._put(b"tQK\x00")
        for sizes in (tensor.shape, tensor.stride()):
            self._put(b"(")
            for size in sizes:
                self._integer(size)
            self._put(b"t")
        self._put(b"\x89ccollections\nOrderedDict\n)RtR")
        self._remember(saved)

    def _remember(self, value: object) -> None:
        self._places[id(value)] = len(self._places)
        self._put(b"r" + struct.pack("<I", self._places[id(value)]))

    def _recall(self, value: object) -> None:
        self._put(b"j" + struct.pack("<I", self._places[id(value)]))

    def _refusal(self, kind: str, where: str) -> InputError:
        return InputError(
            f"{self.builder.path} was not opened: its {where or 'root'!r} is declared as {kind!r}, "
            "which the value in the file is not, or which a policy does not need."
        )
