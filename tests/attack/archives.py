"""Zips that different readers read differently."""

from __future__ import annotations

import io
import random
import stat
import struct
import warnings
import zipfile
import zlib

Files = list[tuple[str, bytes]]

UNICODE_PATH = 0x7075
"""The extra field with another name of a file."""


def packed(files: Files, method: int = zipfile.ZIP_STORED) -> bytes:
    """A usual zip."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(file, "w", method) as archive:
            for name, content in files:
                archive.writestr(name, content)
    return file.getvalue()


def odd(draw: random.Random, files: Files, other: Files) -> bytes:
    """A zip with one of the oddities that readers disagree about.

    Args:
        draw: The generator.
        files: The files.
        other: Other files, which some readers find in their place.
    """
    match draw.randrange(6):
        case 0:
            return two_tables(packed(files), packed(other))
        case 1:
            return two_tables(packed(other), packed(files))
        case 2:
            return packed(other) + packed(files)
        case 3:
            return packed(files) + packed(other)[draw.randrange(60) :]
        case 4:
            return packed(files, draw.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))
    file, index = io.BytesIO(), draw.randrange(len(files))
    with zipfile.ZipFile(file, "w") as archive:
        for number, (name, content) in enumerate(files):
            entry = zipfile.ZipInfo(name)
            if number == index:
                content = _marked(draw, entry, content)
            with archive.open(entry, "w", force_zip64=draw.random() < 0.3) as member:
                member.write(content)
    return file.getvalue()


def _marked(draw: random.Random, entry: zipfile.ZipInfo, content: bytes) -> bytes:
    """Turns a file into a link, or gives it a second name."""
    if draw.random() < 0.5:
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        return draw.choice((b"/etc/passwd", b"../../x", content))
    name = b"\x01" + struct.pack("<I", zlib.crc32(entry.filename.encode())) + b"../canary"
    entry.extra = struct.pack("<HH", UNICODE_PATH, len(name)) + name
    return content


def two_tables(first: bytes, second: bytes) -> bytes:
    """A zip with two tables of contents.

    Some readers take the table at the place that the end of the file names, the first one; others
    the table right before the end, the second one.
    """
    bodies, tables = zip(*map(_parts, (first, second)), strict=True)
    longest = max(map(_length, tables))
    first_table, second_table = (_padded(table, longest) for table in tables)
    for entry in second_table:
        (place,) = struct.unpack("<I", entry[42:46])
        struct.pack_into("<I", entry, 42, max(place + len(bodies[0]) - longest, 0))
    counts, start = [len(second_table)] * 2, sum(map(len, bodies))
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, *counts, longest, start, 0)
    return b"".join((*bodies, *first_table, *second_table, end))


def _parts(content: bytes) -> tuple[bytes, list[bytearray]]:
    """What comes before the table of a usual zip, and the entries of the table."""
    size, start = struct.unpack("<II", content[-10:-2])
    table, entries, place = content[start : start + size], [], 0
    while place < size:
        length = 46 + sum(struct.unpack("<HHH", table[place + 28 : place + 34]))
        entries.append(bytearray(table[place : place + length]))
        place += length
    return content[:start], entries


def _length(table: list[bytearray]) -> int:
    return sum(map(len, table))


def _padded(table: list[bytearray], longest: int) -> list[bytearray]:
    """A table with a comment on its last entry."""
    missing = min(longest - _length(table), 0xFFFF)
    (length,) = struct.unpack("<H", table[-1][32:34])
    struct.pack_into("<H", table[-1], 32, min(length + missing, 0xFFFF))
    table[-1] += b"c" * missing
    return table
