"""Actor-Mimic on Atari: whether a mimic of two games is a better start for the third.

    rltransfer experiment run actor-mimic-atari

The games are those that the zoo has teachers of: Pong, Boxing and Q*bert. See the experiment
actor-mimic, of which this is the same with another network: that of Mnih 2015, which the paper has
for its experts, with half of its channels. As in the paper (Parisotto 2015, section 4.2), the
learner's head starts fresh, as games differ in their actions.

Differs from the paper, besides: two games instead of thirteen, the mimic has the learner's network
instead of a larger one, and PPO learns instead of DQN.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rltransfer.agents import PPO, PQN, ActorMimic
from rltransfer.experiments.actor_mimic.experiment import ActorMimicTransfer, LearnerName
from rltransfer.experiments.common.checks import choice
from rltransfer.learning.agent import Method
from rltransfer.learning.initial_weights import InitMatch
from rltransfer.policies.network import Network

GAMES = ("Boxing", "Pong", "Qbert")
NETWORK = Network(encoder="nature", width=0.5, layer_norm=True, activation="relu")


@dataclass(frozen=True, kw_only=True)
class ActorMimicAtari(ActorMimicTransfer):
    """A mimic of two Atari games as a start for the third: 105 runs, ten hours on two CPU cores.

    Area ratio, jumpstart and time to threshold against random weights and one other game's.
    """

    games: tuple[str, ...] = choice("game", GAMES)
    """Games to leave out, each in turn."""
    learners: tuple[str, ...] = choice("learner", ("ppo", "pqn"), ("ppo",))
    """Learners of the game that was left out."""
    mimic_steps: int = 200_000
    """Environment steps of each mimic, over all of its games."""
    steps: int = 500_000
    """Environment steps of each learner."""
    out: Path = Path("runs/actor-mimic-atari")

    init_match: ClassVar[InitMatch] = "any"

    @property
    def all_games(self) -> tuple[str, ...]:
        """The games that the zoo has teachers of, in their order."""
        return GAMES

    def task_of(self, game: str) -> str:
        """The task of a game."""
        return f"ALE/{game}-v5"

    def mimic(self, beta: float) -> ActorMimic:
        """See `ActorMimicTransfer`."""
        return ActorMimic(
            teacher="zoo", student=NETWORK, beta=beta, num_envs=16, memory_steps=50_000
        )

    def learner(self, name: LearnerName) -> Method:
        """See `ActorMimicTransfer`."""
        if name == "pqn":
            return PQN(network=NETWORK, num_envs=16, rollout_length=128)
        return PPO(
            network=NETWORK, num_envs=16, rollout_length=128, batch_size=512, epochs=3,
            learning_rate=5e-4,
        )  # fmt: skip
