"""The engine: what it stores is what the environments said, in any layout."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from toy import SHORT_TASK, TASK, EchoVectorEnv

import rltransfer as rt
from rltransfer.learning.agent import Agent, TrainingContext
from rltransfer.policies.policy import PolicySpec
from rltransfer.rollouts.actors import RandomActor
from rltransfer.rollouts.engine import RolloutEngine
from rltransfer.tasks.making import make_vector_env

CPU = torch.device("cpu")
MINIMAL = rt.Suite.of("rltransfer/MinAtar-Breakout-v1", "rltransfer/MinAtar-Asterix-v1")


class Scripted:
    """Acts by a table, time first, and keeps the observation's sum."""

    state_size = 0
    graph_key = None
    generators = ()

    def __init__(self, actions: torch.Tensor) -> None:
        self.actions = actions
        self.time = 0

    def act(self, observation: Any, task: Any, state: Any, start: Any) -> dict[str, torch.Tensor]:
        action = self.actions[self.time]
        self.time += 1
        return {"action": action, "seen": observation["policy"].float().flatten(1).sum(1)}


def random_actor(engine: RolloutEngine, seed: int = 0) -> RandomActor:
    return RandomActor(engine.spaces, torch.Generator().manual_seed(seed))


def test_a_rollout_is_what_the_environment_said() -> None:
    engine = RolloutEngine(rt.Suite.of("rltransfer/MinAtar-Breakout-v0"), 5, CPU, seed=3)
    env = make_vector_env(rt.Task("rltransfer/MinAtar-Breakout-v0"), 5, CPU)
    env.load_state_dict(engine.env_slices[0].env.state_dict())
    observation = engine._observation["policy"].at[engine._rollout_length].clone()
    actions = torch.randint(6, (60, 5), generator=torch.Generator().manual_seed(1))
    rollout = engine.collect(Scripted(actions), 60)
    for time in range(60):
        assert torch.equal(rollout.observation["policy"][time], observation)
        assert torch.equal(rollout.extras["seen"][time], observation.float().flatten(1).sum(1))
        observation, reward, terminated, truncated, _ = env.step(actions[time])
        observation = observation.clone()
        assert torch.equal(rollout.reward[time], reward)
        assert torch.equal(rollout.terminated[time], terminated)
        assert not rollout.truncated[time].any() and not truncated.any()
        if time < 59:
            assert torch.equal(rollout.start[time + 1], terminated)
    assert torch.equal(rollout.last_observation["policy"], observation)
    assert rollout.terminated.any()


def test_two_halves_of_a_host_environment_equal_gymnasium() -> None:
    # 3 + 3 environments: each half is seeded by itself, and stepped as Gymnasium would.
    engine = RolloutEngine(rt.Suite.of("ALE/Pong-v5"), 4, CPU, seed=0)
    assert [len(stage) for stage in engine.pipeline_stages] == [1, 1]
    first = engine.collect(random_actor(engine), 8)
    assert first.observation["policy"].shape == (8, 4, 4, 84, 84)
    assert first.observation["policy"].dtype == torch.uint8
    again = RolloutEngine(rt.Suite.of("ALE/Pong-v5"), 4, CPU, seed=0)
    second = again.collect(random_actor(again), 8)
    assert torch.equal(first.observation["policy"], second.observation["policy"])
    # The two halves are different games of Pong, not the same one twice.
    assert not torch.equal(first.observation["policy"][:, :2], first.observation["policy"][:, 2:])
    engine.close()
    again.close()


def test_tasks_of_other_sizes_are_padded_and_masked() -> None:
    engine = RolloutEngine(MINIMAL, 3, CPU, seed=0)
    # Breakout has 4 channels and 3 actions, Asterix 4 and 5.
    assert engine.spaces.action_space == gymnasium.spaces.Discrete(5)
    assert engine.spaces.action_mask == ((True, True, True, False, False), (True,) * 5)
    assert engine.task.tolist() == [0, 0, 0, 1, 1, 1]
    suite = rt.Suite.of("rltransfer/MinAtar-Breakout-v0", "rltransfer/MinAtar-Seaquest-v0")
    engine = RolloutEngine(suite, 2, CPU, seed=0)
    rollout = engine.collect(random_actor(engine), 20)
    seen = rollout.observation["policy"]
    assert seen.shape == (20, 4, 10, 10, 10)
    assert not seen[:, :2, 4:].any()
    assert seen[:, 2:, 4:].any()


def test_tasks_that_cannot_share_a_policy_are_refused() -> None:
    with pytest.raises(rt.InputError, match="one has discrete actions, the other continuous"):
        RolloutEngine(rt.Suite.of("CartPole-v1", "Pendulum-v1"), 1, CPU, seed=0)
    with pytest.raises(rt.InputError, match="cannot share a policy"):
        RolloutEngine(rt.Suite.of("CartPole-v1", "ALE/Pong-v5"), 1, CPU, seed=0)


def test_episode_returns_and_lengths() -> None:
    # Echo's episodes are ten steps long and earn 1 for each right name.
    engine = RolloutEngine(rt.Suite.of(TASK), 4, CPU, seed=0)
    rollout = engine.collect(random_actor(engine), 25)
    assert rollout.episode_length.nonzero()[:, 0].unique().tolist() == [9, 19]
    torch.testing.assert_close(rollout.episode_return[9], rollout.reward[:10].sum(0))
    torch.testing.assert_close(rollout.episode_return[19], rollout.reward[10:20].sum(0))
    assert engine.running_length.tolist() == [5.0] * 4


def test_final_observations_of_cut_off_episodes_are_kept() -> None:
    engine = RolloutEngine(rt.Suite.of(SHORT_TASK), 4, CPU, seed=0)
    rollout = engine.collect(random_actor(engine), 12)
    assert rollout.final_obs is not None
    assert rollout.final_obs.time.tolist() == [9] * 4
    assert rollout.final_obs.rows.tolist() == [0, 1, 2, 3]
    assert rollout.final_obs.observation["policy"].shape == (4, 4)
    assert engine.collect(random_actor(engine), 5).final_obs is None


def test_final_observations_are_the_same_when_chosen_after_the_rollout() -> None:
    # Two tasks, so that rows are not those of the first env_slice alone; episodes of ten steps.
    def finals(capturable: bool) -> Any:
        task = rt.Task(SHORT_TASK, {"capturable": capturable})
        other = rt.Task(SHORT_TASK, {"capturable": capturable, "nan_at": 0})
        engine = RolloutEngine(rt.Suite("two", (task, other)), 3, CPU, seed=0)
        return engine.collect(random_actor(engine), 25).final_obs

    at_once, afterwards = finals(False), finals(True)

    def ordered(final: Any) -> list[tuple[int, int, list[float]]]:
        shown = final.observation["policy"].tolist()
        return sorted(zip(final.time.tolist(), final.rows.tolist(), shown, strict=True))

    assert ordered(at_once) == ordered(afterwards)
    assert [row for time, row, _ in ordered(afterwards) if time == 19] == [0, 1, 2, 3, 4, 5]


def test_a_rollout_makes_no_new_stores() -> None:
    # What a CUDA graph writes to must stay where it is, whatever the device.
    engine = RolloutEngine(rt.Suite.of("rltransfer/MinAtar-Breakout-v0"), 8, CPU, seed=0)
    actor = random_actor(engine)

    def addresses() -> list[int]:
        rollout = engine.collect(actor, 4)
        stores = [*rollout.observation.values(), *rollout.extras.values()]
        stores += [rollout.reward, rollout.start, rollout.initial_state, rollout.last_state]
        return [store.data_ptr() for store in stores]

    first = addresses()
    assert addresses() == first
    engine.load_state_dict(engine.state_dict())
    assert addresses() == first


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
METHODS = {
    "ppo": lambda: rt.agents.PPO(num_envs=64, rollout_length=8),
    "pqn": lambda: rt.agents.PQN(num_envs=64, rollout_length=8),
    "distillation": lambda: rt.agents.PolicyDistillation(
        teacher="zoo", num_envs=64, rollout_length=8, teacher_acts=0.5
    ),
}


def acting_agent(method: str, captures: bool) -> tuple[RolloutEngine, Agent]:
    """Returns an engine on CUDA and an agent that acts in it."""
    device = torch.device("cuda")
    suite = rt.Suite.of("rltransfer/MinAtar-Breakout-v0")
    engine = RolloutEngine(suite, 64, device, seed=0, captures=captures)
    context = TrainingContext(
        engine.spaces, frame_stack=0, num_rows=engine.num_rows, seed=0, device=device
    )  # fmt: skip
    torch.manual_seed(0)
    agent = METHODS[method]().build(context)
    agent.begin_rollout(0.5)
    return engine, agent


@needs_cuda
@pytest.mark.parametrize("method", METHODS)
def test_captured_rollouts_equal_eager_ones(method: str) -> None:
    def rollouts(captures: bool) -> list[torch.Tensor]:
        engine, agent = acting_agent(method, captures)
        kept = []
        for _ in range(6):
            rollout = engine.collect(agent, 8)
            stores = (rollout.reward, rollout.extras["action"], rollout.observation["policy"])
            kept.extend(store.clone() for store in stores)
            agent.learn(rollout)
        return kept

    for eager, captured in zip(rollouts(False), rollouts(True), strict=True):
        assert torch.equal(eager, captured)


@needs_cuda
@pytest.mark.parametrize("method", METHODS)
def test_a_captured_rollout_neither_allocates_nor_waits(method: str) -> None:
    engine, agent = acting_agent(method, True)
    for _ in range(3):
        engine.collect(agent, 8)
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    torch.cuda.set_sync_debug_mode("error")
    try:
        engine.collect(agent, 8)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before


@pytest.mark.parametrize("task", [TASK, "rltransfer/MinAtar-Seaquest-v0"])
def test_the_state_goes_on_where_it_was(task: str) -> None:
    engine = RolloutEngine(rt.Suite.of(task), 6, CPU, seed=0)
    engine.collect(random_actor(engine), 30)
    state = engine.state_dict()
    expected = engine.collect(random_actor(engine, 1), 40)
    other = RolloutEngine(rt.Suite.of(task), 6, CPU, seed=9)
    other.load_state_dict(state)
    found = other.collect(random_actor(other, 1), 40)
    assert torch.equal(found.observation["policy"], expected.observation["policy"])
    assert torch.equal(found.reward, expected.reward)
    assert torch.equal(found.episode_return, expected.episode_return)


def test_other_horizons_carry_the_observation_over() -> None:
    def seen(horizons: list[int]) -> torch.Tensor:
        engine = RolloutEngine(rt.Suite.of("rltransfer/MinAtar-Freeway-v0"), 3, CPU, seed=0)
        actor = random_actor(engine)
        parts = [engine.collect(actor, h).observation["policy"].clone() for h in horizons]
        return torch.cat(parts)

    assert torch.equal(seen([12]), seen([5, 4, 3]))


def test_an_environment_that_resets_a_step_late_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = {"autoreset_mode": AutoresetMode.NEXT_STEP}
    monkeypatch.setattr(EchoVectorEnv, "metadata", late)
    with pytest.raises(rt.InputError, match="must reset in the same step"):
        RolloutEngine(rt.Suite.of(TASK), 2, CPU, seed=0)


def test_observation_groups_reach_the_policy_by_name() -> None:
    class Split(gymnasium.Env[dict[str, Any], int]):
        observation_space = gymnasium.spaces.Dict(
            {
                "policy": gymnasium.spaces.Box(-1, 1, (2,), np.float32),
                "privileged": gymnasium.spaces.Box(-1, 1, (3,), np.float32),
            }
        )
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
            return {"policy": np.ones(2, np.float32), "privileged": np.zeros(3, np.float32)}, {}

        def step(self, action: int) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
            return self.reset()[0], 0.0, False, False, {}

    gymnasium.register("tests/Split-v0", Split)
    engine = RolloutEngine(rt.Suite.of("tests/Split-v0"), 2, CPU, seed=0)
    rollout = engine.collect(random_actor(engine), 3)
    assert rollout.observation["privileged"].shape == (3, 2, 3)
    spec = PolicySpec.of_suite(rt.policies.Network(groups=("privileged",)), engine.spaces)
    assert rt.Policy(spec).encoder.layers[0].in_features == 3
