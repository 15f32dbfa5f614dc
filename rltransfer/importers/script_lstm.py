"""LSTMs in TorchScript programs, as a loop over torch's LSTM cell, which checks all sizes.

The operator `aten::lstm` reads its weights without checking their number and sizes, so no program
that has it runs. Before torch reads a program, each call of it becomes one of a function that
computes the same. What torch then reads is checked as any other program.
"""

from __future__ import annotations

import ast

NAME = "rltransfer_lstm"
"""The module of the function in the program."""

FILE = f"code/__torch__/{NAME}.py"
"""The file of the function in the archive."""

ARGUMENTS = 9
"""Arguments of `torch.lstm`."""

HAS_BIASES = 3
"""The place of the first flag among them. For packed sequences, which stay, it is one further."""

SOURCE = b"""
def lstm(input: Tensor,
    hx: List[Tensor],
    params: List[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool) -> Tuple[Tensor, Tensor, Tensor]:
  if bidirectional:
    ops.prim.RaiseException("an LSTM with two directions")
  else:
    pass
  if batch_first:
    steps = torch.transpose(input, 0, 1)
  else:
    steps = input
  if has_biases:
    each = 4
  else:
    each = 2
  if torch.ne(torch.len(params), torch.mul(each, num_layers)):
    ops.prim.RaiseException("an LSTM with projections")
  else:
    pass
  hidden = annotate(List[Tensor], [])
  cells = annotate(List[Tensor], [])
  steps0 = steps
  for layer in range(num_layers):
    first = torch.mul(each, layer)
    w_ih = params[first]
    w_hh = params[torch.add(first, 1)]
    h = torch.select(hx[0], 0, layer)
    c = torch.select(hx[1], 0, layer)
    outputs = annotate(List[Tensor], [])
    h0 = h
    c0 = c
    for step in range(torch.size(steps0, 0)):
      seen = torch.select(steps0, 0, step)
      if has_biases:
        b_ih = params[torch.add(first, 2)]
        b_hh = params[torch.add(first, 3)]
        h2, c2, = torch.lstm_cell(seen, [h0, c0], w_ih, w_hh, b_ih, b_hh)
        h1, c1 = h2, c2
      else:
        h3, c3, = torch.lstm_cell(seen, [h0, c0], w_ih, w_hh)
        h1, c1 = h3, c3
      _0 = torch.append(outputs, h1)
      h0, c0 = h1, c1
    _1 = torch.append(hidden, h0)
    _2 = torch.append(cells, c0)
    steps0 = torch.stack(outputs)
  if batch_first:
    steps1 = torch.transpose(steps0, 0, 1)
  else:
    steps1 = steps0
  return (steps1, torch.stack(hidden), torch.stack(cells))
"""
"""The function, as TorchScript writes programs. Dropout has no effect outside of training."""


def without_lstm(sources: dict[str, bytes]) -> dict[str, bytes]:
    """The program with a call of the function in place of each LSTM; the same if it has none.

    Args:
        sources: The source of each file, in ASCII, by its name such as "code/__torch__/a.py".

    Raises:
        ValueError: The program has a file of this name, too.
    """
    changed = {name: _replaced(source.decode("ascii")) for name, source in sources.items()}
    if all(changed[name] == source.decode("ascii") for name, source in sources.items()):
        return sources
    if FILE in sources:
        raise ValueError("a second file of one name")
    return {**{name: text.encode() for name, text in changed.items()}, FILE: SOURCE}


def _is_flag(value: ast.expr) -> bool:
    """Whether an argument is written as true or false."""
    return isinstance(value, ast.Constant) and isinstance(value.value, bool)


def _replaced(text: str) -> str:
    """The source of a file with the calls replaced."""
    lines = text.split("\n")
    calls = [
        node.func
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "torch.lstm"
        and len(node.args) == ARGUMENTS
        and _is_flag(node.args[HAS_BIASES])
    ]
    # From the end, so that the places of earlier calls stay.
    for call in sorted(calls, key=lambda one: (one.lineno, one.col_offset), reverse=True):
        line = lines[call.lineno - 1]
        if line[call.col_offset : call.end_col_offset] == "torch.lstm":
            rest = line[call.end_col_offset :]
            lines[call.lineno - 1] = f"{line[: call.col_offset]}__torch__.{NAME}.lstm{rest}"
    return "\n".join(lines)
