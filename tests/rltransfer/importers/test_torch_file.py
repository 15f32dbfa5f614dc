"""A file of torch is told by what is in it, and its options are checked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rltransfer.errors import InputError
from rltransfer.importers.rsl_rl import RslRlActor
from rltransfer.importers.torch_file import load_torch_file
from rltransfer.importers.torchscript import ScriptedPolicy

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    layers = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).state_dict()
    tensors = {f"actor.{name}": tensor for name, tensor in layers.items()}
    torch.save({"model_state_dict": tensors}, tmp_path / "model_1.pt")
    return tmp_path / "model_1.pt"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    torch.jit.save(torch.jit.script(nn.Linear(5, 3)), tmp_path / "policy.pt")
    return tmp_path / "policy.pt"


def test_each_file_is_what_is_in_it(checkpoint: Path, program: Path) -> None:
    actor = load_torch_file(checkpoint, {"activation": ["tanh"], "group": ["a", "b"]})
    assert isinstance(actor, RslRlActor) and actor.groups == ("a", "b")
    assert isinstance(actor.network.hidden[1], nn.Tanh)
    policy = load_torch_file(program, {"output": ["q_values"], "scale": ["1/255"]})
    assert isinstance(policy, ScriptedPolicy) and policy.output == "q_values"
    assert policy.scale == 1 / 255 and policy.groups == ("policy",)
    assert load_torch_file(checkpoint).groups == ("policy",)


def test_options_that_cannot_be_are_refused(checkpoint: Path, program: Path) -> None:
    cases = [
        (checkpoint, {"scale": ["2"]}, "no option of the teacher"),
        (checkpoint, {"activaton": ["tanh"]}, "did you mean 'activation'"),
        (checkpoint, {"activation": ["tanh", "elu"]}, "is set twice: set it once"),
        (checkpoint, {"activation": [""]}, "no activation of rsl_rl ''"),
        (program, {"activation": ["tanh"]}, "no option of the teacher"),
        (program, {"scale": ["1/0"]}, "write a number, or a fraction"),
        (program, {"scale": ["0"]}, "must be finite and not 0"),
        (program, {"output": ["value"]}, "no output of a TorchScript file"),
    ]
    for path, options, sentence in cases:
        with pytest.raises(InputError, match=sentence):
            load_torch_file(path, options)
