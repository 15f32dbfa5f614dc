"""Runs the graph of an ONNX file in torch, for any number of rows at once, on any device.

Only the operators of `onnx_operators.py` run, in the order of the file, and only those that the
wanted outputs need. Shapes follow from those of the inputs and from constants alone: a graph whose
shapes depend on what is observed is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.importers.onnx_file import Node, OnnxFile
from rltransfer.importers.onnx_operators import OPERATORS, SHAPES, Call

MEASURES = ("Shape", "Size")
"""Operators whose output depends on the shape of their input alone."""


class OnnxGraph(nn.Module):
    """The operators that some outputs of a file need.

    Attributes:
        outputs: The names of the outputs.
    """

    def __init__(self, file: OnnxFile, outputs: Sequence[str]) -> None:
        """Checks the graph; nothing is computed.

        Args:
            file: The file.
            outputs: The outputs that are wanted.

        Raises:
            InputError: An operator is not known, a name has no value or two, or a shape depends
                on what is observed.
        """
        super().__init__()
        self.path = file.path
        self.opset = file.opset
        self.outputs = tuple(outputs)
        self.nodes = _needed(file, outputs)
        self.read = {name for node in self.nodes for name in node.inputs} | set(outputs)
        self.weights = {name: one for name, one in file.weights.items() if name in self.read}
        self.constants: set[str] = set(self.weights)
        self.sizes: set[str] = set()
        self.known: dict[str, Tensor] = {}
        """Constants that determine shapes; on the CPU wherever the graph runs."""
        self.places: dict[str, str] = {}
        """The buffers of other constants: a name in a file may be none of Python's."""
        self.steps: list[tuple[Node, list[tuple[str, bool]]]] = []
        """The nodes that run for every batch; each input, and whether it stays on the CPU."""
        self.is_ready = False
        self._sort()

    def num_parameters(self) -> int:
        """Numbers in the weights."""
        return sum(one.numel() for one in self.weights.values() if one.is_floating_point())

    def _sort(self) -> None:
        """Which values are constants, and which follow from shapes alone."""
        for node in self.nodes:
            if node.op not in OPERATORS:
                raise InputError(
                    f"{self.path} cannot be used: its operator {node.op!r} is not supported; "
                    "export the actor alone, save its policy with torch.jit.save, or pass a "
                    "function that calls onnxruntime, as a CallableTeacher."
                )
            names = [name for name in node.inputs if name]
            for place in SHAPES.get(node.op, ()):
                name = node.inputs[place] if place < len(node.inputs) else ""
                if name and name not in self.constants and name not in self.sizes:
                    raise InputError(
                        f"{self.path} cannot be used: a shape or an index of its operator "
                        f"{node.op!r} depends on what is observed."
                    )
            if all(name in self.constants for name in names):
                self.constants.update(node.outputs)
            elif node.op in MEASURES or all(
                name in self.constants or name in self.sizes for name in names
            ):
                self.sizes.update(node.outputs)

    def prepare(self, device: torch.device) -> None:
        """Computes what is the same for all observations, once.

        Args:
            device: Where observations are.
        """
        if self.is_ready:
            return
        values: dict[str, Tensor] = dict(self.weights)
        for node in self.nodes:
            if self.constants.issuperset(node.outputs):
                _call(node, [values[name] if name else None for name in node.inputs], values, self)
        steps: list[tuple[Node, list[tuple[str, bool]]]] = []
        for node in self.nodes:
            if self.constants.issuperset(node.outputs):
                continue
            sources = []
            for place, name in enumerate(node.inputs):
                sources.append((name, self._on_cpu(node, place)))
                if name in self.constants and sources[-1][1]:
                    self.known[name] = values[name]
                elif name in self.constants:
                    self._keep(name, values[name].to(device))
            steps.append((node, sources))
        for name in self.constants.intersection(self.outputs):
            self._keep(name, values[name].to(device))
        # Without their memory, for their number.
        self.weights = {name: one.to("meta") for name, one in self.weights.items()}
        self.steps = steps
        self.is_ready = True

    def _on_cpu(self, node: Node, place: int) -> bool:
        """Whether an input of a node stays on the CPU, as it determines shapes."""
        computes_sizes = self.sizes.issuperset(node.outputs) and node.op not in MEASURES
        return computes_sizes or place in SHAPES.get(node.op, ())

    def _keep(self, name: str, value: Tensor) -> None:
        """Makes a constant a buffer, which moves with the module."""
        if name not in self.places:
            self.places[name] = f"constant_{len(self.places)}"
            self.register_buffer(self.places[name], value, persistent=False)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name.

        Args:
            inputs: The inputs by name.    (rows, ...) each, or as the file declares them

        Raises:
            RuntimeError, ValueError, IndexError, TypeError: The shapes of the inputs do not fit.
        """
        device = next(iter(inputs.values())).device
        self.prepare(device)
        values = dict(inputs)
        values.update((name, getattr(self, place)) for name, place in self.places.items())
        for node, sources in self.steps:
            given: list[Tensor | None] = []
            for name, on_cpu in sources:
                if not name:
                    given.append(None)
                elif on_cpu:
                    given.append(self.known[name] if name in self.known else values[name])
                else:
                    # Sizes are computed on the CPU, and may be numbers to compute with.
                    given.append(values[name].to(device))
            _call(node, given, values, self)
        return {name: values[name] for name in self.outputs}


def _call(
    node: Node, inputs: list[Tensor | None], values: dict[str, Tensor], graph: OnnxGraph
) -> None:
    """Runs one operator, and adds its outputs to the values."""
    found = OPERATORS[node.op](Call(inputs, node.attributes, graph.opset, len(node.outputs)))
    several = [found] if isinstance(found, Tensor) else found
    values.update(zip(node.outputs, several, strict=False))


def _needed(file: OnnxFile, outputs: Sequence[str]) -> list[Node]:
    """The nodes on which the outputs depend, in the order of the file.

    Raises:
        InputError: A name has no value, or two.
    """
    known = {one.name for one in file.inputs} | set(file.weights)
    for node in file.nodes:
        fault = next((name for name in node.inputs if name and name not in known), None)
        twice = next((name for name in node.outputs if name and name in known), None)
        if fault is not None or twice is not None:
            raise InputError(
                f"{file.path} is damaged: its value {fault if twice is None else twice!r} is "
                f"{'used before it is computed' if twice is None else 'computed twice'}."
            )
        known.update(name for name in node.outputs if name)
    for name in outputs:
        if name not in known:
            raise InputError(f"{file.path} is damaged: nothing computes its output {name!r}.")
    wanted, nodes = set(outputs), []
    for node in reversed(file.nodes):
        if wanted.intersection(one for one in node.outputs if one):
            nodes.append(node)
            wanted.update(name for name in node.inputs if name)
    return nodes[::-1]
