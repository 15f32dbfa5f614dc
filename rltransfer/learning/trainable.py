"""Which layers of a policy train, how fast, and how strongly they are pulled to their source.

`--freeze` says which layers do not train, counted from the observation up:

    encoder          all but the heads
    layers:2         the first two
    layers:2->0@0.5  gradual unfreezing (Howard 2018, ULMFiT): two at first, fewer over the first
                     half of the run, from the top down
    freezeout:0.5    FreezeOut (Brock 2017, arXiv 1706.04983): the first layer stops training after
                     half of the run, the last one at its end, those between at times in between

FreezeOut's step size of layer i falls to 0 by a cosine,

    rate_i(t) = rate / 2 * (1 + cos(pi t / t_i)),    t_i = start + (1 - start) i / (layers - 1),

on top of the method's own decay; the paper's variants that scale rates by 1 / t_i and that space
the t_i cubically are left out.

`--l2-to-source` adds lambda / 2 * ||w - w_source||^2 over the tensors that were loaded (L2-SP, Li
2018, arXiv 1802.01483, eq. 4).

Frozen layers stay equal bit for bit, and so do the statistics that normalise their inputs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.learning.layers import layer_of, num_layers
from rltransfer.learning.learner import Learner
from rltransfer.policies.policy import Policy
from rltransfer.schedule import Schedule

RANGES_OF = {"layers": "at least 0", "freezeout": "from 0 to 1"}
"""The forms with a number, and what it must be."""
FORMS = "write encoder, layers:2, layers:2->0@0.5 or freezeout:0.5"


@dataclass(frozen=True)
class Freeze:
    """What `--freeze` says."""

    kind: str
    """"encoder", "layers" or "freezeout"."""
    value: Schedule
    """The number of frozen layers, or when the first layer stops in FreezeOut."""

    @staticmethod
    def of(text: str) -> Freeze | None:
        """Reads the text; "" freezes nothing.

        Raises:
            InputError: The text has none of the forms.
        """
        if not text:
            return None
        kind, sign, value = text.partition(":")
        if text == "encoder":
            return Freeze(kind, Schedule(0, 0))
        if kind not in RANGES_OF or not sign:
            raise InputError(f"freeze is {text!r}: {FORMS}.")
        schedule = Schedule.of(value)
        schedule.check(f"The {kind} of freeze", RANGES_OF[kind])
        if kind == "freezeout" and schedule.start != schedule.end:
            raise InputError(f"freeze is {text!r}: the start of freezeout is one number.")
        return Freeze(kind, schedule)

    def rate(self, layer: int, layers: int, progress: float) -> float:
        """The factor on the step size of a layer; 0 if it is frozen.

        Args:
            layer: From 1 at the observation.
            layers: The number of layers.
            progress: The completed fraction of the run, 0 to 1.
        """
        if self.kind == "encoder":
            return float(layer == layers)
        if self.kind == "layers":
            return float(layer > math.ceil(self.value(progress)))
        start = self.value.start
        end = start + (1 - start) * (layer - 1) / max(layers - 1, 1)
        return 0.0 if progress >= end else 0.5 * (1 + math.cos(math.pi * progress / end))


class Trainable:
    """Sets what a policy's learner trains; every method has one.

    Args:
        policy: The policy in training.
        learner: Its learner.
        freeze: What does not train.
        pull: Weight of the squared distance to the source.

    Raises:
        InputError: There are not as many layers, or nothing would train.
    """

    def __init__(
        self, policy: Policy, learner: Learner, freeze: Freeze | None = None, pull: float = 0.0
    ) -> None:
        self.policy, self.learner, self.freeze, self.pull = policy, learner, freeze, pull
        self.keeps_statistics = False
        """Whether the statistics of the observations stay as they are, even if all layers train."""
        self.layers = num_layers(policy)
        self._source: dict[str, Tensor] = {}
        if freeze is None:
            return
        if freeze.kind == "layers" and max(freeze.value.start, freeze.value.end) > self.layers - 1:
            raise InputError(
                f"freeze is layers:{freeze.value}, but the policy has {self.layers} layers, heads "
                f"included: freeze at most {self.layers - 1}."
            )
        layer = {id(p): layer_of(name, policy) for name, p in policy.named_parameters()}
        # What else learns, e.g. an objective's maps, is never frozen: as a layer above the heads.
        learner.split(lambda parameter: layer.get(id(parameter), self.layers + 1))

    def pull_to_source(self, names: Collection[str]) -> None:
        """Pulls parameters to their present values, those of the source.

        Args:
            names: The tensors that were loaded.
        """
        if self.pull:
            named = self.policy.named_parameters()
            self._set_source({n: p.detach().clone() for n, p in named if n in names})

    def _set_source(self, source: dict[str, Tensor]) -> None:
        named = dict(self.policy.named_parameters())
        self._source = {name: tensor.to(named[name].device) for name, tensor in source.items()}
        self.learner.pull(
            "l2_to_source", self.pull, [(named[name], to) for name, to in self._source.items()]
        )

    def begin_rollout(self, progress: float) -> None:
        """Sets the step size of each layer, for the updates after a rollout.

        Args:
            progress: Completed fraction of the run, 0 to 1.
        """
        self.policy.frozen_statistics = self.keeps_statistics
        if self.freeze is None:
            return
        rates = {
            layer: self.freeze.rate(layer, self.layers, progress)
            for layer in range(1, self.layers + 1)
        }
        self.learner.set_rates({**rates, self.layers + 1: 1.0})
        self.policy.frozen_statistics |= rates[1] == 0

    def state_dict(self) -> dict[str, Any]:
        """The source's weights, which parameters are pulled to."""
        return {name: tensor.clone() for name, tensor in self._source.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores a state of `state_dict`."""
        if self.pull:
            self._set_source(dict(state))
