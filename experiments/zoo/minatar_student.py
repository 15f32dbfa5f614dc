"""The students of the experiments on MinAtar: one recipe for all sizes and objectives."""

from __future__ import annotations

from dataclasses import replace

from rltransfer.agents import PolicyDistillation
from rltransfer.experiments.zoo.experiment import teacher_width
from rltransfer.learning.learner import PrecisionName
from rltransfer.policies.network import Network


def minatar_student(
    game: str, width: float, objective: str, precision: PrecisionName = "float32"
) -> PolicyDistillation:
    """The method that distils the zoo's teacher of a game.

    Args:
        game: The game, e.g. "Asterix".
        width: Factor on the teacher's width; the number of parameters grows with its square.
        objective: The loss on the labels.
        precision: Arithmetic of the learner.
    """
    network = Network(encoder="grid", width=width * teacher_width(game), layer_norm=True)
    return distilled_into(network, objective, precision)


def distilled_into(
    network: Network, objective: str, precision: PrecisionName = "float32"
) -> PolicyDistillation:
    """The method that distils the zoo's teachers into a network.

    The student acts during training, except in the first fifth, and nearly always greedily.

    Args:
        network: The student's.
        objective: The loss on the labels.
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
    """The method with more epochs, and with larger minibatches and steps for speed.

    Args:
        method: The method to change.
        epochs: How often the student learns from each environment step, on average.
    """
    return replace(method, epochs=epochs, batch_size=1024, learning_rate=8e-3)
