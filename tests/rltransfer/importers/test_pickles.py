"""The reader of pickles: what Python's own reads, and nothing that runs, fills or hangs it."""

from __future__ import annotations

import collections
import pickle
import struct
import time
import tracemalloc
from typing import Any

import pytest

from rltransfer.importers.pickles import MOST_INSTRUCTIONS, InertUnpickler

PLAIN: list[Any] = [
    None, True, 0, -1, 255, 70_000, 2**40, -(2**70), 1.5, float("inf"), "", "text é", b"bytes",
    (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1, [2, (3,)]], {}, {"a": {"b": [1]}, 1: None},
    {1, 2}, frozenset({"x"}), bytearray(b"xy"),
]  # fmt: skip


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_are_read_as_pickle_reads_them(protocol: int) -> None:
    for value in PLAIN:
        # Older protocols call functions for these.
        if isinstance(value, set | frozenset | bytearray) and protocol < 5:
            continue
        if isinstance(value, bytes) and protocol < 3:
            continue
        found = InertUnpickler(pickle.dumps(value, protocol)).load()
        assert found == value and type(found) is type(value)


def test_one_object_in_two_places_is_one_object() -> None:
    part = [1]
    found = InertUnpickler(pickle.dumps([part, part])).load()
    assert found[0] is found[1]


NESTED = b")" + b"\x85" * 200_000
"""A tuple in a tuple, and so on."""

HOSTILE = {
    "a place in the memo far beyond the others": b"\x80\x02Nr\xff\xff\xff\x0f0.",
    "a deep key": b"\x80\x02}" + NESTED + b"K\x01s.",
    # Few enough tuples that only the check of members refuses it.
    "a deep member of a set": b"\x80\x04\x8f(" + NESTED[:10_000] + b"\x90.",
    "a deep value": b"\x80\x02" + NESTED + b".",
    "a key of exponential size": b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s.",
    "a long text that is not there": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b".",
    "a number of many digits": b"I" + b"9" * 100_000 + b"\n.",
    "a call of a value": b"\x80\x02K\x01)R.",
    "a name": b"cos\nmkdir\n.",
    "an old instance": b"(Vx\nios\nmkdir\n.",
    "a list without a mark": b"\x80\x02K\x01a.",
    "nothing": b".",
    "a reference": b"Pname\n.",
    "an extension": b"\x80\x02\x82\xff.",
    "the state of a number": b"\x80\x02K\x01}b.",
    "millions of instructions": b"\x80\x02(" + b"N" * MOST_INSTRUCTIONS + b"t.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_take_neither_memory_nor_time(name: str) -> None:
    tracemalloc.start()
    began = time.process_time()
    try:
        # `{} | 268435455` in the memo is harmless here, and 2 GiB for Python's own reader.
        if name == "a place in the memo far beyond the others":
            with pytest.raises(pickle.UnpicklingError):
                InertUnpickler(HOSTILE[name]).load()
        else:
            with pytest.raises((pickle.UnpicklingError, ValueError, IndexError, KeyError)):
                InertUnpickler(HOSTILE[name]).load()
        assert tracemalloc.get_traced_memory()[1] < 150_000_000
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 15


@pytest.mark.parametrize("value", [{(1, 2)}, frozenset({(1, 2)}), {(1, 2): None}])
def test_keys_and_members_of_sets_are_plain(value: Any) -> None:
    with pytest.raises(pickle.UnpicklingError, match="a key that is not plain"):
        InertUnpickler(pickle.dumps(value, 4)).load()


def test_names_are_what_the_reader_makes_of_them() -> None:
    class Call:
        def __init__(self, *arguments: Any) -> None:
            self.arguments = arguments

        def __setitem__(self, key: Any, value: Any) -> None:
            pass

    class Reader(InertUnpickler):
        def find_class(self, module: str, name: str) -> Any:
            assert (module, name) == ("collections", "OrderedDict")
            return Call

    found = Reader(pickle.dumps(collections.OrderedDict(a=1))).load()
    assert isinstance(found, Call) and found.arguments == ()
