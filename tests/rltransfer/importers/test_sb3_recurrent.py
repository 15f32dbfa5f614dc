"""What is read from a zip of RecurrentPPO acts like sb3-contrib itself, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from sb3_models import FIRST, LAST, MOVES, NATURE, THREE, VECTOR, close, saved, shown, trained
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.importers.sb3_zip import ZipPolicy, load_zip

TIME, ROWS = 9, 6
SHARED = {"shared_lstm": True, "enable_critic_lstm": False}
IMAGES = {**NATURE, "policy": "CnnLstmPolicy"}

POLICIES: dict[str, tuple[spaces.Space[Any], spaces.Space[Any], dict[str, Any]]] = {
    "default": (VECTOR, THREE, {}),
    "Gaussian": (VECTOR, MOVES, {}),
    "two layers": (VECTOR, THREE, {"n_lstm_layers": 2}),
    "three layers, Gaussian": (VECTOR, MOVES, {"n_lstm_layers": 3, "net_arch": [6]}),
    "shared": (VECTOR, THREE, SHARED),
    "shared, two layers": (VECTOR, MOVES, {**SHARED, "n_lstm_layers": 2}),
    "critic without an LSTM": (VECTOR, THREE, {"enable_critic_lstm": False}),
    "other": (VECTOR, MOVES, {"net_arch": {"pi": [8], "vf": [4]}, "activation_fn": nn.ReLU}),
    "without hidden layers": (VECTOR, THREE, {"net_arch": [], **SHARED}),
    "without biases": (VECTOR, THREE, {"lstm_kwargs": {"bias": False}}),
    "dropout": (VECTOR, THREE, {"lstm_kwargs": {"dropout": 0.5}, "n_lstm_layers": 2}),
    "gSDE": (VECTOR, MOVES, {"use_sde": True}),
    "gSDE, squashed": (VECTOR, MOVES, {"use_sde": True, "squash_output": True}),
    "discrete observations": (spaces.Discrete(6), THREE, {}),
    "images": (LAST, THREE, {**IMAGES, "enable_critic_lstm": False}),
    "images, separate extractors": (
        FIRST,
        MOVES,
        {**IMAGES, "share_features_extractor": False, "enable_critic_lstm": False},
    ),
    "images, separate extractors and LSTMs": (
        FIRST,
        MOVES,
        {**IMAGES, "share_features_extractor": False},
    ),
}


def model_of(case: str) -> BaseAlgorithm:
    observed, acted, kwargs = POLICIES[case]
    kwargs = {"policy": "MlpLstmPolicy", "lstm_hidden_size": 7, **kwargs}
    model = trained(RecurrentPPO, observed, acted, **kwargs)
    with torch.no_grad():  # large, so that memory and gates matter
        for name, parameter in model.policy.named_parameters():
            if name.startswith(("lstm_", "action_net")):
                parameter.normal_(0.0, 0.7)
    return model


def sequence(space: spaces.Space[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Observations of each step, and where episodes start.    (TIME, ROWS, *shape), (TIME, ROWS)"""
    space.seed(7)
    seen = np.stack([[space.sample() for _ in range(ROWS)] for _ in range(TIME)])
    start = np.random.default_rng(1).random((TIME, ROWS)) < 0.25
    start[0] = True
    return seen, start


def steps_of(policy: ZipPolicy, space: spaces.Space[Any], reset: bool = True) -> list[Any]:
    """Our outputs, step by step."""
    seen, start = sequence(space)
    state, outputs = torch.full((ROWS, policy.state_size), 9.0), []
    for step, first in zip(seen, start, strict=True):
        begins = torch.from_numpy(first if reset else np.zeros_like(first))
        outputs.append(policy(shown(space, step), state=state, start=begins))
        state = outputs[-1].state
    return outputs


@torch.no_grad()
@pytest.mark.parametrize("case", POLICIES)
def test_each_step_is_that_of_sb3_contrib(case: str, tmp_path: Path) -> None:
    space, acted, kwargs = POLICIES[case]
    model = model_of(case)
    policy: Any = model.policy
    loaded = load_zip(saved(model, tmp_path))
    layers = kwargs.get("n_lstm_layers", 1)
    assert loaded.settings.algorithm == "RecurrentPPO" and loaded.state_size == 2 * 7 * layers
    zeros = (torch.zeros(layers, ROWS, 7), torch.zeros(layers, ROWS, 7))
    states, remembered = RNNStates(zeros, zeros), None
    policy.set_training_mode(False)
    seen, start = sequence(space)
    has_value = policy.lstm_critic is None
    actions = []
    for step, first, output in zip(seen, start, steps_of(loaded, space), strict=True):
        tensor, _ = policy.obs_to_tensor(step)
        begins = torch.from_numpy(first).float()
        distribution, _ = policy.get_distribution(tensor, states.pi, begins)
        _, value, _, states = policy.forward(tensor, states, begins, deterministic=True)
        action, remembered = model.predict(step, remembered, first, deterministic=True)
        if isinstance(acted, spaces.Discrete):
            close(output.logits.log_softmax(-1), distribution.distribution.logits)
            assert output.greedy().tolist() == action.tolist()
        else:
            close(output.greedy(), action)
            gaussian = output if output.squashed is None else output.squashed
            close(gaussian.log_std.exp(), distribution.distribution.stddev)
        actions.append(action)
        if has_value:
            close(output.value, value.squeeze(-1))
        else:
            assert output.value is None
        # Layer by layer: the hidden state, and then the cell state.
        state = output.state.view(ROWS, layers, 2, 7)
        for index, expected in enumerate(states.pi):
            close(state[:, :, index].transpose(0, 1), expected)
    if not case.startswith("images"):  # images of noise look alike
        assert len(np.unique(np.concatenate(actions).round(3), axis=0)) > 1
    # Memory matters, and so does forgetting where an episode starts.
    never = steps_of(loaded, space, reset=False)[-1].features
    assert (never - steps_of(loaded, space)[-1].features).abs().max() > 1e-3


@torch.no_grad()
def test_without_a_state_every_row_starts_an_episode(tmp_path: Path) -> None:
    loaded = load_zip(saved(model_of("default"), tmp_path))
    seen = shown(VECTOR, sequence(VECTOR)[0][3])
    first = loaded(seen, state=torch.ones(ROWS, 14), start=torch.ones(ROWS, dtype=torch.bool))
    close(loaded(seen).logits, first.logits)


@torch.no_grad()
def test_layers_in_other_places_are_found(tmp_path: Path) -> None:
    model = model_of("two layers")
    loaded = load_zip(saved(model, tmp_path))
    # LSTM of 5 to 7 and of 7 to 7, hidden layers of 7 to 64 to 64, and 3 logits.
    lstm = 28 * (5 + 7) + 56 + 28 * (7 + 7) + 56
    assert loaded.num_parameters() == lstm + 7 * 64 + 64 + 64 * 64 + 64 + 64 * 3 + 3
    assert loaded.architecture() is None
    assert loaded(shown(VECTOR, sequence(VECTOR)[0][0])).features.shape == (ROWS, 64)


def changed(tmp_path: Path, **kwargs: Any) -> tuple[BaseAlgorithm, dict[str, Tensor]]:
    """A model, and the tensors of its policy, which are saved with it."""
    options = {"lstm_hidden_size": 4, "net_arch": [3], **kwargs}
    model = trained(RecurrentPPO, VECTOR, THREE, "MlpLstmPolicy", **options)
    tensors = dict(model.policy.state_dict())
    model.policy.state_dict = lambda: tensors  # type: ignore[method-assign]
    return model, tensors


DAMAGED: dict[str, tuple[dict[str, Tensor | None], str]] = {
    "missing": (
        {"weight_ih_l0": None},
        "does not contain the tensor 'lstm_actor.weight_ih_l0'",
    ),
    "missing hidden weight": (
        {"weight_hh_l0": None},
        "it does not contain 'lstm_actor.weight_hh_l0'",
    ),
    "missing bias": (
        {"bias_hh_l0": None},
        "does not contain the tensor 'lstm_actor.bias_hh_l0'",
    ),
    "a GRU": (
        {"weight_hh_l0": torch.zeros(12, 4)},
        r"'lstm_actor.weight_hh_l0' has the shape \[12, 4\], which is not that of an LSTM",
    ),
    "other inputs": (
        {"weight_ih_l0": torch.zeros(16, 6)},
        r"'lstm_actor.weight_ih_l0' has the shape \[16, 6\], but must have \[16, 5\]",
    ),
    "other sizes": (
        {"bias_ih_l0": torch.zeros(17)},
        r"'lstm_actor.bias_ih_l0' has the shape \[17\], but must have \[16\]",
    ),
    "a matrix for a bias": (
        {"bias_ih_l0": torch.zeros(4, 4)},
        r"'lstm_actor.bias_ih_l0' has the shape \[4, 4\], but must have \[16\]",
    ),
    "not finite": (
        {"weight_ih_l0": torch.full((16, 5), torch.inf)},
        "its tensor 'lstm_actor.weight_ih_l0' is not finite",
    ),
    "projections": (
        {"weight_hr_l0": torch.zeros(2, 4)},
        "'lstm_actor.weight_hr_l0' is not a tensor of an LSTM with one direction and without proj",
    ),
    "two directions": (
        {"weight_ih_l0_reverse": torch.zeros(16, 5)},
        "'lstm_actor.weight_ih_l0_reverse' is not a tensor of an LSTM",
    ),
    "a hole in the layers": (
        {"weight_ih_l2": torch.zeros(16, 4)},
        "'lstm_actor.weight_ih_l2' is not a tensor of an LSTM",
    ),
    "a second layer of other sizes": (
        {
            "weight_ih_l1": torch.zeros(16, 5),
            "weight_hh_l1": torch.zeros(16, 4),
            "bias_ih_l1": torch.zeros(16),
            "bias_hh_l1": torch.zeros(16),
        },
        r"'lstm_actor.weight_ih_l1' has the shape \[16, 5\], but must have \[16, 4\]",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_tensors_that_do_not_fit_are_refused(case: str, tmp_path: Path) -> None:
    changes, sentence = DAMAGED[case]
    model, tensors = changed(tmp_path)
    for name, tensor in changes.items():
        if tensor is None:
            del tensors[f"lstm_actor.{name}"]
        else:
            tensors[f"lstm_actor.{name}"] = tensor
    path = saved(model, tmp_path)
    with pytest.raises(InputError, match=sentence) as error:
        load_zip(path)
    assert str(path) in str(error.value) and str(error.value).endswith(".")


def test_other_tensors_and_settings_are_refused(tmp_path: Path) -> None:
    model, tensors = changed(tmp_path)
    tensors["attention.weight"] = torch.zeros(2, 2)
    sentence = (
        "'attention.weight', which no MlpLstmPolicy, CnnLstmPolicy or MultiInputLstmPolicy of"
    )
    with pytest.raises(InputError, match=sentence):
        load_zip(saved(model, tmp_path))
    for lstm_kwargs, said in (({"batch_first": True}, "batch_first"), ("text", "not a dictionary")):
        model, _ = changed(tmp_path)
        model.policy_kwargs["lstm_kwargs"] = lstm_kwargs
        with pytest.raises(InputError, match=said):
            load_zip(saved(model, tmp_path))
