"""A sample of the states that a policy visits."""

from __future__ import annotations

import contextlib
import functools

import torch

from rltransfer.machine.generators import seeded_global_generators
from rltransfer.policies.policy import Policy
from rltransfer.rollouts.actors import PolicyActor
from rltransfer.rollouts.engine import RolloutEngine
from rltransfer.rollouts.evaluation import CHUNK, LONGEST, policy_spaces
from rltransfer.tasks.families import evaluation_task
from rltransfer.tasks.observation import Observation
from rltransfer.tasks.task import Suite, Task


def visited_states(
    policy: Policy,
    task: Task,
    count: int,
    *,
    episodes: int,
    seed: int,
    device: torch.device,
    deterministic: bool = True,
    max_steps: int = LONGEST,
    index: int = 0,
) -> Observation:
    """Observations of whole episodes, sampled uniformly over all of their steps.

    Args:
        policy: The acting policy.
        task: The task.
        count: Number of observations; all if the episodes have fewer.
        episodes: Episodes, each in an environment of its own.
        seed: Seeds the environments, the actions and the sample.
        device: The device.
        deterministic: Whether to act greedily instead of sampling.
        max_steps: Steps after which an episode is cut.
        index: The task's index for the policy.

    Returns:
        The groups, (at most count, ...) each, in no particular order.
    """
    suite = Suite.of(evaluation_task(task))
    pad = functools.partial(policy_spaces, policy.spec, index)
    actor = PolicyActor(
        policy, None if deterministic else torch.Generator(device).manual_seed(seed)
    )
    order = torch.Generator(device).manual_seed(seed)
    # The observations with the highest random priorities are kept.
    kept: Observation = {}
    priority = torch.zeros(0, device=device)
    with seeded_global_generators(seed):
        engine = RolloutEngine(suite, episodes, device, seed, pad)
        engine.task.fill_(index)
        with contextlib.closing(engine):
            playing = torch.ones(episodes, dtype=torch.bool, device=device)
            for step in range(0, max_steps, CHUNK):
                rollout = engine.collect(actor, min(CHUNK, max_steps - step))
                ended = rollout.done.cumsum(0) - rollout.done.long() > 0
                (chosen,) = (playing & ~ended).flatten().nonzero(as_tuple=True)
                playing &= ~rollout.done.any(0)
                drawn = torch.rand(len(chosen), generator=order, device=device)
                priority = torch.cat([priority, drawn])
                priority, best = priority.topk(min(count, len(priority)))
                for name, group in rollout.observation.items():
                    seen = group.flatten(0, 1)[chosen]
                    kept[name] = torch.cat([kept[name], seen] if name in kept else [seen])[best]
                if not playing.any():
                    break
    return kept
