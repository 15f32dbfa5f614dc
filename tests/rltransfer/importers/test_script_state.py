"""TorchScript programs that keep the state of one environment remember each row."""

from __future__ import annotations

import copy
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.importers.rsl_rl import load_rsl_rl
from rltransfer.importers.script_lstm import FILE, SOURCE, without_lstm
from rltransfer.importers.torchscript import ScriptedPolicy, load_torchscript

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

TIME, ROWS, SIZE = 8, 5, 7
VECTOR = spaces.Dict({"policy": spaces.Box(-1.0, 1.0, (5,), np.float32)})
THREE = spaces.Discrete(3)
MOVES = spaces.Box(-1.0, 1.0, (3,), np.float32)
ROUNDING = {"rtol": 1e-5, "atol": 1e-5}


def boosted(module: nn.Module) -> None:
    """Makes weights large, so that memory and gates matter."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.6)


class Exported(nn.Module):
    """What legged_gym, unitree_rl_gym and rsl_rl export: an LSTM with its state, and an MLP."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.memory = nn.LSTM(5, SIZE, **options)
        self.actor = nn.Sequential(nn.Linear(SIZE, 6), nn.ELU(), nn.Linear(6, 3))
        shape = (self.memory.num_layers, 1, SIZE)
        self.register_buffer("hidden_state", torch.zeros(shape))
        self.register_buffer("cell_state", torch.zeros(shape))
        boosted(self)

    def forward(self, x: Tensor) -> Tensor:
        out, (h, c) = self.memory(x.unsqueeze(0), (self.hidden_state, self.cell_state))
        self.hidden_state[:] = h
        self.cell_state[:] = c
        return self.actor(out.squeeze(0))

    @torch.jit.export
    def reset_memory(self) -> None:
        self.hidden_state[:] = 0.0
        self.cell_state[:] = 0.0


class ExportedGRU(nn.Module):
    """The same with a GRU, in a module of its own, with a state that is replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Remembering()
        self.actor = nn.Linear(SIZE, 3)
        boosted(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.actor(self.inner(x))


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(5, SIZE, num_layers=2)
        self.register_buffer("hidden", torch.zeros(2, 1, SIZE))

    def forward(self, x: Tensor) -> Tensor:
        out, hidden = self.rnn(x.unsqueeze(0), self.hidden)
        self.hidden = hidden
        return out.squeeze(0)


class OneRow(Exported):
    """Takes one observation at a time, and no batch."""

    def forward(self, x: Tensor) -> Tensor:
        out, (h, c) = self.memory(x.view(1, 1, 5), (self.hidden_state, self.cell_state))
        self.hidden_state[:] = h
        self.cell_state[:] = c
        return self.actor(out.view(7))


class Mixing(Exported):
    """Subtracts from the memory its mean over rows, which is 0 of a single one."""

    def forward(self, x: Tensor) -> Tensor:
        out, (h, c) = self.memory(x.unsqueeze(0), (self.hidden_state, self.cell_state))
        self.hidden_state[:] = h
        self.cell_state[:] = c
        out = out.squeeze(0)
        return self.actor(out - out.mean(0, keepdim=True) + out)


class AsTime(Exported):
    """Takes rows for steps."""

    def forward(self, x: Tensor) -> Tensor:
        out, (h, c) = self.memory(x.unsqueeze(1), (self.hidden_state, self.cell_state))
        self.hidden_state[:] = h
        self.cell_state[:] = c
        return self.actor(out.squeeze(1))


PROGRAMS: dict[str, tuple[nn.Module, str]] = {
    "LSTM": (Exported(), "together"),
    "two layers": (Exported(num_layers=2), "together"),
    "without biases": (Exported(num_layers=2, bias=False), "together"),
    "GRU": (ExportedGRU(), "together"),
    "one row": (OneRow(), "one by one"),
    "rows that are mixed": (Mixing(), "one by one"),
    "rows for steps": (AsTime(), "one by one"),
}


def load(module: nn.Module, path: Path, how: str = "script") -> ScriptedPolicy:
    script = torch.jit.script(module.eval())
    torch.jit.save(torch.jit.freeze(script) if how == "freeze" else script, path)
    return load_torchscript(path).fitted("a task", VECTOR, MOVES)


@torch.no_grad()
@pytest.mark.parametrize("case", PROGRAMS)
def test_each_row_is_an_environment_of_its_own(case: str, tmp_path: Path) -> None:
    module, mode = PROGRAMS[case]
    loaded = load(module, tmp_path / "policy.pt")
    size = sum(one.numel() for one in module.buffers())
    assert (loaded.state_size, loaded.rows) == (size, mode)
    generator = torch.Generator().manual_seed(2)
    alone = [copy.deepcopy(module) for _ in range(ROWS)]
    state = torch.full((ROWS, size), 9.0)
    started = torch.zeros(ROWS, size)
    first = torch.ones(ROWS, dtype=torch.bool)
    for _ in range(TIME):
        seen = torch.randn(ROWS, 5, generator=generator)
        for one, begins in zip(alone, first, strict=True):
            for buffer in one.buffers():
                buffer.mul_(not begins)
        expected = torch.stack(
            [one(row[None]).flatten() for one, row in zip(alone, seen, strict=True)]
        )
        output = loaded({"policy": seen}, state=state, start=first)
        torch.testing.assert_close(output.mean, expected, **ROUNDING)
        unbroken = loaded({"policy": seen}, state=started)
        state, started = output.state, unbroken.state
        first = torch.rand(ROWS, generator=generator) < 0.3
    # Memory matters, and so does forgetting where an episode starts.
    assert (unbroken.mean - output.mean).abs().max() > 1e-3
    # The program itself is as it was.
    assert not any(one.any() for one in loaded.script.buffers())
    assert loaded.fitted("a second task", VECTOR, MOVES).state_size == size


class Sequences(nn.Module):
    """An LSTM over a sequence of observations, without a state."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, SIZE, **options)
        boosted(self)

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.stack([x, 2 * x, 3 * x], 1 if self.lstm.batch_first else 0)
        out, (h, c) = self.lstm(steps)
        last = out[:, -1] if self.lstm.batch_first else out[-1]
        return last[:, :3] + h[0, :, :3] + c[-1, :, :3]


@torch.no_grad()
@pytest.mark.parametrize("how", ["script", "freeze"])
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 3}, {"batch_first": True}, {"bias": False}, {"dropout": 0.5}]
)
def test_an_lstm_computes_what_torch_computes(
    how: str, options: dict[str, Any], tmp_path: Path
) -> None:
    module = Sequences(**options)
    loaded = load(module, tmp_path / "policy.pt", how)
    seen = torch.randn(ROWS, 5)
    torch.testing.assert_close(loaded({"policy": seen}).mean, module(seen), **ROUNDING)
    assert loaded.state_size == 0


class Unbatched(nn.Module):
    """Takes rows for the steps of a sequence."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.memory = kind(5, 3)
        boosted(self)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.memory(x)
        return out


@torch.no_grad()
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_rows_are_not_the_steps_of_a_sequence(
    kind: type[nn.LSTM] | type[nn.GRU], tmp_path: Path
) -> None:
    module = Unbatched(kind)
    loaded = load(module, tmp_path / "policy.pt")
    seen = torch.randn(ROWS, 5)
    expected = torch.cat([module(row) for row in seen.split(1)])
    torch.testing.assert_close(loaded({"policy": seen}).mean, expected, **ROUNDING)
    assert loaded.rows != "together" and (module(seen) - expected).abs().max() > 1e-3


@torch.no_grad()
def test_a_traced_lstm_is_read(tmp_path: Path) -> None:
    module = Sequences().eval()
    torch.jit.save(torch.jit.trace(module, torch.zeros(2, 5)), tmp_path / "policy.pt")
    loaded = load_torchscript(tmp_path / "policy.pt").fitted("a task", VECTOR, MOVES)
    seen = torch.randn(ROWS, 5)
    torch.testing.assert_close(loaded({"policy": seen}).mean, module(seen), **ROUNDING)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_what_rsl_rl_exports_is_its_checkpoint(kind: str, tmp_path: Path) -> None:
    models = pytest.importorskip("rsl_rl.models")
    observed = {"policy": torch.zeros(1, 5)}
    model = models.RNNModel(
        observed, {"actor": ["policy"]}, "actor", 3, [6], obs_normalization=True,
        rnn_type=kind, rnn_hidden_dim=SIZE, rnn_num_layers=2,
    ).eval()  # fmt: skip
    boosted(model.rnn)
    torch.save({"actor_state_dict": model.state_dict()}, tmp_path / "model.pt")
    checkpoint = load_rsl_rl(tmp_path / "model.pt")
    exported = load(model.as_jit(), tmp_path / "policy.pt")
    ours = theirs = None
    for _ in range(TIME):
        seen = {"policy": torch.randn(ROWS, 5)}
        ours = checkpoint(seen, state=None if ours is None else ours.state)
        theirs = exported(seen, state=None if theirs is None else theirs.state)
        torch.testing.assert_close(theirs.mean, ours.mean, **ROUNDING)


class Halfway(Exported):
    def __init__(self) -> None:
        super().__init__()
        self.cell_state += 0.5


class Statistics(Exported):
    """Counts its observations in addition."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += len(x)
        out, (h, c) = self.memory(x.unsqueeze(0), (self.hidden_state, self.cell_state))
        self.hidden_state[:] = h
        self.cell_state[:] = c
        return self.actor(out.squeeze(0)) / self.count


class Large(nn.Module):
    """Keeps more than any policy."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("hidden", torch.zeros(1, 1, 2**20 + 1))

    def forward(self, x: Tensor) -> Tensor:
        self.hidden += 1
        return x[:, :3] + self.hidden[0, 0, :3]


class Growing(Exported):
    """Adds a layer to its state at each step."""

    def forward(self, x: Tensor) -> Tensor:
        self.hidden_state = torch.cat([self.hidden_state, self.hidden_state[:1] + 1])
        return x[:, :3] + self.hidden_state.sum()


REFUSED = {
    "in the middle of an episode": (
        Halfway(),
        r"as its state \(hidden_state, cell_state\) is not 0: reset it, and save it again",
    ),
    "statistics": (
        Statistics(),
        r"keeps a state between observations \(hidden_state, cell_state, count\), for one env",
    ),
    "too large a state": (Large(), r"keeps a state between observations \(hidden\), for one env"),
    "a state that grows": (Growing(), "does not map observations"),
    "two directions": (Sequences(bidirectional=True), "does not map observations"),
    "projections": (Sequences(proj_size=3), "does not map observations"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_states_are_refused(case: str, tmp_path: Path) -> None:
    module, sentence = REFUSED[case]
    with pytest.raises(InputError, match=sentence) as error:
        load(module, tmp_path / "policy.pt")
    assert str(error.value).endswith(".")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("weight_hh_l0", (3, 3)),
        ("weight_ih_l0", (28, 4)),
        ("bias_ih_l0", (27,)),
        ("weight_hh_l0", (28, 6)),
    ],
)
def test_weights_of_other_sizes_are_refused(
    name: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    script = torch.jit.script(Exported().eval())
    setattr(script.memory, name, nn.Parameter(torch.zeros(shape)))
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    script.memory._flat_weights = [getattr(script.memory, one) for one in names]
    torch.jit.save(script, tmp_path / "policy.pt")
    loaded = load_torchscript(tmp_path / "policy.pt")
    with pytest.raises(InputError, match="does not map observations"):
        loaded.fitted("a task", VECTOR, MOVES)


def test_a_state_has_no_jacobian(tmp_path: Path) -> None:
    loaded = load(Exported(), tmp_path / "policy.pt")
    with pytest.raises(InputError, match="changes its state in place, so that it has no gradient"):
        loaded({"policy": torch.zeros(2, 5)}, frozenset({"jacobian"}))


def test_only_calls_of_dense_lstms_are_replaced() -> None:
    dense = "a, b, c, = torch.lstm(x, [h, c], w, True, 1, 0., False, False, False)"
    packed = "a, b, c, = torch.lstm(x, sizes, [h, c], w, True, 1, 0., False, False)"
    cell = "h, c, = torch.lstm_cell(x, [h, c], w, w, b, b)"
    lines = [dense, packed, cell, "d = (my.torch).lstm(x, [h], w, True, 1, 0., False, False, 0)"]
    sources = {"code/__torch__.py": "\n".join(lines).encode()}
    found = without_lstm(sources)
    assert found[FILE] == SOURCE
    replaced = dense.replace("torch.lstm", "__torch__.rltransfer_lstm.lstm")
    assert found["code/__torch__.py"].decode().split("\n") == [replaced, *lines[1:]]
    twice = {"code/__torch__.py": f"y = f({dense[11:]}, {dense[11:]})".encode()}
    assert without_lstm(twice)["code/__torch__.py"].count(b"__torch__.rltransfer_lstm.lstm") == 2
    assert without_lstm({"code/__torch__.py": packed.encode()}).keys() == {"code/__torch__.py"}
    with pytest.raises(ValueError, match="a second file"):
        without_lstm({**sources, FILE: b""})


def test_a_file_with_the_name_of_ours_is_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "policy.pt", tmp_path / "other.pt"
    torch.jit.save(torch.jit.script(Exported().eval()), path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        new.writestr(f"{old.namelist()[0].partition('/')[0]}/{FILE}", SOURCE)
    with pytest.raises(InputError, match="is not a TorchScript file, or is damaged"):
        load_torchscript(other)
