"""Writes a run's policy as a zip that Stable-Baselines3 loads: `rltransfer export RUN --to sb3`.

    NAME.zip                PPO for logits and Gaussians, DQN for Q-values
    NAME.vecnormalize.pkl   the observation statistics, if the policy has any

Statistics stay in a file of their own. Both libraries compute clip((x - mean) / sqrt(variance +
1e-8), -10, 10), so that VecNormalize does exactly what the policy does; folded into the first
layer, the clipping would be lost. Continuous actions are learned in [-1, 1]: their units are folded
into the last layer, exactly.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import Tensor, nn

from rltransfer.errors import InputError, check_number
from rltransfer.files.atomic import write_bytes_whole
from rltransfer.files.checkpoint_names import find_checkpoint
from rltransfer.importers.sb3_zoo import hides_statistics
from rltransfer.options import whole_number
from rltransfer.policies.encoder import Encoder
from rltransfer.policies.normalizer import RunningNormalizer
from rltransfer.policies.policy import Policy, bounded_log_std
from rltransfer.policies.saving import load_policy
from rltransfer.runs.config import read_config
from rltransfer.runs.exporters import ExportedFiles, check_target
from rltransfer.runs.folder import io_errors_as_input_errors
from rltransfer.tasks.observation import DEFAULT_GROUP
from rltransfer.tasks.random_observation import random_observation
from rltransfer.tasks.task import Suite

TOLERANCE = 1e-4
"""Tolerated difference, relative to the largest output: both compute in float32, but sum in
different orders."""

REPLAY = 1_000_000
"""Capacity of DQN's replay buffer in the zip: Stable-Baselines3's default."""

ONNX = "use `--to onnx`"
"""What can contain every policy."""

Layers = list[nn.Linear]


class Spaces(gymnasium.Env[Any, Any]):
    """An environment for a model to take its spaces from; it is never stepped."""

    def __init__(self, observations: spaces.Box, actions: spaces.Space[Any]) -> None:
        self.observation_space = observations
        self.action_space = actions


def export_sb3(run_dir: Path, out: Path, *, checkpoint: str, samples: int) -> ExportedFiles:
    """Writes a run's policy as a zip, after checking that Stable-Baselines3 acts the same.

    Args:
        run_dir: The run directory.
        out: The zip; neither it nor NAME.vecnormalize.pkl may exist.
        checkpoint: The checkpoint with the policy, see `find_checkpoint`.
        samples: Number of random observations on which policy and zip are compared.

    Raises:
        InputError: The folder is not a run or has no such checkpoint, Stable-Baselines3 has no
            such policy, a file exists or cannot be written, or the zip would play with the
            observation statistics of another.
        RuntimeError: The zip does not act like the policy; it is not written.
    """
    samples = whole_number("samples", samples, "at least 1")
    check_number("samples", samples, "at most 1,000,000")
    suite = Suite.from_json(read_config(run_dir)["suite"])
    policy = load_policy(find_checkpoint(run_dir, checkpoint) / "policy")
    if out.suffix != ".zip":
        raise InputError(f"{out} is not the name of a zip: use --out {out.stem or 'policy'}.zip.")
    observations, actions = _checked_spaces(policy, suite, run_dir)
    statistics_path = out.with_suffix(".vecnormalize.pkl")
    normalizer = policy.encoder.normalizer
    for path in (out, *([] if normalizer is None else [statistics_path])):
        check_target(path)
    hiding = hides_statistics(out, None if normalizer is None else statistics_path)
    if hiding is not None:
        raise InputError(
            f"{out} would not play with the policy's observation statistics, because of {hiding}: "
            "use --out in another folder."
            if normalizer is not None
            else f"{out} would play with the observation statistics {hiding}, but the policy has "
            "none: use another --out, or move that file."
        )

    env = DummyVecEnv([lambda: Spaces(observations, actions)])
    model, notes = _model(policy, env, run_dir)
    statistics = None if normalizer is None else _statistics(normalizer, env)
    content = io.BytesIO()
    model.save(content)
    difference = _largest_difference(policy, content, type(model), statistics, samples)
    written = {out: content.getvalue()}
    if statistics is not None:
        written[statistics_path] = pickle.dumps(statistics)
    with io_errors_as_input_errors(out):
        # The statistics first: a zip without them would act, and act wrongly.
        for path in reversed(written):
            write_bytes_whole(path, written[path])
    if bool((observations.low == 0).all() and (observations.high == 1).all()):
        notes.append("If the task's observations are discrete, the zip reads them one-hot.")
    name = type(model).__name__
    load = f"load it with `stable_baselines3.{name}.load({str(out)!r})`"
    if statistics is not None:
        load += f", and its observation statistics with `VecNormalize.load({str(statistics_path)!r}"
        load += ", venv)`"
    return ExportedFiles(
        path=out,
        others=tuple(written)[1:],
        num_bytes=sum(map(len, written.values())),
        samples=samples,
        largest_difference=difference,
        notes=(f"{load[0].upper()}{load[1:]}.", *notes),
    )


def _checked_spaces(
    policy: Policy, suite: Suite, run_dir: Path
) -> tuple[spaces.Box, spaces.Space[Any]]:
    """The spaces of a policy that Stable-Baselines3 has, too.

    Raises:
        InputError: It has none like this.
    """
    spec = policy.spec
    seen = spec.observation_space.spaces
    observations = seen.get(DEFAULT_GROUP)
    own = spec.host_actions[0] if spec.host_actions else spec.action_space
    fault = ""
    if type(policy) is not Policy:
        fault = "it consists of several networks, of which Stable-Baselines3 has none"
    elif len(suite) > 1 or spec.num_tasks > 1 or spec.action_mask is not None:
        fault = "it is for several tasks, and a zip is for one"
    elif policy.gru is not None:
        fault = "it has a GRU, and PPO and DQN have no memory"
    elif set(seen) != {DEFAULT_GROUP} or spec.network.groups != (DEFAULT_GROUP,):
        fault = f"it reads the observation groups {', '.join(map(repr, seen))}, and not one vector"
    elif not isinstance(observations, spaces.Box) or len(observations.shape) == 3:
        fault = "it reads images, and only vectors are written"
    elif not all(isinstance(one, nn.Linear | nn.ReLU | nn.Tanh) for one in policy.encoder.layers):
        fault = "its layers are not only linear, e.g. for `layer_norm`"
    elif isinstance(own, spaces.Discrete) and own.start:
        fault = f"its actions begin with {own.start}, and Stable-Baselines3's with 0"
    if fault:
        raise InputError(f"{run_dir} cannot be exported to sb3: {fault}; {ONNX}.")
    assert isinstance(observations, spaces.Box)
    return observations, own


def _model(policy: Policy, env: DummyVecEnv, run_dir: Path) -> tuple[BaseAlgorithm, list[str]]:
    """A model with the policy's weights, and what the zip does not contain."""
    units = [layer.out_features for layer in _linear(policy.encoder)]
    activation = nn.Tanh if policy.spec.network.activation == "tanh" else nn.ReLU
    arguments: dict[str, Any] = {"activation_fn": activation}
    # Weights that the run does not have are the same each time.
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        if policy.spec.q_values:
            arguments["net_arch"] = units
            model: BaseAlgorithm = DQN(
                "MlpPolicy", env, policy_kwargs=arguments, device="cpu", buffer_size=1
            )
            model.buffer_size = REPLAY  # type: ignore[attr-defined]
        else:
            arguments["net_arch"] = {"pi": units, "vf": units}
            model = PPO("MlpPolicy", env, policy_kwargs=arguments, device="cpu")
    state = dict(model.policy.state_dict())
    if policy.spec.q_values:
        for network in ("q_net", "q_net_target"):
            _put(state, f"{network}.q_net", [*_linear(policy.encoder), policy.action_head])
        model.policy.load_state_dict(state)
        return model, []
    _put(state, "mlp_extractor.policy_net", _linear(policy.encoder))
    weight, bias = _action_layer(policy)
    state["action_net.weight"], state["action_net.bias"] = weight, bias
    if policy.log_std is not None:
        log_std = bounded_log_std(policy.log_std.detach())
        if policy.action_half_range is not None:
            log_std = log_std + policy.action_half_range[0].log()
        state["log_std"] = log_std
    notes = []
    if _has_value(policy):
        assert policy.value_encoder is not None and policy.value_head is not None
        _put(state, "mlp_extractor.value_net", _linear(policy.value_encoder))
        state["value_net.weight"] = policy.value_head.weight.detach()
        state["value_net.bias"] = policy.value_head.bias.detach()
    else:
        notes.append("The run has no value function that PPO could use: the zip's is untrained.")
    model.policy.load_state_dict(state)
    return model, notes


def _linear(encoder: Encoder) -> Layers:
    """The hidden layers of an encoder."""
    return [layer for layer in encoder.layers if isinstance(layer, nn.Linear)]


def _put(state: dict[str, Tensor], prefix: str, layers: Layers) -> None:
    """Sets the tensors of layers, between which are activations without tensors."""
    for place, layer in enumerate(layers):
        state[f"{prefix}.{2 * place}.weight"] = layer.weight.detach()
        state[f"{prefix}.{2 * place}.bias"] = layer.bias.detach()


def _action_layer(policy: Policy) -> tuple[Tensor, Tensor]:
    """Weight and bias of the last layer, whose outputs are in the environment's units.

    c + h (W x + b) = (h W) x + (c + h b) for each action dimension.
    """
    weight, bias = policy.action_head.weight.detach(), policy.action_head.bias.detach()
    if policy.action_center is None or policy.action_half_range is None:
        return weight, bias
    center, half_range = policy.action_center[0], policy.action_half_range[0]
    return half_range.unsqueeze(1) * weight, center + half_range * bias


def _has_value(policy: Policy) -> bool:
    """Whether the value network reads the same normalised observations as the policy."""
    if policy.value_encoder is None or policy.value_head is None:
        return False
    own, other = policy.encoder.normalizer, policy.value_encoder.normalizer
    if own is None or other is None:
        return own is other
    return torch.equal(own.mean, other.mean) and torch.equal(own.variance, other.variance)


def _statistics(normalizer: RunningNormalizer, env: DummyVecEnv) -> VecNormalize:
    """The observation statistics as Stable-Baselines3 has them; they do not change any more."""
    statistics = VecNormalize(
        env, training=False, norm_reward=False, clip_obs=normalizer.clip, epsilon=normalizer.epsilon
    )
    found = statistics.obs_rms
    assert isinstance(found, RunningMeanStd)
    shape = found.mean.shape
    found.mean = normalizer.mean.double().numpy().reshape(shape)
    found.var = normalizer.variance.double().numpy().reshape(shape)
    found.count = float(normalizer.count)
    return statistics


@torch.no_grad()
def _largest_difference(
    policy: Policy,
    content: io.BytesIO,
    algorithm: type[BaseAlgorithm],
    statistics: VecNormalize | None,
    samples: int,
) -> float:
    """The largest difference between a policy and what Stable-Baselines3 loads.

    Args:
        policy: The policy.
        content: The zip.
        algorithm: The class that loads it.
        statistics: The observation statistics.
        samples: Number of random observations.

    Raises:
        RuntimeError: They act differently.
    """
    content.seek(0)
    model = algorithm.load(content, device="cpu")
    shown = random_observation(policy.spec.observation_space, samples, 1)
    seen: NDArray[Any] = shown[DEFAULT_GROUP].numpy()
    if statistics is not None:
        normalized = statistics.normalize_obs(seen)
        assert isinstance(normalized, np.ndarray)
        seen = normalized
    found, _ = model.predict(seen, deterministic=True)
    output = policy(shown, torch.zeros(samples, dtype=torch.int64))
    actions = torch.from_numpy(found)
    if output.mean is None:
        # Actions with almost equal scores are interchangeable.
        scores = output.preferences()
        chosen = scores.gather(1, actions.reshape(samples, 1).long()).squeeze(1)
        difference, largest = scores.amax(1) - chosen, scores.abs().amax()
    else:
        bounds = model.action_space
        assert isinstance(bounds, spaces.Box)
        low, high = (torch.from_numpy(one).float().flatten() for one in (bounds.low, bounds.high))
        expected = output.mean.clamp(low, high)
        difference, largest = (expected - actions.reshape(samples, -1)).abs(), expected.abs().amax()
    worst = float(difference.amax())
    if not worst <= TOLERANCE * max(1.0, float(largest)):  # so that NaN fails as well
        raise RuntimeError(
            f"The zip's actions differ from the policy's by {worst:.2g}; it was not written."
        )
    return worst
