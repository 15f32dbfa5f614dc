"""The layers of a policy, from the observation up: what is frozen, or taken from another policy."""

from __future__ import annotations

import bisect
import re

from rltransfer.policies.encoder import WEIGHTED
from rltransfer.policies.policy import Policy

HEAD = "head"
"""The part of a policy's tensors above the encoder: heads, and the units of continuous actions."""
VALUE = "value"
"""The part that outputs the value; it may have an encoder of its own."""
STATISTICS = "statistics"
"""The part that normalises vector observations."""
ENCODER = "encoder"
"""The part of all other tensors, a GRU among them."""

_LAYER = re.compile(r"(?:.*\.)?(?:value_)?encoder\.layers\.(\d+)\.")
_ADAPTER = re.compile(r"adapters\.(\d+)\.")
"""Adapters of progressive networks: there is one for each layer of the encoder but the first."""


def part_of(name: str) -> str:
    """The part of a policy's tensor, by its name in the state dict."""
    if ".normalizer." in f".{name}":
        return STATISTICS
    if any(piece.startswith("value_") for piece in name.split(".")):
        return VALUE
    in_encoder = ".encoder." in f".{name}" or ".gru." in f".{name}" or _ADAPTER.match(name)
    return ENCODER if in_encoder else HEAD


def num_layers(policy: Policy) -> int:
    """The number of layers with weights, heads included; heads are one layer, and so is a GRU."""
    return len(_weighted(policy)) + (policy.gru is not None) + 1


def layer_of(name: str, policy: Policy) -> int:
    """The layer of a tensor, counted from 1 at the observation; its normalisation belongs to it.

    A value with an encoder of its own has the same layers, and an adapter belongs to the layer that
    it adds to.

    Args:
        name: The tensor's name in the policy's state dict.
        policy: The policy.
    """
    if part_of(name) == STATISTICS:
        return 1
    match = _LAYER.match(name)
    if match:
        return bisect.bisect_right(_weighted(policy), int(match[1]))
    adapter = _ADAPTER.match(name)
    if adapter:
        return int(adapter[1]) + 2
    if name.startswith("gru."):
        return num_layers(policy) - 1
    return num_layers(policy)


def frozen_tensors(policy: Policy) -> set[str]:
    """The names, in a policy's state dict, of what belongs to the policies inside it."""
    inside = {id(part) for part, _ in policy.parts()}
    prefixes = tuple(f"{name}." for name, module in policy.named_modules() if id(module) in inside)
    return {name for name in policy.state_dict() if name.startswith(prefixes)} if inside else set()


def _weighted(policy: Policy) -> list[int]:
    """The places of layers with weights in the encoder's sequence; others follow one of these."""
    layers = policy.encoder.layers
    return [i for i, layer in enumerate(layers) if isinstance(layer, WEIGHTED)]
