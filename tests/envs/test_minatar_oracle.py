"""The games against the package `minatar`, step by step, with the same draws given to both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import minatar
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rltransfer.envs.minatar.ids import GAMES
from rltransfer.envs.minatar.vector_env import MinAtarVectorEnv

# 3 x 12 x 2,800 = 100,800 transitions of each game; 2,800 is longer than Freeway's 2,501 steps.
SEEDS = (0, 1, 2)
ENVS = 12
STEPS = 2_800

NOTHING, LEFT, UP, RIGHT, DOWN, FIRE = range(6)


def mix(counter: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's hash, written once more."""
    value = (counter ^ (counter >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


class Stream:
    """Stands in for the reference's `random`: serves the draws of one environment's stream."""

    def __init__(self, seed: int, env: int) -> None:
        self._counter = mix(mix(np.array([seed], np.uint64)) + np.uint64(env))
        self._draws: list[int] = []

    def draw(self) -> int:
        """The next 24 random bits."""
        if not self._draws:
            counters = self._counter + np.uint64(0x9E3779B97F4A7C15) * np.arange(
                1, 4097, dtype=np.uint64
            )
            self._counter = counters[-1:]
            self._draws = (mix(counters) >> np.uint64(40)).tolist()[::-1]
        return self._draws.pop()

    def rand(self, *shape: int) -> Any:
        """As `numpy.random.RandomState.rand`."""
        if not shape:
            return self.draw() / (1 << 24)
        return np.array([self.rand() for _ in range(shape[0])])

    def randint(self, low: int, high: int | None = None, size: int | None = None) -> Any:
        """As `numpy.random.RandomState.randint`."""
        if high is None:
            low, high = 0, low
        if size is None:
            return low + (self.draw() * (high - low) >> 24)
        return np.array([self.randint(low, high) for _ in range(size)])


def reference(game: str, seed: int, env: int, **options: Any) -> Any:
    """The reference's environment, which draws from environment `env`'s stream."""
    made = minatar.Environment(game, **options)
    made.random = made.env.random = Stream(seed, env)
    made.reset()
    return made


class Planner:
    """Plays out every action on copies of the environments, to find one that survives.

    The copies have the same random streams, so that the planner knows what will come.
    """

    ROLLOUTS, DEPTH = 2, 9

    def __init__(self, game: str, **options: Any) -> None:
        self._num_copies = len(SEEDS) * ENVS * self.ROLLOUTS * 6
        self._copies = MinAtarVectorEnv(game, self._num_copies, minimal_actions=False, **options)
        self._reward_weight = 0.1 if game in ("space_invaders", "seaquest") else 0.0
        self._generator = torch.Generator().manual_seed(0)

    def survival(self, envs: list[MinAtarVectorEnv]) -> torch.Tensor:
        """The best life found after each action `[len(SEEDS) * ENVS, 6]`.

        A step lived counts 1, and a reward 0.1 in the two games where a hit takes foresight.
        """
        states = [env.state_dict() for env in envs]
        self._copies.load_state_dict(
            {
                name: torch.cat([state[name] for state in states]).repeat_interleave(
                    self.ROLLOUTS * 6, 0
                )
                for name in states[0]
            }
        )
        alive = torch.ones(self._num_copies, dtype=torch.bool)
        life = torch.zeros(self._num_copies)
        actions = torch.arange(6).repeat(self._num_copies // 6)
        for _ in range(self.DEPTH):
            _, reward, terminated, _, _ = self._copies.step(actions)
            alive &= ~terminated
            life += alive * (1 + self._reward_weight * reward)
            actions = torch.randint(0, 6, alive.shape, generator=self._generator)
        return life.view(-1, self.ROLLOUTS, 6).amax(1)


def toward(difference: int, less: int, more: int) -> int:
    """The action that makes a difference smaller."""
    return more if difference > 0 else less if difference < 0 else NOTHING


def wish(game: str, env: Any, rng: np.random.Generator) -> int:
    """What a player would like to do, who trusts that it is told if that is deadly."""
    if game == "breakout":
        return toward(env.ball_x - env.pos, LEFT, RIGHT)
    if game == "freeway":
        return UP
    if game == "space_invaders":
        columns = np.flatnonzero(env.alien_map.any(0))
        nearest = columns[np.abs(columns - env.pos).argmin()]
        return FIRE if env.shot_timer == 0 else toward(nearest - env.pos, LEFT, RIGHT)
    if game == "asterix":
        gold = [x for x in env.entities if x is not None and x[3]]
        if gold and rng.random() < 0.5:
            return toward(gold[0][1] - env.player_y, UP, DOWN)
        return int(rng.integers(6))
    return wish_seaquest(env, rng)


def wish_seaquest(env: Any, rng: np.random.Generator) -> int:
    """Gathers divers and brings six up, sometimes fewer; from then on bobs at the surface."""
    if env.diver_count < 0 and env.ramp_index < 22:
        return DOWN if env.sub_y == 0 else UP
    if env.diver_count == 6 or (env.diver_count > 0 and env.oxygen < 40):
        return UP
    if rng.random() < 0.2:
        return FIRE
    if env.divers and env.diver_count >= 0:
        x, y = env.divers[0][:2]
        return toward(y - env.sub_y, UP, DOWN) or toward(x - env.sub_x, LEFT, RIGHT)
    return int(rng.integers(6))


@dataclass
class Watch:
    """Counts what happened in one reference environment."""

    events: Counter[str] = field(default_factory=Counter)

    def before(self, env: Any) -> None:
        """Remembers the state before a step."""
        self._ramps = getattr(env, "ramp_index", 0)
        self._divers = getattr(env, "diver_count", 0)
        self._surfaced = getattr(env, "surface", False)
        self._bricks = np.count_nonzero(getattr(env, "brick_map", 0))
        self._row = getattr(env, "pos", 0)

    def after(self, game: str, env: Any, action: int, done: int, reward: float) -> None:
        """Counts what the step did."""
        happened = {
            "death": env.terminal,
            "reward": reward > 0,
            "sticky": done != action,
            "ramp": getattr(env, "ramp_index", 0) > self._ramps,
        }
        if game == "asterix":
            happened["fastest"] = env.move_speed == 1 and env.spawn_speed == 1
        if game == "breakout":
            happened["wave"] = np.count_nonzero(env.brick_map) > self._bricks
        if game == "freeway":
            happened["run over"] = env.pos == 9 and self._row < 8 and reward == 0
        if game == "space_invaders":
            happened["wave"] = reward > 0 and np.count_nonzero(env.alien_map) == 24
            happened["fastest"] = env.enemy_move_interval == 6
        if game == "seaquest":
            surfaced = env.surface and not self._surfaced
            happened["surfaced with six"] = surfaced and self._divers == 6
            happened["surfaced with some"] = surfaced and 0 < self._divers < 6
            happened["surfaced with a negative number"] = surfaced and self._divers < 0
            happened["surfaced with none"] = (
                env.terminal and env.sub_y == 0 and not env.surface and self._divers == 0
            )
            happened["fastest"] = env.move_speed == 2 and env.e_spawn_speed == 1
            happened["no oxygen"] = env.terminal and env.oxygen < 0
            happened["crowd"] = len(env.e_fish) + len(env.e_subs) >= 12
            happened["enemy bullet"] = len(env.e_bullets) > 0
        self.events.update(name for name, happens in happened.items() if happens)


EXPECTED = {
    "asterix": {"death": 30, "reward": 500, "sticky": 5_000, "ramp": 100, "fastest": 500},
    "breakout": {"death": 100, "reward": 500, "sticky": 5_000, "wave": 10},
    "freeway": {"death": 30, "reward": 500, "sticky": 2_000, "run over": 500},
    "seaquest": {
        "death": 100,
        "reward": 500,
        "sticky": 5_000,
        "ramp": 100,
        "fastest": 500,
        "surfaced with six": 10,
        "surfaced with some": 10,
        "surfaced with a negative number": 100,
        "surfaced with none": 10,
        "no oxygen": 5,
        "crowd": 100,
        "enemy bullet": 500,
    },
    "space_invaders": {
        "death": 100,
        "reward": 500,
        "sticky": 5_000,
        "ramp": 30,
        "wave": 50,
        "fastest": 100,
    },
}
"""How often each thing must have happened, at the least, for the comparison to mean something."""


def observed(references: list[Any]) -> torch.Tensor:
    """What the references show, with the channels first."""
    states = np.stack([env.state() for env in references])
    return torch.from_numpy(states.transpose(0, 3, 1, 2).astype(np.uint8))


def choose(
    game: str, references: list[Any], survival: torch.Tensor, rng: np.random.Generator
) -> torch.Tensor:
    """What to do: at random in every fourth environment, to live long in the others.

    In one of twelve the submarine never comes up, for somebody must drown.
    """
    actions = torch.from_numpy(rng.integers(0, 6, len(references)))
    for i, env in enumerate(references):
        if i % 4 and rng.random() < 0.97:
            wanted = wish(game, env.env, rng)
            best = survival[i] == survival[i].max()
            actions[i] = wanted if best[wanted] else int(survival[i].argmax())
        if game == "seaquest" and i % 12 == 5 and actions[i] == UP and env.env.sub_y < 2:
            actions[i] = DOWN
    return actions


def compare(game: str, steps: int, **options: Any) -> Counter[str]:
    """Plays the game in both, compares all that they show, and returns what happened."""
    ours = [MinAtarVectorEnv(game, ENVS, minimal_actions=False, **options) for _ in SEEDS]
    references = [reference(game, seed, env, **options) for seed in SEEDS for env in range(ENVS)]
    watch, planner, rng = Watch(), Planner(game, **options), np.random.default_rng(0)
    first = [env.reset(seed=seed)[0] for env, seed in zip(ours, SEEDS, strict=True)]
    assert torch.equal(torch.cat(first), observed(references))
    for _ in range(steps):
        actions = choose(game, references, planner.survival(ours), rng)
        parts = [env.step(part) for env, part in zip(ours, actions.split(ENVS), strict=True)]
        observation, reward, terminated, truncated = (
            torch.cat([part[i] for part in parts]) for i in range(4)
        )
        final = torch.cat([part[4]["final_obs"] for part in parts])

        played = []
        for env, action in zip(references, actions.tolist(), strict=True):
            watch.before(env.env)
            played.append(env.act(action))
            watch.after(game, env.env, action, env.last_action, played[-1][0])
        assert reward.tolist() == [gained for gained, _ in played]
        assert terminated.tolist() == [ended for _, ended in played]
        assert not truncated.any()
        seen = torch.where(terminated[:, None, None, None], final, observation)
        assert torch.equal(seen, observed(references))
        if terminated.any():
            for i in terminated.nonzero().flatten().tolist():
                references[i].reset()
            assert torch.equal(observation, observed(references))
    return watch.events


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These tensors are too small to be shared among threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("game", GAMES)
def test_game_agrees_with_the_reference(game: str) -> None:
    """Observations, rewards and endings are equal, and all that can happen did."""
    events = compare(game, STEPS, sticky_action_prob=0.1, difficulty_ramping=True)
    least = EXPECTED[game]
    missing = {name: events[name] for name in least if events[name] < least[name]}
    assert not missing, f"{missing} of {dict(events)}"


@pytest.mark.parametrize("game", ["asterix", "seaquest", "space_invaders"])
def test_game_without_ramping_agrees_with_the_reference(game: str) -> None:
    """Nor with sticky actions; the events by which the game would get harder did happen."""
    events = compare(game, 500, sticky_action_prob=0.0, difficulty_ramping=False)
    assert events["sticky"] == 0
    assert events["ramp"] == 0
    if game == "seaquest":
        assert events["surfaced with some"] + events["surfaced with six"] > 0
    if game == "space_invaders":
        assert events["wave"] > 0
