"""A TorchScript program is tried before it teaches, and may touch no other file."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.importers.torchscript import ScriptedPolicy, is_torchscript, load_torchscript

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

VECTOR = spaces.Dict({"policy": spaces.Box(-1.0, 1.0, (5,), np.float32)})
IMAGE = spaces.Dict({"policy": spaces.Box(0, 255, (2, 6, 6), np.uint8)})
GROUPS = spaces.Dict(
    {
        "privileged": spaces.Box(-1.0, 1.0, (2,), np.float32),
        "policy": spaces.Box(-1.0, 1.0, (3,), np.float32),
    }
)
THREE = spaces.Discrete(3)
MOVES = spaces.Box(-1.0, 1.0, (3,), np.float32)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy.pt"


def script(module: nn.Module, path: Path) -> Path:
    """Writes a program, and returns where it is."""
    torch.jit.save(torch.jit.script(module), path)
    return path


@pytest.mark.parametrize("how", ["script", "trace", "freeze"])
def test_a_program_says_the_same(how: str, path: Path) -> None:
    module = network().eval()
    made = torch.jit.trace(module, torch.zeros(1, 5)) if how == "trace" else None
    made = made or torch.jit.script(module)
    torch.jit.save(torch.jit.freeze(made) if how == "freeze" else made, path)
    loaded = load_torchscript(path).fitted("a task", VECTOR, THREE)
    seen = torch.randn(7, 5)
    output = loaded({"policy": seen})
    torch.testing.assert_close(output.logits, module(seen))
    assert output.q_values is None and output.mean is None
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    # 5 x 8 + 8 + 8 x 3 + 3 = 75; a frozen program has constants instead.
    assert loaded.num_parameters() == (0 if how == "freeze" else 75)


def test_the_task_tells_what_it_says(path: Path) -> None:
    loaded = load_torchscript(script(network(), path))
    seen = {"policy": torch.randn(2, 5)}
    with pytest.raises(ValueError, match="when it is fitted"):
        loaded(seen)
    assert loaded.fitted("a task", VECTOR, MOVES)(seen).mean is not None
    assert loaded.fitted("a task", VECTOR, THREE)(seen).logits is not None
    asked = load_torchscript(path, "q_values").fitted("a task", VECTOR, THREE)
    assert asked(seen).q_values is not None and asked(seen).logits is None
    assert asked.preprocessing() == {"groups": ["policy"], "scale": 1.0}


def test_images_are_scaled_and_padding_is_cut_off(path: Path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
    loaded = load_torchscript(script(module, path), scale=1 / 255).fitted("a task", IMAGE, THREE)
    seen = torch.randint(0, 256, (4, 2, 6, 6), dtype=torch.uint8)
    expected = module(seen.float() / 255)
    torch.testing.assert_close(loaded({"policy": seen}).logits, expected)
    padded = torch.cat([seen, seen], 1)
    torch.testing.assert_close(loaded({"policy": padded}).logits, expected)


def test_several_groups_are_read_side_by_side(path: Path) -> None:
    module = network()
    loaded = load_torchscript(script(module, path), groups=("privileged", "policy"))
    loaded = loaded.fitted("a task", GROUPS, MOVES)
    first, second = torch.randn(4, 2), torch.randn(4, 3)
    padded = torch.cat([second, torch.ones(4, 1)], 1)
    said = loaded({"policy": padded, "privileged": first}).mean
    torch.testing.assert_close(said, module(torch.cat([first, second], 1)))


class Counter(nn.Module):
    """Says something else at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, seen: Tensor) -> Tensor:
        self.calls += 1
        return seen[:, :3] + self.calls


class Recurrent(nn.Module):
    """Keeps the state of one environment, as rsl_rl exports recurrent policies."""

    def __init__(self, kind: type[nn.GRU]) -> None:
        super().__init__()
        self.memory = kind(5, 3)
        self.register_buffer("hidden", torch.zeros(1, 1, 3))

    def forward(self, seen: Tensor) -> Tensor:
        out, hidden = self.memory(seen.unsqueeze(0), self.hidden)
        self.hidden[:] = hidden
        return out.squeeze(0)


class Single(nn.Module):
    """Takes one observation at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, seen: Tensor) -> Tensor:
        return self.layer(seen.view(1, 5))


class Branching(Single):
    """Takes one observation at a time, and a branch that depends on it."""

    def forward(self, seen: Tensor) -> Tensor:
        row = seen.view(1, 5)
        if bool(row.sum() > 0):
            return self.layer(row)
        return -self.layer(row)


class Pair(nn.Module):
    """Says two things."""

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        return seen[:, :3], seen


REFUSED: dict[str, tuple[nn.Module, dict[str, Any], spaces.Dict, spaces.Space[Any], str]] = {
    "other observations": (
        network(), {}, IMAGE, THREE, r"not map observations of the shape \[2, 6, 6\] to one tensor"
    ),
    "other actions": (
        network(), {}, VECTOR, spaces.Discrete(4), r"outputs the shape \[3, 3\] for 3 observations"
    ),
    "a kind that the task has not": (
        network(), {"output": "mean"}, VECTOR, THREE, "outputs 'mean', but .* takes Discrete"
    ),
    "a group that is not there": (
        network(), {"groups": ("camera",)}, VECTOR, THREE, "the group 'camera'"
    ),
    "a state": (Counter(), {}, VECTOR, THREE, r"keeps a state between observations \(calls\)"),
    "a recurrent layer for other observations": (
        Recurrent(nn.GRU), {}, IMAGE, THREE, r"not map observations of the shape \[2, 6, 6\]"
    ),
    "noise": (nn.Dropout(0.5).train(), {}, VECTOR, spaces.Discrete(5), ""),
    "two outputs": (Pair(), {}, VECTOR, THREE, "to one tensor, but the task shows"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case: str, path: Path) -> None:
    module, options, observed, actions, sentence = REFUSED[case]
    loaded = load_torchscript(script(module, path), **options)
    if not sentence:  # in evaluation mode nothing is dropped
        assert loaded.fitted("a task", observed, actions)
        return
    with pytest.raises(InputError, match=sentence):
        loaded.fitted("a task", observed, actions)


@pytest.mark.parametrize(("kind", "mode"), [(Single, "vmap"), (Branching, "one by one")])
def test_a_program_for_one_row_runs_for_each(kind: type[Single], mode: str, path: Path) -> None:
    module = kind()
    loaded = load_torchscript(script(module, path)).fitted("a task", VECTOR, THREE)
    assert isinstance(loaded, ScriptedPolicy) and loaded.rows == mode
    seen = torch.randn(7, 5)
    expected = torch.cat([module(row) for row in seen.split(1)])
    torch.testing.assert_close(loaded({"policy": seen}).logits, expected)


class Picky(Single):
    """Fails on some observations."""

    def forward(self, seen: Tensor) -> Tensor:
        if bool(seen.max() > 100):
            raise ValueError("too far")
        return self.layer(seen)


def test_a_program_that_fails_later_is_told(path: Path) -> None:
    loaded = load_torchscript(script(Picky(), path)).fitted("a task", VECTOR, THREE)
    seen = {"policy": torch.full((4, 5), 200.0)}
    sentence = r"policy.pt fails on 4 observations of the shape \[5\]: .*ValueError: too far\.$"
    with pytest.raises(InputError, match=sentence):
        loaded(seen)


class Writer(nn.Module):
    """Writes a file when it is asked for an action."""

    def forward(self, seen: Tensor) -> Tensor:
        torch.save(seen, "written")
        return seen[:, :3]


def rewritten(path: Path, old: bytes, new: bytes) -> None:
    """Puts other words into the program of an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(old, new) if name.endswith(".py") else content)


SPELLINGS = [
    b"torch.save(",
    b"ops.aten.save(",
    b'getattr(torch, "sav\\145")(',
    b'getattr(torch, "sa" "ve")(',
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_program_that_writes_is_not_run(
    spelling: bytes, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rewritten(script(Writer(), path), b"torch.save(", spelling)
    with pytest.raises(InputError, match="'aten::save', which writes files"):
        load_torchscript(path)
    assert not (tmp_path / "written").exists()
    # TorchScript itself would have written.
    torch.jit.load(path)(torch.zeros(1, 5))
    assert (tmp_path / "written").exists()


class Branch(nn.Module):
    """Writes a file in a branch of another thread."""

    def forward(self, seen: Tensor) -> Tensor:
        if seen.sum() > 100.0:
            torch.jit.wait(torch.jit.fork(write, seen))
        return seen[:, :3]


def write(seen: Tensor) -> Tensor:
    torch.save(seen, "written")
    return seen


class Early(nn.Module):
    """Runs when it is loaded."""

    def forward(self, seen: Tensor) -> Tensor:
        return seen[:, :3]

    @torch.jit.export
    def __getstate__(self) -> tuple[int, bool]:
        return 1, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[int, bool]) -> None:
        torch.save(torch.zeros(1), "written")
        self.training = state[1]


def test_a_program_that_writes_later_or_earlier_is_not_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match="'prim::fork', which calls a function that cannot be checked"
    ):
        load_torchscript(script(Branch(), path))
    with pytest.raises(InputError, match=r"'__[gs]etstate__', which runs before"):
        load_torchscript(script(Early(), path))
    hooks = b'  __forward_pre_hooks__ = ["write", ]\n  training : bool'
    rewritten(script(network(), path), b"  training : bool", hooks)
    with pytest.raises(InputError, match="'__forward_pre_hooks__', which runs before"):
        load_torchscript(path)
    assert not (tmp_path / "written").exists()


def test_an_archive_of_two_files_of_one_name_is_not_opened(path: Path) -> None:
    script(network(), path)
    with zipfile.ZipFile(path, "a") as archive:
        name = next(name for name in archive.namelist() if name.endswith(".py"))
        archive.writestr(name.upper(), b"")
    with pytest.raises(InputError, match="two files of one name"):
        load_torchscript(path)


def test_what_is_no_torchscript_is_refused(path: Path) -> None:
    for content in (None, b"PK no zip"):
        if content is not None:
            path.write_bytes(content)
        assert not is_torchscript(path)
        with pytest.raises(InputError, match="is not a TorchScript file"):
            load_torchscript(path)
    torch.save({"weights": torch.zeros(2)}, path)
    assert not is_torchscript(path)
    with pytest.raises(InputError, match="is not a TorchScript file"):
        load_torchscript(path)
    script(network(), path)
    assert is_torchscript(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="is not a TorchScript file"):
        load_torchscript(path)
    with pytest.raises(InputError, match="did you mean 'logits'"):
        load_torchscript(path, "logit")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="must be finite"):
        load_torchscript(path, scale=float("nan"))
