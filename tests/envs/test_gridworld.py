"""Gridworlds: the rules against a plain reference, bit for bit; ids, seeds, states, pictures."""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from exact_planner import ExactPlanner
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.utils.env_checker import check_env
from torch import Tensor

import rltransfer as rt
from rltransfer.envs.gridworld.family import FAMILY, MAZE, TWO_ROOMS, mazes, two_rooms
from rltransfer.envs.gridworld.layouts import Layout, make_layout
from rltransfer.envs.gridworld.rules import make_rules
from rltransfer.envs.gridworld.single import GridworldEnv
from rltransfer.envs.gridworld.vector_env import GridworldVectorEnv
from rltransfer.rollouts.engine import RolloutEngine
from rltransfer.tasks.families import as_suite

UP, RIGHT, DOWN, LEFT = range(4)
MASK = (1 << 64) - 1


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device that there is."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return torch.device(request.param)


class Reference:
    """One agent in a map, in plain Python: the dynamics, written once more from their words."""

    def __init__(self, layout: Layout, time_limit: int, seed: int, env: int) -> None:
        self.rows, self.goal, self.time_limit = layout.rows, layout.goal, time_limit
        self.free = [
            (row, column)
            for row, line in enumerate(self.rows)
            for column, cell in enumerate(line)
            if cell == "." and (row, column) != self.goal
        ]
        self.counter = self.mix((self.mix(seed) + env) & MASK)
        self.begin()

    @staticmethod
    def mix(value: int) -> int:
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
        return value ^ (value >> 31)

    def somewhere(self) -> tuple[int, int]:
        self.counter = (self.counter + 0x9E3779B97F4A7C15) & MASK
        return self.free[((self.mix(self.counter) >> 40) * len(self.free)) >> 24]

    def begin(self) -> None:
        self.place, self.last, self.rewarded, self.time = self.somewhere(), 4, 0, 0

    def seen(self) -> tuple[int, int, int, int]:
        return (*self.place, self.last, self.rewarded)

    def step(self, action: int) -> tuple[tuple[int, ...], float, bool, tuple[int, ...]]:
        """Returns what is seen, the reward, whether the time is up, and what was seen last."""
        down, right = ((-1, 0), (0, 1), (1, 0), (0, -1))[action]
        row, column = self.place[0] + down, self.place[1] + right
        if self.rows[row][column] == ".":
            self.place = row, column
        self.last, self.rewarded = action, int(self.place == self.goal)
        reward = self.rewarded
        if reward:
            self.place = self.somewhere()
        self.time += 1
        over, final = self.time == self.time_limit, self.seen()
        if over:
            self.begin()
        return self.seen(), float(reward), over, final


def vector(layout: Layout, seen: tuple[int, ...]) -> list[float]:
    """What the observation "vector" says of a state: where, what was done, whether rewarded."""
    width = len(layout.rows[0])
    numbers = [0.0] * (len(layout.rows) * width + 6)
    numbers[seen[0] * width + seen[1]] = 1.0
    numbers[-6 + seen[2]] = 1.0
    numbers[-1] = float(seen[3])
    return numbers


MAPS = [
    ("two-rooms", {"goal": 3}),
    ("two-rooms", {"goal": 0, "room": 3, "corridor": 1}),
    ("maze", {"maze": 2}),
    ("maze", {"maze": 5, "size": 19, "loops": 0.5}),
]


@pytest.mark.parametrize(("kind", "options"), MAPS)
def test_steps_are_those_of_the_reference(
    kind: str, options: dict[str, Any], device: torch.device
) -> None:
    layout, count = make_layout(kind, options), 7
    env = GridworldVectorEnv(kind, count, time_limit=13, device=device, **options)
    observation, _ = env.reset(seed=11)
    agents = [Reference(layout, 13, 11, index) for index in range(count)]
    assert observation.tolist() == [vector(layout, agent.seen()) for agent in agents]
    generator, goals = torch.Generator().manual_seed(0), 0
    for _ in range(600):
        actions = torch.randint(0, 4, (count,), generator=generator)
        observation, reward, terminated, truncated, info = env.step(actions.to(device))
        expected = [
            agent.step(action) for agent, action in zip(agents, actions.tolist(), strict=True)
        ]
        assert observation.tolist() == [vector(layout, one[0]) for one in expected]
        assert reward.tolist() == [one[1] for one in expected]
        assert truncated.tolist() == [one[2] for one in expected]
        assert not terminated.any()
        for row in truncated.nonzero().flatten().tolist():
            assert info["final_obs"][row].tolist() == vector(layout, expected[row][3])
        goals += int(reward.sum())
    assert goals > 0


# Maps.


def reachable(layout: Layout) -> int:
    """How many cells can be walked to from the goal."""
    seen, left = {layout.goal}, deque([layout.goal])
    while left:
        row, column = left.popleft()
        for cell in ((row - 1, column), (row, column + 1), (row + 1, column), (row, column - 1)):
            if layout.rows[cell[0]][cell[1]] == "." and cell not in seen:
                seen.add(cell)
                left.append(cell)
    return len(seen)


def test_two_rooms_are_joined_by_a_corridor() -> None:
    layout = make_layout("two-rooms", {"room": 3, "corridor": 2})
    assert layout.rows == ("##########", "#...##...#", "#........#", "#...##...#", "##########")
    goals = [make_layout("two-rooms", {"room": 3, "goal": goal}).goal for goal in range(18)]
    # Even numbers are in the left room, odd ones in the right, and no two are the same cell.
    assert len(set(goals)) == 18
    assert all((column <= 3) == (goal % 2 == 0) for goal, (_, column) in enumerate(goals))


@pytest.mark.parametrize("loops", [0.0, 0.3])
def test_mazes_hang_together(loops: float) -> None:
    layouts = [make_layout("maze", {"maze": n, "size": 9, "loops": loops}) for n in range(30)]
    for layout in layouts:
        free = sum(row.count(".") for row in layout.rows)
        assert reachable(layout) == free
        # 4 x 4 cells and the 15 ways of a spanning tree; 24 ways are possible, so 9 walls are left
        # over, of which 30 %, rounded, are 3.
        assert free == 16 + 15 + (3 if loops else 0)
    assert len({layout.rows for layout in layouts}) > 20


def test_a_maze_is_the_same_for_ever() -> None:
    # Another maze under the same number would make other tasks of runs that name it.
    rows = ("#######", "#.....#", "#####.#", "#.#...#", "#.#.###", "#.....#", "#######")
    assert make_layout("maze", {"maze": 1, "size": 7}) == Layout(rows, (1, 1))


# Observations.


def test_pixels_show_walls_goal_agent_and_heading() -> None:
    env = GridworldVectorEnv("two-rooms", 1, room=3, corridor=1, observation="pixels")
    layout = env.rules.layout
    env.reset(seed=0)
    for action in (UP, RIGHT, DOWN, LEFT):
        env.reset(seed=action)
        observation = env.step(torch.tensor([action]))[0][0]
        assert (observation.dtype, observation.shape) == (torch.uint8, (4, 5, 9))
        assert torch.equal(observation[0], torch.from_numpy(~layout.free).byte())
        assert observation[1].nonzero().tolist() == [list(layout.goal)]
        ((row, column),) = observation[2].nonzero().tolist()
        down, right = ((-1, 0), (0, 1), (1, 0), (0, -1))[action]
        assert observation[3].nonzero().tolist() == [[row + down, column + right]]


def test_a_view_is_the_part_of_the_map_around_the_agent() -> None:
    whole, around = (
        GridworldVectorEnv("maze", 20, maze=3, observation="pixels", view=view) for view in (0, 2)
    )
    assert around.single_observation_space == gymnasium.spaces.Box(0, 1, (4, 5, 5), np.uint8)
    map_seen, seen = whole.reset(seed=0)[0], around.reset(seed=0)[0]
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        for full, part in zip(map_seen, seen, strict=True):
            padded = torch.nn.functional.pad(full, (2, 2, 2, 2))
            padded[0] = torch.nn.functional.pad(full[0], (2, 2, 2, 2), value=1)
            ((row, column),) = full[2].nonzero().tolist()
            assert torch.equal(part, padded[:, row : row + 5, column : column + 5])
        actions = torch.randint(0, 4, (20,), generator=generator)
        map_seen, seen = whole.step(actions)[0], around.step(actions)[0]


def test_one_hot_numbers_tell_every_state_apart() -> None:
    numbered, described = (
        GridworldVectorEnv("two-rooms", 30, room=3, observation=name, time_limit=9)
        for name in ("one-hot", "vector")
    )
    numbers, vectors = numbered.reset(seed=0)[0], described.reset(seed=0)[0]
    seen: dict[int, tuple[float, ...]] = {}
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        for one, other in zip(numbers, vectors, strict=True):
            assert one.sum() == 1
            said = tuple(other.tolist())
            assert seen.setdefault(int(one.argmax()), said) == said
        actions = torch.randint(0, 4, (30,), generator=generator)
        numbers, vectors = numbered.step(actions)[0], described.step(actions)[0]
    assert len(set(seen.values())) == len(seen) > 50


# Ids, suites, faces.


def test_family_and_suites() -> None:
    FAMILY.register()
    assert {TWO_ROOMS, MAZE} <= set(gymnasium.registry)
    assert [(suite.name, len(suite)) for suite in FAMILY.suites()] == [
        ("two-rooms", 4),
        ("mazes-8", 8),
    ]
    assert two_rooms(2, room=3).tasks[1] == rt.Task(TWO_ROOMS, {"goal": 1, "room": 3})
    assert mazes(16, size=13).name == "mazes-16"
    assert as_suite("mazes-8") == mazes()
    engine = RolloutEngine(mazes(), 2, torch.device("cpu"), seed=0)
    assert engine.spaces.action_mask is None
    assert engine.spaces.observation_space["policy"].shape == (4, 9, 9)


@pytest.mark.filterwarnings("ignore:.*is out of date.*:DeprecationWarning")
@pytest.mark.parametrize("observation", ["vector", "one-hot", "pixels"])
@pytest.mark.parametrize("task_id", [TWO_ROOMS, MAZE])
def test_gymnasium_accepts_the_environment(task_id: str, observation: str) -> None:
    env = gymnasium.make(task_id, observation=observation, render_mode="rgb_array")
    check_env(env.unwrapped)


def test_make_vec_returns_tensors(device: torch.device) -> None:
    env = gymnasium.make_vec(MAZE, num_envs=8, device=device, maze=3, size=9)
    env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(torch.zeros(8, device=device))
    for tensor, dtype, shape in (
        (observation, torch.uint8, (8, 4, 9, 9)),
        (reward, torch.float32, (8,)),
        (terminated, torch.bool, (8,)),
        (truncated, torch.bool, (8,)),
        (info["final_obs"], torch.uint8, (8, 4, 9, 9)),
    ):
        assert (tensor.dtype, tuple(tensor.shape)) == (dtype, shape)
        assert tensor.device.type == device.type


def test_one_environment_plays_as_the_first_of_many() -> None:
    one = gymnasium.make(TWO_ROOMS, goal=2, time_limit=7).unwrapped
    assert isinstance(one, GridworldEnv)
    many = GridworldVectorEnv("two-rooms", 4, goal=2, time_limit=7)
    observation, _ = one.reset(seed=3)
    seed = int(np.random.Generator(np.random.PCG64(np.random.SeedSequence(3))).integers(1 << 62))
    expected, _ = many.reset(seed=seed)
    for step in range(40):
        assert np.array_equal(observation, expected[0].numpy())
        observation, _, terminated, truncated, _ = one.step(np.int64(step % 4))
        expected, _, _, over, info = many.step(torch.full((4,), step % 4))
        assert truncated == bool(over[0]) == (step % 7 == 6)
        assert not terminated
        if truncated:
            assert np.array_equal(observation, info["final_obs"][0].numpy())
            with pytest.raises(ResetNeeded):
                one.step(np.int64(0))
            observation, _ = one.reset()


def test_picture_shows_the_agent() -> None:
    env = gymnasium.make(TWO_ROOMS, room=3, corridor=1, render_mode="rgb_array").unwrapped
    with pytest.raises(ResetNeeded):
        env.render()
    env.reset(seed=0)
    before = env.render()
    assert isinstance(before, np.ndarray)
    assert before.shape == (80, 144, 3)
    assert before[0, 0].any()
    env.step(np.int64(RIGHT))
    env.step(np.int64(LEFT))
    env.step(np.int64(UP))
    assert not np.array_equal(env.render(), before)


# Seeds, states, resets.


def play(env: GridworldVectorEnv, steps: int, seed: int = 0) -> list[Tensor]:
    """Copies of all that some steps return."""
    generator, seen = torch.Generator().manual_seed(seed), []
    for _ in range(steps):
        actions = torch.randint(0, 4, (64,), generator=generator)[: env.num_envs]
        observation, reward, _, truncated, _ = env.step(actions.to(env.device))
        seen += [tensor.clone().cpu() for tensor in (observation, reward, truncated)]
    return seen


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_seed_says_all_and_state_goes_back() -> None:
    env, other = (GridworldVectorEnv("maze", 5, time_limit=20) for _ in range(2))
    env.reset(seed=5)
    first = play(env, 50)
    state = env.state_dict()
    later = play(env, 50, seed=1)
    env.reset(seed=5)
    assert equal(play(env, 50), first)
    other.load_state_dict(state)
    assert equal(play(other, 50, seed=1), later)
    other.reset(seed=6)
    assert not equal(play(other, 50), first)
    with pytest.raises(rt.InputError, match="another number of them"):
        GridworldVectorEnv("maze", 4).load_state_dict(state)


def test_reset_mask_resets_those_alone() -> None:
    env = GridworldVectorEnv("two-rooms", 6)
    env.reset(seed=0)
    play(env, 9)
    before = env.state_dict()
    mask = torch.tensor([True, False, False, True, False, True])
    observation, _ = env.reset(options={"reset_mask": mask})
    assert torch.equal(observation[~mask], before["observation"][~mask])
    after = env.state_dict()
    assert after["times"].tolist() == [0, 9, 9, 0, 9, 0]
    assert torch.equal(after["counters"][~mask], before["counters"][~mask])


def test_an_action_that_is_not_there_does_nothing() -> None:
    env = GridworldVectorEnv("two-rooms", 3, observation="pixels")
    before = env.reset(seed=0)[0].clone()
    assert torch.equal(env.step(torch.tensor([4, -1, 1 << 40]))[0], before)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("mase", {}, "did you mean 'maze'"),
        ("maze", {"goal": 1}, "no option of the map 'maze' 'goal'"),
        ("maze", {"size": 8}, "size is 8: it must be odd"),
        ("maze", {"size": 3}, "size is 3"),
        ("maze", {"loops": 2}, "loops is 2"),
        ("maze", {"maze": -1}, "maze is -1"),
        ("two-rooms", {"goal": 50}, "goal is 50: rooms of 5 x 5 have 50 goals"),
        ("two-rooms", {"room": 1}, "room is 1"),
        ("two-rooms", {"time_limit": 0}, "time_limit is 0"),
        ("two-rooms", {"observation": "pixel"}, "did you mean 'pixels'"),
        ("two-rooms", {"view": -1}, "view is -1"),
        ("two-rooms", {"num_envs": 0}, "num_envs is 0"),
        ("two-rooms", {"device": "meta"}, "no device 'meta'"),
    ],
)
def test_bad_arguments_are_named(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(rt.InputError, match=message):
        GridworldVectorEnv(kind, **{"num_envs": 2, **options})


def test_bad_calls_are_named() -> None:
    with pytest.raises(rt.InputError, match="did you mean 'rltransfer/Maze-v0'"):
        FAMILY.make(rt.Task("rltransfer/Maze-v1"), 2, torch.device("cpu"))
    with pytest.raises(rt.InputError, match="has 0 tasks"):
        mazes(0)
    with pytest.raises(rt.InputError, match="'rgb_array'"):
        GridworldEnv("maze", render_mode="human")
    env = GridworldVectorEnv("maze", 4)
    with pytest.raises(rt.InputError, match=r"shape \(3,\): it must be \(4,\)"):
        env.step(torch.zeros(3))
    with pytest.raises(rt.InputError, match="seed is -1"):
        env.reset(seed=-1)
    with pytest.raises(rt.InputError, match="'reset_mask'"):
        env.reset(options={"mask": torch.ones(4)})
    env.close()
    with pytest.raises(ClosedEnvironmentError):
        env.step(torch.zeros(4))


# What is best.


def test_values_of_a_corridor_by_hand() -> None:
    # Rooms of 2 x 2 and a corridor of 1, 9 cells; with two steps to go, the goal is reached once
    # from each cell next to it and from each cell two steps away, and twice if the second draw
    # is next to it.
    layout = make_layout("two-rooms", {"room": 2, "corridor": 1})
    planner = ExactPlanner(make_rules(layout))
    near, second = neighbours(layout, layout.goal), set()
    for cell in near:
        second |= neighbours(layout, cell) - near - {layout.goal}
    starts = len(layout.starts)
    assert planner.optimal_return(1) == pytest.approx(len(near) / starts)
    again = len(near) * len(near) / starts
    assert planner.optimal_return(2) == pytest.approx((len(near) + len(second) + again) / starts)


def neighbours(layout: Layout, cell: tuple[int, int]) -> set[tuple[int, int]]:
    steps = ((-1, 0), (0, 1), (1, 0), (0, -1))
    around = {(cell[0] + down, cell[1] + right) for down, right in steps}
    return {(row, column) for row, column in around if layout.rows[row][column] == "."}


def test_returns_of_policies_are_what_playing_them_gives() -> None:
    env = GridworldVectorEnv("maze", 2_000, maze=1, observation="one-hot", time_limit=60)
    planner = ExactPlanner(env.rules)
    q_values = planner.soft_values(np.zeros((env.rules.num_states, 4)), 0.0, np.inf, 0.95)
    greedy = torch.from_numpy(q_values.argmax(1))
    torch.manual_seed(0)
    total = {"greedy": 0.0, "random": 0.0}
    for name in total:
        observation, _ = env.reset(seed=1)
        for _ in range(60):
            best = greedy[observation.argmax(1)]
            action = best if name == "greedy" else torch.randint(0, 4, (2_000,))
            observation, reward, *_ = env.step(action)
            total[name] += float(reward.mean())
    one_hot = np.eye(4)[greedy.numpy()]
    # 2,000 episodes: the mean's deviation is below 0.02.
    assert total["greedy"] == pytest.approx(planner.policy_return(one_hot, 60), abs=0.06)
    uniform = np.full_like(q_values, 0.25)
    assert total["random"] == pytest.approx(planner.policy_return(uniform, 60), abs=0.06)
    best = planner.optimal_return(60)
    assert 0.9 * best < planner.policy_return(one_hot, 60) <= best + 1e-9


def test_soft_values_satisfy_their_equations() -> None:
    planner = ExactPlanner(make_rules(make_layout("two-rooms", {"room": 3, "goal": 1})))
    rng = np.random.default_rng(0)
    log_prior = np.log(rng.dirichlet(np.ones(4), planner.num_states))
    found = planner.soft_values(log_prior, 0.5, 3.0, 0.9)
    # V(s) = 1/beta log sum_a pi_0^alpha exp(beta Q), without any trick.
    value = np.log((np.exp(log_prior) ** 0.5 * np.exp(3.0 * found)).sum(1)) / 3.0
    # Tolerance: the iteration ends at changes of 1e-10.
    np.testing.assert_allclose(found, planner.look_ahead(value, 0.9), atol=1e-8)


@pytest.mark.parametrize("place", [-1, 10**6, 2**31 - 1])
def test_a_loaded_agent_is_on_the_map(place: int) -> None:
    """Otherwise the kernels would read other memory."""
    env = GridworldVectorEnv("two-rooms", 2)
    state = env.state_dict()
    state["states"][1] = place
    with pytest.raises(rt.InputError, match="an agent is not on the map"):
        env.load_state_dict(state)
