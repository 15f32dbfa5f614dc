"""A policy's first weights from another policy, tensor by tensor, with a report of what moved."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.learning.layers import (
    HEAD,
    STATISTICS,
    frozen_tensors,
    layer_of,
    num_layers,
    part_of,
)
from rltransfer.policies.policy import Policy

FROZEN = "frozen, of an earlier column"
"""Why the policies inside a policy keep their weights."""

InitPart = Literal["head", "value", "statistics"]
InitMatch = Literal["exact", "inputs", "any"]


@dataclass(frozen=True)
class LoadedTensor:
    """What became of one tensor of the new policy."""

    name: str
    """Its name in the policy's state dict."""
    shape: tuple[int, ...]
    status: Literal["loaded", "left out", "not in the source", "of another shape"]
    note: str = ""
    """Why, or how far."""


def load_initial_weights(
    target: Policy,
    source: Policy,
    name: str,
    without: Collection[str] = (),
    layers: int = 0,
    match: InitMatch = "exact",
) -> list[LoadedTensor]:
    """Copies the tensors of one policy that another has too.

    Suites pad observations at the end. A first layer with another number of inputs therefore fits
    with its leading inputs: of more inputs, the rest keep their fresh weights; of fewer, those of
    the source's others are left out.

    Args:
        target: The new policy.
        source: The policy with the weights.
        name: Where the source is from, for messages.
        without: Parts that are not loaded: "head", "value", "statistics".
        layers: How many layers from the observation up are loaded; 0 for all.
        match: "exact": a tensor of another shape is refused; "inputs": a first layer may have
            another number of inputs; "any": tensors of other shapes keep their fresh weights, too.

    Raises:
        InputError: A shape differs, there are fewer layers, no tensor matches, or the source needs
            earlier columns that the target does not have.
    """
    if layers > num_layers(target):
        raise InputError(
            f"init_layers is {layers}, but the policy has {num_layers(target)} layers, heads "
            "included: use at most as many."
        )
    if source.parts() and not target.parts():
        raise InputError(
            f"{name} contains earlier columns, which its newest one needs and the new network does "
            "not have: train progressive with it as --columns, or distil it as the --teacher of "
            "policy-distillation."
        )
    loaded, new = source.state_dict(), target.state_dict()
    frozen = frozen_tensors(target)
    rows = []
    for tensor_name, tensor in new.items():
        given = loaded.get(tensor_name)
        reason = (
            FROZEN if tensor_name in frozen else _left_out(tensor_name, target, without, layers)
        )
        rows.append(_load(tensor_name, tensor, given, reason, match))
    _check(rows, name, without, match)
    return rows


def _left_out(name: str, target: Policy, without: Collection[str], layers: int) -> str:
    """Why a tensor is not loaded; "" if it is."""
    if part_of(name) in without:
        return f"--init-without {part_of(name)}"
    if layers and layer_of(name, target) > layers:
        return f"--init-layers {layers}"
    return ""


def _load(
    name: str, tensor: Tensor, given: Tensor | None, reason: str, match: InitMatch
) -> LoadedTensor:
    shape = tuple(tensor.shape)
    if reason:
        return LoadedTensor(name, shape, "left out", reason)
    if given is None:
        return LoadedTensor(name, shape, "not in the source")
    if given.shape == tensor.shape:
        with torch.no_grad():
            tensor.copy_(given)
        return LoadedTensor(name, shape, "loaded")
    axis = _input_axis(name, tensor, given)
    if axis is None or match == "exact":
        return LoadedTensor(name, shape, "of another shape", _shape(given))
    count = min(tensor.shape[axis], given.shape[axis])
    with torch.no_grad():
        tensor.narrow(axis, 0, count).copy_(given.narrow(axis, 0, count))
    return LoadedTensor(name, shape, "loaded", f"{count} of {tensor.shape[axis]} inputs")


def _input_axis(name: str, tensor: Tensor, given: Tensor) -> int | None:
    """The axis of the inputs of a first layer, if two tensors differ in it alone; else None."""
    if part_of(name) == STATISTICS:
        axis = tensor.dim() - 1
    elif ".layers.0." in name and name.endswith("weight"):
        axis = 1
    else:
        return None
    if tensor.dim() != given.dim():
        return None
    differs = [
        i
        for i, sizes in enumerate(zip(tensor.shape, given.shape, strict=True))
        if len(set(sizes)) > 1
    ]
    return axis if differs == [axis] else None


def _shape(tensor: Tensor) -> str:
    return f"{' x '.join(map(str, tensor.shape))} in the source"


def _check(rows: list[LoadedTensor], name: str, without: Collection[str], match: InitMatch) -> None:
    """Checks that what was not loaded was left out on purpose, and that something was loaded."""
    others = [row for row in rows if row.status == "of another shape"]
    if others and match != "any":
        first = others[0]
        sizes = f"{' x '.join(map(str, first.shape))}, but {first.note}"
        if all(part_of(row.name) == HEAD or "value_head" in row.name for row in others):
            remedy = "the actions differ: pass --init-without head value"
        elif match == "exact" and all(_is_input(row.name) for row in others):
            remedy = "the observations differ: --init-match inputs loads the inputs that both have"
        else:
            remedy = "use the source's network, or --init-match any to load only what fits"
        raise InputError(
            f"{name} does not fit: {first.name} is {sizes}"
            f"{f', and {len(others) - 1} more differ' if len(others) > 1 else ''}; {remedy}."
        )
    if not any(row.status == "loaded" for row in rows):
        reasons = sorted({row.note or row.status for row in rows})
        raise InputError(
            f"Nothing of {name} would be loaded ({'; '.join(reasons)}): use a source with the same "
            "network, or leave out less."
        )


def _is_input(name: str) -> bool:
    return part_of(name) == STATISTICS or ".layers.0." in name
