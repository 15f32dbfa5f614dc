"""The student of the experiments on MinAtar: one recipe, whatever its size and objective."""

from __future__ import annotations

from dataclasses import replace

from rltransfer.agents import PolicyDistillation
from rltransfer.experiments.zoo.experiment import teacher_width
from rltransfer.learning.learner import PrecisionName
from rltransfer.policies.network import Network


def minatar_student(
    game: str, width: float, objective: str, precision: PrecisionName = "float32"
) -> PolicyDistillation:
    """Returns the method that distils a game's teacher of the zoo.

    Args:
        game: The game, e.g. "Asterix".
        width: Factor on the teacher's width; parameters grow with its square.
        objective: What the student learns from the labels.
        precision: Arithmetic of the learner.
    """
    network = Network(encoder="grid", width=width * teacher_width(game), layer_norm=True)
    return distilled_into(network, objective, precision)


def distilled_into(
    network: Network, objective: str, precision: PrecisionName = "float32"
) -> PolicyDistillation:
    """Returns the method that distils the zoo's teachers into a network.

    The student acts while it learns, but for a first fifth, and nearly always greedily.

    Args:
        network: The student's.
        objective: What the student learns from the labels.
        precision: Arithmetic of the learner.
    """
    return PolicyDistillation(
        teacher="zoo",
        student=network,
        objective=objective,
        num_envs=256,
        rollout_length=16,
        teacher_acts="1->0@0.2",
        exploration=0.01,
        memory_steps=500_000,
        epochs=5.0,
        batch_size=256,
        learning_rate=2e-3,
        precision=precision,
    )


def trained_longer(method: PolicyDistillation, epochs: float) -> PolicyDistillation:
    """Returns the method with more epochs, and larger minibatches and steps, which make them fast.

    Args:
        method: How the student learns but for that.
        epochs: How often it learns from each step, on average.
    """
    return replace(method, epochs=epochs, batch_size=1024, learning_rate=8e-3)
