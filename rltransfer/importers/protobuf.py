"""Reads the wire format of protocol buffers, field by field, without the classes of a schema.

A parser that makes an object of every message takes a hundred times the size of a hostile file.
Here the content of a message stays bytes until somebody asks for it, and the number of fields in a
file has a limit.

Source: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rltransfer.errors import InputError

MOST_FIELDS = 500_000
"""Fields of a file that are read, as many as instructions of a pickle."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""

LONGEST_VARINT = 10
"""Bytes of 64 bits, seven in each."""


class Fields:
    """How many fields of a file may still be read.

    Args:
        path: The file, for errors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left = MOST_FIELDS

    def spend(self, count: int) -> None:
        """Counts fields.

        Raises:
            InputError: There are more than the limit.
        """
        self.left -= count
        if self.left < 0:
            raise InputError(
                f"{self.path} cannot be used: it consists of more than {MOST_FIELDS:,} fields; "
                "export the actor alone, whose weights are stored as bytes."
            )


class Message:
    """A message whose fields are found by their numbers.

    Args:
        content: The bytes.
        fields: Counts the fields of the file.

    Raises:
        ValueError: The bytes are not a message.
        InputError: The file has too many fields.
    """

    def __init__(self, content: memoryview, fields: Fields) -> None:
        self.fields = fields
        self.values: dict[int, list[tuple[int, int | memoryview]]] = {}
        place = 0
        while place < len(content):
            fields.spend(1)
            tag, place = varint(content, place)
            wire = tag & 7
            found: int | memoryview
            if wire == VARINT:
                found, place = varint(content, place)
            elif wire in (BYTES, FIXED32, FIXED64):
                size = 4 if wire == FIXED32 else 8
                if wire == BYTES:
                    size, place = varint(content, place)
                if size > len(content) - place:
                    raise ValueError("a field is longer than its message")
                found = content[place : place + size]
                place += size
            else:
                raise ValueError(f"unknown wire type {wire}")
            self.values.setdefault(tag >> 3, []).append((wire, found))

    def _of(self, number: int, *wires: int) -> list[tuple[int, int | memoryview]]:
        found = self.values.get(number, [])
        if any(wire not in wires for wire, _ in found):
            raise ValueError(f"the field {number} has another type")
        return found

    def has(self, number: int) -> bool:
        """Whether there is a field with this number."""
        return number in self.values

    def bytes(self, number: int) -> list[memoryview]:
        """The values of a field of bytes, text or messages."""
        return [value for _, value in self._of(number, BYTES) if isinstance(value, memoryview)]

    def messages(self, number: int) -> Iterator[Message]:
        """The messages of a field."""
        return (Message(content, self.fields) for content in self.bytes(number))

    def message(self, number: int) -> Message:
        """The last message of a field; an empty one if there is none."""
        found = self.bytes(number)
        return Message(found[-1] if found else memoryview(b""), self.fields)

    def texts(self, number: int) -> list[str]:
        """The texts of a field.

        Raises:
            ValueError: One is not UTF-8.
        """
        return [str(value, "utf-8") for value in self.bytes(number)]

    def text(self, number: int) -> str:
        """The last text of a field; empty if there is none."""
        found = self.texts(number)
        return found[-1] if found else ""

    def integers(self, number: int) -> list[int]:
        """The signed integers of a field, packed or not."""
        found: list[int] = []
        for _, value in self._of(number, VARINT, BYTES):
            if isinstance(value, int):
                found.append(value)
                continue
            place = 0
            while place < len(value):
                self.fields.spend(1)
                one, place = varint(value, place)
                found.append(one)
        return [one - 2**64 if one >= 2**63 else one for one in found]

    def integer(self, number: int, default: int = 0) -> int:
        """The last integer of a field."""
        found = self.integers(number)
        return found[-1] if found else default

    def numbers(self, number: int, size: int = 4) -> NDArray[np.floating]:
        """The floats of a field, packed or not.

        Args:
            number: The field.
            size: Bytes of each.
        """
        wire = FIXED32 if size == 4 else FIXED64
        parts = [value for _, value in self._of(number, wire, BYTES)]
        content = b"".join(part for part in parts if isinstance(part, memoryview))
        return np.frombuffer(content, f"<f{size}")

    def number(self, number: int) -> float:
        """The last float of a field; 0 if there is none."""
        found = self._of(number, FIXED32)
        value = found[-1][1] if found else 0
        return struct.unpack("<f", value)[0] if isinstance(value, memoryview) else 0.0


def varint(content: memoryview, place: int) -> tuple[int, int]:
    """An unsigned integer of up to 64 bits, and the place after it.

    Raises:
        ValueError: It is longer, or the bytes end.
    """
    value = 0
    for index, byte in enumerate(content[place : place + LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value & (2**64 - 1), place + index + 1
    raise ValueError("an integer does not end")
