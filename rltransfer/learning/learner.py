"""The learner that all methods share: one optimizer step per minibatch."""

from __future__ import annotations

import collections
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rltransfer.learning.minibatches import Batch
from rltransfer.machine import distributed

OptimizerName = Literal["adam", "radam", "sgd"]
PrecisionName = Literal["float32", "bfloat16"]

METRICS = {
    "loss": "The loss that the optimizer minimises, mean over the minibatches of a rollout.",
    "gradient_norm": "Euclidean norm of the gradient before it is clipped, mean over the "
    "minibatches of a rollout.",
    "ewc": "The pull of elastic weight consolidation, which the loss does not contain.",
    "l2_to_source": "The pull towards the weights of `init_from`, which the loss does not contain.",
}
"""What every learner logs; the pulls only where there are any."""

MOMENTS = {"step", "exp_avg", "exp_avg_sq"}
"""The tensors that Adam and RAdam keep of each parameter."""


class NonFiniteGradientError(ArithmeticError):
    """A gradient is not finite; the step was not applied."""


@dataclass
class Loss:
    """The loss of a minibatch, with metrics to log."""

    total: Tensor
    """Scalar to minimise.    ()"""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """Scalars by name, averaged over the minibatches.    () each"""


@dataclass
class Pull:
    """A quadratic term of the loss: see `Learner.pull`."""

    weight: float
    parameters: list[nn.Parameter]
    to: list[Tensor]
    strengths: list[Tensor | None]

    @torch.no_grad()
    def add_gradient(self) -> Tensor:
        """Adds the term's gradient to those of the parameters that train; returns the term.

        Returns:
            Its value, over these parameters.    ()
        """
        total = torch.zeros((), device=self.parameters[0].device)
        for one, tensor, strength in zip(self.parameters, self.to, self.strengths, strict=True):
            if one.grad is not None:
                distance = one - tensor
                force = distance if strength is None else distance * strength
                one.grad.add_(force, alpha=self.weight)
                total += (force * distance).sum()
        return self.weight / 2 * total


class Learner:
    """Trains a module's parameters by gradient descent, whatever the method.

    Args:
        module: The module to train.
        learning_rate: Initial step size; `update` may change it.
        optimizer: "adam" (Kingma 2014), "radam" (Liu 2019), or plain "sgd", for tables.
        epsilon: The optimizer's epsilon.
        max_grad_norm: Maximum gradient norm; larger gradients are scaled down to it.
        precision: "float32", or "bfloat16" for mixed precision, which is faster on GPUs and on
            CPUs that support it.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        learning_rate: float,
        optimizer: OptimizerName = "adam",
        epsilon: float = 1e-8,
        max_grad_norm: float = float("inf"),
        precision: PrecisionName = "float32",
    ) -> None:
        self.module = module
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.initial_learning_rate = learning_rate
        self.learning_rate = learning_rate
        self.max_grad_norm = max_grad_norm
        self.precision = precision
        self.num_steps = 0
        self._pulls: dict[str, Pull] = {}
        # On CUDA the optimizer skips bad steps itself: reading each norm would wait for the GPU.
        self._skip: Tensor | None = None
        if optimizer == "adam":
            self.optimizer: torch.optim.Optimizer = torch.optim.Adam(
                self.parameters, lr=learning_rate, eps=epsilon, fused=True
            )
            if self.device.type == "cuda":
                self.skip_on_device()
        elif optimizer == "sgd":
            self.optimizer = torch.optim.SGD(self.parameters, lr=learning_rate)
        else:
            self.optimizer = torch.optim.RAdam(
                self.parameters, lr=learning_rate, eps=epsilon, foreach=True
            )

    def skip_on_device(self) -> None:
        """Makes a fused optimizer skip steps with non-finite gradients; `update` raises later."""
        self._skip = torch.zeros((), device=self.device)
        self.optimizer.found_inf = self._skip  # type: ignore[attr-defined]

    def split(self, key: Callable[[nn.Parameter], int]) -> None:
        """Splits the parameters into groups, whose step sizes `set_rates` sets.

        Args:
            key: The group of a parameter.
        """
        (whole,) = self.optimizer.param_groups
        groups: dict[int, list[nn.Parameter]] = {}
        for parameter in self.parameters:
            groups.setdefault(key(parameter), []).append(parameter)
        self.optimizer.param_groups = [
            {**whole, "params": parameters, "key": group, "rate": 1.0}
            for group, parameters in groups.items()
        ]

    def set_rates(self, rates: Mapping[int, float]) -> None:
        """Sets the factor on each group's step size; a group with 0 gets no gradient at all.

        Args:
            rates: A factor for each group of `split`.
        """
        for group in self.optimizer.param_groups:
            group["rate"] = rates[group["key"]]
            for parameter in group["params"]:
                parameter.requires_grad_(group["rate"] > 0)
        self._set_learning_rate(self.learning_rate)

    def pull(
        self,
        name: str,
        weight: float,
        pairs: Sequence[tuple[nn.Parameter, Tensor]],
        strengths: Sequence[Tensor] | None = None,
    ) -> None:
        """Adds weight / 2 * sum of strength * (parameter - tensor)^2 to every loss.

        Args:
            name: Names this term and its metric; a later call with the same name replaces it.
            weight: The weight.
            pairs: Parameters, and the tensor that each is pulled to.
            strengths: The strength of each number in each parameter; None for 1.
        """
        parameters = [one for one, _ in pairs]
        self._pulls[name] = Pull(
            weight,
            parameters,
            [tensor for _, tensor in pairs],
            [None] * len(parameters) if strengths is None else list(strengths),
        )

    def update(
        self,
        batches: Iterable[Batch],
        loss: Callable[[Batch], Loss],
        learning_rate: float | None = None,
    ) -> dict[str, float]:
        """Takes one optimizer step per minibatch.

        Args:
            batches: The minibatches.
            loss: Computes the loss of one.
            learning_rate: New step size; None keeps the current one.

        Returns:
            Each metric's mean over the minibatches that report it, with "loss" and
            "gradient_norm", the norm before clipping.

        Raises:
            NonFiniteGradientError: A gradient contains a NaN or an infinity.
        """
        if learning_rate is not None:
            self._set_learning_rate(learning_rate)
        collected: dict[str, list[Tensor]] = {}
        count = 0
        for batch in batches:
            for name, value in self._step(batch, loss).items():
                collected.setdefault(name, []).append(value)
            count += 1
        if not count:
            return {}
        if self._skip is not None and bool(self._skip):
            raise NonFiniteGradientError(
                f"A gradient is not finite within the {count} optimizer steps up to step "
                f"{self.num_steps}."
            )
        means = torch.stack([torch.stack(values).mean() for values in collected.values()])
        return dict(zip(collected, means.tolist(), strict=True))

    def _set_learning_rate(self, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group.get("rate", 1.0)

    def _step(self, batch: Batch, loss: Callable[[Batch], Loss]) -> dict[str, Tensor]:
        mixed = self.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            result = loss(batch)
        for parameter in self.parameters:
            parameter.grad = None
        result.total.backward()
        pulls = {name: pull.add_gradient() for name, pull in self._pulls.items()}
        distributed.average_gradients(self.parameters)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        # Checked before clipping, which would spread a NaN over all gradients.
        if self._skip is not None:
            torch.maximum(self._skip, (~torch.isfinite(norm)).float(), out=self._skip)
            nn.utils.clip_grads_with_norm_(self.parameters, self.max_grad_norm, norm)
        elif not math.isfinite(known := float(norm)):
            raise NonFiniteGradientError(self._describe(result))
        elif known > self.max_grad_norm:
            torch._foreach_mul_(gradients, self.max_grad_norm / (known + 1e-6))
        self.optimizer.step()
        self.num_steps += 1
        metrics = {name: value.detach() for name, value in result.metrics.items()}
        return {**metrics, **pulls, "loss": result.total.detach(), "gradient_norm": norm}

    def _describe(self, result: Loss) -> str:
        faulty = [
            name
            for name, parameter in self.module.named_parameters()
            if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
        ]
        metrics = [name for name, value in result.metrics.items() if not bool(value.isfinite())]
        where = f"; these metrics are not finite: {', '.join(metrics)}" if metrics else ""
        return (
            f"The gradient of {', '.join(faulty) or 'the loss'} is not finite at optimizer step "
            f"{self.num_steps}{where}."
        )

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's tensors by name, its step size and its number of steps."""
        tensors: dict[str, Tensor] = {}
        for index, parameter in enumerate(self.parameters):
            for name, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{index}.{name}"] = torch.as_tensor(value).clone()
        steps = {"num_steps": self.num_steps, "learning_rate": self.learning_rate}
        return {"tensors": tensors, **steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of `state_dict`."""
        self.num_steps = operator.index(state["num_steps"])
        self._set_learning_rate(float(state["learning_rate"]))
        names = collections.defaultdict(set)
        for key in state["tensors"]:
            index, name = key.split(".", 1)
            names[index].add(name)
        if any(found != MOMENTS for found in names.values()):
            raise ValueError("an optimizer's state of other tensors")
        for key, tensor in state["tensors"].items():
            index, name = key.split(".", 1)
            parameter = self.parameters[int(index)]
            if name == "step":
                # Only a fused optimizer counts its steps on the device; others count on the CPU.
                fused = self.optimizer.defaults.get("fused")
                device = parameter.device if fused else torch.device("cpu")
                self.optimizer.state[parameter][name] = tensor.to(device, copy=True)
            else:
                # In the parameter's memory format, which a fused step assumes.
                self.optimizer.state[parameter][name] = torch.empty_like(parameter).copy_(tensor)
