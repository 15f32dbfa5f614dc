"""Stable-Baselines3 zips as frozen policies. No code in a zip is executed.

Only two members of a zip are read: the JSON `data`, of which the pickles under `:serialized:` stay
closed and the readable forms are used, and the tensors of `policy.pth`.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.files.untrusted import JSON_GROWTH, check_size, damage_refused, parse_json
from rltransfer.importers.archive import unpacked
from rltransfer.importers.damage import read_file
from rltransfer.importers.imported_policy import ImportedPolicy, mlp_of
from rltransfer.importers.saved_tensors import load_tensors
from rltransfer.importers.sb3_networks import (
    ActionBounds,
    ActorCritic,
    BatchRenorm,
    GroupInputs,
    Inputs,
    SingleHead,
)
from rltransfer.importers.sb3_recurrent import RecurrentActorCritic
from rltransfer.importers.sb3_settings import Settings, entry, find_algorithm, flag, read_settings
from rltransfer.importers.sb3_spaces import Space, read_action_space, read_observation_spaces
from rltransfer.importers.sb3_vecnormalize import (
    ObservationNormalizer,
    ObservationStatistics,
    load_vecnormalize,
)
from rltransfer.importers.sb3_weights import StoredTensors, build_network
from rltransfer.importers.sb3_zoo import ZooConfig
from rltransfer.policies.network import Network
from rltransfer.policies.output import EMPTY, Needs, PolicyOutput
from rltransfer.tasks.action import action_size
from rltransfer.tasks.image_layout import ImageBox
from rltransfer.tasks.observation import (
    DEFAULT_GROUP,
    Observation,
    describe_space,
    shown_shape,
)
from rltransfer.tasks.suite_spaces import check_bounds

TIMED_GROUPS = (DEFAULT_GROUP, "observation")
"""The groups to which TimeFeatureWrapper adds a value."""

KNOWN_WRAPPERS = ("AtariWrapper", "TimeFeatureWrapper")
"""Wrappers that need no note: Atari's tasks do what the first does; what lacks the second does not
fit its zips."""

MEMBERS = ("data", "policy.pth")
"""The files of a zip that are read."""


class ZipPolicy(ImportedPolicy):
    """The policy of a Stable-Baselines3 zip.

    - DQN and QR-DQN output Q-values; those of QR-DQN are the means over its quantiles.
    - PPO, A2C and TRPO output logits, or a Gaussian whose actions are clipped to the action bounds,
      and a value. MaskablePPO outputs logits and a value, without the masks of its environment:
      tasks do not show any. RecurrentPPO also outputs the state after its LSTM, and no value if the
      critic has a separate LSTM.
    - SAC, TQC and CrossQ output the greedy action and the squashed Gaussian that they sample from.
    - TD3, DDPG and ARS output the action alone; if it is discrete, as in `BestAction`.
    """

    kind = "stable-baselines3"

    def __init__(
        self,
        inputs: Inputs,
        network: ActorCritic | RecurrentActorCritic | SingleHead,
        actions: spaces.Box | spaces.Discrete,
        *,
        bounded: bool,
        settings: Settings,
        path: Path,
        sha256: str,
        vecnormalize_sha256: str | None,
        config: ZooConfig | None = None,
    ) -> None:
        """Creates a policy from its parts.

        Args:
            inputs: The first stage.
            network: The layers.
            actions: The actions of the zip.
            bounded: Whether the bounds of `actions` are those of the zip, or the zip omits them.
            settings: The settings of the zip.
            path: The zip.
            sha256: Hash of the zip.
            vecnormalize_sha256: Hash of the file of statistics, if any.
            config: What rl-zoo's configuration tells of its task, if there is one.

        Raises:
            InputError: Actions cannot be squashed into the bounds.
        """
        super().__init__(path, sha256, inputs.names)
        self.inputs = inputs
        names = ", ".join(f"{name!r}: NAME" for name in inputs.names)
        self.group_advice = f"rename a group with Adapted(teacher, observation={{{names}}})"
        self.network = network
        if isinstance(network, RecurrentActorCritic):
            self.state_size = network.memory.state_size
        self.actions = actions
        self.settings = settings
        self.vecnormalize_sha256 = vecnormalize_sha256
        self.config = config
        self.bounds: ActionBounds | None = None
        self.own_bounds = actions if bounded and isinstance(actions, spaces.Box) else None
        if self.own_bounds is not None:
            self._set_bounds(self.own_bounds)

    def num_parameters(self) -> int:
        """The number of parameters that greedy actions need, without those of the value alone."""
        unused = ("value", "log_std")
        named = self.named_parameters()
        return sum(p.numel() for name, p in named if not any(part in name for part in unused))

    def architecture(self) -> Network | None:
        """The layers of the actor, or of DQN's network."""
        network = self.network
        if isinstance(network, RecurrentActorCritic):
            return None  # students have their GRU after the hidden layers, and not before
        shared = network.shared if isinstance(network, ActorCritic) else nn.Sequential()
        modules = (*shared.children(), *network.hidden.children())
        layers = nn.Sequential(*(one for one in modules if not isinstance(one, BatchRenorm)))
        if not self.inputs.is_image:
            return mlp_of(layers)
        return None if len(layers) else Network(encoder="nature", activation="relu")

    def preprocessing(self) -> dict[str, Any]:
        """The scale, the order of channels and the statistics; the frame stack is unknown."""
        sha256 = self.vecnormalize_sha256
        several = {"groups": list(self.groups)} if len(self.groups) > 1 else {}
        return {
            **several,
            "algorithm": self.settings.algorithm,
            "scale": 1 / 255 if self.inputs.divide else 1.0,
            "channels": "first" if self.inputs.is_image else None,
            "normalizer": None if sha256 is None else {"kind": "VecNormalize", "sha256": sha256},
        }

    def notes(self) -> tuple[str, ...]:
        """That masks and wrappers are not applied, and how actions count that start elsewhere."""
        notes = []
        if self.settings.algorithm == "MaskablePPO":
            notes.append(
                f"{self.path} was trained by MaskablePPO, but the action masks of its environment "
                "are not applied: it may choose actions that the environment masks."
            )
        if isinstance(self.actions, spaces.Discrete) and self.actions.start:
            notes.append(
                f"{self.path} was trained with actions in {self.actions}, but Stable-Baselines3 "
                "counts actions from 0: its first action is taken for the task's first."
            )
        if self.config is not None:
            notes += [
                f"{self.path} was trained with the wrapper {wrapper}, as {self.config.place} "
                "tells, which is not applied: what it does to observations and actions, the task "
                "must do."
                for wrapper in self.config.wrappers
                if wrapper.rpartition(".")[2] not in KNOWN_WRAPPERS
            ]
        return tuple(notes)

    def known_spaces(self) -> tuple[spaces.Dict, spaces.Space[Any] | None]:
        """The observations that the policy was trained on, and its actions."""
        unknown = isinstance(self.actions, spaces.Box) and self.bounds is None
        return self.inputs.space, None if unknown else self.actions

    def forward(
        self,
        observation: Observation,
        needs: Needs = EMPTY,
        state: Tensor | None = None,
        start: Tensor | None = None,
    ) -> PolicyOutput:
        """The output of the policy, with actions in the units of the environment.

        Args:
            observation: The groups.    (rows, ...)
            needs: See `Policy`.
            state: The recurrent state before these observations; see `ImportedPolicy`.
            start: Whether a row is an episode's first.    (rows,)

        Raises:
            InputError: The zip does not contain its action bounds, and no task has given them.
        """
        inputs = self.inputs(*self.unpadded(observation))
        output: PolicyOutput
        if isinstance(self.network, RecurrentActorCritic):
            output = self.network(inputs, needs, state, start)
        else:
            output = self.network(inputs, needs)
        if output.mean is not None:
            if self.bounds is None:
                raise InputError(
                    f"{self.path} does not contain all bounds of its {action_size(self.actions)} "
                    "action dimensions: fit it to a task first, whose bounds it then uses."
                )
            self.bounds(output)
        return output

    def fitted(
        self,
        task_id: str,
        observation_space: spaces.Dict,
        action_space: spaces.Space[Any],
        shown: Observation | None = None,
    ) -> Self:
        """A copy with the action bounds of the task; see `ImportedPolicy`."""
        fitted = super().fitted(task_id, observation_space, action_space, shown)
        if self.action_space is not None and self.action_space != action_space:
            raise InputError(
                f"The teacher {self.path} scales its actions to the bounds of one task, but those "
                f"of the task {task_id!r} and of the task before it differ: give each its own "
                "teacher, with PerTask."
            )
        return fitted

    def check_fit(self, task_id: str, shown: Observation | None) -> None:
        """Checks both spaces, and takes the action bounds."""
        assert self.observation_space is not None
        action_space, actions = self.action_space, self.actions
        if isinstance(actions, spaces.Discrete):
            acts = _same_number(action_space, actions)
        else:
            acts = isinstance(action_space, spaces.Box) and action_space.shape == actions.shape
        shapes = {name: self.observation_space[name] for name in self.groups}
        parts = self.inputs.groups
        # Images of all groups are read in one way: as the environment shows them, or turned.
        self.as_shown = any(_reads_as_shown(parts[name], one) for name, one in shapes.items())
        if not acts or not all(self._reads(parts[name], one) for name, one in shapes.items()):
            observed = " and ".join(describe_space(one.space) for one in parts.values())
            fault = f"observes {observed} and acts in {describe_space(actions)}"
            hint = next(filter(None, itertools.starmap(self._hint, shapes.items())), "")
            raise self.refusal(task_id, fault + hint if acts else fault)
        if isinstance(action_space, spaces.Box):
            who, source = f"The teacher {self.path}", repr(str(self.path))
            check_bounds(who, source, self.own_bounds, task_id, action_space)
            self._set_bounds(action_space)

    def _reads(self, inputs: GroupInputs, shown: spaces.Space[Any]) -> bool:
        """Whether the policy can read an observation group of a task."""
        stored = inputs.space
        if self.as_shown and isinstance(shown, ImageBox):
            return _reads_as_shown(inputs, shown) and bool(stored.dtype == shown.dtype)
        if not isinstance(shown, spaces.Box):
            return isinstance(stored, spaces.Discrete) and _same_number(shown, stored)
        if isinstance(stored, spaces.Discrete):
            # Tasks show discrete observations as one-hot vectors.
            one_hot = bool((shown.low == 0).all() and (shown.high == 1).all())
            return one_hot and shown.shape == (int(stored.n),)
        if (stored.dtype == np.uint8) != (shown.dtype == np.uint8):
            return False
        channels_first = shown.shape
        if inputs.is_image and len(shown.shape) == 3:
            channels_first = (shown.shape[2], *shown.shape[:2])
        return stored.shape in (shown.shape, channels_first)

    def _hint(self, group: str, shown: spaces.Space[Any]) -> str:
        """What would fit instead of an observation group of a task; "" if unknown."""
        source, own = repr(str(self.path)), self.inputs.groups[group].shape
        theirs = shown_shape(shown)
        if group in TIMED_GROUPS and len(own) == 1 and theirs == (own[0] - 1,):
            return (
                f' (one value more is what TimeFeatureWrapper adds: use "Adapted({source}, '
                "observation='time_feature')\")"
            )
        stacked = 1 if self.config is None else self.config.frame_stack
        if self.config is None or stacked == 1 or own == theirs:
            return ""
        fits = "use a task that shows as many frames"
        if group == DEFAULT_GROUP and len(theirs) == 1 and own == (stacked * theirs[0],):
            fits = (
                f'add --history {stacked} and use "Adapted({source}, '
                "observation={'policy': 'history'})\""
            )
        return f" ({self.config.place} stacks {stacked} observations: {fits})"

    def _set_bounds(self, actions: spaces.Box) -> None:
        """Takes the bounds of an action space.

        Raises:
            InputError: Actions cannot be squashed into them.
        """
        low, high = (bound.astype(np.float32) for bound in (actions.low, actions.high))
        squash = self.settings.squash
        if squash and not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise InputError(
                f"{self.path} cannot act between the bounds {low.tolist()} and {high.tolist()}: it "
                "squashes its actions into the bounds, so they must be finite."
            )
        self.actions = spaces.Box(low, high, dtype=np.float32)
        self.bounds = ActionBounds(torch.tensor(low), torch.tensor(high), squash=squash)


def load_zip(
    path: Path, vecnormalize: Path | None = None, config: ZooConfig | None = None
) -> ZipPolicy:
    """The policy of a zip that `model.save` of Stable-Baselines3 wrote, frozen, on the CPU.

    Args:
        path: The zip.
        vecnormalize: The file that `VecNormalize.save` wrote alongside it, if the policy was
            trained on normalised observations; the zip does not say so.
        config: What rl-zoo's configuration tells of its task, for notes and errors.

    Raises:
        InputError: A file is missing, damaged or of another kind, or the two do not fit together.
    """
    content = read_file(path, "a Stable-Baselines3 zip")
    data, tensors = _open(content, path)
    algorithm = find_algorithm(data, tensors, path)
    kwargs = entry(data, "policy_kwargs", path)
    observed = read_observation_spaces(entry(data, "observation_space", path), path)
    actions, bounded = read_action_space(entry(data, "action_space", path), path)
    discrete = isinstance(actions, spaces.Discrete)
    if algorithm in (
        ("CrossQ", "DDPG", "SAC", "TD3", "TQC") if discrete else ("DQN", "MaskablePPO", "QR-DQN")
    ):
        kind = "discrete" if discrete else "continuous"
        raise InputError(f"{path} is inconsistent: {algorithm} has no {kind} actions.")
    statistics = _statistics(vecnormalize, observed, path)
    groups = {}
    for name, (space, is_image) in observed.items():
        divide = is_image and flag(kwargs, "normalize_images", True, path)
        normalizer = _normalizer(statistics, name)
        groups[name] = GroupInputs(space, is_image=is_image, divide=divide, normalizer=normalizer)
    inputs = Inputs(groups)
    settings = read_settings(data, algorithm, path)
    stored = StoredTensors(tensors, settings, path)
    network = build_network(stored, inputs.shape, action_size(actions), discrete)
    policy = ZipPolicy(
        inputs, network, actions, bounded=bounded, settings=settings, path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        vecnormalize_sha256=None if statistics is None else statistics.sha256, config=config,
    )  # fmt: skip
    return policy.eval().requires_grad_(False)


def _open(content: bytes, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The JSON and the tensors in the bytes of a zip."""
    with damage_refused(
        f"{path} is not a Stable-Baselines3 zip: it is not a zip file, or was cut short or damaged."
    ):
        files = unpacked(content, path, MEMBERS.__contains__)
    for member in MEMBERS:
        if member not in files:
            raise InputError(
                f"{path} is not a complete Stable-Baselines3 zip: it does not contain "
                f"{member!r}, which `model.save` always writes."
            )
    with damage_refused(f"{path} cannot be read: its 'data' is not valid JSON."):
        check_size(len(files["data"]), path, JSON_GROWTH)
        data = parse_json(files["data"])
    with damage_refused(
        f"{path} cannot be read: its 'policy.pth' is damaged, or contains more than tensors."
    ):
        tensors = load_tensors(files["policy.pth"], path)
    if not isinstance(data, dict):
        raise InputError(f"{path} cannot be read: its 'data' is not a JSON object.")
    named = isinstance(tensors, dict) and all(
        isinstance(name, str)
        and isinstance(tensor, Tensor)
        # Batch renormalisation counts its steps in a whole number.
        and (tensor.is_floating_point() or name.endswith(".steps"))
        for name, tensor in tensors.items()
    )
    if not named:
        raise InputError(
            f"{path} cannot be read: its 'policy.pth' is not a dictionary of named tensors."
        )
    return data, dict(tensors)


def _same_number(space: spaces.Space[Any] | None, stored: spaces.Discrete) -> bool:
    """Whether a space of a task is Discrete with as many values as a stored one.

    Tasks count theirs from 0, whatever the start of the space, and so does Stable-Baselines3.
    """
    return isinstance(space, spaces.Discrete) and space.n == stored.n


def _reads_as_shown(inputs: GroupInputs, shown: spaces.Space[Any]) -> bool:
    """Whether images of a task are read as the environment shows them.

    Stable-Baselines3 turns images of bytes, and leaves images of floats as they are shown.
    """
    return isinstance(shown, ImageBox) and inputs.space.shape == shown.layout.shown


def _normalizer(
    statistics: ObservationStatistics | None, group: str
) -> ObservationNormalizer | None:
    """The normaliser of a group; None where it is not normalised."""
    if statistics is None or group not in statistics.groups:
        return None
    return ObservationNormalizer(statistics, group)


def _statistics(
    vecnormalize: Path | None, observed: Mapping[str, tuple[Space, bool]], path: Path
) -> ObservationStatistics | None:
    """The statistics in a file; None without a file.

    Raises:
        InputError: They are those of a group that the zip does not observe, or of another shape.
    """
    if vecnormalize is None:
        return None
    statistics = load_vecnormalize(vecnormalize)
    for name, moments in statistics.groups.items():
        space, _ = observed.get(name, (None, False))
        if isinstance(space, spaces.Box) and moments.mean.shape == space.shape:
            continue
        several = len(observed) > 1 or len(statistics.groups) > 1 or space is None
        of = f" {name!r}" if several else ""
        found = "does not observe it" if space is None else f"observes {describe_space(space)}"
        raise InputError(
            f"{vecnormalize} contains statistics of observations{of} of the shape "
            f"{list(moments.mean.shape)}, but {path} {found}: both must be the same."
        )
    return statistics
