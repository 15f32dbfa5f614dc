"""Hashes of weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor


def weights_sha256(stem: Path) -> str:
    """Returns the hash of a saved policy's weights, in hexadecimal."""
    return hashlib.sha256(stem.with_suffix(".safetensors").read_bytes()).hexdigest()


def tensors_sha256(tensors: Sequence[Tensor]) -> str:
    """Returns the hash of tensors' values, in hexadecimal: that of statistics which lie in no file.

    Args:
        tensors: Of any shapes; neither these nor the device are part of the hash.
    """
    content = b"".join(tensor.detach().cpu().contiguous().numpy().tobytes() for tensor in tensors)
    return hashlib.sha256(content).hexdigest()
