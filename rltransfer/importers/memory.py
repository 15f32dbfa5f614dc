"""LSTMs and GRUs from named tensors, one step at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.importers.linear_layers import take
from rltransfer.importers.saved_file import Tensors

Kind = Literal["LSTM", "GRU"]

GATES: dict[Kind, int] = {"LSTM": 4, "GRU": 3}
"""Rows of a weight for each number of the hidden state."""

CELLS: dict[Kind, type[nn.LSTMCell] | type[nn.GRUCell]] = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell}
"""torch's layers of a single step."""


class Memory(nn.Module):
    """The layers of an LSTM or a GRU.

    The state of a row is one vector: for each layer its hidden state, and of an LSTM the cell state
    after it.

    Attributes:
        state_size: Numbers in the state of a row.
        num_inputs: Numbers that the first layer reads.
        num_features: Numbers that the last layer outputs.
    """

    def __init__(self, layers: Sequence[nn.LSTMCell | nn.GRUCell]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.num_inputs, self.num_features = layers[0].input_size, layers[-1].hidden_size
        self.sizes = [one.hidden_size * (1 + isinstance(one, nn.LSTMCell)) for one in layers]
        self.state_size = sum(self.sizes)

    def forward(
        self, inputs: Tensor, state: Tensor | None = None, start: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The hidden state of the last layer, and the state of all layers.

        Args:
            inputs: What the first layer reads.    (rows, num_inputs)
            state: The state before; None at the start of all rows' episodes.    (rows, state_size)
            start: Whether a row is an episode's first, where its state is reset to zero.    (rows,)

        Returns:
            (rows, num_features), (rows, state_size)
        """
        if state is None:
            state = inputs.new_zeros(len(inputs), self.state_size)
        elif start is not None:
            state = state.masked_fill(start.unsqueeze(-1), 0.0)
        after: list[Tensor] = []
        for layer, before in zip(self.layers, state.split(self.sizes, 1), strict=True):
            if isinstance(layer, nn.LSTMCell):
                hidden, cell = before.chunk(2, 1)
                after += layer(inputs, (hidden, cell))
                inputs = after[-2]
            else:
                after.append(layer(inputs, before))
                inputs = after[-1]
        return inputs, torch.cat(after, 1)


def read_memory(
    tensors: Tensors,
    prefix: str,
    path: Path,
    num_inputs: int | None = None,
    kinds: Sequence[Kind] = ("LSTM", "GRU"),
) -> Memory:
    """The layers whose tensors torch's `nn.LSTM` or `nn.GRU` names.

    Args:
        tensors: The tensors of a file.
        prefix: The beginning of the names, before `weight_ih_l0`.
        path: The file, for errors.
        num_inputs: Numbers that the first layer reads; None for any.
        kinds: What the layers may be.

    Raises:
        InputError: A tensor is missing, has another shape or is not finite, or belongs to layers of
            another kind.
    """
    own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    kind = _kind(own, prefix, path, kinds)
    names = ["weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if "bias_ih_l0" in own else ())]
    count = sum(re.fullmatch(r"weight_hh_l\d{1,4}", name) is not None for name in own)
    odd = sorted(set(own) - {f"{name}_l{index}" for name in names for index in range(count)})
    if odd:
        raise InputError(
            f"{path} cannot be read: {prefix + odd[0]!r} is not a tensor of an {kind} with one "
            "direction and without projections."
        )
    layers: list[nn.LSTMCell | nn.GRUCell] = []
    for index in range(count):
        size = own["weight_hh_l0"].shape[1]
        inputs = layers[-1].hidden_size if layers else num_inputs
        rows = GATES[kind] * size
        cell: nn.LSTMCell | nn.GRUCell | None = None
        for name in names:
            whole = f"{prefix}{name}_l{index}"
            tensor = take(tensors, whole, path)
            shape: tuple[int | None, ...] = (rows,)
            if name.startswith("weight"):
                shape = (rows, inputs if name == "weight_ih" else size)
            if len(shape) != tensor.dim() or any(
                one not in (None, length) for one, length in zip(shape, tensor.shape, strict=True)
            ):
                wanted = ", ".join("any" if one is None else str(one) for one in shape)
                raise InputError(
                    f"{path} is inconsistent: its tensor {whole!r} has the shape "
                    f"{list(tensor.shape)}, but must have [{wanted}]."
                )
            if cell is None:  # the first tensor tells the number of inputs
                cell = CELLS[kind](tensor.shape[1], size, bias=len(names) > 2, device="meta")
            setattr(cell, name, nn.Parameter(tensor))
        assert cell is not None
        layers.append(cell)
    return Memory(layers)


def _kind(tensors: Tensors, prefix: str, path: Path, kinds: Sequence[Kind]) -> Kind:
    """What the layers are, by the shape of the weight that multiplies the hidden state."""
    weight = tensors.get("weight_hh_l0")
    if weight is None:
        raise InputError(f"{path} cannot be read: it does not contain '{prefix}weight_hh_l0'.")
    if weight.dim() == 2 and weight.shape[1]:
        for kind in kinds:
            if weight.shape[0] == GATES[kind] * weight.shape[1]:
                return kind
    raise InputError(
        f"{path} cannot be read: its tensor '{prefix}weight_hh_l0' has the shape "
        f"{list(weight.shape)}, which is not that of an {' or '.join(kinds)}."
    )
