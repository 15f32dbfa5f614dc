"""Continuous actions are learned in units of their bounds, and reach the environment in its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from fitting import spaces_of
from gymnasium import spaces

import rltransfer as rt
from rltransfer.learning.action_spread import ActionSpread
from rltransfer.objectives.outputs import MSE
from rltransfer.policies.network import Network
from rltransfer.policies.output import PolicyOutput
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.rollouts.actors import RandomActor
from rltransfer.runs.config import RunOptions
from rltransfer.runs.folder import load_run_policy
from rltransfer.runs.onnx_export import export_run
from rltransfer.runs.run import Run
from rltransfer.tasks.action import bounded_dimensions, center_and_half_range

SEEN = spaces.Dict(policy=spaces.Box(-1, 1, (2,), np.float32))
HUGE = float(np.finfo(np.float32).max)
ONE = rt.Suite.of("CartPole-v1")
QUIET: dict[str, Any] = {
    "episodes": 20, "evaluate_episodes": 0, "quiet": True, "device": "cpu", "threads": 1,
}  # fmt: skip


def box(low: list[float], high: list[float]) -> spaces.Box:
    return spaces.Box(np.float32(low), np.float32(high))


class Aim(gym.Env):
    """Two actions in `low` to `high`, rewarded by their distance to the observation, from -2."""

    def __init__(self, low: float = -1.0, high: float = 1.0, matrix: bool = False) -> None:
        self.low, self.high = low, high
        self.observation_space = SEEN["policy"]
        shape = (2, 1) if matrix else (2,)
        self.action_space = spaces.Box(low, high, shape, np.float32)

    def look(self) -> np.ndarray:
        self.target = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.target

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return self.look(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action)
        aimed = 2 * (action.reshape(2) - self.low) / (self.high - self.low) - 1
        reward = -float(np.abs(aimed - self.target).sum())
        self.steps += 1
        return self.look(), reward, False, self.steps >= 10, {}


class Lever(gym.Env):
    """Pulls the lever of the largest of three numbers; levers count from `start`."""

    def __init__(self, start: int = 0) -> None:
        self.observation_space = spaces.Box(-1, 1, (3,), np.float32)
        self.action_space = spaces.Discrete(3, start=start)

    def look(self) -> np.ndarray:
        self.seen = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return self.seen

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return self.look(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action)
        reward = float(action - self.action_space.start == self.seen.argmax())
        self.steps += 1
        return self.look(), reward, False, self.steps >= 10, {}


for entry in (Aim, Lever):
    gym.register(f"Units{entry.__name__}-v0", entry_point=entry)


def test_bounds_are_taken_dimension_by_dimension() -> None:
    mixed = box([300, -np.inf, -HUGE, -1e10, 0, 2], [500, np.inf, HUGE, 1e10, np.inf, 2])
    assert bounded_dimensions(mixed).tolist() == [True, False, False, False, False, True]
    center, half_range = center_and_half_range(mixed)
    assert center.tolist() == [400, 0, 0, 0, 0, 2]
    assert half_range.tolist() == [100, 1, 1, 1, 1, 1]


def test_random_actions_are_uniform_where_there_are_bounds() -> None:
    mixed = box([300, -HUGE], [500, HUGE])
    actor = RandomActor(spaces_of(ONE, [(SEEN, mixed)]), torch.Generator().manual_seed(0))
    nothing = torch.zeros(0)
    drawn = actor.act({}, torch.zeros(2000, dtype=torch.int64), nothing, nothing)["action"]
    assert 300 <= drawn[:, 0].min() < 310 and 490 < drawn[:, 0].max() <= 500
    assert abs(drawn[:, 0].mean() - 400) < 5 and abs(drawn[:, 1].std() - 1) < 0.1


def test_outputs_are_in_the_environments_units() -> None:
    own = box([300, -0.001], [500, 0.001])
    scaled, plain = (
        PolicySpec(Network(), SEEN, own, host_actions=hosts).build() for hosts in ((own,), None)
    )
    scaled.load_state_dict(plain.state_dict(), strict=False)
    seen = {"policy": torch.rand(5, 2)}
    ours, raw = scaled(seen), plain(seen)
    half_range = torch.tensor([100, 0.001])
    torch.testing.assert_close(ours.mean, torch.tensor([400, 0]) + half_range * raw.mean)
    torch.testing.assert_close(ours.log_std.exp(), half_range.expand(5, 2))
    # Errors count in these units, so that no dimension outweighs another.
    teacher = PolicyOutput(mean=ours.mean + half_range)
    torch.testing.assert_close(MSE().score(ours, teacher), torch.full((5,), 2.0), rtol=1e-3, atol=0)


def test_tasks_with_other_bounds_have_their_own_units(tmp_path: Path) -> None:
    hosts = (box([0, 0], [10, 10]), box([-1], [1]))
    spec = PolicySpec(
        Network(), SEEN, box([-1, 0], [10, 10]), ((True, True), (True, False)), num_tasks=2,
        host_actions=hosts,
    )  # fmt: skip
    policy = PolicySpec.from_json(json.loads(json.dumps(spec.to_json()))).build()
    torch.nn.init.zeros_(policy.action_head.weight)
    output = policy({"policy": torch.rand(2, 2)}, torch.tensor([0, 1]))
    assert output.mean.tolist() == [[5, 5], [0, 0]]


def test_tasks_with_one_center_have_their_own_half_ranges() -> None:
    hosts = (box([-1], [1]), box([-10], [10]))
    spec = PolicySpec(Network(), SEEN, hosts[1], num_tasks=2, host_actions=hosts)
    # Nothing but the units depends on the task.
    assert spec.asks_for_task
    output = spec.build()({"policy": torch.rand(2, 2)}, torch.tensor([0, 1]))
    torch.testing.assert_close(output.log_std.exp(), torch.tensor([[1.0], [10.0]]))
    assert not PolicySpec(
        Network(), SEEN, hosts[1], num_tasks=2, host_actions=hosts[:1] * 2
    ).asks_for_task


@pytest.mark.parametrize(("low", "high"), [(300.0, 500.0), (-0.001, 0.001)])
def test_ppo_learns_actions_of_any_scale(tmp_path: Path, low: float, high: float) -> None:
    task = rt.Task("UnitsAim-v0", {"low": low, "high": high, "matrix": True})
    method = rt.agents.PPO(num_envs=16, rollout_length=64, batch_size=256, epochs=4)
    run = rt.train(method, suite=task, total_steps=20_000, run_dir=tmp_path / "run", **QUIET)
    # Random actions earn about -13, the middle of the bounds -10.
    assert run.result["tasks"]["UnitsAim-v0"]["return_mean"] > -7
    # The file's actions have the shape of the environment's.
    exported = export_run(tmp_path / "run", tmp_path / "policy.onnx")
    assert exported.outputs["action"] == "float32[batch, 2, 1]"
    # A policy for other bounds is refused, and can be scaled or kept.
    other = rt.Task("UnitsAim-v0", {"low": 0.0, "high": 10.0})
    with pytest.raises(rt.InputError, match=r"are in \[0, 10\]; use .*bounds='scale'"):
        rt.evaluate(tmp_path / "run", other, episodes=1)
    found = {
        bounds: rt.evaluate(f"Adapted({str(tmp_path / 'run')!r}, bounds={bounds!r})", other, 20)
        for bounds in ("scale", "keep")
    }
    means = {bounds: one["UnitsAim-v0"].mean for bounds, one in found.items()}
    assert means["scale"] > -7 > means["keep"]


def test_a_student_learns_in_the_units_of_its_teacher(tmp_path: Path) -> None:
    task = rt.Task("UnitsAim-v0", {"low": -100.0, "high": 100.0})
    teacher = rt.CallableTeacher(lambda seen, _: PolicyOutput(mean=100 + seen["policy"] / 10))
    method = rt.agents.PolicyDistillation(
        teacher=teacher, objective="mse", num_envs=8, rollout_length=32
    )
    run = rt.train(method, suite=task, total_steps=256, run_dir=tmp_path / "run", **QUIET)
    policy = run.agent.policy
    spread = 0.1 / 3**0.5  # of uniform numbers from -0.1 to 0.1
    np.testing.assert_allclose(policy.action_center, [[100, 100]], atol=0.02)
    np.testing.assert_allclose(policy.action_half_range, [[100, 100]])  # less than a thousandth
    np.testing.assert_allclose(run.agent.spread.noise, [[spread, spread]], rtol=0.2)
    # The file's policy acts in the same units.
    loaded = load_run_policy(tmp_path / "run")
    assert torch.equal(loaded.action_center, policy.action_center)
    assert torch.equal(loaded.action_half_range, policy.action_half_range)


def test_a_spread_is_that_of_all_rollouts() -> None:
    spread = ActionSpread(torch.tensor([[1.0, 1.0], [0.2, 0.0]]))
    actions = torch.randn(8, 6, 2) * 0.3 + 0.1
    actions[:, 3:, 1] = 0.0  # the second task has no second dimension
    for part in actions.split(4):
        spread.update(part)
    torch.testing.assert_close(spread.noise[0], actions[:, :3].std((0, 1), correction=0))
    # Noise is at most a half-range, of which there is none in padding.
    assert spread.noise[1].tolist() == pytest.approx([0.2, 0.0])
    center, half_range = spread.units(2)
    torch.testing.assert_close(center[0], actions[:, :3].mean((0, 1)))
    assert center[1, 1] == 0 and half_range[1, 1] == 1
    again = ActionSpread(spread.half_range)
    again.load_state_dict(spread.state_dict())
    assert torch.equal(again.units(1)[1], spread.units(1)[1])
    assert torch.equal(again.noise, spread.noise) and again.noise.any()
    # Earlier versions stored none, and drew noise in half-ranges.
    earlier = ActionSpread(spread.half_range)
    earlier.load_state_dict(None)
    assert torch.equal(earlier.noise, spread.half_range)


WIDE = rt.Suite.of(*(rt.Task("UnitsAim-v0", {"low": -h, "high": h}) for h in (100.0, 10.0)))


def distilling(run_dir: Path, mean: list[float], **options: Any) -> Run:
    """A run whose teacher acts with these means, one for each task, and deviations of 1 and 0.1."""

    def function(seen: rt.Observation, task: torch.Tensor) -> PolicyOutput:
        scale = torch.tensor([1.0, 0.1])[task].unsqueeze(1) * 3**0.5
        return PolicyOutput(mean=torch.tensor(mean)[task].unsqueeze(1) + scale * seen["policy"])

    method = rt.agents.PolicyDistillation(
        teacher=rt.CallableTeacher(function), num_envs=16, rollout_length=64, epochs=1,
        batch_size=512, exploration=0.05, **options,
    )  # fmt: skip
    return Run("x", method, WIDE, RunOptions(), run_dir)


def rolled(run: Run, progress: float) -> int:
    """Collects a rollout at this progress, takes it in, and counts its minibatches."""
    run.agent.begin_rollout(progress)
    return len(list(run.agent.batches(run.engine.collect(run.agent, 64))))


def test_units_are_those_of_the_first_rollout_and_noise_those_of_all(tmp_path: Path) -> None:
    mean = [50.0, 5.0]
    run = distilling(tmp_path / "run", mean, objective="mse")
    policy = run.agent.policy
    run.agent.check_size(20_000, tmp_path)  # a twentieth of the run is less than a rollout
    rolled(run, 0.0)
    center, half_range = policy.action_center.clone(), policy.action_half_range.clone()
    # Of uniform numbers: the mean of 1024, within four standard errors, and their deviation.
    np.testing.assert_allclose(center, [[50, 50], [5, 5]], rtol=0.003)
    np.testing.assert_allclose(half_range, [[1, 1], [0.1, 0.1]], rtol=0.1)
    mean[:] = [54.0, 5.4]
    rolled(run, 0.5)
    assert torch.equal(policy.action_center, center)
    assert torch.equal(policy.action_half_range, half_range)
    # Half of the means are 4 deviations higher: the variance is 1 + 2^2.
    noise = run.agent.spread.noise
    np.testing.assert_allclose(noise, 5**0.5 * np.array([[1, 1], [0.1, 0.1]]), rtol=0.1)
    # Exploration is a fraction of it in each task.
    task = torch.tensor([0, 1]).repeat(2_000)
    explored = run.agent._explore(torch.zeros(4_000, 2), task)
    for index in (0, 1):
        drawn = explored[task == index].std(0) / 0.05
        torch.testing.assert_close(drawn, noise[index], rtol=0.1, atol=0)
    # A resumed run goes on with both.
    again = distilling(tmp_path / "again", mean, objective="mse").agent
    again.load_state_dict(run.agent.state_dict())
    assert torch.equal(again.policy.action_center, center)
    assert torch.equal(again.spread.noise, noise)


def test_short_rollouts_are_joined_before_units_are_set(tmp_path: Path) -> None:
    mean = [50.0, 5.0]
    run = distilling(tmp_path / "run", mean, objective="mse")
    run.agent.check_size(1_000_000, tmp_path)
    initial = run.agent.policy.action_center.clone()
    assert rolled(run, 0.0) == 0 and torch.equal(run.agent.policy.action_center, initial)
    mean[:] = [54.0, 5.4]
    # A run that resumes here has counted the first half, too.
    again = distilling(tmp_path / "again", mean, objective="mse")
    again.agent.check_size(1_000_000, tmp_path)
    again.agent.load_state_dict(run.agent.state_dict())
    for one in (run, again):
        # 128 steps of 32 environments in minibatches of 512, once.
        assert rolled(one, 0.01) == 8
        np.testing.assert_allclose(
            one.agent.policy.action_center, [[52, 52], [5.2, 5.2]], rtol=0.01
        )
        center = one.agent.policy.action_center.clone()
        assert rolled(one, 0.02) == 4 and torch.equal(one.agent.policy.action_center, center)
    # A run that goes on for longer keeps its units.
    short = distilling(tmp_path / "short", mean, objective="mse")
    short.agent.check_size(20_000, tmp_path)
    assert rolled(short, 0.0) == 4
    center = short.agent.policy.action_center.clone()
    short.agent.check_size(1_000_000, tmp_path)
    mean[:] = [58.0, 5.8]
    assert rolled(short, 0.01) == 4 and torch.equal(short.agent.policy.action_center, center)


def test_a_short_run_does_not_wait_for_units(tmp_path: Path) -> None:
    run = distilling(tmp_path / "run", [50.0, 5.0], objective="mse")
    run.agent.check_size(20_000, tmp_path)
    assert rolled(run, 0.0) == 4


def test_with_rl_the_units_are_those_of_the_bounds(tmp_path: Path) -> None:
    # The student must reach actions that the teacher never takes.
    run = distilling(
        tmp_path / "run", [50.0, 5.0], objective="nll", teacher_acts=0.0, reinforcement_weight=1.0
    )
    rolled(run, 0.0)
    assert run.agent.policy.action_center.tolist() == [[0, 0]] * 2
    assert run.agent.policy.action_half_range.tolist() == [[100, 100], [10, 10]]


@pytest.mark.parametrize("start", [-1, 5])
def test_exported_actions_count_from_the_start_of_their_space(tmp_path: Path, start: int) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    task = rt.Task("UnitsLever-v0", {"start": start})
    method = rt.agents.PPO(num_envs=2, rollout_length=8)
    run = rt.train(method, suite=task, total_steps=16, run_dir=tmp_path / "run", **QUIET)
    export_run(tmp_path / "run", tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx")
    seen = torch.rand(9, 3)
    (action,) = session.run(["action"], {"observation_policy": seen.numpy()})
    logits = run.agent.policy({"policy": seen}).logits
    assert action.tolist() == (logits.argmax(-1) + start).tolist()
    known = json.loads(session.get_modelmeta().custom_metadata_map["action_space"])
    assert known == {"discrete": 3, "start": start}
    assert rt.load_teacher(tmp_path / "run").spec().action_space == Lever(start).action_space


def test_policies_of_earlier_versions_act_as_they_did() -> None:
    spec = PolicySpec(Network(), SEEN, box([0], [10]))
    stored = {name: v for name, v in spec.to_json().items() if name != "host_actions"}
    old = PolicySpec.from_json(stored).build()
    assert isinstance(old, Policy) and not any("action_center" in name for name in old.state_dict())
    torch.nn.init.zeros_(old.action_head.weight)
    assert old({"policy": torch.rand(1, 2)}).mean.item() == 0


def test_options_keep_their_other_names_in_python() -> None:
    former = rt.agents.PPO(horizon=8, lr=0.1)  # type: ignore[call-arg]
    assert (former.rollout_length, former.learning_rate) == (8, 0.1)
    with pytest.raises(rt.InputError, match="horizon and n_steps are the same option"):
        rt.agents.PPO(horizon=8, n_steps=9)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="horizn"):
        rt.agents.PPO(horizn=8)  # type: ignore[call-arg]
