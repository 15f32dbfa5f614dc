"""ONNX's operators as functions of torch.

Each takes its inputs, None for those that are left out, and the attributes of its node. Inputs that
determine shapes come as they are computed: on the CPU, and never from observations.

Source: https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rltransfer.importers.onnx_file import KINDS

Inputs = Sequence[Tensor | None]
Operator = Callable[["Call"], "Tensor | Sequence[Tensor]"]

Function = Callable[..., Any]
"""A function of torch, or one like it."""

LARGEST = 2**40
"""Numbers in a tensor; more than fit into memory."""

FARTHEST = 2**16
"""Largest stride, padding, dilation or width of a kernel: with huge ones, torch computes sizes that
overflow."""

WIDTHS: dict[int, tuple[Function, Function]] = {
    1: (F.max_pool1d, F.avg_pool1d), 2: (F.max_pool2d, F.avg_pool2d),
    3: (F.max_pool3d, F.avg_pool3d),
}  # fmt: skip
"""Poolings by the number of axes."""

CONVOLUTIONS: dict[int, Function] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class Call:
    """One call of an operator.

    Args:
        inputs: Its inputs.
        attributes: The attributes of its node.
        opset: The version of the operators.
        outputs: The number of outputs.
    """

    def __init__(
        self, inputs: Inputs, attributes: dict[str, Any], opset: int, outputs: int = 1
    ) -> None:
        self.inputs = inputs
        self.attributes = attributes
        self.opset = opset
        self.outputs = outputs

    def __getitem__(self, place: int) -> Tensor:
        """An input that must be there.

        Raises:
            ValueError: It is missing.
        """
        found = self.optional(place)
        if found is None:
            raise ValueError(f"its input {place} is missing")
        return found

    def optional(self, place: int) -> Tensor | None:
        """An input that may be left out."""
        return self.inputs[place] if place < len(self.inputs) else None

    def all(self) -> list[Tensor]:
        """All inputs."""
        return [self[place] for place in range(len(self.inputs))]

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)

    def integers(self, name: str, place: int) -> list[int] | None:
        """Integers that old versions have as an attribute, and new ones as an input."""
        found = self.optional(place)
        if found is not None:
            return [int(one) for one in found.flatten().tolist()]
        value = self.get(name)
        return None if value is None else list(value)

    def only(self, **allowed: Any) -> None:
        """Checks that attributes have the one value that is supported.

        Raises:
            ValueError: One has another.
        """
        for name, value in allowed.items():
            if self.get(name, value) != value:
                raise ValueError(f"its attribute {name} is {self.get(name)}, and not {value}")


def _divide(call: Call) -> Tensor:
    if call[0].is_floating_point():
        return call[0] / call[1]
    # The smallest whole number divided by -1 ends the process.
    inverse = call[1] == -1
    divisor = call[1].masked_fill(inverse, 1)
    quotient = torch.div(call[0], divisor, rounding_mode="trunc")
    return torch.where(inverse, -quotient, quotient)


def _bounded(sizes: Sequence[int]) -> list[int]:
    """Sizes of a tensor, whose product torch would not check.

    Raises:
        ValueError: The tensor is larger than any that fits into memory.
    """
    if math.prod(max(abs(size), 1) for size in sizes) > LARGEST:
        raise ValueError("it asks for a tensor that is too large")
    return list(sizes)


def _matmul(call: Call) -> Tensor:
    return torch.matmul(call[0], call[1])


def _gemm(call: Call) -> Tensor:
    first = call[0].t() if call.get("transA", 0) else call[0]
    second, third = call[1], call.optional(2)
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    if alpha == beta == 1.0 and third is not None and third.dim() == 1:
        # As nn.Linear computes it, whose sums have the same order.
        weight = second if call.get("transB", 0) else second.t()
        if third.shape[0] == weight.shape[0]:
            return F.linear(first, weight, third)
    product: Tensor = alpha * (first @ (second.t() if call.get("transB", 0) else second))
    return product if third is None else product + beta * third


def _pads(call: Call, axes: int, kernel: Sequence[int], steps: Sequence[int]) -> list[int]:
    """The padding at both ends of each axis, as F.pad has it: the last axis first."""
    for name in ("dilations", "kernel_shape", "pads", "strides"):
        if any(not 0 <= one <= FARTHEST for one in call.get(name, ())):
            raise ValueError(f"its {name} are negative or too large")
    kind = call.get("auto_pad", "NOTSET")
    if kind in ("SAME_UPPER", "SAME_LOWER"):
        found: list[int] = []
        strides, sizes = call.get("strides", [1] * axes), call[0].shape[2:]
        for size, width, step, stride in zip(sizes, kernel, steps, strides, strict=True):
            reach = (width - 1) * step + 1
            total = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
            low, high = total // 2, total - total // 2
            found = [*((low, high) if kind == "SAME_UPPER" else (high, low)), *found]
        return found
    pads = [0] * 2 * axes if kind == "VALID" else call.get("pads", [0] * 2 * axes)
    return [pads[place + end] for place in reversed(range(axes)) for end in (0, axes)]


def _convolution(call: Call) -> Tensor:
    seen, weight = call[0], call[1]
    axes = seen.dim() - 2
    steps = call.get("dilations", [1] * axes)
    pads = _pads(call, axes, weight.shape[2:], steps)
    if pads[::2] == pads[1::2]:
        padding: Any = pads[::-2]
    else:
        seen, padding = F.pad(seen, pads), 0
    found: Tensor = CONVOLUTIONS[axes](
        seen, weight, call.optional(2), call.get("strides", [1] * axes), padding, steps,
        call.get("group", 1),
    )  # fmt: skip
    return found


def _max_pool(call: Call) -> Tensor:
    call.only(storage_order=0)
    kernel = call.get("kernel_shape")
    axes = len(kernel)
    steps = call.get("dilations", [1] * axes)
    call.only(ceil_mode=0)
    seen = F.pad(call[0], _pads(call, axes, kernel, steps), value=-math.inf)
    found: Tensor = WIDTHS[axes][0](seen, kernel, call.get("strides", [1] * axes), 0, steps)
    return found


def _average_pool(call: Call) -> Tensor:
    kernel = call.get("kernel_shape")
    axes = len(kernel)
    call.only(ceil_mode=0, dilations=[1] * axes)
    pads = _pads(call, axes, kernel, [1] * axes)
    if any(pads):
        call.only(count_include_pad=1)
        if "count_include_pad" not in call.attributes:
            raise ValueError("it pads without counting the padding")
    seen = F.pad(call[0], pads)
    found: Tensor = WIDTHS[axes][1](seen, kernel, call.get("strides", [1] * axes))
    return found


def _batch_norm(call: Call) -> Tensor:
    call.only(training_mode=0)
    seen, scale, bias, mean, variance = call.all()
    return F.batch_norm(seen, mean, variance, scale, bias, False, 0.0, call.get("epsilon", 1e-5))


def _layer_norm(call: Call) -> Tensor:
    seen = call[0]
    shape = seen.shape[call.get("axis", -1) :]
    return F.layer_norm(
        seen, shape, call[1].expand(shape), call.optional(2), call.get("epsilon", 1e-5)
    )


def _reshape(call: Call) -> Tensor:
    sizes = call.integers("shape", 1) or []
    if not call.get("allowzero", 0):
        sizes = [call[0].shape[n] if size == 0 else size for n, size in enumerate(sizes)]
    return call[0].reshape(sizes)


def _flatten(call: Call) -> Tensor:
    axis, shape = call.get("axis", 1), call[0].shape
    axis = axis + len(shape) if axis < 0 else axis
    return call[0].reshape(math.prod(shape[:axis]), math.prod(shape[axis:]))


def _transpose(call: Call) -> Tensor:
    return call[0].permute(call.get("perm", list(reversed(range(call[0].dim())))))


def _squeeze(call: Call) -> Tensor:
    axes = call.integers("axes", 1)
    return call[0].squeeze() if axes is None else call[0].squeeze(axes)


def _unsqueeze(call: Call) -> Tensor:
    axes = call.integers("axes", 1) or []
    rank = call[0].dim() + len(axes)
    found = call[0]
    for axis in sorted(axis % rank for axis in axes):
        found = found.unsqueeze(axis)
    return found


def _expand(call: Call) -> Tensor:
    sizes = call.integers("shape", 1) or []
    # Unlike torch's, a size of 1 leaves a larger one as it is.
    return call[0].expand(torch.broadcast_shapes(call[0].shape, tuple(_bounded(sizes))))


def _split(call: Call) -> Sequence[Tensor]:
    axis, sizes = call.get("axis", 0), call.integers("split", 1)
    if sizes is None:
        return call[0].chunk(call.outputs, axis)
    found: Sequence[Tensor] = call[0].split(sizes, axis)
    return found


def _slice(call: Call) -> Tensor:
    starts = call.integers("starts", 1) or []
    ends = call.integers("ends", 2) or []
    axes = call.integers("axes", 3) or list(range(len(starts)))
    steps = call.integers("steps", 4) or [1] * len(starts)
    found = call[0]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = found.shape[axis]
        places = range(*slice(start, end, step).indices(size))
        if step > 0:
            index = slice(places.start, max(places.start, places.stop), step)
            found = found[(slice(None),) * (axis % found.dim()) + (index,)]
        else:
            if end < -size:  # Python's slices have no end before the first place
                places = range(*slice(start, None, step).indices(size))
            chosen = torch.tensor(list(places), dtype=torch.int64, device=found.device)
            found = found.index_select(axis, chosen)
    return found


def _gather(call: Call) -> Tensor:
    """The index is known without observations; each is checked, as a GPU could not tell."""
    axis, index = call.get("axis", 0), call[1]
    size = call[0].shape[axis]
    if bool(((index < -size) | (index >= size)).any()):
        raise IndexError(f"an index is outside of {size} places")
    flat = (index % size).flatten().to(call[0].device)
    found = call[0].index_select(axis, flat)
    return found.unflatten(axis, index.shape) if index.dim() else found.squeeze(axis)


def _pad(call: Call) -> Tensor:
    call.only(mode="constant")
    pads = _bounded(call.integers("pads", 1) or [])
    axes = call.integers("axes", 3) or list(range(call[0].dim()))
    value = call.optional(2)
    ends = [(0, 0)] * call[0].dim()
    for place, axis in enumerate(axes):
        ends[axis] = (pads[place], pads[place + len(axes)])
    number = call.get("value", 0.0) if value is None else value.item()
    return F.pad(call[0], [one for pair in reversed(ends) for one in pair], value=number)


def _cast(call: Call) -> Tensor:
    kind = call.get("to")
    if kind not in KINDS:
        raise ValueError(f"it casts to the type {kind}")
    return call[0].to(KINDS[kind][1])


def _constant(call: Call) -> Tensor:
    value = call.get("value")
    if isinstance(value, Tensor):
        return value
    for name, dtype in (
        ("value_float", torch.float32), ("value_floats", torch.float32),
        ("value_int", torch.int64), ("value_ints", torch.int64),
    ):  # fmt: skip
        if name in call.attributes:
            return torch.tensor(call.get(name), dtype=dtype)
    raise ValueError("it is not a number")


def _constant_of_shape(call: Call) -> Tensor:
    value: Tensor = call.get("value", torch.zeros(1))
    return value.reshape(()).expand(_bounded([int(size) for size in call[0].tolist()]))


def _shape(call: Call) -> Tensor:
    sizes = list(call[0].shape)[call.get("start", 0) : call.get("end")]
    return torch.tensor(sizes, dtype=torch.int64)


def _range(call: Call) -> Tensor:
    start, end, step = (call[place].item() for place in range(3))
    return torch.arange(start, end, step, dtype=call[0].dtype)


def _clip(call: Call) -> Tensor:
    low, high = call.optional(1), call.optional(2)
    if low is None and high is None:
        low_number, high_number = call.get("min", -math.inf), call.get("max", math.inf)
        return call[0].clamp(low_number, high_number)
    return torch.clamp(call[0], low, high)


def _softmax(function: Function) -> Operator:
    def run(call: Call) -> Tensor:
        seen, axis = call[0], call.get("axis", -1 if call.opset >= 13 else 1)
        if call.opset < 13:  # all axes from this one were one
            seen, axis = seen.flatten(axis), axis % seen.dim()
        found: Tensor = function(seen, axis)
        return found.reshape(call[0].shape)

    return run


def _reduce(function: Function) -> Operator:
    def run(call: Call) -> Tensor:
        axes = call.integers("axes", 1)
        if not axes:
            if call.get("noop_with_empty_axes", 0):
                return call[0]
            axes = list(range(call[0].dim()))
        found: Tensor = function(call[0], axes, bool(call.get("keepdims", 1)))
        return found

    return run


def _best(sign: int) -> Operator:
    def run(call: Call) -> Tensor:
        call.only(select_last_index=0)
        keep = bool(call.get("keepdims", 1))
        return (sign * call[0]).argmax(call.get("axis", 0), keep)

    return run


def _unary(function: Function) -> Operator:
    return lambda call: function(call[0])


def _binary(function: Function) -> Operator:
    return lambda call: function(call[0], call[1])


def _many(function: Function) -> Operator:
    def run(call: Call) -> Tensor:
        found, *others = call.all()
        for other in others:
            found = function(found, other)
        return found

    return run


def _hard_sigmoid(call: Call) -> Tensor:
    line: Tensor = call.get("alpha", 0.2) * call[0] + call.get("beta", 0.5)
    return line.clamp(0.0, 1.0)


def _selu(call: Call) -> Tensor:
    gamma: float = call.get("gamma", 1.0507009873554805)
    return gamma * F.elu(call[0], call.get("alpha", 1.6732632423543772))


def _gates(call: Call, names: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Inputs, weights and biases of a recurrent layer in one direction over whole sequences."""
    call.only(direction="forward", layout=0, activation_alpha=None, activation_beta=None, clip=None)
    if "activations" in call.attributes:
        call.only(activations=["Sigmoid", "Tanh", "Tanh"][:names])
    if call.optional(4) is not None:
        raise ValueError("its sequences have different lengths")
    weight, again = call[1][0], call[2][0]
    bias = call.optional(3)
    both = torch.zeros(2 * len(weight), device=weight.device) if bias is None else bias[0]
    before, after = both.chunk(2)
    return call[0], weight, again, before, after


def _state(call: Call, place: int, seen: Tensor, size: int) -> Tensor:
    """The state before a sequence; zeros where it is left out.    (batch, size)"""
    given = call.optional(place)
    return seen.new_zeros(seen.shape[1], size) if given is None else given[0]


def _lstm(call: Call) -> Sequence[Tensor]:
    call.only(input_forget=0)
    if call.optional(7) is not None:
        raise ValueError("it has peepholes")
    seen, weight, again, before, after = _gates(call, 3)
    size = again.shape[1]
    hidden, cell = (_state(call, place, seen, size) for place in (5, 6))
    steps = []
    for step in seen.unbind(0):
        gates = F.linear(step, weight, before) + F.linear(hidden, again, after)
        # ONNX's order: input, output, forget, cell.
        enter, leave, keep, new = gates.chunk(4, -1)
        cell = keep.sigmoid() * cell + enter.sigmoid() * new.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        steps.append(hidden)
    return torch.stack(steps).unsqueeze(1), hidden.unsqueeze(0), cell.unsqueeze(0)


def _gru(call: Call) -> Sequence[Tensor]:
    seen, weight, again, before, after = _gates(call, 2)
    size = again.shape[1]
    hidden = _state(call, 5, seen, size)
    linear = bool(call.get("linear_before_reset", 0))
    steps = []
    for step in seen.unbind(0):
        update, reset, new = F.linear(step, weight, before).chunk(3, -1)
        both = F.linear(hidden, again[: 2 * size], after[: 2 * size]).chunk(2, -1)
        update, reset = (update + both[0]).sigmoid(), (reset + both[1]).sigmoid()
        last = (again[2 * size :], after[2 * size :])
        past = reset * F.linear(hidden, *last) if linear else F.linear(reset * hidden, *last)
        hidden = (1 - update) * (new + past).tanh() + update * hidden
        steps.append(hidden)
    return torch.stack(steps).unsqueeze(1), hidden.unsqueeze(0)


UNARY: dict[str, Function] = {
    "Abs": torch.abs, "Acos": torch.acos, "Asin": torch.asin, "Atan": torch.atan,
    "Ceil": torch.ceil, "Cos": torch.cos, "Cosh": torch.cosh, "Erf": torch.erf,
    "Exp": torch.exp, "Floor": torch.floor, "HardSwish": F.hardswish, "IsNaN": torch.isnan,
    "Log": torch.log, "Mish": F.mish, "Neg": torch.neg, "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal, "Relu": torch.relu, "Round": torch.round,
    "Sigmoid": torch.sigmoid, "Sign": torch.sign, "Sin": torch.sin, "Sinh": torch.sinh,
    "Softplus": F.softplus, "Softsign": F.softsign, "Sqrt": torch.sqrt, "Tan": torch.tan,
    "Tanh": torch.tanh,
}  # fmt: skip

BINARY: dict[str, Function] = {
    "Add": torch.add, "And": torch.logical_and, "Equal": torch.eq, "Greater": torch.gt,
    "GreaterOrEqual": torch.ge, "Less": torch.lt, "LessOrEqual": torch.le, "Mul": torch.mul,
    "Or": torch.logical_or, "Pow": torch.pow, "Sub": torch.sub, "Xor": torch.logical_xor,
    "PRelu": lambda seen, slope: torch.where(seen < 0, slope * seen, seen),
}  # fmt: skip

MANY: dict[str, Function] = {
    "Max": torch.maximum, "Min": torch.minimum, "Sum": torch.add,
}  # fmt: skip

REDUCTIONS: dict[str, Function] = {
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": lambda x, axes, keep: x.square().sum(axes, keep).sqrt(),
    "ReduceLogSumExp": torch.logsumexp, "ReduceMax": torch.amax, "ReduceMean": torch.mean,
    "ReduceMin": torch.amin, "ReduceSum": torch.sum,
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keep),
}  # fmt: skip

OPERATORS: dict[str, Operator] = {
    **{name: _unary(function) for name, function in UNARY.items()},
    **{name: _binary(function) for name, function in BINARY.items()},
    **{name: _many(function) for name, function in MANY.items()},
    **{name: _reduce(function) for name, function in REDUCTIONS.items()},
    "ArgMax": _best(1),
    "ArgMin": _best(-1),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "CastLike": lambda call: call[0].to(call[1].dtype),
    "Celu": lambda call: F.celu(call[0], call.get("alpha", 1.0)),
    "Clip": _clip,
    "Concat": lambda call: torch.cat(call.all(), call.get("axis", 0)),
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _convolution,
    "Div": _divide,
    "Dropout": lambda call: call[0],
    "Elu": lambda call: F.elu(call[0], call.get("alpha", 1.0)),
    "Expand": _expand,
    "Flatten": _flatten,
    "GRU": _gru,
    "Gather": _gather,
    "Gelu": lambda call: F.gelu(call[0], approximate=call.get("approximate", "none")),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda call: call[0].mean(list(range(2, call[0].dim())), True),
    "GlobalMaxPool": lambda call: call[0].amax(list(range(2, call[0].dim())), True),
    "HardSigmoid": _hard_sigmoid,
    "Identity": lambda call: call[0],
    "LSTM": _lstm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda call: F.leaky_relu(call[0], call.get("alpha", 0.01)),
    "LogSoftmax": _softmax(F.log_softmax),
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Selu": _selu,
    "Shape": _shape,
    "Size": lambda call: torch.tensor(call[0].numel()),
    "Slice": _slice,
    "Softmax": _softmax(F.softmax),
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": lambda call: call[0].repeat(_bounded(call.integers("repeats", 1) or [])),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": lambda call: torch.where(call[0], call[1], call[2]),
}  # fmt: skip
"""What each operator computes. None has a loop, and none writes or reads a file."""

SHAPES: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,), "Expand": (1,), "Gather": (1,), "Pad": (1, 2, 3), "Range": (0, 1, 2),
    "Reshape": (1,), "Slice": (1, 2, 3, 4), "Split": (1,), "Squeeze": (1,), "Tile": (1,),
    "Unsqueeze": (1,),
    **dict.fromkeys(REDUCTIONS, (1,)),
}  # fmt: skip
"""Inputs that determine shapes and places: they may not depend on what is observed, so that an
observation takes as much time and memory as every other."""
