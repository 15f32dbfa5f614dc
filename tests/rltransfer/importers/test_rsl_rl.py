"""What is read from a checkpoint says what rsl_rl itself says."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.importers.rsl_rl import RslRlActor, load_rsl_rl
from rltransfer.importers.torchscript import load_torchscript

TOLERANCE = 1e-6
"""Both compute in float32, in the same order: what differs is the last digit of long sums."""

NUM_ENVS, NUM_ACTIONS = 8, 3
SIZES = {"policy": 5, "privileged": 4}
OBSERVED = spaces.Dict(
    {name: spaces.Box(-np.inf, np.inf, (size,), np.float32) for name, size in SIZES.items()}
)
MOVES = spaces.Box(-1.0, 1.0, (NUM_ACTIONS,), np.float32)


class NoiseEnv:
    """An environment as rsl_rl's runners take one: random observations, their sum as reward."""

    num_envs = NUM_ENVS
    num_actions = NUM_ACTIONS
    max_episode_length = 10
    device = "cpu"

    def __init__(self) -> None:
        self.cfg: dict[str, Any] = {}
        self.episode_length_buf = torch.zeros(NUM_ENVS, dtype=torch.long)

    def get_observations(self) -> TensorDict:
        # Far from a mean of 0 and a deviation of 1, so that a normaliser matters.
        groups = {name: 2.0 + 3.0 * torch.randn(NUM_ENVS, size) for name, size in SIZES.items()}
        return TensorDict(groups, batch_size=[NUM_ENVS])

    def step(self, actions: Tensor) -> tuple[TensorDict, Tensor, Tensor, dict[str, Any]]:
        done = torch.rand(NUM_ENVS) < 0.2
        return self.get_observations(), actions.sum(-1), done, {"time_outs": torch.zeros(NUM_ENVS)}


def model(**options: Any) -> dict[str, Any]:
    """Returns rsl_rl's configuration of a network."""
    made = {"class_name": "MLPModel", "hidden_dims": [16, 8], "activation": "elu", **options}
    made.setdefault("obs_normalization", True)
    return made


def gaussian(**options: Any) -> dict[str, Any]:
    """Returns rsl_rl's configuration of a Gaussian."""
    return {"class_name": "GaussianDistribution", "init_std": 0.5, **options}


def trained(actor: dict[str, Any], folder: Path, groups: tuple[str, ...] = ("policy",)) -> Any:
    """Returns a runner of rsl_rl that has trained twice and saved `model.pt`."""
    runners = pytest.importorskip("rsl_rl.runners")
    torch.manual_seed(0)
    config = {
        "algorithm": {"class_name": "PPO", "num_learning_epochs": 1, "num_mini_batches": 2},
        "actor": actor,
        "critic": model(),
        "obs_groups": {"actor": list(groups), "critic": ["policy", "privileged"]},
        "num_steps_per_env": 4,
        "save_interval": 100,
    }
    runner = runners.OnPolicyRunner(NoiseEnv(), config, log_dir=None, device="cpu")
    runner.learn(2)
    runner.save(str(folder / "model.pt"))
    return runner


ACTORS = {
    "default": (model(distribution_cfg=gaussian()), ("policy",)),
    "log deviation": (model(distribution_cfg=gaussian(std_type="log")), ("policy",)),
    "tanh": (model(activation="tanh", distribution_cfg=gaussian()), ("policy",)),
    "one layer": (model(hidden_dims=[7], distribution_cfg=gaussian()), ("policy",)),
    "as it is": (model(obs_normalization=False, distribution_cfg=gaussian()), ("policy",)),
    "two groups": (model(distribution_cfg=gaussian()), ("privileged", "policy")),
}


@pytest.mark.parametrize("case", ACTORS)
def test_an_actor_says_the_same(case: str, tmp_path: Path) -> None:
    actor, groups = ACTORS[case]
    runner = trained(actor, tmp_path, groups)
    path = tmp_path / "model.pt"
    loaded = load_rsl_rl(path, actor["activation"], groups)
    seen = runner.env.get_observations()
    policy = runner.get_inference_policy()
    with torch.no_grad():
        expected = policy(seen)
        policy(seen, stochastic_output=True)
        std = policy.output_std
    output = loaded(dict(seen.items()))
    torch.testing.assert_close(output.mean, expected, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(output.log_std.exp(), std, rtol=TOLERANCE, atol=TOLERANCE)
    assert output.features.shape == (NUM_ENVS, actor["hidden_dims"][-1])
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert (loaded.preprocessing()["normalizer"] is None) == (case == "as it is")


def test_another_activation_says_something_else(tmp_path: Path) -> None:
    trained(model(distribution_cfg=gaussian()), tmp_path)
    seen = {"policy": torch.randn(4, 5)}
    elu, relu = (load_rsl_rl(tmp_path / "model.pt", name)(seen) for name in ("elu", "relu"))
    assert (elu.mean - relu.mean).abs().max() > 1e-3


def test_of_a_distillation_the_student_is_taken(tmp_path: Path) -> None:
    runners = pytest.importorskip("rsl_rl.runners")
    trained(model(distribution_cfg=gaussian()), tmp_path, ("policy", "privileged"))
    config = {
        "algorithm": {"class_name": "Distillation", "gradient_length": 4},
        "student": model(hidden_dims=[6], distribution_cfg=gaussian(init_std=0.1)),
        "teacher": model(),
        "obs_groups": {"student": ["policy"], "teacher": ["policy", "privileged"]},
        "num_steps_per_env": 4,
        "save_interval": 100,
    }
    runner = runners.DistillationRunner(NoiseEnv(), config, log_dir=None, device="cpu")
    runner.alg.teacher_loaded = True
    runner.learn(1)
    runner.save(str(tmp_path / "student.pt"))
    seen = runner.env.get_observations()
    with torch.no_grad():
        expected = runner.get_inference_policy()(seen)
    output = load_rsl_rl(tmp_path / "student.pt")(dict(seen.items()))
    torch.testing.assert_close(output.mean, expected, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(output.log_std.exp(), torch.full_like(expected, 0.1))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_rsl_rl_exports_says_the_same(tmp_path: Path) -> None:
    runner = trained(model(distribution_cfg=gaussian()), tmp_path)
    runner.export_policy_to_jit(str(tmp_path), "policy.pt")
    seen = {"policy": torch.randn(4, 5)}
    exported = load_torchscript(tmp_path / "policy.pt").fitted("a task", OBSERVED, MOVES)
    torch.testing.assert_close(exported(seen).mean, load_rsl_rl(tmp_path / "model.pt")(seen).mean)


def old_checkpoint(who: str, **entries: Any) -> tuple[dict[str, Any], nn.Sequential]:
    """Returns what rsl_rl 1 to 3 saved, and the network that is in it."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(5, 6), nn.ELU(), nn.Linear(6, NUM_ACTIONS))
    tensors = {f"{who}.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {"critic.0.weight": torch.zeros(6, 9), "std": torch.tensor([0.1, 0.2, 0.3])}
    saved = {"model_state_dict": tensors, "optimizer_state_dict": {}, "iter": 7, "infos": None}
    return {**saved, **entries}, network


MEAN, STD = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]]), torch.tensor([[0.5, 1.0, 1.5, 2.0, 2.5]])


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("who", ["actor", "student"])
def test_older_checkpoints_are_read(version: int, who: str, tmp_path: Path) -> None:
    normalizer = {"_mean": MEAN, "_var": STD.square(), "_std": STD}
    saved, network = old_checkpoint(who)
    if version == 2:
        saved["obs_norm_state_dict"] = normalizer
    if version == 3:
        named = {f"{who}_obs_normalizer.{name}": part for name, part in normalizer.items()}
        saved["model_state_dict"] |= {**named, f"{who}_obs_normalizer.count": torch.tensor(9)}
    torch.save(saved, tmp_path / "model_7.pt")
    seen = torch.randn(4, 5)
    output = load_rsl_rl(tmp_path / "model_7.pt")({"policy": seen})
    # rsl_rl adds 0.01 to the deviation, not to the variance.
    inputs = seen if version == 1 else (seen - MEAN) / (STD + 0.01)
    torch.testing.assert_close(output.mean, network(inputs))
    torch.testing.assert_close(output.log_std[0].exp(), torch.tensor([0.1, 0.2, 0.3]))


def test_a_suite_may_pad_what_it_reads(tmp_path: Path) -> None:
    saved, _ = old_checkpoint("actor")
    torch.save(saved, tmp_path / "model.pt")
    loaded = load_rsl_rl(tmp_path / "model.pt").fitted("a task", OBSERVED, MOVES)
    seen = torch.randn(4, 5)
    padded = torch.cat([seen, torch.ones(4, 2)], 1)
    # Close, as the rows are further apart in memory.
    torch.testing.assert_close(loaded({"policy": padded}).mean, loaded({"policy": seen}).mean)


MEMORIES = {
    "LSTM": {"rnn_type": "lstm"},
    "GRU": {"rnn_type": "gru"},
    "LSTM of two layers": {"rnn_type": "lstm", "rnn_num_layers": 2},
    "GRU of three layers": {"rnn_type": "gru", "rnn_num_layers": 3},
    "GRU without statistics": {"rnn_type": "gru", "obs_normalization": False},
}


def recurrent(case: str, **options: Any) -> dict[str, Any]:
    """Returns rsl_rl's configuration of a network with a memory."""
    options = {"rnn_hidden_dim": 7, **MEMORIES[case], **options}
    return model(class_name="RNNModel", **options)


def boosted(module: nn.Module) -> None:
    """Makes the weights of a memory large, so that it matters."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.7)


def distilled(student: dict[str, Any]) -> Any:
    """Returns a runner of rsl_rl that distils into a student."""
    runners = pytest.importorskip("rsl_rl.runners")
    config = {
        "algorithm": {"class_name": "Distillation", "gradient_length": 4},
        "student": student,
        "teacher": recurrent("GRU"),
        "obs_groups": {"student": ["policy"], "teacher": ["policy", "privileged"]},
        "num_steps_per_env": 4,
        "save_interval": 100,
    }
    runner = runners.DistillationRunner(NoiseEnv(), config, log_dir=None, device="cpu")
    runner.alg.teacher_loaded = True
    runner.learn(1)
    return runner


@pytest.mark.parametrize("case", MEMORIES)
@pytest.mark.parametrize("learner", ["actor", "student"])
def test_a_memory_is_that_of_rsl_rl(case: str, learner: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = recurrent(case, distribution_cfg=gaussian())
    runner = trained(options, tmp_path) if learner == "actor" else distilled(options)
    policy = runner.get_inference_policy()
    boosted(policy.rnn)
    runner.save(str(tmp_path / "model.pt"))
    loaded = load_rsl_rl(tmp_path / "model.pt")
    layers = MEMORIES[case].get("rnn_num_layers", 1)
    is_lstm = MEMORIES[case]["rnn_type"] == "lstm"
    assert loaded.state_size == 7 * layers * (1 + is_lstm) and loaded.architecture() is None
    with torch.no_grad():
        _compare_steps(loaded, policy, runner.env, (NUM_ENVS, layers, 1 + is_lstm, 7))


def _compare_steps(loaded: RslRlActor, policy: Any, env: NoiseEnv, shape: tuple[int, ...]) -> None:
    policy.reset()
    # Far from zero, where the first episode has to begin.
    state, first = torch.ones(NUM_ENVS, loaded.state_size), torch.ones(NUM_ENVS, dtype=torch.bool)
    never = torch.zeros(NUM_ENVS, loaded.state_size)
    for _ in range(9):
        seen = env.get_observations()
        output = loaded(dict(seen.items()), state=state, start=first)
        torch.testing.assert_close(output.mean, policy(seen), rtol=1e-5, atol=1e-5)
        hidden = policy.get_hidden_state()
        expected = torch.stack(hidden if shape[2] == 2 else (hidden,), 2)
        found = output.state.view(shape).transpose(0, 1)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        remembered = loaded(dict(seen.items()), state=never)
        state, never = output.state, remembered.state
        first = torch.rand(NUM_ENVS) < 0.3
        policy.reset(first)
    # Forgetting where an episode starts matters.
    assert (remembered.mean - output.mean).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("who", ["actor", "student"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_memories_in_older_checkpoints_are_read(
    who: str, kind: type[nn.LSTM] | type[nn.GRU], tmp_path: Path
) -> None:
    saved, network = old_checkpoint(who)
    memory = kind(4, 5, num_layers=2)
    boosted(memory)
    other = {"actor": "c", "student": "t"}[who]
    for letter, layers in ((who[0], memory), (other, nn.GRU(9, 5))):
        named = {f"memory_{letter}.rnn.{name}": part for name, part in layers.state_dict().items()}
        saved["model_state_dict"] |= named
    torch.save(saved, tmp_path / "model_7.pt")
    loaded = load_rsl_rl(tmp_path / "model_7.pt")
    seen = torch.randn(6, 3, 4)
    expected, _ = memory(seen)
    state = None
    for step, one in enumerate(seen):
        output = loaded({"policy": one}, state=state)
        torch.testing.assert_close(output.mean, network(expected[step]), rtol=1e-5, atol=1e-5)
        state = output.state


def test_memories_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    memory = nn.LSTM(4, 5).state_dict()
    wrong = {
        "do not fit": (nn.LSTM(4, 6).state_dict(), "outputs 6 values, but its layers read 5"),
        "plain": (nn.RNN(4, 5).state_dict(), "which is not that of an LSTM or GRU"),
        "missing": ({k: v for k, v in memory.items() if k != "bias_hh_l0"}, "does not contain"),
        "two ways": (nn.LSTM(4, 5, bidirectional=True).state_dict(), "with one direction"),
        "no size": ({"weight_hh_l0": torch.zeros(0, 0)}, "which is not that of"),
        "one number": ({"weight_hh_l0": torch.zeros(())}, "which is not that of"),
        "infinite": ({**memory, "weight_ih_l0": torch.full((20, 4), torch.nan)}, "not finite"),
        "three axes": (
            {**memory, "weight_ih_l0": torch.zeros(20, 4, 2)},
            r"has the shape [20, 4, 2], but must have [20, any]",
        ),
    }
    for tensors, sentence in wrong.values():
        saved, _ = old_checkpoint("actor")
        named = {f"memory_a.rnn.{name}": part for name, part in tensors.items()}
        saved["model_state_dict"] |= named
        torch.save(saved, path)
        assert sentence in refused(path)


def refused(path: Path, **options: Any) -> str:
    """Returns the sentence that refuses a file."""
    with pytest.raises(InputError) as caught:
        load_rsl_rl(path, **options)
    sentence = str(caught.value)
    assert sentence.endswith((".", "?")) and str(path) in sentence
    return sentence


def test_a_task_of_other_sizes_is_refused(tmp_path: Path) -> None:
    saved, _ = old_checkpoint("actor")
    torch.save(saved, tmp_path / "model.pt")
    loaded = load_rsl_rl(tmp_path / "model.pt")
    fitted = loaded.fitted("a task", OBSERVED, MOVES)
    assert fitted.kind == "rsl_rl" and fitted.action_space == MOVES
    wide = spaces.Dict({"policy": spaces.Box(-1.0, 1.0, (6,), np.float32)})
    other = spaces.Dict({"camera": spaces.Box(-1.0, 1.0, (5,), np.float32)})
    cases = [
        (wide, MOVES, "reads 5 values and outputs 3 action dimensions, but the task shows float32"),
        (OBSERVED, spaces.Discrete(3), "takes Discrete"),
        (
            other,
            MOVES,
            "reads the group 'policy', but the task shows 'camera'; add `.group=NAME` to",
        ),
    ]
    for observed, moves, sentence in cases:
        with pytest.raises(InputError, match=sentence):
            loaded.fitted("a task", observed, moves)


class Bomb:
    """What a pickle of it would do when loaded: create a file."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("exploded",))


def test_what_is_no_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pt"
    assert "there is no such file" in refused(path)
    assert "it cannot be read" in refused(tmp_path)
    path.write_bytes(b"PK no zip")
    assert "damaged" in refused(path)
    torch.save({"weights": torch.zeros(2), "epoch": 3}, path)
    assert "neither 'actor_state_dict' nor 'model_state_dict'" in refused(path)
    assert "torch.jit.save" in refused(path)
    torch.save({**old_checkpoint("actor")[0], "infos": Bomb()}, path)
    assert "contains more than tensors" in refused(path)
    assert not (tmp_path / "exploded").exists()


def test_networks_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"

    def with_tensors(**tensors: Tensor) -> str:
        saved, _ = old_checkpoint("actor")
        named = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
        saved["model_state_dict"] |= named
        torch.save(saved, path)
        return refused(path)

    encoder = with_tensors(encoder__0__weight=torch.zeros(4, 5))
    assert "'encoder.0.weight', but only fully connected actors, also after an LSTM" in encoder
    assert "does not consist of linear layers" in with_tensors(
        actor__0__weight=torch.zeros(6, 5, 3, 3)
    )
    assert "the sizes of its layers do not match" in with_tensors(
        actor__2__weight=torch.zeros(3, 9)
    )
    assert "4 standard deviations for 3 action dimensions" in with_tensors(std=torch.ones(4))
    saved, _ = old_checkpoint("actor", obs_norm_state_dict={"_mean": MEAN[:, :3], "_std": STD})
    torch.save(saved, path)
    assert "a mean and a standard deviation of the 5 values" in refused(path)


def test_an_unknown_activation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'relu'"):
        load_rsl_rl(tmp_path / "model.pt", "relo")
