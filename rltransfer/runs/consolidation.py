"""What earlier runs need of a network's weights, for EWC: see `learning/consolidation.py`."""

from __future__ import annotations

from pathlib import Path

import torch

from rltransfer.errors import InputError
from rltransfer.files.checkpoint import newest_checkpoint, newest_generation
from rltransfer.files.reading import is_folder
from rltransfer.learning.consolidation import Consolidation, fisher_information
from rltransfer.policies.saving import load_policy
from rltransfer.rollouts.visited_states import visited_states
from rltransfer.runs.config import read_config
from rltransfer.tasks.task import Suite

EPISODES = 64
"""Episodes of an earlier policy in its task, each in an environment of its own."""
LONGEST_EPISODE = 256
"""Steps after which one is cut."""
SAMPLES = 1024
"""States, per task, that the Fisher information is a mean of, at most."""


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
    for index, task in enumerate(suite):
        # A Q-network acts greedily, as it has no distribution to sample from.
        states = visited_states(
            policy, task, SAMPLES, episodes=EPISODES, seed=seed, device=device,
            deterministic=policy.spec.q_values, max_steps=LONGEST_EPISODE, index=index,
        )  # fmt: skip
        tasks = torch.full((len(next(iter(states.values()))),), index, device=device)
        fisher = fisher_information(policy, states, tasks, generator)
        consolidation.add(source, dict(policy.named_parameters()), fisher)
