"""The games' probabilities are those of the package `minatar`, each with its own random numbers.

`test_minatar_oracle.py` gives both the same draws, which shows what the games make of them, but not
that the draws are as frequent as they should be. Here both play at random with their defaults, and
what happens is compared by chi-square tests of two samples. All seeds are fixed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import minatar
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from rltransfer.envs.minatar.ids import GAMES
from rltransfer.envs.minatar.vector_env import MinAtarVectorEnv

Cells = NDArray[np.uint8]
"""Observations.    (envs, channels, 10, 10)"""
Event = tuple[Any, ...]
"""A kind of event, and which of its outcomes it was."""

LEAST_P = 1e-4
"""Smallest probability of a difference as large as the one found, if there is none."""

# Nothing, left, up, right, down, fire. The submarine stays under water, the chicken crosses.
ACTIONS = {
    "asterix": [1 / 6] * 6,
    "breakout": [1 / 6] * 6,
    "freeway": [0.1, 0.1, 0.4, 0.1, 0.2, 0.1],
    "seaquest": [0.1, 0.15, 0.1, 0.15, 0.4, 0.1],
    "space_invaders": [1 / 6] * 6,
}
ENVS = 64
STEPS = {"asterix": 800, "breakout": 400, "freeway": 400, "seaquest": 800, "space_invaders": 400}


class Reference:
    """Environments of the reference, as those of `MinAtarVectorEnv`."""

    def __init__(self, game: str, num_envs: int, seed: int) -> None:
        self._envs = [minatar.Environment(game) for _ in range(num_envs)]
        for index, env in enumerate(self._envs):
            env.seed(1_000 * seed + index)
            env.reset()

    def observation(self) -> Cells:
        """What the environments show."""
        states = np.stack([env.state() for env in self._envs])
        return states.transpose(0, 3, 1, 2).astype(np.uint8)

    def step(self, actions: NDArray[np.int64]) -> tuple[Cells, Cells, NDArray[Any], NDArray[Any]]:
        """The last observations, those after a reset, rewards and ends."""
        results = [env.act(a) for env, a in zip(self._envs, actions.tolist(), strict=True)]
        final = self.observation()
        for env, (_, ended) in zip(self._envs, results, strict=True):
            if ended:
                env.reset()
        reward, ended = (np.array(column) for column in zip(*results, strict=True))
        return final, self.observation(), reward, ended.astype(bool)


class Ours:
    """The same, of ours."""

    def __init__(self, game: str, num_envs: int, seed: int) -> None:
        self._env = MinAtarVectorEnv(game, num_envs, minimal_actions=False)
        self._env.reset(seed=seed)

    def observation(self) -> Cells:
        """What the environments show."""
        return (
            self._env.state_dict()["observation"]
            .numpy()
            .reshape(self._env.num_envs, *self._env.single_observation_space.shape)
        )

    def step(self, actions: NDArray[np.int64]) -> tuple[Cells, Cells, NDArray[Any], NDArray[Any]]:
        """The last observations, those after a reset, rewards and ends."""
        seen, reward, ended, _, info = self._env.step(torch.from_numpy(actions))
        after = seen.numpy().copy()
        final = np.where(ended.numpy()[:, None, None, None], info["final_obs"].numpy(), after)
        return final, after, reward.numpy().copy(), ended.numpy().copy()


def moves(before: Cells, after: Cells, action: NDArray[np.int64]) -> Iterator[Event]:
    """Which way the player went after which action, away from the walls."""
    (y, x), (next_y, next_x) = (np.argwhere(seen[:, 0])[:, 1:].T for seen in (before, after))
    inside = (x > 1) & (x < 8) & (y > 1) & ((y < 7) | (y == 9))
    for event in zip(action[inside], (next_x - x)[inside], (next_y - y)[inside], strict=True):
        yield ("move", *map(int, event))


def occupied(seen: Cells) -> NDArray[np.bool_]:
    """Whether there is anything in each row but the player.    (envs, 10)"""
    return (seen[:, 1] | seen[:, 3]).any(-1)


def asterix(before: Cells, after: Cells) -> Iterator[Event]:
    """What comes into an empty lane: from which side, gold or an enemy, in which lane."""
    for env, lane in np.argwhere(occupied(after) & ~occupied(before)):
        column = int((after[env, 1, lane] | after[env, 3, lane]).argmax())
        yield ("thing", column < 5, bool(after[env, 3, lane].any()), int(lane))


def seaquest(before: Cells, after: Cells) -> Iterator[Event]:
    """What appears at the edges: fish, submarine or diver, on which side, in which row."""
    for channel in (5, 6, 9):
        fresh = (after[:, channel] > before[:, channel])[:, :, [0, 9]]
        for _, row, side in np.argwhere(fresh):
            yield ("swimmer", channel, int(side), int(row))


def cars(seen: Cells) -> Iterator[Event]:
    """The speed and the direction of the car in each lane."""
    for env, lane in np.ndindex(len(seen), 8):
        speed, trail = np.argwhere(seen[env, 2:7, lane + 1])[0]
        column = int(seen[env, 1, lane + 1].argmax())
        yield ("car", int(speed), (column - int(trail)) % 10 == 1, lane)


def ball(seen: Cells) -> Iterator[Event]:
    """The column in which the ball begins."""
    for column in seen[:, 1].any(1).argmax(-1):
        yield ("ball", int(column))


SPAWNS: dict[str, Callable[[Cells, Cells], Iterator[Event]]] = {
    "asterix": asterix, "seaquest": seaquest,
}  # fmt: skip
DRAWN_ANEW: dict[str, Callable[[Cells], Iterator[Event]]] = {"freeway": cars, "breakout": ball}


def played(
    game: str, envs: Reference | Ours, seed: int
) -> tuple[dict[str, Counter[Event]], dict[str, list[float]]]:
    """How often each event happened, and each episode's length and return, in random play."""
    rng = np.random.default_rng(seed)
    events: Counter[Event] = Counter()
    episodes: dict[str, list[float]] = {"length": [], "return": []}
    length, gained = np.zeros(ENVS), np.zeros(ENVS)
    waited = np.zeros(ENVS, int)
    before = envs.observation()
    anew = DRAWN_ANEW.get(game, lambda seen: iter(()))
    events.update(anew(before))
    for _ in range(STEPS[game]):
        action = rng.choice(6, ENVS, p=ACTIONS[game])
        final, after, reward, ended = envs.step(action)
        # In Freeway a crossing sends the chicken back.
        here = reward == 0 if game == "freeway" else np.full(ENVS, True)
        events.update(moves(before[here], final[here], action[here]))
        if game in SPAWNS:
            events.update(SPAWNS[game](before, final))
        if game == "asterix":
            # Steps since an episode's last spawn, which become fewer as the game gets harder.
            waited += 1
            came = occupied(final).sum(-1) > occupied(before).sum(-1)
            events.update(("interval", int(steps)) for steps in waited[came])
            waited[came | ended] = 0
        events.update(anew(after[(reward > 0) if game == "freeway" else ended]))
        length, gained = length + 1, gained + reward
        episodes["length"] += length[ended].tolist()
        episodes["return"] += gained[ended].tolist()
        length[ended], gained[ended] = 0, 0
        before = after
    kinds = {event[0] for event in events}
    return {
        kind: Counter({e: n for e, n in events.items() if e[0] == kind}) for kind in kinds
    }, episodes


def homogeneity(first: Counter[Event], second: Counter[Event]) -> float:
    """The p-value of two samples of the same distribution; rare events are counted together."""
    counts = np.array([[first[event], second[event]] for event in sorted(first | second)])
    rare = counts.sum(1) < 20
    table = np.vstack([counts[~rare], counts[rare].sum(0)]) if rare.any() else counts
    table = table[table.sum(1) >= 10]
    assert len(table) > 1
    return float(stats.chi2_contingency(table, correction=False).pvalue)


def p_values(game: str, seed: int = 0) -> dict[str, float]:
    """The p-value of each comparison of ours with the reference."""
    ours, our_episodes = played(game, Ours(game, ENVS, seed), seed)
    theirs, their_episodes = played(game, Reference(game, ENVS, seed), seed + 1)
    assert ours.keys() == theirs.keys()
    found = {kind: homogeneity(ours[kind], theirs[kind]) for kind in ours}
    # Freeway's episodes are longer than what is played here.
    for name in our_episodes if game != "freeway" else ():
        pair = our_episodes[name], their_episodes[name]
        found[name] = float(stats.ks_2samp(*pair).pvalue)
    return found


EXPECTED = {
    "asterix": {"move", "thing", "interval", "length", "return"},
    "breakout": {"move", "ball", "length", "return"},
    "freeway": {"move", "car"},
    "seaquest": {"move", "swimmer", "length", "return"},
    "space_invaders": {"move", "length", "return"},
}


@pytest.mark.parametrize("game", GAMES)
def test_what_happens_is_as_frequent_as_in_the_reference(game: str) -> None:
    found = p_values(game)
    assert found.keys() == EXPECTED[game]
    assert all(p > LEAST_P for p in found.values()), found
