"""Keeps freed memory, so that large temporary tensors do not cost fresh pages each time."""

from __future__ import annotations

import ctypes
import ctypes.util

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 2**31 - 1
"""As much as `mallopt` can be told."""


def keep_freed_memory() -> bool:
    """Tells glibc to reuse freed memory and not to return it to the system after every tensor.

    A tensor of more than 32 MiB is otherwise mapped anew each time, and smaller ones at the heap's
    end are trimmed: on small networks a fifth of the time then goes into page faults.

    Returns:
        Whether the C library took it; others than glibc are left alone.
    """
    name = ctypes.util.find_library("c")
    library = ctypes.CDLL(name) if name else None
    if library is None or not hasattr(library, "gnu_get_libc_version"):
        return False
    options = (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD)
    return all(library.mallopt(option, _KEPT_BYTES) == 1 for option in options)
