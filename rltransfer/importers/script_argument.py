"""The recurrent state that a TorchScript program takes as an argument and returns.

Exporters of recurrent policies write `forward(observation, h) -> (action, h)`. An LSTM has two
tensors, one after the other or as a tuple: `forward(observation, h, c) -> (action, h, c)` or
`(action, (h, c))`. Each tensor has the shape (rows, size) or (layers, rows, size).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.importers.script_check import nodes
from rltransfer.importers.script_state import LARGEST

Shape = tuple[int, ...]
"""(size,) of a tensor (rows, size), or (layers, size) of a tensor (layers, rows, size)."""

MOST_LAYERS = 4
"""Layers of the shapes that are tried; more are an option of the file."""

EXAMPLES = "`?state=256` for (rows, 256), or `?state=1x256` for (1, rows, 256)"
"""How the shape of a state is written, for errors."""

CONTIGUOUS = torch.contiguous_format

_SHAPE = re.compile(r"([1-9]\d{0,6}x)?[1-9]\d{0,6}", re.ASCII)


class ArgumentStates:
    """A state that is passed to the program, and read from what it returns.

    Attributes:
        state_size: Numbers in the state of a row.
    """

    def __init__(self, forms: Sequence[Any], shapes: Sequence[Shape]) -> None:
        """Creates it.

        Args:
            forms: Each argument after the observation; None for a tensor, or a tuple of forms.
            shapes: The shape of each tensor in them.
        """
        self.forms = tuple(forms)
        self.shapes = tuple(shapes)
        self.sizes = [torch.Size(shape).numel() for shape in shapes]
        self.state_size = sum(self.sizes)

    def run(
        self, script: torch.jit.ScriptModule, inputs: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The output of the program for some rows, and their states.

        Args:
            script: The program.
            inputs: What it reads.    (rows, ...)
            state: The states before.    (rows, state_size)

        Raises:
            RuntimeError: The program fails, or changes the shape or type of its state.
        """
        rows = len(inputs)
        parts = zip(state.split(self.sizes, 1), self.shapes, strict=True)
        # Copies in any case, as the program may change them in place.
        before = [
            _with_layers_first(part.reshape(rows, *shape)).clone(memory_format=CONTIGUOUS)
            for part, shape in parts
        ]
        passed = iter(before)
        output, *after = _flat(script(inputs, *(_nested(form, passed) for form in self.forms)))
        if [(one.shape, one.dtype) for one in after] != [(one.shape, one.dtype) for one in before]:
            raise RuntimeError("its state changes its shape or type")
        # Swapping layers and rows twice changes nothing.
        states = [_with_layers_first(one).reshape(rows, -1) for one in after]
        return output, torch.cat(states, 1)


def find_states(
    script: torch.jit.ScriptModule,
    path: Path,
    shapes: Sequence[Shape],
    runs: Callable[[ArgumentStates], bool],
) -> ArgumentStates | None:
    """The state that a program takes as an argument and returns; None if it takes none.

    A shape counts as found if the program runs with it and returns a state of the same shape. Of
    several with one size, the first of `possible_shapes` counts.

    Args:
        script: The program.
        path: Its file, for errors.
        shapes: What the user wrote; empty to try those of `possible_shapes`.
        runs: Whether the program runs with these states on an observation of the task.

    Raises:
        InputError: It needs other arguments, or runs with no shape, or with several sizes.
    """
    forms = _argument_forms(script, path)
    if not forms:
        if shapes:
            raise InputError(
                f"The teacher {path} does not take and return a state: leave out the option "
                "`state`."
            )
        return None
    count = len(_flat(tuple(forms)))
    if len(shapes) not in (0, 1, count):
        raise InputError(
            f"The state of the teacher {path} is {_written(shapes)!r}, but the program takes "
            f"{count} tensors: write one shape for each, or one for all."
        )
    found: list[ArgumentStates] = []
    for one_size in [[tuple(shapes)]] if shapes else possible_shapes(script):
        each = (ArgumentStates(forms, one * (count // len(one))) for one in one_size)
        found += itertools.islice(filter(runs, each), 1)
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"The teacher {path} takes a state that may have several shapes, such as "
            f"{_written(found[0].shapes)!r} and {_written(found[1].shapes)!r}: set one, e.g. "
            f"{EXAMPLES}."
        )
    tried = f"of the shape {_written(shapes)!r}" if shapes else "of any shape that was tried"
    raise InputError(
        f"The program of the teacher {path} does not map an observation of the task and a state "
        f"{tried} to an action and a state of the same shape: use a task that it fits, and set the "
        f"shape of its state, e.g. {EXAMPLES}."
    )


def _argument_forms(script: torch.jit.ScriptModule, path: Path) -> list[Any]:
    """The arguments after the observation: None for a tensor, a tuple of such for a tuple.

    Empty for a program without a state, also if it has arguments with defaults.

    Raises:
        InputError: It needs other arguments, or does not return as many tensors as it takes.
    """
    method: Any = script.forward
    more, returned = method.schema.arguments[2:], _form(method.schema.returns[0].type)
    forms = [_form(one.type) for one in more]
    count = len(_flat(returned)) - 1
    others = any(one is not None for one in _flat((*forms, returned)))
    if more and not others and len(_flat(tuple(forms))) == count:
        return forms
    needed = [one.name for one in more if not one.has_default_value()]
    if not needed:
        return []
    raise InputError(
        f"The teacher {path} takes {', '.join(map(repr, needed))} in addition to an observation, "
        "but does not return an action and as many tensors of a state: export a program "
        "forward(observation, h) that returns (action, h), or for an LSTM one of "
        "(observation, h, c) that returns (action, h, c)."
    )


def shapes_of_text(text: str, path: Path) -> tuple[Shape, ...]:
    """The shapes that the option `state` contains, e.g. "1x256" or, of two tensors, "1x256,1x64".

    Raises:
        InputError: It is not written so, or too large.
    """
    words = text.split(",")
    if not all(_SHAPE.fullmatch(word) for word in words):
        raise InputError(f"The state of the teacher {path} is {text!r}: write {EXAMPLES}.")
    shapes = tuple(tuple(map(int, word.split("x"))) for word in words)
    if sum(torch.Size(shape).numel() for shape in shapes) > LARGEST:
        raise InputError(
            f"The state of the teacher {path} is {text!r}: it may have {LARGEST:,} numbers."
        )
    return shapes


def possible_shapes(script: torch.jit.ScriptModule) -> Iterator[list[tuple[Shape]]]:
    """For each size that a tensor of the program has, the shapes that a state may have."""
    constants = [
        node.t("value")
        for node in nodes(script.inlined_graph)  # of a frozen program, its weights
        if node.kind() == "prim::Constant" and node.hasAttribute("value")
        if node.kindOf("value") == "t"
    ]
    tensors = [*script.parameters(), *script.buffers(), *constants]
    for size in sorted({size for one in tensors for size in one.shape if size}):
        layers = [
            ((count, size),) for count in range(1, MOST_LAYERS + 1) if count * size <= LARGEST
        ]
        yield [((size,),), *layers] if layers else []


def _written(shapes: Sequence[Shape]) -> str:
    """Shapes as the option `state` contains them."""
    return ",".join("x".join(map(str, shape)) for shape in shapes)


def _with_layers_first(tensor: Tensor) -> Tensor:
    """Swaps rows and layers, if there are layers."""
    return tensor.transpose(0, 1) if tensor.dim() == 3 else tensor


def _form(kind: Any) -> Any:
    """The form of a type of TorchScript: None, a tuple, or the name of another type."""
    if kind.kind() == "OptionalType":
        kind = kind.getElementType()
    if kind.kind() == "TupleType":
        return tuple(_form(one) for one in kind.elements())
    return None if kind.kind() == "TensorType" else str(kind)


def _nested(form: Any, tensors: Iterator[Tensor]) -> Any:
    """The next tensors in a form."""
    return next(tensors) if form is None else tuple(_nested(one, tensors) for one in form)


def _flat(value: Any) -> list[Any]:
    """What nested tuples contain."""
    return [one for part in value for one in _flat(part)] if isinstance(value, tuple) else [value]
