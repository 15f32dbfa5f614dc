"""The exceptions that a damaged file raises."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib

DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What `zipfile` and `torch.load` raise on bytes that are not what they should be."""
