"""Zips that execute something, that are damaged, or that hold what cannot be read."""

from __future__ import annotations

import base64
import copy
import io
import json
import math
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rltransfer.errors import InputError
from rltransfer.importers.sb3_zip import load_zip

JSON = dict[str, Any]
Tensors = dict[str, Any]

BOX = "<class 'gymnasium.spaces.box.Box'>"
DISCRETE = "<class 'gymnasium.spaces.discrete.Discrete'>"


def policy_json(module: str, **settings: Any) -> JSON:
    """Returns a `data` member for one observation of three numbers and two continuous actions."""
    return {
        "policy_class": {"__module__": module},
        "policy_kwargs": {},
        "observation_space": {
            ":type:": BOX,
            "dtype": "float32",
            "_shape": [3],
            "low": "[-1. -1. -1.]",
            "high": "[1. 1. 1.]",
        },
        "action_space": {
            ":type:": BOX,
            "dtype": "float32",
            "_shape": [2],
            "low": "[-1.  -0.5]",
            "high": "[1.  0.5]",
        },
        **settings,
    }


def discrete(data: JSON) -> JSON:
    """Returns a `data` member with two discrete actions."""
    data["action_space"] = {":type:": DISCRETE, "n": "2", "start": "0"}
    return data


def linear(**sizes: tuple[int, int]) -> Tensors:
    """Returns the tensors of fully connected layers."""
    tensors: Tensors = {}
    for name, (outputs, inputs) in sizes.items():
        tensors[name.replace("__", ".") + ".weight"] = torch.ones(outputs, inputs)
        tensors[name.replace("__", ".") + ".bias"] = torch.ones(outputs)
    return tensors


def ppo() -> tuple[JSON, Tensors]:
    """Returns a PPO policy of one hidden layer each."""
    data = policy_json("stable_baselines3.common.policies", clip_range=0.2)
    tensors = linear(
        mlp_extractor__policy_net__0=(4, 3),
        mlp_extractor__value_net__0=(4, 3),
        action_net=(2, 4),
        value_net=(1, 4),
    )
    return data, {**tensors, "log_std": torch.zeros(2)}


def dqn() -> tuple[JSON, Tensors]:
    """Returns a DQN policy of one hidden layer."""
    data = discrete(policy_json("stable_baselines3.dqn.policies"))
    return data, linear(q_net__q_net__0=(4, 3), q_net__q_net__2=(2, 4))


def qrdqn() -> tuple[JSON, Tensors]:
    """Returns a QR-DQN policy of one hidden layer and five quantiles."""
    data = discrete(policy_json("sb3_contrib.qrdqn.policies"))
    data["policy_kwargs"] = {"n_quantiles": 5}
    layers = "quantile_net__quantile_net__"
    return data, linear(**{f"{layers}0": (4, 3), f"{layers}2": (10, 4)})


def ars() -> tuple[JSON, Tensors]:
    """Returns an ARS policy of one hidden layer."""
    data = policy_json("sb3_contrib.ars.policies")
    data["policy_class"]["__init__"] = "<function ARSPolicy.__init__ at 0x7f135d1f02c0>"
    return data, linear(action_net__0=(4, 3), action_net__2=(2, 4))


def crossq() -> tuple[JSON, Tensors]:
    """Returns a CrossQ policy of one hidden layer."""
    data = policy_json("sb3_contrib.crossq.policies")
    tensors = linear(actor__latent_pi__1=(4, 3), actor__mu=(2, 4), actor__log_std=(2, 4))
    for index, size in ((0, 3), (3, 4)):
        tensors[f"actor.latent_pi.{index}.steps"] = torch.tensor(7)
        for name in ("ra_mean", "ra_var", "scale", "bias"):
            tensors[f"actor.latent_pi.{index}.{name}"] = torch.ones(size)
    return data, tensors


def sac() -> tuple[JSON, Tensors]:
    """Returns a SAC policy of one hidden layer, with gSDE."""
    data = policy_json("stable_baselines3.sac.policies", use_sde=True)
    tensors = linear(actor__latent_pi__0=(4, 3), actor__mu__0=(2, 4))
    return data, {**tensors, "actor.log_std": torch.zeros(4, 2)}


def written(path: Path, data: JSON, tensors: Any) -> Path:
    """Writes a zip and returns where it is."""
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", json.dumps(data))
        archive.writestr("policy.pth", buffer.getvalue())
    return path


def test_trpo_and_tqc_act_like_ppo_and_sac(tmp_path: Path) -> None:
    seen = {"policy": torch.tensor([[1.0, 0.5, -0.25]])}
    for make, name, change in (
        (ppo, "TRPO", lambda data: data.update(cg_max_steps=15)),
        (
            sac,
            "TQC",
            lambda data: data["policy_class"].update(__module__="sb3_contrib.tqc.policies"),
        ),
    ):
        expected = load_zip(written(tmp_path / "policy.zip", *make()))(seen)
        data, tensors = make()
        change(data)
        loaded = load_zip(written(tmp_path / "policy.zip", data, tensors))
        assert loaded.settings.algorithm == name
        assert torch.equal(loaded(seen).greedy(), expected.greedy())
        assert loaded(seen).is_stochastic


def test_linear_policies_of_old_versions_of_ars(tmp_path: Path) -> None:
    # Their layer has no number, and no bias: 1 * 1 + 0.5 * 2 - 0.25 * 4 = 1, clipped to 0.5.
    data, _ = ars()
    data["policy_class"]["__init__"] = "<function ARSLinearPolicy.__init__ at 0x7f135d1f02c0>"
    tensors = {"action_net.weight": torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]])}
    seen = {"policy": torch.tensor([[1.0, 0.5, -0.25]])}
    loaded = load_zip(written(tmp_path / "policy.zip", data, tensors))
    assert loaded(seen).greedy().tolist() == [[1.0, 0.5]]
    # Of discrete actions, the second: 1 * 0 + 0.5 * 2 - 0.25 * 0 = 1 is below 1.125.
    tensors = {"action_net.weight": torch.tensor([[0.0, 2.0, 0.0], [0.125, 2.0, 0.0]])}
    loaded = load_zip(written(tmp_path / "policy.zip", discrete(data), tensors))
    assert loaded(seen).greedy().tolist() == [1]


def test_a_task_without_the_time_is_told(tmp_path: Path) -> None:
    loaded = load_zip(written(tmp_path / "policy.zip", *ppo()))
    sentence = r"observes float32\[3\] .*TimeFeatureWrapper adds.* the task shows float32\[2\]"
    with pytest.raises(InputError, match=sentence):
        loaded.fitted("a task", spaces.Dict(policy=spaces.Box(-1, 1, (2,))), loaded.actions)
    with pytest.raises(InputError) as error:
        loaded.fitted("a task", spaces.Dict(policy=spaces.Box(-1, 1, (4,))), loaded.actions)
    assert "TimeFeatureWrapper" not in str(error.value)


@pytest.mark.parametrize("make", [ppo, dqn, qrdqn, ars, crossq, sac])
def test_the_policies_of_these_tests_are_read(
    make: Callable[[], tuple[JSON, Tensors]], tmp_path: Path
) -> None:
    load_zip(written(tmp_path / "policy.zip", *make()))


class Bomb:
    """Makes a folder where it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_pickles_in_the_json_stay_closed(tmp_path: Path) -> None:
    data, tensors = ppo()
    plain = load_zip(written(tmp_path / "plain.zip", data, tensors))
    mark = tmp_path / "mark"
    content = pickle.dumps(Bomb(mark))
    for entry in data.values():
        if isinstance(entry, dict):
            entry[":serialized:"] = base64.b64encode(content).decode()
    data["lr_schedule"] = {":type:": "function", ":serialized:": base64.b64encode(content).decode()}
    loaded = load_zip(written(tmp_path / "crafted.zip", data, tensors))
    assert not mark.exists()
    seen = {"policy": torch.tensor([[0.5, -1.0, 2.0]])}
    torch.testing.assert_close(loaded(seen).mean, plain(seen).mean)
    pickle.loads(content)
    assert mark.exists(), "the bomb is none: the test shows nothing"


@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_among_the_tensors_are_refused(legacy: bool, tmp_path: Path) -> None:
    data, tensors = ppo()
    mark = tmp_path / "mark"
    buffer = io.BytesIO()
    torch.save({**tensors, "bomb": Bomb(mark)}, buffer, _use_new_zipfile_serialization=not legacy)
    path = tmp_path / "policy.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", json.dumps(data))
        archive.writestr("policy.pth", buffer.getvalue())
    with pytest.raises(
        InputError, match=r"its 'policy.pth' is damaged, or contains more than tensors"
    ):
        load_zip(path)
    assert not mark.exists()
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert mark.exists(), "the bomb is none: the test shows nothing"


def test_a_pickle_beside_the_zip_is_not_executed(tmp_path: Path) -> None:
    path = written(tmp_path / "policy.zip", *ppo())
    (tmp_path / "statistics.pkl").write_bytes(pickle.dumps(Bomb(tmp_path / "mark")))
    with pytest.raises(InputError, match=r"statistics.pkl was not opened: it names"):
        load_zip(path, tmp_path / "statistics.pkl")
    assert not (tmp_path / "mark").exists()


def test_other_members_are_not_looked_at(tmp_path: Path) -> None:
    path = written(tmp_path / "policy.zip", *ppo())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("pytorch_variables.pth", pickle.dumps(Bomb(tmp_path / "mark")))
        archive.writestr("../outside", "")
    load_zip(path)
    assert not (tmp_path / "mark").exists()
    assert not (tmp_path.parent / "outside").exists()


def test_files_that_are_no_zip_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.zip"
    with pytest.raises(InputError, match=r"policy.zip is not a .* zip: there is no such file"):
        load_zip(path)
    with pytest.raises(InputError, match="it cannot be read"):
        load_zip(tmp_path)
    path.write_text("not a zip")
    with pytest.raises(InputError, match="it is not a zip file, or was cut short"):
        load_zip(path)
    whole = written(path, *ppo()).read_bytes()
    for length in range(0, len(whole), 211):
        path.write_bytes(whole[:length])
        # The tensors are a zip inside the zip, which may be what is found.
        with pytest.raises(InputError, match=r"cut short|is not a complete Stable-Baselines3 zip"):
            load_zip(path)


def test_a_zip_without_one_of_the_two_members_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", "{}")
    with pytest.raises(InputError, match=r"not contain 'policy.pth', which `model.save` always"):
        load_zip(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("policy.pth", "")
    with pytest.raises(InputError, match="it does not contain 'data', which"):
        load_zip(path)


@pytest.mark.parametrize(
    ("data", "pth", "sentence"),
    [
        ("{", "", "its 'data' is not valid JSON"),
        ("[" * 100_000, "", "its 'data' is not valid JSON"),
        ("{}", "", "its 'policy.pth' is damaged, or contains more than tensors"),
        ("{}", "PK", "its 'policy.pth' is damaged, or contains more than tensors"),
    ],
)
def test_damaged_members_are_refused(data: str, pth: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", data)
        archive.writestr("policy.pth", pth)
    with pytest.raises(InputError, match=sentence):
        load_zip(path)


def test_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "policy.zip", *ppo())
    content = bytearray(path.read_bytes())
    # In the middle of the stored tensors, which the zip's own checksum covers.
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"its '(data|policy.pth)' is"):
        load_zip(path)


@pytest.mark.parametrize("tensors", [[torch.zeros(2)], {"a": 1.0}, {1: torch.zeros(2)}])
def test_something_else_than_named_tensors_is_refused(tensors: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "policy.zip", ppo()[0], tensors)
    with pytest.raises(InputError, match=r"its 'policy.pth' is not a dictionary of named tensors"):
        load_zip(path)


def put(entry: str, **values: Any) -> Callable[[JSON, Tensors], None]:
    """Returns a change to one entry of the JSON."""

    def change(data: JSON, tensors: Tensors) -> None:
        data[entry].update(values)

    return change


def tensor(name: str, value: Any) -> Callable[[JSON, Tensors], None]:
    """Returns a change to one tensor; None takes it away."""

    def change(data: JSON, tensors: Tensors) -> None:
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value

    return change


def renamed(old: str, new: str) -> Callable[[JSON, Tensors], None]:
    """Returns a change to the beginnings of the tensors' names."""

    def change(data: JSON, tensors: Tensors) -> None:
        for name in list(tensors):
            if name.startswith(old):
                tensors[new + name.removeprefix(old)] = tensors.pop(name)

    return change


def without(entry: str) -> Callable[[JSON, Tensors], None]:
    """Returns a change that takes an entry of the JSON away."""
    return lambda data, tensors: data.__delitem__(entry)


ONLY = (
    "only MlpPolicy, CnnPolicy and MultiInputPolicy of A2C, DDPG, DQN, MaskablePPO, PPO, "
    "QR-DQN, SAC, TD3, TQC and TRPO, MlpPolicy of ARS and CrossQ, LinearPolicy of ARS, and "
    "MlpLstmPolicy, CnnLstmPolicy and MultiInputLstmPolicy of RecurrentPPO are read"
)
DICT = "<class 'gymnasium.spaces.dict.Dict'>"
MULTI_DISCRETE = "<class 'gymnasium.spaces.multi_discrete.MultiDiscrete'>"
IMAGE = {"_shape": [1, 36, 36], "dtype": "uint8", "low": "[0]", "high": "[255]"}

REFUSED: dict[str, tuple[Any, Any, str]] = {
    "QR-DQN of continuous actions": (
        qrdqn,
        lambda data, tensors: data.update(action_space=ppo()[0]["action_space"]),
        "is inconsistent: QR-DQN has no continuous actions",
    ),
    "odd quantiles": (
        qrdqn,
        put("policy_kwargs", n_quantiles=2.5),
        "its n_quantiles is 2.5, not a whole number from 1 to 100000",
    ),
    "no quantiles": (
        qrdqn,
        put("policy_kwargs", n_quantiles=0),
        "its n_quantiles is 0, not a whole number from 1 to 100000",
    ),
    "other quantiles": (
        qrdqn,
        put("policy_kwargs", n_quantiles=7),
        "its tensor 'quantile_net.quantile_net.2.weight' has the shape [10, 4], but must have [14,",
    ),
    "ARS of another kind": (
        ars,
        put("policy_class", __init__="<function SafePolicy.__init__ at 0x7f135d1f02c0>"),
        f"contains a policy of ARS of another kind: {ONLY}",
    ),
    "ARS of more layers": (
        ars,
        tensor("critic.0.weight", torch.zeros(2, 4)),
        "contains the tensor 'critic.0.weight', which no MlpPolicy or LinearPolicy of ARS has",
    ),
    "ARS with one bias": (
        ars,
        tensor("action_net.0.bias", None),
        "does not contain the tensor 'action_net.0.bias', which ARS needs",
    ),
    "ARS without layers": (
        ars,
        renamed("action_net", "net"),
        "does not contain the tensor 'action_net.0.weight', which ARS needs",
    ),
    "RecurrentPPO": (
        ppo,
        put("policy_class", __module__="sb3_contrib.common.recurrent.policies"),
        "does not contain 'lstm_actor.weight_hh_l0'",
    ),
    "other policy of sb3-contrib": (
        ppo,
        put("policy_class", __module__="sb3_contrib.new.policies"),
        f"contains a policy that 'sb3_contrib.new.policies' defines, but {ONLY}",
    ),
    "MaskablePPO of continuous actions": (
        ppo,
        put("policy_class", __module__="sb3_contrib.common.maskable.policies"),
        "is inconsistent: MaskablePPO has no continuous actions",
    ),
    "own policy": (
        ppo,
        put("policy_class", __module__="__main__"),
        f"contains a policy that '__main__' defines, but {ONLY}",
    ),
    "CrossQ of discrete actions": (
        crossq,
        lambda data, tensors: discrete(data),
        "is inconsistent: CrossQ has no discrete actions",
    ),
    "negative variance": (
        crossq,
        tensor("actor.latent_pi.3.ra_var", torch.tensor([1.0, -0.5, 1.0, 1.0])),
        "its tensor 'actor.latent_pi.3.ra_var' contains a negative variance",
    ),
    "no statistics": (
        crossq,
        tensor("actor.latent_pi.3.ra_mean", None),
        "does not contain the tensor 'actor.latent_pi.3.ra_mean', which CrossQ needs",
    ),
    "no first statistics": (
        crossq,
        tensor("actor.latent_pi.0.ra_mean", None),
        "does not contain the tensor 'actor.latent_pi.0.ra_mean', which CrossQ needs",
    ),
    "odd epsilon": (
        crossq,
        put("policy_kwargs", batch_norm_eps="little"),
        "its batch_norm_eps is 'little', not a number",
    ),
    "no epsilon": (
        crossq,
        put("policy_kwargs", batch_norm_eps=0),
        "its batch_norm_eps is 0.0, but must be above 0",
    ),
    "whole numbers": (
        crossq,
        tensor("actor.latent_pi.3.scale", torch.ones(4, dtype=torch.int64)),
        "its 'policy.pth' is not a dictionary of named tensors",
    ),
    "unknown tensors": (
        dqn,
        renamed("q_net.q_net", "quantile_net.quantile_net"),
        f"contains a policy of another algorithm: {ONLY}",
    ),
    "no class": (ppo, without("policy_class"), "its 'data' does not contain 'policy_class'"),
    "no space": (ppo, without("action_space"), "its 'data' does not contain 'action_space'"),
    "lstm": (
        ppo,
        tensor("lstm_actor.weight_ih_l0", torch.zeros(2)),
        "contains the tensor 'lstm_actor.weight_ih_l0', which no MlpPolicy, CnnPolicy or "
        "MultiInputPolicy of PPO has",
    ),
    "own extractor": (
        dqn,
        tensor("q_net.features_extractor.net.0.weight", torch.zeros(2)),
        "contains the tensor 'q_net.features_extractor.net.0.weight', which no MlpPolicy",
    ),
    "own extractor without tensors": (
        ppo,
        put("policy_kwargs", features_extractor_class="<class '__main__.Extractor'>"),
        "its features_extractor_class is \"<class '__main__.Extractor'>\", not Stable-Baselines3's",
    ),
    "own activation": (
        ppo,
        put("policy_kwargs", activation_fn="<class '__main__.Sine'>"),
        "its activation_fn is \"<class '__main__.Sine'>\", not one of",
    ),
    "activation with parameters": (
        ppo,
        put("policy_kwargs", activation_fn="<class 'torch.nn.modules.activation.PReLU'>"),
        "its activation_fn is",
    ),
    "odd flag": (
        ppo,
        put("policy_kwargs", squash_output="yes"),
        "its squash_output is 'yes', not true or false",
    ),
    "odd clip": (
        sac,
        put("policy_kwargs", clip_mean="much"),
        "its clip_mean is 'much', not a number",
    ),
    "huge clip": (
        sac,
        put("policy_kwargs", clip_mean=10**400),
        "000, not a number",
    ),
    "no clip": (
        sac,
        put("policy_kwargs", clip_mean=-1.0),
        "its clip_mean is -1.0, but must be above 0",
    ),
    "dictionary of observations": (
        ppo,
        put("observation_space", **{":type:": DICT}),
        "its dictionary of observations contains other keys or spaces, but only keys with a Box",
    ),
    "dictionary without keys": (
        ppo,
        put("observation_space", **{":type:": DICT, "spaces": "{}"}),
        "its dictionary of observations contains other keys or spaces, but only keys with a Box",
    ),
    "dictionary of other spaces": (
        ppo,
        put("observation_space", **{":type:": DICT, "spaces": "{'a': MultiBinary(3)}"}),
        "its dictionary of observations contains 'a' as MultiBinary, but only keys with a Box",
    ),
    "dictionary with a late start": (
        ppo,
        put("observation_space", **{":type:": DICT, "spaces": "{'a': Discrete(3, start=1)}"}),
        "contains 'a' as Discrete, but only keys with a Box, or with a Discrete that starts at 0,",
    ),
    "dictionary of images": (
        ppo,
        put(
            "observation_space",
            **{":type:": DICT, "spaces": "{'eye': Box(0, 255, (36, 36, 3), uint8)}"},
        ),
        "it observes images, 'eye', as a key of a dictionary, whose networks are not read",
    ),
    "dictionary of too many values": (
        ppo,
        put(
            "observation_space",
            **{
                ":type:": DICT,
                "spaces": str({key: spaces.Box(0, 1, (1,)) for key in "ab"}).replace(
                    "(1,)", "(30000000,)"
                ),
            },
        ),
        "its dictionary of observations contains more than 33554432 values",
    ),
    "any other space": (
        ppo,
        put("observation_space", **{":type:": MULTI_DISCRETE}),
        "observes a MultiDiscrete space: only Box, Discrete and Dict of these can be read",
    ),
    "several discrete actions": (
        ppo,
        put("action_space", **{":type:": MULTI_DISCRETE}),
        "acts in a MultiDiscrete space: only Box and Discrete can be read",
    ),
    "matrix of actions": (
        ppo,
        put("action_space", _shape=[2, 1]),
        "acts in arrays of the shape [2, 1]: only vectors can be read",
    ),
    "no shape": (
        ppo,
        put("observation_space", _shape=None),
        "one of its Box spaces has the shape None, which is not a list",
    ),
    "no type of numbers": (
        ppo,
        put("observation_space", dtype="O"),
        "one of its Box spaces has the dtype 'O', which is not numeric like 'float32'",
    ),
    "no size": (dqn, put("action_space", n=None), "one of its Discrete spaces has the size None"),
    "no start": (dqn, put("action_space", start="x"), "has the size 2 and starts at x, but the"),
    "late start of observations": (
        ppo,
        put("observation_space", **{":type:": DISCRETE, "n": "3", "start": "1"}),
        "its discrete observations start at 1, but those of Stable-Baselines3 start at 0",
    ),
    "infinite bounds": (
        sac,
        put("action_space", high="[1. inf]"),
        "cannot act between the bounds [-1.0, -0.5] and [1.0, inf]: it squashes its actions into",
    ),
    "crossed bounds": (
        ppo,
        put("action_space", high="[-2. inf]"),
        "cannot act between the bounds [-1.0, -0.5] and [-2.0, inf]: each lower bound must be at",
    ),
    "DQN of continuous actions": (
        dqn,
        lambda data, tensors: data.update(action_space=ppo()[0]["action_space"]),
        "is inconsistent: DQN has no continuous actions",
    ),
    "SAC of discrete actions": (
        sac,
        lambda data, tensors: discrete(data),
        "is inconsistent: SAC has no discrete actions",
    ),
    "other observation": (
        ppo,
        put("observation_space", _shape=[5]),
        "'mlp_extractor.policy_net.0.weight' has the shape [4, 3], but must have [any, 5]",
    ),
    "other number of actions": (
        dqn,
        put("action_space", n="3"),
        "its tensor 'q_net.q_net.2.weight' has the shape [2, 4], but must have [3, 4]",
    ),
    "other hidden layer": (
        ppo,
        tensor("action_net.weight", torch.zeros(2, 7)),
        "its tensor 'action_net.weight' has the shape [2, 7], but must have [2, 4]",
    ),
    "missing tensor": (
        ppo,
        tensor("value_net.bias", None),
        "does not contain the tensor 'value_net.bias', which PPO needs",
    ),
    "missing deviation": (
        ppo,
        tensor("log_std", None),
        "does not contain the tensor 'log_std', which PPO needs",
    ),
    "normalised layers": (
        dqn,
        renamed("q_net.q_net.2", "q_net.q_net.3"),
        "does not contain the tensor 'q_net.q_net.2.weight', which DQN needs",
    ),
    "not finite": (
        ppo,
        tensor("action_net.bias", torch.tensor([0.0, float("nan")])),
        "cannot be used: its tensor 'action_net.bias' is not finite",
    ),
    "convolutions over a vector": (
        dqn,
        tensor("q_net.features_extractor.cnn.0.weight", torch.zeros(32, 3, 8, 8)),
        "it has convolutions, but its observations have the shape [3] and not [channels, height,",
    ),
    "other convolutions": (
        dqn,
        lambda data, tensors: (
            data["observation_space"].update(IMAGE),
            tensors.update({"q_net.features_extractor.cnn.0.weight": torch.zeros(16, 1, 3, 3)}),
        ),
        "'q_net.features_extractor.cnn.0.weight' has the shape [16, 1, 3, 3], but must have [32",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    make, change, sentence = REFUSED[name]
    data, tensors = copy.deepcopy(make())
    change(data, tensors)
    path = written(tmp_path / "policy.zip", data, tensors)
    with pytest.raises(InputError, match=re.escape(sentence)) as error:
        load_zip(path)
    message = str(error.value)
    assert message.startswith(str(path)) and message.endswith(".") and "\n" not in message


OBSERVED = spaces.Dict(policy=spaces.Box(-1.0, 1.0, (3,)))


@pytest.mark.parametrize("make", [sac, ppo])
def test_hidden_bounds_are_the_tasks(make: Any, tmp_path: Path) -> None:
    data, tensors = make()
    data["action_space"].update(low="[-1. ... -1.]")
    loaded = load_zip(written(tmp_path / "policy.zip", data, tensors))
    assert loaded.known_spaces()[1] is None
    seen = {"policy": torch.tensor([[1.0, 1.0, 0.0]])}
    # Used without a task it is refused, and not taken to be without bounds.
    with pytest.raises(InputError, match="does not contain all bounds of its 2 action dimensions"):
        loaded(seen)
    given = spaces.Box(np.array([-3.0, 0.0], np.float32), np.array([5.0, 0.0], np.float32))
    # Each head says 4 * relu(1 + 1 + 1) + 1 = 17 at (1, 1, 0), which the clip brings to 2.
    fitted = loaded.fitted("a task", OBSERVED, given)
    # -3 + (tanh(2) + 1) / 2 * 8 = 4.856110; PPO's mean of 5 is within its bounds.
    expected = torch.tensor([[4.856110 if make is sac else 4 * math.tanh(3) + 1, 0.0]])
    torch.testing.assert_close(fitted(seen).greedy(), expected)
    assert fitted.known_spaces()[1] == given


@pytest.mark.parametrize(
    ("make", "given", "sentence"),
    [
        (ppo, spaces.Box(-1.0, 1.0, (3,)), ("acts in float32[2]", "takes float32[3]")),
        (ppo, spaces.Discrete(2), ("acts in float32[2]", "takes Discrete(2)")),
        (dqn, spaces.Discrete(5), ("acts in Discrete(2)", "takes Discrete(5)")),
        (dqn, spaces.Box(-1.0, 1.0, (2,)), ("acts in Discrete(2)", "takes float32[2]")),
    ],
)
def test_an_action_space_that_does_not_fit_is_refused(
    make: Any, given: spaces.Space[Any], sentence: tuple[str, str], tmp_path: Path
) -> None:
    path = written(tmp_path / "policy.zip", *make())
    with pytest.raises(InputError, match=".*".join(map(re.escape, sentence))):
        load_zip(path).fitted("a task", OBSERVED, given)


def test_statistics_of_other_observations_are_refused(tmp_path: Path) -> None:
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    path = written(tmp_path / "policy.zip", *ppo())
    VecNormalize(make_vec_env("CartPole-v1")).save(str(tmp_path / "statistics.pkl"))
    sentence = (
        r"statistics.pkl contains statistics .* \[4\], but .*policy.zip observes float32\[3\]"
    )
    with pytest.raises(InputError, match=sentence):
        load_zip(path, tmp_path / "statistics.pkl")
