"""Devices: a generator's state on the same device, and on another."""

from __future__ import annotations

import torch

from rltransfer.machine.devices import restore_generator


def test_a_generator_is_restored_or_seeded_by_another_devices_state() -> None:
    drawn = []
    for state in (
        torch.Generator().manual_seed(5).get_state(),
        torch.arange(16, dtype=torch.uint8),  # as CUDA's: a seed and an offset, of 8 bytes each
        torch.arange(1, 17, dtype=torch.uint8),
    ):
        for _ in range(2):
            generator = torch.Generator()
            restore_generator(generator, state)
            drawn.append(torch.rand(4, generator=generator))
    assert torch.equal(drawn[0], torch.rand(4, generator=torch.Generator().manual_seed(5)))
    assert all(torch.equal(drawn[i], drawn[i + 1]) for i in (0, 2, 4))
    assert not torch.equal(drawn[2], drawn[4])
