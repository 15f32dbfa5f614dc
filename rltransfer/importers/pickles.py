"""A reader of pickles that calls nothing.

A pickle is a program for a stack machine. The machine here has the instructions of all protocols,
but its memory holds plain values and the records of `find_class` only. Python's own unpickler
allocates what an instruction of five bytes asks for, and hashes keys of any depth and kind. Here
memory grows with the file, and keys are plain.
"""

from __future__ import annotations

import io
import itertools
import pickle
import pickletools
from typing import Any, BinaryIO

MOST_CONTAINERS = 50_000
"""Tuples, lists, dictionaries and objects in a pickle: their nesting must not exhaust the stack of
the code that frees or walks through them. The checkpoints of large networks have a few thousand."""

MOST_INSTRUCTIONS = 500_000
"""Instructions of a pickle, each of which takes microseconds and at most some 100 bytes. The
checkpoints of large networks have some 100,000."""

_MARK = object()

KEYS = (str, int, float, bytes, type(None))
"""The types of dictionary keys and of members of sets."""


class InertUnpickler:
    """Reads a pickle into plain values and records.

    Derived classes decide which names are known: `find_class` returns a class for each, whose
    instances record what a usual unpickler would have called with them.

    Args:
        content: The bytes, or a file at the beginning of a pickle.
    """

    def __init__(self, content: bytes | BinaryIO) -> None:
        self._file = io.BytesIO(content) if isinstance(content, bytes) else content
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._containers = 0

    def find_class(self, module: str, name: str) -> Any:
        """The class that records a name.

        Raises:
            pickle.UnpicklingError: The name is unknown.
        """
        raise pickle.UnpicklingError(f"unknown name {module}.{name}")

    def persistent_load(self, reference: Any) -> Any:
        """The value of a reference to something outside the pickle.

        Raises:
            pickle.UnpicklingError: There are none.
        """
        raise pickle.UnpicklingError("a reference to something outside")

    def load(self) -> Any:
        """The value of the pickle.

        Raises:
            pickle.UnpicklingError: An instruction is not valid where it is.
            ValueError: The content is not a pickle.
        """
        instructions = itertools.islice(pickletools.genops(self._file), MOST_INSTRUCTIONS)
        for operation, argument, _ in instructions:
            if operation.name == "STOP":
                return self._pop()
            self._do(operation.name, argument)
        raise pickle.UnpicklingError("no end, or too many instructions")

    def _do(self, name: str, argument: Any) -> None:
        stack = self._stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                stack.append(_MARK)
            case "POP":
                stack.pop()
            case "POP_MARK":
                self._marked()
            case "DUP":
                stack.append(self._top())
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(name == "NEWTRUE")
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = self._top()
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._top()
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                stack.append(self.find_class(*argument.split(" ", 1)))
            case "PERSID":
                stack.append(self.persistent_load(argument))
            case "BINPERSID":
                stack.append(self.persistent_load(self._pop()))
            case _ if name in _CONTAINERS:
                self._containers += 1
                if self._containers > MOST_CONTAINERS:
                    raise pickle.UnpicklingError("too many containers")
                self._build(name, argument)
            case _ if "EXT" in name or "BUFFER" in name:
                raise pickle.UnpicklingError("a value outside the file")
            case _ if isinstance(argument, str | bytes | bytearray | int | float):
                stack.append(argument)
            case _:
                raise pickle.UnpicklingError(name)

    def _build(self, name: str, argument: Any) -> None:
        """The instructions that make, fill or call something."""
        stack = self._stack
        match name:
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(self._marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                parts = [self._pop() for _ in range(int(name[-1]))]
                stack.append(tuple(reversed(parts)))
            case "EMPTY_LIST":
                stack.append([])
            case "LIST":
                stack.append(self._marked())
            case "APPEND":
                value = self._pop()
                self._of(list).append(value)
            case "APPENDS":
                values = self._marked()
                self._of(list).extend(values)
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                stack.append(_filled({}, self._marked()))
            case "SETITEM":
                value, key = self._pop(), self._pop()
                _filled(self._top(), [key, value])
            case "SETITEMS":
                items = self._marked()
                _filled(self._top(), items)
            case "EMPTY_SET":
                stack.append(set())
            case "ADDITEMS":
                values = self._marked()
                self._of(set).update(map(_checked_key, values))
            case "FROZENSET":
                stack.append(frozenset(map(_checked_key, self._marked())))
            case "STACK_GLOBAL":
                attribute, module = self._pop(), self._pop()
                if not (isinstance(attribute, str) and isinstance(module, str)):
                    raise pickle.UnpicklingError("a name that is not text")
                stack.append(self.find_class(module, attribute))
            case "INST":
                arguments = self._marked()
                stack.append(_called(self.find_class(*argument.split(" ", 1)), arguments))
            case "OBJ":
                kind, *arguments = self._marked()
                stack.append(_called(kind, arguments))
            case "REDUCE" | "NEWOBJ":
                arguments, kind = self._pop(), self._pop()
                stack.append(_called(kind, arguments))
            case "NEWOBJ_EX":
                _, arguments, kind = self._pop(), self._pop(), self._pop()
                stack.append(_called(kind, arguments))
            case "BUILD":
                state, target = self._pop(), self._top()
                if isinstance(target, type) or not hasattr(target, "__setstate__"):
                    raise pickle.UnpicklingError("a state of something without one")
                target.__setstate__(state)

    def _top(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise pickle.UnpicklingError("nothing on the stack")
        return self._stack[-1]

    def _pop(self) -> Any:
        value = self._top()
        self._stack.pop()
        return value

    def _marked(self) -> list[Any]:
        """Removes and returns everything above the last mark."""
        values: list[Any] = []
        while self._stack and self._stack[-1] is not _MARK:
            values.append(self._stack.pop())
        self._stack.pop()
        values.reverse()
        return values

    def _of(self, kind: type) -> Any:
        target = self._top()
        if type(target) is not kind:
            raise pickle.UnpicklingError(f"not a {kind.__name__}")
        return target


_NAMES = """
EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT DICT SETITEM
SETITEMS EMPTY_SET ADDITEMS FROZENSET STACK_GLOBAL INST OBJ REDUCE NEWOBJ NEWOBJ_EX BUILD
"""
_CONTAINERS = frozenset(_NAMES.split())


def _called(kind: Any, arguments: Any) -> Any:
    """The record of a call. Only `find_class` puts classes on the stack."""
    if not isinstance(kind, type) or not isinstance(arguments, tuple | list):
        raise pickle.UnpicklingError("a call of something that is not a name")
    return kind(*arguments)


def _filled(target: Any, items: list[Any]) -> Any:
    if isinstance(target, type) or not hasattr(target, "__setitem__") or isinstance(target, list):
        raise pickle.UnpicklingError("items of something that is not a dictionary")
    if len(items) % 2:
        raise pickle.UnpicklingError("a key without a value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[_checked_key(key)] = value
    return target


def _checked_key(key: Any) -> Any:
    if not isinstance(key, KEYS):
        raise pickle.UnpicklingError("a key that is not plain")
    return key
