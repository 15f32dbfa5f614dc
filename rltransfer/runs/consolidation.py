"""What earlier runs need of a network's weights, for EWC: see `learning/consolidation.py`."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

import torch
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.files.checkpoint import newest_checkpoint, newest_generation
from rltransfer.files.reading import is_folder
from rltransfer.learning.consolidation import Consolidation, fisher_information
from rltransfer.machine.generators import seeded_global_generators
from rltransfer.policies.policy import Policy
from rltransfer.policies.saving import load_policy
from rltransfer.rollouts.actors import PolicyActor
from rltransfer.rollouts.engine import RolloutEngine
from rltransfer.rollouts.evaluation import policy_spaces
from rltransfer.runs.config import read_config
from rltransfer.tasks.observation import Observation
from rltransfer.tasks.task import Suite

NUM_ENVS = 16
"""Environments that an earlier policy plays its task in."""
STEPS = 256
"""Steps of each."""
SAMPLES = 1024
"""States, per task, that the Fisher information is a mean of."""


def remember(consolidation: Consolidation, source: str, device: torch.device, seed: int) -> None:
    """Adds the tasks of a run to those that the weights are consolidated for.

    Args:
        consolidation: The earlier tasks so far.
        source: The run's directory.
        device: The device.
        seed: Seeds environments and actions.

    Raises:
        InputError: It is not a run, or its policy cannot be consolidated.
    """
    if not is_folder(source):
        raise InputError(f"ewc_from contains {source}, which is not a run directory.")
    run_dir = newest_generation(Path(source))
    suite = Suite.from_json(read_config(run_dir)["suite"])
    policy = load_policy(newest_checkpoint(run_dir) / "policy").to(device).eval()
    if policy.state_size:
        raise InputError(f"{source} is recurrent: ewc_from needs policies without recurrent state.")
    generator = torch.Generator(device).manual_seed(seed)
    for index in range(len(suite)):
        states = visited_states(policy, suite, index, generator, device, seed)
        task = torch.full((SAMPLES,), index, device=device)
        fisher = fisher_information(policy, states, task, generator)
        consolidation.add(source, dict(policy.named_parameters()), fisher)


def visited_states(
    policy: Policy,
    suite: Suite,
    index: int,
    generator: torch.Generator,
    device: torch.device,
    seed: int,
) -> Observation:
    """States that a policy visits in one of its tasks.    (SAMPLES, ...) each

    Args:
        policy: The policy, which samples its actions, if it is not a Q-network.
        suite: Its tasks.
        index: The task's index.
        generator: Source of the actions.
        device: The device.
        seed: Seeds the environments.
    """
    pad = functools.partial(policy_spaces, policy.spec, index)
    alone = Suite.of(suite.tasks[index])
    with seeded_global_generators(seed):
        engine = RolloutEngine(alone, NUM_ENVS, device, seed, pad)
        engine.task.fill_(index)
        with contextlib.closing(engine):
            # A Q-network acts greedily, as it has no distribution to sample from.
            actor = PolicyActor(policy, None if policy.spec.q_values else generator)
            observation = engine.collect(actor, STEPS).observation
            order = torch.Generator().manual_seed(seed)
            chosen = torch.randperm(NUM_ENVS * STEPS, generator=order)[:SAMPLES].to(device)
            return {name: _flat(group)[chosen] for name, group in observation.items()}


def _flat(group: Tensor) -> Tensor:
    return group.flatten(0, 1)
