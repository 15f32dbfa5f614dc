"""The global random generators of Python, NumPy and torch, which environments may draw from."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


def seed_global_generators(seed: int) -> None:
    """Seeds Python's, NumPy's and torch's global generators, torch's on the CPU alone."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


def global_state() -> dict[str, Any]:
    """The states of the three generators, as tensors and JSON."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        "numpy": {
            "name": name,
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "rest": [int(position), int(has_gauss), float(cached)],
        },
        "torch": torch.default_generator.get_state(),
    }


def set_global_state(state: dict[str, Any]) -> None:
    """Restores the states that `global_state` returned.

    Raises:
        Exception: They are damaged: one of `DAMAGE`.
    """
    python, numpy = state["python"], state["numpy"]
    if not 0 <= numpy["rest"][0] <= len(numpy["keys"]):
        raise ValueError("NumPy would read its keys at a position outside of them")
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state((numpy["name"], keys, *numpy["rest"]))
    torch.default_generator.set_state(state["torch"])


@contextlib.contextmanager
def seeded_global_generators(seed: int) -> Iterator[None]:
    """Seeds the three generators in the block, and restores their states afterwards."""
    state = global_state()
    seed_global_generators(seed)
    try:
        yield
    finally:
        set_global_state(state)
