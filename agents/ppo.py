"""Proximal policy optimisation (PPO): trains teachers, and is the baseline of the other methods.

For each rollout of `rollout_length` steps in every environment (Schulman 2017, algorithm 1):

    1. act by sampling pi;
    2. compute advantages by generalised advantage estimation (Schulman 2015, eq. 16);
    3. for `epochs` epochs, for each minibatch: take one step down
       L = E[L_clip] + value_coefficient * E[(V - R)^2] / 2 - entropy_coefficient * E[H(pi)]
       (Schulman 2017, eq. 9).

Differs from the paper: Adam's step size decays to zero over the run, as in its Atari runs;
advantages are normalised per minibatch, as in its authors' code, and per task; truncated episodes
bootstrap from the observation that followed; on vectors, rewards are scaled to the size of the
returns (`learning/reward_scale.py`), for otherwise the value's gradient dwarfs the policy's where
returns are large. Values are then those of scaled rewards.

The experiment `control` measures the defaults on eight tasks.

Logs: `METRICS`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from rltransfer.aliases import AcceptsAliases
from rltransfer.errors import check_range
from rltransfer.learning.agent import Agent, GradientMethod, TrainingContext
from rltransfer.learning.learner import Loss
from rltransfer.learning.minibatches import Batch, minibatches
from rltransfer.learning.reinforcement import (
    clipped_policy_loss,
    generalized_advantage,
    next_values,
    normalized_advantage,
    weighted_mean,
)
from rltransfer.learning.reward_scale import RewardScale
from rltransfer.options import normalize
from rltransfer.policies.network import ActivationName, Network
from rltransfer.policies.output import PolicyOutput
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.rollouts.rollout import Rollout
from rltransfer.tasks.observation import Observation

METRICS = {
    "policy_loss": "The clipped surrogate L_clip, negated: falls as better actions become likelier."
    " In units of the normalised advantage.",
    "value_loss": "Half the mean squared error of the value, E[(V - R)^2] / 2, in units of the "
    "squared return.",
    "entropy": "Mean entropy of the policy, in nats.",
    "approximate_kl": "E[(rho - 1) - log rho], an estimate of KL(pi_old || pi), in nats: how far "
    "the policy moved in an update.",
    "clip_fraction": "Fraction of samples, 0 to 1, whose probability ratio rho is outside "
    "1 +- clip_range.",
    "explained_variance": "1 - Var(R - V) / Var(R), at most 1: the fraction of the variance of the "
    "returns that the value explains.",
}
"""What PPO logs: rho is the ratio of the new to the old probability of an action."""


@dataclass(frozen=True, kw_only=True)
class Surrogate(metaclass=AcceptsAliases):
    """PPO's objective: advantages and the clipped surrogate loss."""

    gamma: float = 0.99
    """Discount factor."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation."""
    clip_range: float = 0.2
    """Distance of the probability ratio from 1 at which it is clipped."""
    entropy_coefficient: float = 0.01
    """Weight of the entropy bonus."""
    value_coefficient: float = 0.5
    """Weight of the value loss."""

    def __post_init__(self) -> None:
        normalize(self)
        check_range(self, "from 0 to 1", "gamma", "gae_lambda")
        check_range(self, "above 0", "clip_range")
        check_range(self, "finite and at least 0", "entropy_coefficient", "value_coefficient")

    def advantages(self, rollout: Rollout, policy: Policy) -> Batch:
        """The fields of a rollout that `loss` needs.    (time, rows) each

        No step is credited for what follows an action of another policy (weight 0): its estimate
        ends with the value of the state before that action.

        Args:
            rollout: The steps, with "value" and "log_prob" of `sample`, and optionally "weight".
            policy: Outputs the values of the last observations and after truncated episodes.
        """
        value = rollout.extras["value"]
        last_value = policy(rollout.last_observation, rollout.task[-1], rollout.last_state).value
        next_value = next_values(rollout, value, last_value, lambda *seen: policy(*seen).value)
        ends = rollout.done
        if "weight" in rollout.extras:
            ends[:-1] |= rollout.extras["weight"][1:] == 0
        advantage = generalized_advantage(
            rollout.reward, value, next_value, rollout.terminated, ends,
            self.gamma, self.gae_lambda,
        )  # fmt: skip
        return {
            "advantage": advantage,
            "return": advantage + value,
            "old_log_prob": rollout.extras["log_prob"],
            "action": rollout.extras["action"],
        }

    def loss(self, output: PolicyOutput, batch: Batch, num_tasks: int = 1) -> Loss:
        """The loss of a minibatch (Schulman 2017, eq. 9).

        Args:
            output: The policy's output on the minibatch.
            batch: With the fields of `advantages`, and optionally the "weight" of each sample.
            num_tasks: Number of tasks; with several, the batch contains the "task" of each sample.
        """
        assert output.value is not None
        weight: Tensor | None = batch.get("weight")
        mean = functools.partial(weighted_mean, weight=weight)
        advantage = normalized_advantage(batch["advantage"], batch.get("task"), num_tasks, weight)
        log_prob = output.log_prob(batch["action"])
        old_log_prob = batch["old_log_prob"]
        policy_loss = mean(clipped_policy_loss(log_prob, old_log_prob, advantage, self.clip_range))
        error = output.value.float() - batch["return"]
        value_loss = 0.5 * mean(error.square())
        entropy = mean(output.entropy())
        total = policy_loss + self.value_coefficient * value_loss
        total = total - self.entropy_coefficient * entropy
        with torch.no_grad():
            log_ratio = log_prob - old_log_prob
            ratio = log_ratio.exp()
            variance = mean((batch["return"] - mean(batch["return"])).square())
            unexplained = mean((error - mean(error)).square())
            metrics = {
                "policy_loss": policy_loss,
                "value_loss": value_loss,
                "entropy": entropy,
                "approximate_kl": mean(ratio - 1 - log_ratio),
                "clip_fraction": mean(((ratio - 1).abs() > self.clip_range).float()),
                "explained_variance": 1 - unexplained / variance.clamp(min=1e-8),
            }
        return Loss(total, metrics)


@dataclass(frozen=True, kw_only=True)
class PPO(GradientMethod):
    """Proximal policy optimisation, for any task.

    Source: Schulman 2017 (arXiv 1707.06347).
    """

    earlier = MappingProxyType({"reward_scaling": "none"})

    learning_rate: float = 1e-3
    batch_size: int = 128
    max_grad_norm: float = 0.5
    network: Network = Network()
    """The network of the policy and its value."""
    surrogate: Surrogate = Surrogate()
    """PPO's objective."""
    epochs: int = 4
    """Passes over each rollout."""
    reward_scaling: Literal["auto", "none", "returns"] = "auto"
    """returns: divide each task's rewards by the standard deviation of its returns so far (Engstrom
    2020). auto: none for images, else returns."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "at least 1", "epochs")
        check_range(self, "at most 10,000", "epochs")

    def default_activation(self, network: Network) -> ActivationName:
        """Tanh for vectors: with ReLU, PPO does not learn some of the classic control tasks."""
        if network.encoder == "auto":
            return "auto"
        return "tanh" if network.encoder in ("mlp", "conv1d") else "relu"

    def build(self, context: TrainingContext) -> PPOAgent:
        """Builds the agent."""
        policy = self.policy_spec(context).build()
        return PPOAgent(self, policy.to(context.device), context)

    def policy_spec(self, context: TrainingContext) -> PolicySpec:
        """The specification of the policy."""
        seen = context.spaces.observation_space.spaces.get(self.network.groups[0])
        is_image = seen is not None and len(seen.shape or ()) == 3
        network = self.network.with_activation("relu" if is_image else "tanh")
        return PolicySpec.of_suite(network, context.spaces)


class PPOAgent(Agent):
    """Acts by sampling its policy and learns from the clipped surrogate."""

    def __init__(self, method: PPO, policy: Policy, context: TrainingContext) -> None:
        super().__init__(policy, method.learner(policy, epsilon=1e-5), context)
        self.method = method
        self.reward_scale: RewardScale | None = None
        scaling = method.reward_scaling
        if scaling == "returns" or (scaling == "auto" and policy.encoder.flat):
            self.reward_scale = RewardScale(
                context.num_rows, len(context.suite), method.surrogate.gamma, context.device
            )

    def act(self, observation: Observation, task: Tensor, state: Tensor, start: Tensor) -> Batch:
        """Samples an action."""
        return sample(self.policy, observation, task, state, start, self.generator)

    def batches(self, rollout: Rollout) -> Iterable[Batch]:
        """Shuffled minibatches with advantages."""
        method = self.method
        if self.reward_scale is not None:
            reward = self.reward_scale.scaled(rollout.reward, rollout.done, rollout.task)
            rollout = dataclasses.replace(rollout, reward=reward)
        with torch.no_grad():
            batch = method.surrogate.advantages(rollout, self.policy)
        batch.update(sequence_fields(rollout, self.policy))
        return minibatches(batch, method.batch_size, method.epochs, self.order, self.state_size > 0)

    def loss(self, batch: Batch) -> Loss:
        """The loss of a minibatch."""
        return self.method.surrogate.loss(
            evaluate(self.policy, batch), batch, self.policy.spec.num_tasks
        )

    def describe_metrics(self) -> dict[str, str]:
        """See `METRICS`."""
        return METRICS

    def state_dict(self) -> dict[str, Any]:
        """Everything that training depends on, with the scale of the rewards."""
        state = super().state_dict()
        if self.reward_scale is not None:
            state["reward_scale"] = self.reward_scale.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of `state_dict`."""
        super().load_state_dict(state)
        if self.reward_scale is not None:
            self.reward_scale.load_state_dict(state["reward_scale"])


def sample(
    policy: Policy,
    observation: Observation,
    task: Tensor,
    state: Tensor,
    start: Tensor,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Samples an action; with its log-probability, the state's value and any recurrent state.

    Args:
        policy: The acting policy.
        observation: The groups.            (rows, ...)
        task: Index of each row's task.     (rows,)
        state: The recurrent state.         (rows, state_size)
        start: Whether an episode begins.   (rows,)
        generator: Source of random numbers.
    """
    output = policy(observation, task, state, start)
    action = output.sample(generator)
    step = {"action": action, "log_prob": output.log_prob(action), "value": output.value}
    if policy.state_size:
        step["state"] = output.state
    return step


def sequence_fields(rollout: Rollout, policy: Policy) -> Batch:
    """The fields of a rollout that `evaluate` needs."""
    fields: Batch = {"observation": rollout.observation, "task": rollout.task}
    if policy.state_size:
        fields.update(start=rollout.start, initial_state=rollout.initial_state)
    return fields


def evaluate(policy: Policy, batch: Batch) -> PolicyOutput:
    """A policy's output on a minibatch; sequences start from their initial recurrent state."""
    output: PolicyOutput = policy(
        batch["observation"], batch["task"], batch.get("initial_state"), batch.get("start")
    )
    return output
