"""Teachers from files, here and on the hub, label as what they were made from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from fitting import fitted_teacher
from gymnasium import spaces
from loopback_hub import NEW, OLD, REPO, Hub, point_at, serving
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from rltransfer.errors import InputError
from rltransfer.importers.source import is_zip
from rltransfer.policies.network import Network
from rltransfer.rollouts.evaluation import evaluate_teacher
from rltransfer.tasks.task import Suite
from rltransfer.teachers.file_teacher import FileTeacher, load_file_teacher
from rltransfer.teachers.spec import TeacherSpec

pytest.importorskip("huggingface_hub")
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

CPU = torch.device("cpu")
CARTPOLE = Suite.of("CartPole-v1")
SEEN = {"policy": torch.randn(6, 4, generator=torch.Generator().manual_seed(0))}
TASK = torch.zeros(6, dtype=torch.int64)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:d733a53a\nsize 44729008\n"
POINTERS = ("model_1500.pt", "policy.pth", "ppo.zip", "model.bin")
"""Files that git-lfs has not fetched."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each kind of file, all for CartPole-v1."""
    folder = tmp_path_factory.mktemp("files")
    DQN("MlpPolicy", "CartPole-v1", device="cpu", buffer_size=100, seed=0).save(folder / "dqn.zip")
    env = VecNormalize(DummyVecEnv([lambda: gymnasium.make("CartPole-v1")]))
    env.reset()
    for _ in range(10):
        env.step(np.array([0]))
    PPO("MlpPolicy", env, device="cpu", seed=0).save(folder / "ppo.zip")
    env.save(str(folder / "vec_normalize.pkl"))
    torch.manual_seed(0)
    torch.jit.save(torch.jit.script(nn.Linear(4, 2)), folder / "linear.pt")
    layers = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1)).state_dict()
    tensors = {f"actor.{name}": tensor for name, tensor in layers.items()}
    torch.save({"model_state_dict": {**tensors, "std": torch.ones(1)}}, folder / "model_9.pt")
    return folder


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    files = {(NEW, path.name): path.read_bytes() for path in folder.iterdir()}
    files |= {(OLD, "dqn.zip"): (folder / "ppo.zip").read_bytes()}
    with serving(files) as running:
        point_at(running.url, tmp_path / "cache", monkeypatch)
        yield running


def test_a_zip_on_the_hub_is_the_zip(folder: Path, hub: Hub) -> None:
    source = f"hf:{REPO}/dqn.zip"
    teacher = load_file_teacher(source)
    local = load_file_teacher(str(folder / "dqn.zip"), "none")
    assert isinstance(local, FileTeacher)
    assert torch.equal(teacher(SEEN, TASK).q_values, local(SEEN, TASK).q_values)
    assert str(teacher) == teacher.source == source
    fitted = fitted_teacher(teacher, CARTPOLE, CPU)
    told = json.loads(json.dumps(fitted.describe()))
    assert told["source"] == source and told["sha256"] == local.sha256
    spec = TeacherSpec.from_json(told["spec"])
    assert spec.origin == {"repo": REPO, "file": "dqn.zip", "revision": NEW}
    assert spec.kind == "stable-baselines3" and spec.sha256 == local.sha256
    assert spec.action_space == spaces.Discrete(2)
    assert spec.observation_space["policy"].shape == (4,)
    assert spec.preprocessing == {
        "algorithm": "DQN", "scale": 1.0, "channels": None, "normalizer": None,
    }  # fmt: skip
    found = evaluate_teacher(fitted, CARTPOLE, 2, seed=0, device=CPU)
    assert len(found["CartPole-v1"].returns) == 2


def test_a_revision_is_another_teacher(hub: Hub) -> None:
    newest, tagged = (load_file_teacher(f"hf:{REPO}/dqn.zip{at}") for at in ("", "@v1"))
    assert newest.describe()["sha256"] != tagged.describe()["sha256"]
    assert tagged.describe()["spec"]["origin"]["revision"] == OLD


def test_statistics_may_lie_on_the_hub(folder: Path, hub: Hub) -> None:
    sources = [str(folder / "ppo.zip"), f"hf:{REPO}/ppo.zip"]
    statistics = [str(folder / "vec_normalize.pkl"), f"hf:{REPO}/vec_normalize.pkl"]
    plain = load_file_teacher(sources[0], "none")(SEEN, TASK).logits
    expected = load_file_teacher(sources[0], statistics[0])(SEEN, TASK).logits
    assert not torch.equal(plain, expected)
    for source in sources:
        teacher = load_file_teacher(source, statistics[1])
        assert torch.equal(teacher(SEEN, TASK).logits, expected)
        said = f"load_teacher({source!r}, vecnormalize={statistics[1]!r})"
        assert str(teacher) == said
        spec = teacher.describe()["spec"]
        assert spec["preprocessing"]["normalizer"]["kind"] == "VecNormalize"
        assert str(fitted_teacher(teacher, CARTPOLE, CPU)) == said


def test_statistics_on_the_hub_are_found_where_the_configuration_tells(
    folder: Path, hub: Hub
) -> None:
    statistics = f"{REPO}/vec_normalize.pkl@{NEW}"
    # Without a configuration nothing tells of them.
    assert str(load_file_teacher(f"hf:{REPO}/ppo.zip")) == f"hf:{REPO}/ppo.zip"
    hub.files[NEW, "config.yml"] = b"- - - normalize\n    - true\n"
    teacher = load_file_teacher(f"hf:{REPO}/ppo.zip")
    assert str(teacher) == f"load_teacher('hf:{REPO}/ppo.zip', vecnormalize='hf:{statistics}')"
    expected = load_file_teacher(str(folder / "ppo.zip"), str(folder / "vec_normalize.pkl"))
    assert torch.equal(teacher(SEEN, TASK).logits, expected(SEEN, TASK).logits)
    hub.files[OLD, "config.yml"] = hub.files[NEW, "config.yml"]
    with pytest.raises(InputError, match=f"normalised observations, as hf:{REPO}/config.yml@"):
        load_file_teacher(f"hf:{REPO}/dqn.zip@v1")


def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    for name, content, sentence in (
        ("a.onnx", b"x", "is not an ONNX file, or is damaged"),
        ("a.safetensors", b"x", "contains weights alone: use the run directory"),
        *((name, POINTER, "is a pointer of git-lfs .* `git lfs pull`") for name in POINTERS),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=sentence):
            load_file_teacher(str(tmp_path / name))


@pytest.mark.parametrize("place", ["here", "hub"])
def test_a_program_teaches(place: str, folder: Path, hub: Hub) -> None:
    begin = f"hf:{REPO}" if place == "hub" else str(folder)
    source = f"{begin}/linear.pt?output=q_values&scale=0.5"
    teacher = load_file_teacher(source)
    assert isinstance(teacher, FileTeacher) and teacher.num_parameters == 10
    fitted = fitted_teacher(teacher, CARTPOLE, CPU)
    script = torch.jit.load(folder / "linear.pt")
    torch.testing.assert_close(fitted(SEEN, TASK).q_values, script(SEEN["policy"] * 0.5))
    told = fitted.describe()
    spec = TeacherSpec.from_json(told["spec"])
    assert told["source"] == spec.source == str(fitted) == source
    assert spec.kind == "torchscript" and spec.preprocessing["scale"] == 0.5
    assert bool(spec.origin) == (place == "hub")
    assert spec.action_space == spaces.Discrete(2)


def test_an_actor_of_rsl_rl_teaches(folder: Path) -> None:
    source = str(folder / "model_9.pt") + "?activation=relu"
    teacher = fitted_teacher(load_file_teacher(source), Suite.of("Pendulum-v1"), CPU)
    found = evaluate_teacher(teacher, Suite.of("Pendulum-v1"), 2, seed=0, device=CPU)
    assert len(found["Pendulum-v1"].returns) == 2
    # 3 x 5 + 5 + 5 + 1 = 26: the deviation is no part of acting greedily.
    assert teacher.num_parameters == 26
    assert teacher.describe()["spec"]["kind"] == "rsl_rl"
    with pytest.raises(InputError, match="does not fit the task 'CartPole-v1'"):
        fitted_teacher(load_file_teacher(source), CARTPOLE, CPU)


def test_tensors_of_cleanrl_and_others_teach(tmp_path: Path) -> None:
    torch.manual_seed(0)
    actor = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
    tensors = {f"actor_mean.{name}": part for name, part in actor.state_dict().items()}
    tensors |= {name.replace("actor_mean", "critic"): part for name, part in tensors.items()}
    tensors["actor_logstd"] = torch.zeros(1, 1)
    pendulum = Suite.of("Pendulum-v1")
    for name, kind, notes in (
        ("ppo.cleanrl_model", "cleanrl", 1),
        ("ppo.pth?activation=tanh&prefix=actor_mean", "state_dict", 0),
    ):
        torch.save(tensors, tmp_path / name.partition("?")[0])
        source = str(tmp_path / name)
        teacher = fitted_teacher(load_file_teacher(source), pendulum, CPU)
        assert teacher.network() == Network(encoder="mlp", hidden=(5, 4), activation="tanh")
        assert len(teacher.notes()) == notes
        # 3 x 5 + 5 x 4 + 4 x 1 products, and 10 biases.
        assert teacher.row_work() == 39 and teacher.num_parameters == 49
        assert teacher.describe()["spec"]["kind"] == kind and str(teacher) == source
        found = evaluate_teacher(teacher, pendulum, 2, seed=0, device=CPU)
        assert len(found["Pendulum-v1"].returns) == 2


def test_what_is_no_teacher_is_refused(folder: Path) -> None:
    cases = [
        ((str(folder / "nothing.zip"),), "There is no teacher .*nothing.zip"),
        ((str(folder / "dqn.zip") + "?output=mean",), "takes no options, but was given output"),
        ((str(folder / "linear.pt"), str(folder / "vec_normalize.pkl")), "go with a Stable"),
        ((str(folder / "vec_normalize.pkl"),), "is not a teacher: use a run directory"),
        (("hf:owner/name",), "write hf:OWNER/NAME/FILE"),
    ]
    for arguments, sentence in cases:
        with pytest.raises(InputError, match=sentence):
            load_file_teacher(*arguments)


def test_statistics_that_are_not_there_are_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no file 'nope.pkl' of observation statistics"):
        load_file_teacher(str(folder / "ppo.zip"), "nope.pkl")


def test_zips_are_known_by_their_names() -> None:
    assert is_zip("a/b.zip") and is_zip("hf:a/b/c.zip") and is_zip("hf:a/b/c.zip@v1")
    assert not is_zip("model.pt?activation=relu") and not is_zip("hf:a/b/c.pt@v.zip")
    assert not is_zip("runs/a")
