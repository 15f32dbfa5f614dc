"""TorchScript programs that take their state as an argument and return it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.importers.torch_file import load_torch_file
from rltransfer.importers.torchscript import ScriptedPolicy

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

TIME, ROWS, SIZE = 12, 5, 7
VECTOR = spaces.Dict({"policy": spaces.Box(-1.0, 1.0, (5,), np.float32)})
MOVES = spaces.Box(-1.0, 1.0, (3,), np.float32)
ROUNDING = {"rtol": 1e-5, "atol": 1e-5}


class Policy(nn.Module):
    """Layers of a policy with a state, with weights so large that memory matters."""

    layers = 1

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.LSTM(5, SIZE, num_layers=self.layers)
        self.gru = nn.GRU(5, SIZE, num_layers=self.layers)
        self.cell = nn.GRUCell(5, SIZE)
        self.actor = nn.Linear(SIZE, 3)
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(0.0, 0.6)


class Cell(Policy):
    """(rows, size) in, (rows, size) out."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(x, h)
        return self.actor(h), h


class Two(Policy):
    """(layers, rows, size) in and out, twice."""

    layers = 2

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out, (h, c) = self.memory(x.unsqueeze(0), (h, c))
        return self.actor(out.squeeze(0)), h, c


class Pair(Policy):
    """A pair in and out, as torch's LSTM has it."""

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        out, state = self.memory(x.unsqueeze(0), state)
        return self.actor(out.squeeze(0)), state


class Mixed(Policy):
    """Two arguments in, a pair out, and changes of its state in place."""

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        out, (after, c) = self.memory(x.unsqueeze(0), (h, c))
        h.copy_(after)
        return self.actor(out.squeeze(0)), (h, c)


class Optional(Policy):
    """A state that may be left out."""

    layers = 3

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        out, h = self.gru(x.unsqueeze(0), h)
        return self.actor(out.squeeze(0)), h


class OneRow(Policy):
    """Takes one observation at a time."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        out, h = self.gru(x.view(1, 1, 5), h)
        return self.actor(out.view(1, 7)), h


class AsTime(Policy):
    """Takes rows for steps."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        out, h = self.gru(x, h)
        return self.actor(out), h


class Uneven(Policy):
    """Two states of different sizes."""

    def forward(self, x: Tensor, h: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = 0.9 * mean + 0.1 * x
        h = self.cell(x - mean, h)
        return self.actor(h), h, mean


def zeros(module: nn.Module, rows: int) -> list[Any]:
    """The state at an episode's start, as the module takes it."""
    count = module.layers if isinstance(module, Policy) else 1
    pair = [torch.zeros(count, rows, SIZE) for _ in range(2)]
    match module:
        case Cell():
            return [torch.zeros(rows, SIZE)]
        case Uneven():
            return [torch.zeros(rows, SIZE), torch.zeros(rows, 5)]
        case Pair():
            return [tuple(pair)]
        case Two() | Mixed():
            return pair
        case AsTime():
            return [torch.zeros(1, SIZE)]
    return pair[:1]


PROGRAMS: dict[str, tuple[Policy, str, int, str]] = {
    "a cell": (Cell(), "together", SIZE, ""),
    "an LSTM of two layers": (Two(), "together", 4 * SIZE, ""),
    "a pair": (Pair(), "together", 2 * SIZE, ""),
    "arguments in, a pair out": (Mixed(), "together", 2 * SIZE, ""),
    "an optional state": (Optional(), "together", 3 * SIZE, ""),
    "one row": (OneRow(), "one by one", SIZE, ""),
    "rows for steps": (AsTime(), "one by one", SIZE, ""),
    "two sizes": (Uneven(), "together", SIZE + 5, f"{SIZE},5"),
    "a shape for all": (Two(), "together", 4 * SIZE, f"2x{SIZE}"),
}


def load(module: nn.Module, path: Path, how: str = "script", state: str = "") -> ScriptedPolicy:
    """The policy of a file, fitted to a task."""
    module.eval()
    script = torch.jit.script(module)
    if how == "frozen":
        script = torch.jit.freeze(script)
    if how == "trace":
        script = torch.jit.trace(module, (torch.zeros(1, 5), *zeros(module, 1)))
    torch.jit.save(script, path)
    policy = load_torch_file(path, {"state": [state]} if state else {})
    assert isinstance(policy, ScriptedPolicy)
    return policy.fitted("a task", VECTOR, MOVES)


@torch.no_grad()
@pytest.mark.parametrize(
    ("case", "how"),
    [
        *((case, "script") for case in PROGRAMS),
        *((case, "frozen") for case in ("an LSTM of two layers", "an optional state")),
        *((case, "trace") for case in ("a cell", "a pair")),
    ],
)
def test_each_row_is_the_module_stepped_by_hand(case: str, how: str, tmp_path: Path) -> None:
    module, mode, size, state_option = PROGRAMS[case]
    loaded = load(module, tmp_path / "policy.pt", how, state_option)
    assert (loaded.state_size, loaded.rows) == (size, mode)
    generator = torch.Generator().manual_seed(2)
    alone = [zeros(module, 1) for _ in range(ROWS)]
    state = torch.full((ROWS, size), 9.0)
    started = torch.zeros(ROWS, size)
    first = torch.ones(ROWS, dtype=torch.bool)
    for _ in range(TIME):
        seen = torch.randn(ROWS, 5, generator=generator)
        expected = []
        for row in range(ROWS):
            before = zeros(module, 1) if first[row] else alone[row]
            action, *after = module(seen[row : row + 1], *before)
            expected.append(action.flatten())
            # Mixed returns as a pair what it takes as two arguments.
            alone[row] = list(after[0]) if isinstance(module, Mixed) else after
        output = loaded({"policy": seen}, state=state, start=first)
        torch.testing.assert_close(output.mean, torch.stack(expected), **ROUNDING)
        unbroken = loaded({"policy": seen}, state=started)
        state, started = output.state, unbroken.state
        first = torch.rand(ROWS, generator=generator) < 0.3
    # Memory matters, and so does forgetting where an episode starts.
    assert (unbroken.mean - output.mean).abs().max() > 1e-3
    assert loaded.fitted("a second task", VECTOR, MOVES).state_size == size


def test_it_has_a_jacobian(tmp_path: Path) -> None:
    module = Cell()
    loaded = load(module, tmp_path / "policy.pt")
    seen = torch.randn(2, 5, requires_grad=True)
    output = loaded({"policy": seen}, frozenset({"jacobian"}), torch.ones(2, SIZE))
    (found,) = torch.autograd.grad(output.mean[:, 0].sum(), seen)
    (expected,) = torch.autograd.grad(module(seen, torch.ones(2, SIZE))[0][:, 0].sum(), seen)
    torch.testing.assert_close(found, expected, **ROUNDING)


class Value(Policy):
    """Outputs a value in addition."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.cell(x, h)
        return self.actor(h), x.sum(-1), h


class Masked(Policy):
    """Takes the starts of episodes in addition."""

    def forward(self, x: Tensor, h: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(x, h * (1 - start))
        return self.actor(h), h


class Forgetting(Policy):
    """Does not return its state."""

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return self.actor(self.cell(x, h))


class Average(nn.Module):
    """Works with a state of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.actor = nn.Linear(5, 3)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = h + x.mean()
        return self.actor(x) + h.mean(), h


class Counting(Cell):
    """Counts its observations in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        self.count += 1
        h = self.cell(x, h)
        return self.actor(h) / self.count, h


RETURNS = "but does not return an action and as many tensors of a state: export a program"
REFUSED = {
    "a value": (Value(), "", f"takes 'h' in addition to an observation, {RETURNS}"),
    "starts": (Masked(), "", f"takes 'h', 'start' in addition to an observation, {RETURNS}"),
    "no state after": (Forgetting(), "", f"takes 'h' in addition to an observation, {RETURNS}"),
    "any size": (Average(), "", "may have several shapes, such as '3' and '5': set one, e.g. `"),
    "sizes that are not tried": (Uneven(), "", "of any shape that was tried to an action and a"),
    "another shape": (Cell(), "1x6", "a state of the shape '1x6' to an action and a state of the"),
    "no shape": (Cell(), "7 x 1", r"is '7 x 1': write `\?state=256` for \(rows, 256\), or"),
    "no size": (Cell(), "0", "is '0': write"),
    "too large": (Cell(), "9x999999", "is '9x999999': it may have 1,048,576 numbers"),
    "too many shapes": (Cell(), "7,7", "the program takes 1 tensors: write one shape for each"),
    "no state": (nn.Linear(5, 3), "7", "does not take and return a state: leave out the option"),
    "a buffer, too": (Counting(), "", r"keeps a state between observations \(count\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_programs_are_refused(case: str, tmp_path: Path) -> None:
    module, state, sentence = REFUSED[case]
    with pytest.raises(InputError, match=sentence) as error:
        load(module, tmp_path / "policy.pt", state=state)
    assert str(error.value).endswith(".")


def test_a_shape_tells_which_of_several_a_program_takes(tmp_path: Path) -> None:
    loaded = load(Average(), tmp_path / "policy.pt", state="5")
    assert loaded.state_size == 5
