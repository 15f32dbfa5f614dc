"""Reuse of freed memory, so that large temporary tensors do not need new pages each time."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_THRESHOLD = 2**31 - 1
"""The largest value that `mallopt` accepts."""


def keep_freed_memory() -> bool:
    """Makes glibc reuse freed memory instead of returning it to the system after every tensor.

    Otherwise glibc maps each tensor of more than 32 MiB anew and trims smaller ones at the heap's
    end: with small networks, page faults then take a fifth of the time.

    Returns:
        Whether the C library is glibc and accepted the setting.
    """
    name = _c_library()
    library = ctypes.CDLL(name) if name else None
    if library is None or not hasattr(library, "gnu_get_libc_version"):
        return False
    options = (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD)
    return all(library.mallopt(option, _LARGEST_THRESHOLD) == 1 for option in options)


@functools.cache
def _c_library() -> str | None:
    """The name of the C library; to find it, ctypes starts other programs."""
    return ctypes.util.find_library("c")
