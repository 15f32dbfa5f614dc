"""Hashes of weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor


def weights_sha256(stem: Path) -> str:
    """Hash of a saved policy's weights, in hexadecimal."""
    return hashlib.sha256(stem.with_suffix(".safetensors").read_bytes()).hexdigest()


def tensors_sha256(tensors: Sequence[Tensor]) -> str:
    """Hash of tensors' values, in hexadecimal, independent of their shapes and device."""
    content = b"".join(tensor.detach().cpu().contiguous().numpy().tobytes() for tensor in tensors)
    return hashlib.sha256(content).hexdigest()
