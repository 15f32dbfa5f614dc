"""Statistics come out of a VecNormalize pickle, and nothing in it is executed."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from rltransfer.errors import InputError
from rltransfer.importers.sb3_vecnormalize import (
    Moments,
    ObservationNormalizer,
    ObservationStatistics,
    load_vecnormalize,
)

BOX = spaces.Box(-2.0, 5.0, (2, 3), np.float32)


class Noise(gymnasium.Env[Any, Any]):
    """Shows random observations."""

    def __init__(self, observation_space: spaces.Space[Any]):
        self.observation_space = observation_space
        self.action_space = spaces.Discrete(2, seed=1)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 1.0, False, False, {}


def wrapped(space: spaces.Space[Any] = BOX, **kwargs: Any) -> VecNormalize:
    """Returns an environment that has seen a few observations."""
    env = VecNormalize(DummyVecEnv([lambda: Noise(space)]), **kwargs)
    env.reset()
    for _ in range(20):
        env.step(np.array([0]))
    return env


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_statistics_are_those_that_were_saved(protocol: int, tmp_path: Path) -> None:
    env = wrapped(clip_obs=3.0, epsilon=1e-4)
    path = tmp_path / "statistics.pkl"
    path.write_bytes(pickle.dumps(env, protocol=protocol))
    statistics = load_vecnormalize(path)
    np.testing.assert_array_equal(statistics.groups["policy"].mean, env.obs_rms.mean)
    np.testing.assert_array_equal(statistics.groups["policy"].var, env.obs_rms.var)
    assert (statistics.clip_obs, statistics.epsilon) == (3.0, 1e-4)
    assert statistics.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_arrays_in_column_order_and_numpy_numbers_are_read(tmp_path: Path) -> None:
    env = wrapped()
    env.obs_rms.mean = np.asfortranarray(env.obs_rms.mean)
    env.obs_rms.var = env.obs_rms.var.astype(">f4")
    env.clip_obs = np.float32(2.5)
    env.save(str(tmp_path / "statistics.pkl"))
    statistics = load_vecnormalize(tmp_path / "statistics.pkl")
    np.testing.assert_array_equal(statistics.groups["policy"].mean, env.obs_rms.mean)
    np.testing.assert_array_equal(statistics.groups["policy"].var, env.obs_rms.var)
    assert statistics.clip_obs == 2.5


@pytest.mark.parametrize("protocol", [3, 4])
def test_the_keys_of_old_versions_are_read(protocol: int, tmp_path: Path) -> None:
    env = wrapped()
    env.obs_keys = {"achieved_goal", "observation"}  # a set, by its name up to protocol 3
    (tmp_path / "statistics.pkl").write_bytes(pickle.dumps(env, protocol=protocol))
    statistics = load_vecnormalize(tmp_path / "statistics.pkl")
    np.testing.assert_array_equal(statistics.groups["policy"].mean, env.obs_rms.mean)


def test_statistics_of_rewards_alone_say_so(tmp_path: Path) -> None:
    wrapped(norm_obs=False).save(str(tmp_path / "statistics.pkl"))
    assert not load_vecnormalize(tmp_path / "statistics.pkl").groups


DICT = spaces.Dict(
    observation=BOX, goal=spaces.Box(-9.0, 9.0, (2,), np.float64), mode=spaces.Discrete(3)
)


def test_statistics_of_a_dictionary_are_those_of_its_normalised_keys(tmp_path: Path) -> None:
    env = wrapped(DICT, norm_obs_keys=["observation", "goal"])
    env.save(str(tmp_path / "statistics.pkl"))
    found = load_vecnormalize(tmp_path / "statistics.pkl").groups
    assert list(found) == ["observation", "goal"]
    for key, one in found.items():
        np.testing.assert_array_equal(one.mean, env.obs_rms[key].mean)
        np.testing.assert_array_equal(one.var, env.obs_rms[key].var)


def test_statistics_of_old_versions_normalise_every_key(tmp_path: Path) -> None:
    """Before `norm_obs_keys`, which such files omit, VecNormalize had no way to leave out a key."""
    env = wrapped(spaces.Dict(observation=BOX, goal=spaces.Box(-9.0, 9.0, (2,), np.float64)))
    del env.norm_obs_keys
    env.save(str(tmp_path / "statistics.pkl"))
    found = load_vecnormalize(tmp_path / "statistics.pkl").groups
    assert {key: one.mean.shape for key, one in found.items()} == {
        "goal": (2,), "observation": (2, 3),
    }  # fmt: skip


@pytest.mark.skipif(
    "RLTRANSFER_TEACHERS" not in os.environ,
    reason="RLTRANSFER_TEACHERS names no folder of policies that others trained",
)
def test_the_statistics_of_a_published_policy_with_goals_are_read() -> None:
    folder = Path(os.environ["RLTRANSFER_TEACHERS"]).parent / "faults"
    path = folder / "her-FetchReach-vecnormalize.pkl"
    if not path.exists():
        pytest.skip("no folder of faults is next to that of the teachers")
    found = {key: one.mean.shape for key, one in load_vecnormalize(path).groups.items()}
    assert found == {"achieved_goal": (3,), "desired_goal": (3,), "observation": (10,)}


def test_normalising_by_hand() -> None:
    moments = Moments(np.array([1.0, -2.0]), np.array([3.0, 0.0]))
    statistics = ObservationStatistics({"policy": moments}, 1.0, 1.5, "")
    # (5 - 1) / sqrt(3 + 1) = 2, clipped to 1.5; (-2.25 + 2) / sqrt(0 + 1) = -0.25.
    output = ObservationNormalizer(statistics)(torch.tensor([[5.0, -2.25]]))
    assert output.dtype == torch.float32
    assert output.tolist() == [[1.5, -0.25]]


def test_normalising_far_from_zero_is_done_in_float64() -> None:
    moments = Moments(np.array([1e8]), np.array([1.0]))
    statistics = ObservationStatistics({"policy": moments}, 0.0, 10.0, "")
    # float32 knows no number between 1e8 and 1e8 + 8.
    seen = torch.tensor([[1e8 + 1.0]], dtype=torch.float64)
    assert ObservationNormalizer(statistics)(seen).tolist() == [[1.0]]


class Bomb:
    """Makes a folder where it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def bombs(mark: Path) -> dict[str, bytes]:
    """Returns pickles that execute something where a usual unpickler reads them."""
    bomb = Bomb(mark)
    env = wrapped()
    inside = wrapped()
    inside.obs_rms.mean = bomb
    array = wrapped()
    array.obs_rms.mean = np.array([bomb], dtype=object)
    state = wrapped()
    state.render_mode = [{"deep": (bomb,)}]
    folder = str(mark).encode()
    return {
        "alone": pickle.dumps(bomb),
        "inside": pickle.dumps(inside),
        "in an array of objects": pickle.dumps(array),
        "in an attribute that nothing reads": pickle.dumps(state),
        "behind it": pickle.dumps(env)[:-1] + b"0" + pickle.dumps(bomb)[2:],
        "oldest protocol": b"cos\nmkdir\n(V" + folder + b"\ntR.",
        "instance": b"(V" + folder + b"\nios\nmkdir\n.",
    }


BOMBS = list(bombs(Path("unused")))


@pytest.mark.parametrize("name", BOMBS)
def test_nothing_is_executed(name: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "statistics.pkl"
    content = bombs(mark)[name]
    path.write_bytes(content)
    # What sets it off is named in full: `posix.mkdir`, or `os.mkdir` as it was written.
    with pytest.raises(InputError, match=r"statistics.pkl was not opened: it names '\w+\.mkdir'"):
        load_vecnormalize(path)
    assert not mark.exists()
    pickle.loads(content)
    assert mark.exists(), "the bomb is none: the test shows nothing"


CRAFTED = {
    "attribute of a class": b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.",
    "builtin": b"cbuiltins\neval\n(V1\ntR.",
    "attribute lookup": b"cbuiltins\ngetattr\n(cnumpy\ndtype\nV__init__\ntR.",
}


@pytest.mark.parametrize("name", CRAFTED)
def test_other_names_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "statistics.pkl").write_bytes(CRAFTED[name])
    with pytest.raises(InputError, match=r"was not opened: it names .*, which no file from"):
        load_vecnormalize(tmp_path / "statistics.pkl")


DAMAGED = {
    "empty": b"",
    "text": b"mean: 0.0",
    "persistent id": b"Pname\n.",
    "attribute onto a class": b"\x80\x02cnumpy\ndtype\n(NVstate\nK\x01stb.",
    "attributes onto a class": b"\x80\x02cnumpy\ndtype\nN}Vstate\nK\x01s\x86b.",
    "call of no class": b"\x80\x02K\x01)R.",
    "unknown extension": b"\x80\x02\x82\xff.",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused_and_leave_nothing_behind(name: str, tmp_path: Path) -> None:
    path = tmp_path / "statistics.pkl"
    path.write_bytes(DAMAGED[name])
    with pytest.raises(
        InputError, match=r"statistics.pkl is not a VecNormalize file: it is damaged"
    ):
        load_vecnormalize(path)
    env = wrapped()
    env.save(str(path))
    statistics = load_vecnormalize(path)
    np.testing.assert_array_equal(statistics.groups["policy"].mean, env.obs_rms.mean)


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    content = pickle.dumps(wrapped())
    for length in range(0, len(content), 97):
        (tmp_path / "statistics.pkl").write_bytes(content[:length])
        with pytest.raises(InputError, match="it is damaged or cut short"):
            load_vecnormalize(tmp_path / "statistics.pkl")


def changed(**attributes: Any) -> VecNormalize:
    """Returns an environment with other attributes, those of its statistics among them."""
    env = wrapped()
    for name, value in attributes.items():
        setattr(env.obs_rms if name in ("mean", "var") else env, name, value)
    return env


REFUSED: dict[str, tuple[Any, str]] = {
    "something else": ([1, 2], "is not a VecNormalize file: it contains something else"),
    "a plain array": (np.zeros(3), "is not a VecNormalize file: it contains something else"),
    "no statistics": (changed(obs_rms=None), "it does not contain observation statistics"),
    "numbers as keys": (changed(obs_rms={3: wrapped().obs_rms}), "its observations are not texts"),
    "no keys": (changed(obs_rms={}), "the keys of its observations are not texts"),
    "a missing key": (
        changed(obs_rms={"goal": wrapped().obs_rms}, norm_obs_keys=["goal", "place"]),
        "it does not contain observation statistics",
    ),
    "text": (changed(mean="high"), "its statistics are not all arrays and numbers"),
    "integers": (changed(mean=np.zeros((2, 3), int)), "are not all arrays and numbers"),
    "no bound": (changed(clip_obs=None), "are not all arrays and numbers"),
    "other shape": (
        changed(mean=np.zeros(3)),
        "mean and variance must be finite and have one shape",
    ),
    "not finite": (changed(mean=np.full((2, 3), np.nan)), "its mean and variance must be finite"),
    "below zero": (changed(var=np.full((2, 3), -1.0)), "statistics.pkl cannot be used: its mean"),
    "bound of zero": (changed(clip_obs=0.0), "its bound must be above 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_useless_statistics_are_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / "statistics.pkl"
    value, sentence = REFUSED[name]
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(InputError, match=re.escape(sentence)) as error:
        load_vecnormalize(path)
    assert str(error.value).startswith(str(path)) and str(error.value).endswith(".")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"none.pkl is not a VecNormalize file: there is no such file"
    ):
        load_vecnormalize(tmp_path / "none.pkl")
    with pytest.raises(InputError, match="it cannot be read"):
        load_vecnormalize(tmp_path)


def test_a_short_buffer_is_no_array(tmp_path: Path) -> None:
    """An array whose bytes are fewer than its shape says is refused, not read past its end."""
    content = pickle.dumps(wrapped(), protocol=4)
    shape = pickle.dumps((2, 3), protocol=4)
    assert b"K\x02K\x03\x86" in shape
    path = tmp_path / "statistics.pkl"
    path.write_bytes(content.replace(b"K\x02K\x03\x86", b"K\x02K\x7f\x86"))
    assert pickle.load(io.BytesIO(shape)) == (2, 3)
    with pytest.raises(InputError, match="its statistics are not all arrays and numbers"):
        load_vecnormalize(path)
