"""Models of CleanRL (`ppo_continuous_action.cleanrl_model`) as frozen policies.

Each script of CleanRL has one network, so that the names of the tensors determine the layers and
their activations. Checked against the scripts of CleanRL's repository (commit fe8d8a03):

| script | tensors | activation |
| --- | --- | --- |
| ppo | `actor.0/2/4`, `critic.0/2/4` | tanh |
| ppo_continuous_action, rpo_... | `actor_mean.0/2/4`, `actor_logstd`, `critic.0/2/4` | tanh |
| dqn | `network.0/2/4` | ReLU |
| c51 | `network.0/2/4`, `atoms` | ReLU |
| ppo_atari | `network.0/2/4/7`, `actor`, `critic` | ReLU |
| dqn_atari | `network.0/2/4/7/9` | ReLU |
| c51_atari | `network.0/2/4/7/9`, `atoms` | ReLU |
| td3_..., ddpg_continuous_action | `fc1`, `fc2`, `fc_mu`, `action_scale`, `action_bias` | ReLU |
| sac_continuous_action | the same with `fc_mean`, `fc_logstd` for `fc_mu` | ReLU |

c51 saves a dictionary with "model_weights" and "args", TD3 and DDPG a tuple of the actor and its
critics, every other script a state_dict. The scripts ppo, ppo_atari and sac_continuous_action save
nothing by themselves: `torch.save(agent.state_dict(), path)`, or `actor.state_dict()` of SAC, is
what is read. Layers may have other widths than the scripts'.

ppo_continuous_action normalises observations in a wrapper whose statistics it does not save, and
clips actions to their bounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.importers.cleanrl_networks import Divide, ExpectedValue, TanhStd
from rltransfer.importers.linear_layers import chain, hidden_layers, linear, take
from rltransfer.importers.network_policy import HeadOutput, NetworkPolicy
from rltransfer.importers.saved_file import EXPORT, SavedFile, Tensors, keys_of, table
from rltransfer.importers.sb3_networks import ActionBounds, DiagonalStd, SingleHead
from rltransfer.importers.sb3_weights import NATURE_LAYERS
from rltransfer.policies.network import Network
from rltransfer.tasks.observation import DEFAULT_GROUP, Observation
from rltransfer.tasks.suite_spaces import check_bounds

SUFFIX = ".cleanrl_model"
"""The suffix of CleanRL's files."""

BOUNDED = ("action_scale", "action_bias")

LAYERS: dict[str, tuple[str, ...]] = {
    "ppo": ("actor.0", "actor.2", "actor.4", "critic.0", "critic.2", "critic.4"),
    "ppo_continuous_action": (
        *("actor_mean.0", "actor_mean.2", "actor_mean.4", "actor_logstd"),
        *("critic.0", "critic.2", "critic.4"),
    ),
    "dqn": ("network.0", "network.2", "network.4"),
    "c51": ("network.0", "network.2", "network.4", "atoms"),
    "ppo_atari": ("network.0", "network.2", "network.4", "network.7", "actor", "critic"),
    "dqn_atari": ("network.0", "network.2", "network.4", "network.7", "network.9"),
    "c51_atari": ("network.0", "network.2", "network.4", "network.7", "network.9", "atoms"),
    "td3_continuous_action": ("fc1", "fc2", "fc_mu", *BOUNDED),
    "sac_continuous_action": ("fc1", "fc2", "fc_mean", "fc_logstd", *BOUNDED),
}
"""The layers and loose tensors of each script."""


class CleanRlPolicy(NetworkPolicy):
    """The network of a script of CleanRL."""

    kind = "cleanrl"

    def __init__(
        self,
        network: SingleHead,
        num_inputs: int,
        num_actions: int,
        output: HeadOutput,
        saved: SavedFile,
        groups: Sequence[str],
        script: str,
    ) -> None:
        """Creates a policy; see `NetworkPolicy`.

        Args:
            network: The layers.
            num_inputs: The number of observed values; of images, the number of channels.
            num_actions: The number of discrete actions or of action dimensions.
            output: What the head outputs.
            saved: The file.
            groups: The observation groups that it reads, in order.
            script: The script of CleanRL, one of `LAYERS`.
        """
        super().__init__(network, num_inputs, num_actions, output, saved, groups)
        self.script = script
        self.reads_images = script.endswith("_atari")
        self.bounds_of_task = script == "ppo_continuous_action"
        self.own_bounds: spaces.Box | None = None

    def architecture(self) -> Network | None:
        """The hidden layers, or the convolutions of Atari's networks if they have 512 units."""
        if not self.reads_images:
            return super().architecture()
        last = self.network.hidden.get_submodule("0")
        is_usual = isinstance(last, nn.Linear) and last.out_features == 512
        return Network(encoder="nature", activation="relu") if is_usual else None

    def preprocessing(self) -> dict[str, Any]:
        """The script, the groups and the scale."""
        scale = 1 / 255 if self.reads_images else 1.0
        return {**super().preprocessing(), "script": self.script, "scale": scale}

    def notes(self) -> tuple[str, ...]:
        """That the statistics of continuous PPO are missing."""
        if self.script != "ppo_continuous_action":
            return ()
        return (
            f"{self.path} seems to be trained by CleanRL's ppo_continuous_action, which normalises "
            "observations, but saves no statistics: without them, the policy acts worse than in "
            "training. Pass a task whose observations are normalised in the same way.",
        )

    def known_spaces(self) -> tuple[spaces.Dict | None, spaces.Space[Any] | None]:
        """The observations of the task, and the actions of the file where it contains them."""
        observations, actions = super().known_spaces()
        return observations, actions if self.own_bounds is None else self.own_bounds

    def set_bounds(self, center: Tensor, half: Tensor) -> None:
        """Squashes actions into the bounds of the file, which a task must have too.

        Args:
            center: The middle of the bounds.    (num_actions,)
            half: Half of the distance between them.    (num_actions,)
        """
        low, high = center - half, center + half
        self.own_bounds = spaces.Box(low.numpy(), high.numpy(), dtype=np.float32)
        self.bounds = ActionBounds(low, high, squash=True)

    def check_fit(self, task_id: str, shown: Observation | None) -> None:
        """Checks both spaces, and takes the bounds to which PPO clips its actions."""
        super().check_fit(task_id, shown)
        if not isinstance(self.action_space, spaces.Box):
            return
        who, source = f"The teacher {self.path}", repr(str(self.path))
        check_bounds(who, source, self.own_bounds, task_id, self.action_space)
        if self.bounds_of_task:
            self.bounds = ActionBounds(*self.bounds_in(self.action_space), squash=False)

    def reads(self, shown: spaces.Dict) -> bool:
        """Whether the network can read the groups."""
        if not self.reads_images:
            return super().reads(shown)
        images = shown[self.groups[0]]
        if len(self.groups) > 1 or images.dtype != np.uint8 or len(images.shape or ()) != 3:
            return False
        channels, *sides = images.shape or ()
        for _, kernel, stride in NATURE_LAYERS:
            sides = [(side - kernel) // stride + 1 for side in sides]
        layer = self.network.hidden.get_submodule("0")
        assert isinstance(layer, nn.Linear)
        area = layer.in_features // NATURE_LAYERS[-1][0]
        return channels == self.num_inputs and min(sides) > 0 and sides[0] * sides[1] == area

    def describe_inputs(self) -> str:
        """What the network reads, for errors."""
        if not self.reads_images:
            return super().describe_inputs()
        return f"images of {self.num_inputs} channels, of bytes, usually 84 pixels wide and high,"


def names_script(tensors: Tensors) -> str | None:
    """The script whose network has these tensors; None for others."""
    found = {name.removesuffix(".weight").removesuffix(".bias") for name in tensors}
    return next((script for script, names in LAYERS.items() if found == set(names)), None)


def is_cleanrl(saved: SavedFile) -> bool:
    """Whether a file has the suffix of CleanRL, or a form that only its scripts write."""
    inner = _unwrapped(saved.value)
    if saved.path.suffix == SUFFIX:
        return True
    return isinstance(inner, Mapping) and names_script(table(inner, saved.path)) is not None


def _unwrapped(value: Any) -> Any:
    """What contains the tensors of the policy in files of TD3, DDPG and C51; None in others."""
    if isinstance(value, tuple | list) and len(value) in (2, 3):
        return value[0]  # the actor, then its critics
    if isinstance(value, Mapping) and keys_of(value) == {"model_weights", "args"}:
        return value["model_weights"]
    return None


def read_cleanrl(saved: SavedFile, groups: Sequence[str] = (DEFAULT_GROUP,)) -> CleanRlPolicy:
    """The policy of a model of CleanRL, frozen.

    Args:
        saved: The open file.
        groups: The observation groups that it reads, in order.

    Raises:
        InputError: The tensors are not those of a script that is known, or do not fit together.
    """
    path = saved.path
    inner = _unwrapped(saved.value)
    value = saved.value if inner is None else inner
    tensors = table(value, path) if isinstance(value, Mapping) else {}
    script = names_script(tensors)
    if script is None:
        raise InputError(
            f"{path} does not contain the tensors of a CleanRL script that can be read "
            f"({', '.join(LAYERS)}): if it is a chain of linear layers, add "
            f"`?library=state_dict&activation=NAME` to the path, or else {EXPORT}."
        )
    if script.endswith("_atari"):
        policy = _atari(tensors, script, saved, groups)
    elif script in ("td3_continuous_action", "sac_continuous_action"):
        policy = _actor(tensors, script, saved, groups)
    else:
        policy = _vector(tensors, script, saved, groups)
    return policy.eval().requires_grad_(False)


def _vector(
    tensors: Tensors, script: str, saved: SavedFile, groups: Sequence[str]
) -> CleanRlPolicy:
    """PPO, DQN or C51 on vectors."""
    layers = chain(tensors, LAYERS[script][:3], saved.path)
    is_q = script in ("dqn", "c51")
    activation = nn.ReLU if is_q else nn.Tanh
    head, num_actions = _head(tensors, layers[-1], saved.path)
    log_std = None
    if script == "ppo_continuous_action":
        std = take(tensors, "actor_logstd", saved.path, num_actions)
        log_std = DiagonalStd(std.flatten())
    output: HeadOutput = "q_values" if is_q else "logits" if log_std is None else "mean"
    hidden = hidden_layers(layers[:-1], activation)
    network = SingleHead(nn.Flatten(), hidden, head, output, log_std)
    num_inputs = layers[0].in_features
    return CleanRlPolicy(network, num_inputs, num_actions, output, saved, groups, script)


def _atari(tensors: Tensors, script: str, saved: SavedFile, groups: Sequence[str]) -> CleanRlPolicy:
    """PPO, DQN or C51 on images."""
    path = saved.path
    modules: list[nn.Module] = [Divide()]
    first = tensors.get("network.0.weight")
    inputs = channels = first.shape[1] if first is not None and first.dim() == 4 else 1
    for index, (outputs, kernel, stride) in enumerate(NATURE_LAYERS):
        name = f"network.{2 * index}"
        weight, bias = take(tensors, f"{name}.weight", path), take(tensors, f"{name}.bias", path)
        if weight.shape != (outputs, inputs, kernel, kernel) or bias.shape != (outputs,):
            raise InputError(
                f"{path} cannot be read: its {name!r} is not the convolution of {outputs} "
                f"{kernel}x{kernel} filters that CleanRL's {script} has."
            )
        layer = nn.Conv2d(inputs, outputs, kernel, stride, device="meta")
        layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
        modules += [layer, nn.ReLU()]
        inputs = outputs
    last = "actor" if script == "ppo_atari" else "network.9"
    layers = chain(tensors, ("network.7", last), path)
    if layers[0].in_features % inputs:
        raise InputError(f"{path} cannot be read: the sizes of its layers do not match.")
    head, num_actions = _head(tensors, layers[1], path)
    output: HeadOutput = "logits" if script == "ppo_atari" else "q_values"
    extractor = nn.Sequential(*modules, nn.Flatten())
    network = SingleHead(extractor, hidden_layers(layers[:1], nn.ReLU), head, output)
    return CleanRlPolicy(network, channels, num_actions, output, saved, groups, script)


def _actor(tensors: Tensors, script: str, saved: SavedFile, groups: Sequence[str]) -> CleanRlPolicy:
    """The actor of TD3, DDPG or SAC, which squashes its actions into bounds."""
    path = saved.path
    layers = chain(tensors, LAYERS[script][:3], path)
    num_inputs, num_actions = layers[0].in_features, layers[-1].out_features
    log_std = None
    if script == "sac_continuous_action":
        chain(tensors, ("fc2", "fc_logstd"), path)
        layer = linear(tensors, "fc_logstd", path)
        if layer.out_features != num_actions:
            raise InputError(f"{path} cannot be read: the sizes of its layers do not match.")
        log_std = TanhStd(layer)
    hidden = hidden_layers(layers[:-1], nn.ReLU)
    network = SingleHead(nn.Flatten(), hidden, layers[-1], "mean", log_std)
    policy = CleanRlPolicy(network, num_inputs, num_actions, "mean", saved, groups, script)
    half, center = (_row(tensors, name, num_actions, path) for name in BOUNDED)
    if not bool((half > 0).all() and (center.abs() + half).isfinite().all()):
        raise InputError(
            f"{path} cannot be used: its 'action_scale' and 'action_bias' are not those of bounds."
        )
    policy.set_bounds(center, half)
    return policy


def _head(tensors: Tensors, layer: nn.Linear, path: Path) -> tuple[nn.Module, int]:
    """The head that ends with a layer, and its number of actions."""
    if "atoms" not in tensors:
        return layer, layer.out_features
    atoms = take(tensors, "atoms", path).flatten()
    if not len(atoms) or layer.out_features % len(atoms):
        raise InputError(
            f"{path} cannot be read: its last layer has {layer.out_features} outputs, which is "
            f"not a multiple of its {len(atoms)} atoms."
        )
    return ExpectedValue(layer, atoms), layer.out_features // len(atoms)


def _row(tensors: Tensors, name: str, size: int, path: Path) -> Tensor:
    """One value for each action dimension; earlier scripts save a row for each environment."""
    values = take(tensors, name, path)
    rows = values.view(-1, size) if values.numel() and values.numel() % size == 0 else None
    if rows is None or bool((rows != rows[0]).any()):
        raise InputError(
            f"{path} cannot be read: its tensor {name!r} does not have one value for each of the "
            f"{size} action dimensions."
        )
    return rows[0]
