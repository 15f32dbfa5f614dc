"""The policy of progressive networks: a new column that sees the features of frozen ones.

Layer i of column k computes (Rusu 2016, section 2 and eq. 2)

    h_i = sigma(W_i h_{i-1} + U_i sigma(V_i [alpha_j h^j_{i-1} for j < k])),

where h^j are the features of the earlier columns, alpha_j is a learned number for each, and V_i
projects them to the width of column k: by a 1x1 convolution where they are images. The heads see
them without an adapter, as in Rusu 2016b (1610.04286): out = W h + sum over j of U_j h^j.

The earlier columns are policies of their own, frozen and saved with the new one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.policies.encoder import Encoder
from rltransfer.policies.history_encoder import HistoryConvolutions
from rltransfer.policies.linear import Linear
from rltransfer.policies.output import MAPS, Needs
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.tasks.observation import Observation
from rltransfer.tasks.task import Suite

MOST_COLUMNS = 100
"""Earlier columns of a policy, those of progressive ones among them."""


@dataclass(frozen=True)
class ProgressiveSpec(PolicySpec):
    """The specification of a `ProgressivePolicy`; the other fields are those of its new column."""

    earlier: tuple[PolicySpec, ...] = ()
    """The policies whose columns the new one sees, oldest first; each may be progressive itself."""
    suites: tuple[Suite, ...] = ()
    """The tasks that each of them was trained on."""

    def build(self) -> ProgressivePolicy:
        """A policy with fresh weights, in every column."""
        return ProgressivePolicy(self)

    def to_json(self) -> dict[str, Any]:
        """The JSON form that `from_json` reads."""
        return {
            "kind": "progressive",
            **super().to_json(),
            "earlier": [spec.to_json() for spec in self.earlier],
            "suites": [suite.to_json() for suite in self.suites],
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> ProgressiveSpec:
        """The specification that `to_json` wrote.

        Raises:
            Exception: The data are not those of a policy: one of `DAMAGE`.
        """
        return _from_json(data, [0])


def _from_json(data: dict[str, Any], count: list[int]) -> ProgressiveSpec:
    base = PolicySpec.from_json(data)
    fields = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
    earlier: list[PolicySpec] = []
    for one in data["earlier"]:
        count[0] += 1
        if count[0] > MOST_COLUMNS:
            raise ValueError("Each column is a network, which takes time to build.")
        kind = one.get("kind")
        if kind not in (None, "progressive"):
            raise ValueError("A column is a plain network.")
        earlier.append(_from_json(one, count) if kind else PolicySpec.from_json(one))
    suites = tuple(Suite.from_json(one) for one in data["suites"])
    if len(suites) != len(earlier):
        raise ValueError("There is a suite for each policy.")
    return ProgressiveSpec(**fields, earlier=tuple(earlier), suites=suites)


class Column:
    """The layers of an encoder, cut before each layer with weights.

    A stage is one layer with weights, the modules before it that have none (`Flatten`), and those
    after it: its normalisation and its nonlinearity.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.stages: list[tuple[list[nn.Module], nn.Module, list[nn.Module]]] = []
        before: list[nn.Module] = []
        for module in encoder.layers:
            if isinstance(module, HistoryConvolutions):
                raise InputError(
                    "The columns of progressive networks have no 1-D convolutions: use --encoder "
                    "mlp, which reads histories, too."
                )
            if isinstance(module, nn.Conv2d | nn.Linear):
                self.stages.append((before, module, []))
                before = []
            elif isinstance(module, nn.Flatten):
                before.append(module)
            else:
                self.stages[-1][2].append(module)

    def weights(self) -> list[nn.Module]:
        """The layers with weights."""
        return [layer for _, layer, _ in self.stages]

    def features(
        self, inputs: Tensor, laterals: Sequence[Tensor | None] | None = None
    ) -> list[Tensor]:
        """The output of each stage.    [(rows, ...)]

        Args:
            inputs: What the first layer sees.    (rows, ...)
            laterals: What is added before each stage's normalisation and nonlinearity.
        """
        found = []
        for index, stage in enumerate(self.stages):
            inputs = run_stage(stage, inputs, None if laterals is None else laterals[index])
            found.append(inputs)
        return found


def run_stage(
    stage: tuple[list[nn.Module], nn.Module, list[nn.Module]],
    inputs: Tensor,
    lateral: Tensor | None = None,
) -> Tensor:
    """The output of a stage.    (rows, ...)

    Args:
        stage: One of `Column.stages`.
        inputs: The output of the stage before it.               (rows, ...)
        lateral: What is added to the output of its weights.     (rows, ...)
    """
    before, layer, after = stage
    for module in before:
        inputs = module(inputs)
    outputs: Tensor = layer(inputs)
    if lateral is not None:
        outputs = outputs + lateral
    for module in after:
        outputs = module(outputs)
    return outputs


class Adapter(nn.Module):
    """What one layer of the new column gets from the earlier columns' features (Rusu 2016, eq. 2).

    Args:
        sizes: Channels or units of the earlier columns' features.
        width: Channels or units of the new column's features below the layer, to which V projects.
        layer: The new column's layer.
        are_images: Whether the features are images.
        activation: The nonlinearity between V and U.
        alpha: The initial value of each column's scale.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        width: int,
        layer: nn.Module,
        are_images: bool,
        activation: nn.Module,
        alpha: float,
    ) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((len(sizes),), alpha))
        self.project: nn.Conv2d | Linear
        self.unite: nn.Conv2d | Linear
        if are_images:
            self.project = nn.Conv2d(sum(sizes), width, 1, bias=False)
        else:
            self.project = Linear(sum(sizes), width, bias=False)
        if isinstance(layer, nn.Conv2d):
            (kernel, _), (stride, _) = layer.kernel_size, layer.stride
            self.unite = nn.Conv2d(width, layer.out_channels, kernel, stride, bias=False)
        else:
            assert isinstance(layer, nn.Linear)
            self.unite = Linear(layer.in_features, layer.out_features, bias=False)
        for module in (self.project, self.unite):
            nn.init.orthogonal_(module.weight)
        self.activation = activation

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """What is added to the layer's output, before its nonlinearity.    (rows, ...)

        Args:
            features: The earlier columns' features below the layer.    [(rows, ...)]
        """
        scaled = torch.cat([self.alpha[j] * one for j, one in enumerate(features)], 1)
        projected = self.activation(self.project(scaled))
        if projected.dim() == 4 and isinstance(self.unite, nn.Linear):
            projected = projected.flatten(1)
        united: Tensor = self.unite(projected)
        return united


class LateralHead(Linear):
    """A head that adds what the earlier columns' last features say.

    Args:
        own: The head of the new column, whose weights it takes.
        sizes: Units of each earlier column's last features.
        gain: Gain of the lateral weights.
    """

    def __init__(self, own: nn.Linear, sizes: Sequence[int], gain: float) -> None:
        super().__init__(own.in_features, own.out_features)
        with torch.no_grad():
            self.weight.copy_(own.weight)
            self.bias.copy_(own.bias)
        self.laterals = nn.ModuleList(Linear(size, own.out_features) for size in sizes)
        for lateral in self.outputs():
            nn.init.orthogonal_(lateral.weight, gain)
            nn.init.zeros_(lateral.bias)

    def outputs(self) -> list[Linear]:
        """The head over each earlier column's features, the oldest first."""
        found = []
        for module in self.laterals:
            assert isinstance(module, Linear)
            found.append(module)
        return found

    def forward(self, input: Tensor) -> Tensor:
        """The outputs.    (..., out_features)

        Args:
            input: The features of all columns, the new one's first.    (..., sum of sizes)
        """
        laterals = self.outputs()
        sizes = [self.in_features, *(lateral.in_features for lateral in laterals)]
        # Rows that lie apart are summed in another order by some CPUs' libraries: contiguous, the
        # column computes what a plain network does, bit for bit.
        own, *others = (part.contiguous() for part in input.split(sizes, -1))
        outputs = super().forward(own)
        for lateral, features in zip(laterals, others, strict=True):
            outputs = outputs + lateral(features)
        return outputs


class ProgressivePolicy(Policy):
    """A column with lateral connections from frozen, earlier columns.

    Policy and value share a column, as in the paper. `features` of its outputs are those of all
    columns, the new one's first.

    Args:
        spec: The specification.
        alpha: The initial value of the adapters' scales.

    Raises:
        InputError: The columns do not fit each other.
    """

    spec: ProgressiveSpec

    def __init__(self, spec: ProgressiveSpec, alpha: float = 0.1) -> None:
        super().__init__(spec)
        self.spec = spec
        self.value_encoder = None
        self.earlier = nn.ModuleList(one.build() for one in spec.earlier)
        self.earlier.requires_grad_(False)
        self._column = Column(self.encoder)
        for index, policy in enumerate(self.policies, 1):
            check_layers(self.encoder, policy, f"Column {index}")
        encoders = [encoder for policy in self.policies for encoder in encoders_of(policy)]
        activation = self.encoder.layers[-1]
        own = self._column.weights()
        theirs = [Column(encoder).weights() for encoder in encoders]
        self.adapters = nn.ModuleList(
            Adapter(
                [_width(layers[index - 1]) for layers in theirs],
                _width(own[index - 1]),
                own[index],
                isinstance(own[index - 1], nn.Conv2d),
                type(activation)(),
                alpha,
            )
            for index in range(1, len(own))
        )
        sizes = [encoder.num_features for encoder in encoders]
        gain = 1.0 if spec.q_values else 0.01
        self.action_head = LateralHead(self.action_head, sizes, gain)
        if self.value_head is not None:
            self.value_head = LateralHead(self.value_head, sizes, 1.0)

    @property
    def policies(self) -> list[Policy]:
        """The earlier policies, the oldest first."""
        found = []
        for module in self.earlier:
            assert isinstance(module, Policy)
            found.append(module)
        return found

    def parts(self) -> list[tuple[Policy, Suite]]:
        """The earlier policies and their tasks: each plays them as before."""
        return list(zip(self.policies, self.spec.suites, strict=True))

    def feature_layers(self) -> list[list[nn.Module]]:
        """See `Policy`."""
        return [encoder.feature_layers() for encoder in encoders_of(self)]

    def _encoded(
        self, observation: Observation, task: Tensor | None, needs: Needs
    ) -> tuple[Tensor, Tensor | None]:
        """See `Policy`; the features are those of all columns, the new one's first."""
        seen = self._seen(observation, task)
        # Without no_grad: the derivatives with respect to earlier features are those of the whole
        # network. Frozen weights alone need no graph.
        others = [features for policy in self.policies for features in columns_of(policy, seen)]
        own = self._own_features(_normalized(self.encoder, seen), others)
        maps = None
        if needs & MAPS:
            images = [features for features in own if features.dim() == 4]
            maps = images[-1] if images else None
        last = [features[-1].flatten(1) for features in (own, *others)]
        return torch.cat(last, 1), maps

    def _seen(self, observation: Observation, task: Tensor | None) -> Tensor:
        """The observation as every column may see it: scaled images, or raw vectors."""
        if self.encoder.flat:
            return self.encoder.vectors(observation)
        return self.encoder.inputs(observation, task)

    def _own_features(self, inputs: Tensor, others: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """The features of the new column, layer by layer."""
        found: list[Tensor] = []
        for index, stage in enumerate(self._column.stages):
            below = [features[index - 1] for features in others]
            lateral = self.adapters[index - 1](below) if index and below else None
            inputs = run_stage(stage, inputs, lateral)
            found.append(inputs)
        return found

    def columns_of(self, seen: Tensor) -> list[list[Tensor]]:
        """The features of all columns, layer by layer, the oldest column first.

        Args:
            seen: The observation of any column's task; see `columns_of`.
        """
        others = [features for policy in self.policies for features in columns_of(policy, seen)]
        inputs = _normalized(self.encoder, fitted(seen, self.encoder, self.spec))
        return [*others, self._own_features(inputs, others)]

    def start_as_previous(self) -> None:
        """Makes the new column act as the newest earlier policy does (Rusu 2016b).

        Its own output weights become zero, the laterals' those of the earlier policy's heads.

        Raises:
            InputError: The earlier policy has other outputs.
        """
        previous = self.policies[-1]
        _check_same_outputs(self, previous)
        self._take_over(self.action_head, previous.action_head)
        own, theirs = self.value_head, previous.value_head
        if own is not None and theirs is not None and previous.value_encoder is None:
            self._take_over(own, theirs)
        if self.log_std is not None and previous.log_std is not None:
            with torch.no_grad():
                self.log_std.copy_(previous.log_std)
        if previous.action_center is not None and previous.action_half_range is not None:
            # Those of a student are its teacher's.
            self.set_action_units(previous.action_center, previous.action_half_range)

    @staticmethod
    @torch.no_grad()
    def _take_over(head: nn.Linear, previous: nn.Linear) -> None:
        """Makes a head say what the head of the newest earlier policy says."""
        assert isinstance(head, LateralHead)
        sources = (
            [*previous.outputs(), previous] if isinstance(previous, LateralHead) else [previous]
        )
        for linear in (head, *head.outputs()):
            linear.weight.zero_()
            linear.bias.zero_()
        for lateral, source in zip(head.outputs()[-len(sources) :], sources, strict=True):
            lateral.weight.copy_(source.weight)
            lateral.bias.copy_(source.bias)

    def num_acting_parameters(self) -> int:
        """Number of parameters that acting needs: of the earlier policies, all but their heads."""
        count = super().num_acting_parameters()
        for policy in self.policies:
            for one in policy.modules():
                if isinstance(one, Policy):
                    unused = (one.action_head, one.value_head, one.value_encoder)
                    count -= sum(
                        parameter.numel()
                        for part in unused
                        if part is not None
                        for parameter in part.parameters()
                    )
        return count


def encoders_of(policy: Policy) -> list[Encoder]:
    """The encoders of all of a policy's columns, the oldest first."""
    if isinstance(policy, ProgressivePolicy):
        older = [encoder for earlier in policy.policies for encoder in encoders_of(earlier)]
        return [*older, policy.encoder]
    return [policy.encoder]


def columns_of(policy: Policy, seen: Tensor) -> list[list[Tensor]]:
    """The features of all of a policy's columns, layer by layer, the oldest first.

    Args:
        policy: A plain or a progressive policy.
        seen: The observation of any column's task: scaled images or raw vectors.    (rows, ...)
    """
    if isinstance(policy, ProgressivePolicy):
        return policy.columns_of(seen)
    inputs = _normalized(policy.encoder, fitted(seen, policy.encoder, policy.spec))
    return [Column(policy.encoder).features(inputs)]


def _normalized(encoder: Encoder, seen: Tensor) -> Tensor:
    return seen if encoder.normalizer is None else encoder.normalizer(seen, None)


def fitted(seen: Tensor, encoder: Encoder, spec: PolicySpec) -> Tensor:
    """An observation as a column of another task sees it.    (rows, ...)

    Channels or numbers that the column's task lacks are left out, those that the other lacks are 0.

    Args:
        seen: Scaled images or raw vectors.    (rows, ...)
        encoder: The column's encoder.
        spec: Its policy's specification.
    """
    shapes = [spec.observation_space[group].shape or () for group in encoder.groups]
    size = sum(int(torch.Size(shape).numel()) for shape in shapes) if encoder.flat else shapes[0][0]
    if seen.shape[1] > size:
        return seen[:, :size]
    if seen.shape[1] < size:
        # Pairs of sizes from the last axis on.
        return F.pad(seen, (0, 0) * (seen.dim() - 2) + (0, size - seen.shape[1]))
    return seen


def _width(layer: nn.Module) -> int:
    """The channels or units of a layer's output."""
    if isinstance(layer, nn.Conv2d):
        return layer.out_channels
    assert isinstance(layer, nn.Linear)
    return layer.out_features


def num_columns(spec: PolicySpec) -> int:
    """The columns of a policy, those of its earlier policies included."""
    return 1 + sum(map(num_columns, getattr(spec, "earlier", ())))


def check_number_of_columns(number: int) -> None:
    """Refuses more columns than a file may have.

    Raises:
        InputError: There are more.
    """
    if number > MOST_COLUMNS:
        raise InputError(
            f"There are {number} earlier columns, but at most {MOST_COLUMNS} are possible: pass "
            "fewer --columns."
        )


def check_layers(own: Encoder, policy: Policy, name: str) -> None:
    """Refuses an earlier policy whose layers do not correspond to those of the new column.

    Args:
        own: The encoder of the new column.
        policy: The earlier policy.
        name: What messages call it.

    Raises:
        InputError: They differ in the kind or number of layers, or in the size of images.
    """
    expected = _layout(own)
    for encoder in encoders_of(policy):
        found = _layout(encoder)
        if found != expected:
            raise InputError(
                f"{name} has the layers {', '.join(found)}, and the new column "
                f"{', '.join(expected)}: give both the same ones, of any width, on images of the "
                "same size."
            )


def _layout(encoder: Encoder) -> list[str]:
    """What must agree between columns: all of a network but the widths of its layers."""
    found, channels = [], 0
    for layer in Column(encoder).weights():
        if isinstance(layer, nn.Conv2d):
            (kernel, _), (stride, _) = layer.kernel_size, layer.stride
            found.append(f"convolution {kernel} x {kernel} / {stride}")
            channels = layer.out_channels
        else:
            assert isinstance(layer, nn.Linear)
            pixels = f" on {layer.in_features // channels} pixels" if channels else ""
            found.append(f"linear{pixels}")
            channels = 0
    return found


def _check_same_outputs(policy: ProgressivePolicy, previous: Policy) -> None:
    new, old = policy.spec, previous.spec
    same = (
        new.action_space == old.action_space
        and new.q_values == old.q_values
        and max(new.num_heads, old.num_heads) == 1
        and new.action_mask == old.action_mask
        and (policy.action_center is None) == (previous.action_center is None)
    )
    if not same:
        raise InputError(
            "The new column cannot start as the previous policy, as their outputs differ (actions, "
            "masks, heads, or Q-values against logits): leave out --start, or use --start fresh."
        )


def check_frozen(spec: PolicySpec, name: str) -> None:
    """Refuses a policy that cannot be a column.

    Raises:
        InputError: It is recurrent, or has statistics or image bounds of several tasks, or is of
            another kind.
    """
    if type(spec) not in (PolicySpec, ProgressiveSpec):
        raise InputError(
            f"{name} has several networks, and a column has one: distil it into a run first."
        )
    if spec.network.gru:
        raise InputError(f"{name} is recurrent, and columns are not: train it without --gru.")
    if spec.num_statistics > 1 or spec.image_bounds is not None:
        raise InputError(
            f"{name} scales the observations of each task by itself, and a new task is none of "
            "them: use a policy with --statistics shared, of images with the same bounds."
        )
