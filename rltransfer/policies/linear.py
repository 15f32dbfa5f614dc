"""Linear layers that oneDNN computes on the CPU, where that is faster than torch's own way.

torch multiplies float32 matrices on the CPU by MKL, which keeps from its best kernels on processors
that Intel did not make. oneDNN, which torch brings along for its convolutions, takes the best ones
everywhere: more than twice as fast on an AMD EPYC with AVX-512.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST_ROWS = 16
"""Rows of inputs under which torch's own way is as fast."""
LEAST_WEIGHTS = 4_096
"""Weights of a layer under which torch's own way is as fast."""
LEAST_WEIGHTS_LEARNED = 32_768
"""The same for the gradient of the weights, whose product is over rows and not over columns."""


class Linear(nn.Linear):
    """torch's `Linear`, faster on the CPU; it is trained, saved, exported and compiled like it."""

    def forward(self, input: Tensor) -> Tensor:
        """Returns the outputs.    (..., out_features)

        Args:
            input: (..., in_features)
        """
        if not _gains(input, self.weight):
            return F.linear(input, self.weight, self.bias)
        if torch.is_grad_enabled():
            outputs: Tensor = _Linear.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return outputs
        return _product(input, self.weight, self.bias)


def _gains(inputs: Tensor, weight: Tensor) -> bool:
    """Tells whether oneDNN can compute the layer, and faster."""
    return bool(
        # First, as whoever traces the layer shall find torch's own, for any number of rows.
        not torch.compiler.is_compiling()
        and inputs.device.type == "cpu"
        and inputs.dtype == weight.dtype == torch.float32
        and inputs.dim() == 2
        and len(inputs) >= LEAST_ROWS
        and weight.numel() >= LEAST_WEIGHTS
        and torch.backends.mkldnn.enabled
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and not torch.is_autocast_enabled("cpu")
    )


def _product(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns inputs @ weight.T + bias, by oneDNN.    (rows, outputs)

    Args:
        inputs: (rows, inputs)
        weight: (outputs, inputs)
        bias: (outputs,)
    """
    outputs: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return outputs


class _Linear(torch.autograd.Function):
    """The layer with its gradients, all three products by oneDNN."""

    generate_vmap_rule = True

    @staticmethod
    def forward(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _product(inputs, weight, bias)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor
    ) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        # Gradients of gradients need products that torch can differentiate.
        ours = not torch.is_grad_enabled()
        learned = ours and weight.numel() >= LEAST_WEIGHTS_LEARNED
        wanted = ctx.needs_input_grad
        to_inputs = to_weight = to_bias = None
        if wanted[0]:
            to_inputs = _product(gradient, weight.t()) if ours else gradient @ weight
        if wanted[1]:
            transposed = gradient.t()
            to_weight = _product(transposed, inputs.t()) if learned else transposed @ inputs
        if wanted[2]:
            to_bias = gradient.sum(0)
        return to_inputs, to_weight, to_bias
