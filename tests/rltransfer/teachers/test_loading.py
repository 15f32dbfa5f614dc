"""Teachers: zips, runs, functions and one a task; refused where they do not fit."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from fitting import fitted_teacher, spaces_of
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC
from toy import SHORT_TASK, TASK

import rltransfer as rt
from rltransfer.policies.network import Network
from rltransfer.policies.output import MASKED
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.rollouts.engine import RolloutEngine
from rltransfer.tasks.observation import Observation
from rltransfer.teachers.policy_teacher import PolicyTeacher

CPU = torch.device("cpu")
CARTPOLE = rt.Suite.of("CartPole-v1")


def constant(value: float, actions: int = 2) -> rt.CallableTeacher:
    """A teacher whose logits are all the same number."""
    return rt.CallableTeacher(
        lambda observation, task: rt.PolicyOutput(logits=torch.full((len(task), actions), value))
    )


@pytest.fixture(scope="module")
def zip_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zip") / "dqn.zip"
    DQN("MlpPolicy", "CartPole-v1", device="cpu", buffer_size=100).save(path)
    return path


def test_a_zip_says_what_stable_baselines3_says(zip_path: Path) -> None:
    teacher = fitted_teacher(rt.load_teacher(zip_path), CARTPOLE, CPU)
    observation = torch.randn(16, 4)
    output = teacher({"policy": observation}, torch.zeros(16, dtype=torch.int64))
    expected = DQN.load(zip_path, device="cpu").q_net(observation)
    torch.testing.assert_close(output.q_values, expected)
    assert not output.q_values.requires_grad


def test_only_what_acts_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "ppo.zip"
    PPO("MlpPolicy", "CartPole-v1", device="cpu").save(path)
    # 4 x 64 + 64, 64 x 64 + 64, 64 x 2 + 2; the value's network is not needed to act.
    assert rt.load_teacher(path).num_parameters == 320 + 4160 + 130


def test_a_run_is_a_teacher(tmp_path: Path) -> None:
    run = rt.train(
        rt.agents.PPO(num_envs=4, rollout_length=10),
        suite=TASK,
        total_steps=40,
        run_dir=tmp_path / "run",
        episodes=1,
        evaluate_episodes=0,
        quiet=True,
    )
    teacher = fitted_teacher(rt.load_teacher(tmp_path / "run"), rt.Suite.of(TASK), CPU)
    assert isinstance(teacher, PolicyTeacher)
    observation = {"policy": torch.eye(4)}
    expected = run.agent.policy(observation)
    found = teacher(observation, torch.zeros(4, dtype=torch.int64))
    assert torch.equal(found.logits, expected.logits)
    assert teacher.num_parameters == run.result["student_parameters"]
    assert teacher.suite == rt.Suite.of(TASK)
    assert len(teacher.describe()["sha256"]) == 64


def test_a_policy_of_several_tasks_knows_each_by_its_id() -> None:
    # Four channels and three actions, ten and six: padded to one another's.
    breakout, seaquest = "rltransfer/MinAtar-Breakout-v1", "rltransfer/MinAtar-Seaquest-v1"
    suite = rt.Suite.of(breakout, seaquest)
    joint = RolloutEngine(suite, 1, CPU, 0)
    policy = Policy(
        PolicySpec(
            Network(),
            joint.spaces.observation_space,
            joint.spaces.action_space,
            joint.spaces.action_mask,
        )
    )
    teacher = PolicyTeacher(policy, "runs/two", "0", suite)
    seen, task = torch.rand(4, 10, 10, 10), torch.tensor([0, 0, 1, 1])
    seen[:2, 4:] = 0
    expected = policy({"policy": seen}, task).logits.detach()
    as_trained = fitted_teacher(teacher, suite, CPU)
    assert torch.equal(as_trained({"policy": seen}, task).logits, expected)
    turned = fitted_teacher(teacher, rt.Suite.of(seaquest, breakout), CPU)
    found = turned({"policy": seen.flip(0)}, task).logits
    torch.testing.assert_close(found, expected.flip(0))
    # One task alone: its own channels and actions.
    alone = fitted_teacher(teacher, rt.Suite.of(breakout), CPU)
    found = alone({"policy": seen[:2, :4]}, torch.zeros(2, dtype=torch.int64)).logits
    torch.testing.assert_close(found, expected[:2, :3])
    # The same from inside a composition, whose tasks have another order.
    each = rt.PerTask({seaquest: teacher, breakout: rt.Ensemble([teacher])})
    fitted = fitted_teacher(each, rt.Suite.of(seaquest, breakout), CPU)
    torch.testing.assert_close(fitted({"policy": seen.flip(0)}, task).logits, expected.flip(0))
    with pytest.raises(rt.InputError, match=r"Asterix-v1': it was trained on .*Breakout-v1, "):
        fitted_teacher(teacher, rt.Suite.of("rltransfer/MinAtar-Asterix-v1"), CPU)


def test_a_policy_with_statistics_of_each_task_is_told_the_task() -> None:
    suite = rt.Suite.of(TASK, SHORT_TASK)
    joint = RolloutEngine(suite, 1, CPU, 0)
    network = Network(hidden=(8,), statistics="per-task")
    policy = Policy(
        PolicySpec(network, joint.spaces.observation_space, joint.spaces.action_space, num_tasks=2)
    )
    seen, task = {"policy": torch.eye(4)}, torch.tensor([0, 0, 1, 1])
    policy.update_statistics({"policy": torch.randn(20, 4) + 3}, torch.ones(20, dtype=torch.int64))
    expected = policy(seen, task).logits.detach()
    assert not torch.equal(expected, policy(seen, 1 - task).logits)
    teacher = PolicyTeacher(policy, "runs/two", "0", suite)
    turned = fitted_teacher(teacher, rt.Suite.of(SHORT_TASK, TASK), CPU)
    alone = PolicyTeacher(policy, "runs/two", "0")
    for one, index in ((teacher, task), (turned, 1 - task), (alone, task)):
        assert torch.equal(one(seen, index).logits, expected)
        undropped = rt.MonteCarloDropout(one, samples=2, p=0.0)
        found = undropped(seen, index).logits.softmax(-1)
        torch.testing.assert_close(found, expected.softmax(-1))


def test_a_run_without_its_configuration_is_no_teacher(tmp_path: Path) -> None:
    rt.train(
        rt.agents.PPO(num_envs=4, rollout_length=10),
        suite=TASK,
        total_steps=40,
        run_dir=tmp_path / "run",
        episodes=1,
        evaluate_episodes=0,
        quiet=True,
    )
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(rt.InputError, match=r"config\.json is missing or damaged"):
        rt.load_teacher(tmp_path / "run")


def test_teachers_that_do_not_fit_are_refused(tmp_path: Path, zip_path: Path) -> None:
    with pytest.raises(rt.InputError, match=r"observes float32\[4\].* shows float32\[6\]"):
        fitted_teacher(rt.load_teacher(zip_path), rt.Suite.of("Acrobot-v1"), CPU)
    rt.train(
        rt.agents.PPO(num_envs=4, rollout_length=10),
        suite=TASK,
        total_steps=40,
        run_dir=tmp_path / "run",
        episodes=1,
        evaluate_episodes=0,
        quiet=True,
    )
    teacher = rt.load_teacher(tmp_path / "run")
    with pytest.raises(rt.InputError, match=r"reads the group 'policy' as float32\[4\]"):
        fitted_teacher(teacher, rt.Suite.of("Acrobot-v1"), CPU)
    with pytest.raises(rt.InputError, match="actions are Discrete"):
        fitted_teacher(teacher, CARTPOLE, CPU)


def test_no_such_source() -> None:
    with pytest.raises(rt.InputError, match=r"There is no teacher 'nothing'"):
        rt.load_teacher("nothing")
    with pytest.raises(rt.InputError, match="pass the suite"):
        rt.load_teacher("zoo")
    with pytest.raises(rt.InputError, match="no teacher in the zoo for the task 'CartPole-v1'"):
        rt.load_teacher("zoo", suite=CARTPOLE)
    with pytest.raises(rt.InputError, match="go with a Stable-Baselines3 zip"):
        rt.load_teacher("run", vecnormalize="statistics.pkl")


def test_each_task_has_its_own_teacher() -> None:
    suite = rt.Suite.of("rltransfer/MinAtar-Breakout-v1", "rltransfer/MinAtar-Asterix-v1")
    both = rt.PerTask({suite.tasks[0].id: constant(1.0, 3), suite.tasks[1].id: constant(2.0, 5)})
    teacher = fitted_teacher(both, suite, CPU)
    task = torch.tensor([0, 0, 1])
    output = teacher({"policy": torch.zeros(3, 4, 10, 10)}, task)
    assert output.logits[0].tolist() == [1, 1, 1, MASKED, MASKED]
    assert output.logits[2].tolist() == [2] * 5
    # One task alone: its own teacher's bits.
    alone = teacher({"policy": torch.zeros(2, 4, 10, 10)}, torch.tensor([1, 1]))
    assert torch.equal(alone.logits, torch.full((2, 5), 2.0))


def test_a_gaussian_beside_a_deterministic_teacher_is_its_mean() -> None:
    def gaussian(observation: Observation, task: torch.Tensor) -> rt.PolicyOutput:
        return rt.PolicyOutput(mean=torch.ones(len(task), 2), log_std=torch.ones(len(task), 2))

    def deterministic(observation: Observation, task: torch.Tensor) -> rt.PolicyOutput:
        return rt.PolicyOutput(mean=torch.full((len(task), 1), 3.0))

    suite = rt.Suite.of(rt.Task("LunarLander-v3", {"continuous": True}), "Pendulum-v1")
    each = zip(suite.names(), (gaussian, deterministic), strict=True)
    both = rt.PerTask({name: rt.CallableTeacher(function) for name, function in each})
    teacher, seen = fitted_teacher(both, suite, CPU), {"policy": torch.zeros(2, 8)}
    output = teacher(seen, torch.tensor([0, 1]))
    assert output.mean.tolist() == [[1, 1], [3, 0]] and output.log_std is None
    assert teacher(seen, torch.tensor([0, 0])).log_std is not None


def test_a_task_without_a_teacher_is_named() -> None:
    teacher = rt.PerTask({TASK: constant(1.0)})
    with pytest.raises(rt.InputError, match="no teacher for the task 'CartPole-v1'"):
        fitted_teacher(teacher, CARTPOLE, CPU)


def test_teachers_of_other_kinds_cannot_be_mixed() -> None:
    suite = rt.Suite.of("rltransfer/MinAtar-Breakout-v0", "rltransfer/MinAtar-Asterix-v0")
    values = rt.CallableTeacher(lambda o, t: rt.PolicyOutput(q_values=torch.zeros(len(t), 6)))
    both = rt.PerTask({suite.tasks[0].id: constant(1.0, 6), suite.tasks[1].id: values})
    teacher = fitted_teacher(both, suite, CPU)
    with pytest.raises(rt.InputError, match="cannot be mixed"):
        teacher({"policy": torch.zeros(2, 4, 10, 10)}, torch.tensor([0, 1]))


def rooms(*goals: int, **arguments: int) -> rt.Suite:
    """Tasks of one id, which only their arguments tell apart."""
    tasks = tuple(rt.Task("rltransfer/TwoRooms-v0", {"goal": g, **arguments}) for g in goals)
    return rt.Suite("rooms", tasks)


def test_tasks_of_one_id_have_their_own_heads() -> None:
    suite = rooms(0, 1, 2, 3)
    joint = RolloutEngine(suite, 1, CPU, 0)
    network = Network(hidden=(8,), heads="per-task")
    policy = Policy(
        PolicySpec(network, joint.spaces.observation_space, joint.spaces.action_space, num_tasks=4)
    )
    teacher = PolicyTeacher(policy, "runs/rooms", "0", suite)
    seen = {"policy": torch.randn(4, *joint.spaces.observation_space["policy"].shape)}
    expected = policy(seen, torch.arange(4)).logits.detach()
    first, second = torch.zeros(4, dtype=torch.int64), torch.tensor([0, 1, 1, 1])
    # One by itself, with an argument more than it was trained with, and in another order.
    alone = fitted_teacher(teacher, rooms(2, time_limit=50), CPU)
    assert torch.equal(alone(seen, first).logits[2], expected[2])
    turned = fitted_teacher(teacher, rooms(3, 1), CPU)
    assert torch.equal(turned(seen, second).logits[1], expected[1])
    with pytest.raises(rt.InputError, match=r"TwoRooms-v0\{\"goal\": 7\}': it was trained on "):
        fitted_teacher(teacher, rooms(7), CPU)


def test_statistics_of_a_teacher_that_is_made_are_refused() -> None:
    with pytest.raises(rt.InputError, match="go with a Stable-Baselines3 zip, but the teacher is"):
        rt.load_teacher(constant(0.0), vecnormalize="own.pkl")


class Pictures(gymnasium.Env[np.ndarray, np.int64]):
    """Shows images, the channels first."""

    observation_space = spaces.Box(0, 255, (2, 40, 36), np.uint8)
    action_space = spaces.Discrete(3)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0)])
def test_a_zip_reads_its_own_part_of_padded_images(tmp_path: Path, order: tuple[int, ...]) -> None:
    path = tmp_path / "dqn.zip"
    DQN("CnnPolicy", Pictures(), device="cpu", buffer_size=1).save(path)
    # The task shows channels first, as the zip reads them, or last.
    shape = tuple(np.array((2, 40, 36))[list(order)].tolist())
    own = spaces.Dict(policy=spaces.Box(0, 255, shape, np.uint8)), Pictures.action_space
    teacher = rt.load_teacher(path).fitted(spaces_of(rt.Suite.of("pictures"), [own]))
    seen = torch.randint(0, 255, (3, *shape), dtype=torch.uint8)
    padded = torch.cat([seen, torch.randint(0, 255, seen.shape, dtype=torch.uint8)], 1)
    task = torch.zeros(3, dtype=torch.int64)
    expected = teacher({"policy": seen}, task).q_values
    assert torch.equal(teacher({"policy": padded}, task).q_values, expected)
    first = seen if order == (0, 1, 2) else seen.permute(0, 3, 1, 2)
    model = DQN.load(path, device="cpu")
    torch.testing.assert_close(expected, model.q_net(first), rtol=1e-4, atol=1e-5)


def test_a_suite_may_go_by_its_name() -> None:
    game = "rltransfer/MinAtar-Breakout-v0"
    by_name = rt.load_teacher("zoo", suite=game)
    assert by_name.sha256 == rt.load_teacher("zoo", suite=rt.Suite.of(game)).sha256
    assert len(rt.load_teacher("zoo", suite="minatar").members) == 5


def test_a_zip_is_of_one_tasks_bounds(tmp_path: Path) -> None:
    path = tmp_path / "sac.zip"
    SAC("MlpPolicy", "Pendulum-v1", device="cpu", buffer_size=100).save(path)
    teacher = rt.load_teacher(path)
    seen = RolloutEngine(rt.Suite.of("Pendulum-v1"), 1, CPU, 0).spaces.observation_space
    suite = rt.Suite("two", (rt.Task("Pendulum-v1"), rt.Task("Pendulum-v1", {"g": 9.0})))
    wide, narrow = spaces.Box(-2, 2, (1,)), spaces.Box(-1, 1, (1,))
    teacher.fitted(spaces_of(suite, [(seen, wide), (seen, wide)]))
    with pytest.raises(
        rt.InputError, match=r"acts in \[-2, 2\], but .* are in \[-1, 1\]; use .*Adapted"
    ):
        teacher.fitted(spaces_of(suite, [(seen, wide), (seen, narrow)]))


def test_names_with_arguments_are_read_and_the_closest_counts() -> None:
    def chosen(names: dict[object, rt.Teacher], task: rt.Task) -> float:
        teacher = fitted_teacher(rt.PerTask(names), rt.Suite.of(task), CPU)  # type: ignore[arg-type]
        seen = {"policy": torch.zeros(1, 4)}
        return float(teacher(seen, torch.zeros(1, dtype=torch.int64)).logits[0, 0])

    plain = rt.Task("CartPole-v1")
    given = plain.with_kwargs(sutton_barto_reward=True)
    names: dict[object, rt.Teacher] = {
        'CartPole-v1{"sutton_barto_reward":true}': constant(1.0), "CartPole-v1": constant(2.0),
    }  # fmt: skip
    assert [chosen(names, plain), chosen(names, given)] == [2, 1]
    assert chosen({given: constant(3.0), plain: constant(4.0)}, given) == 3
    with pytest.raises(rt.InputError, match="no teacher for the task 'CartPole-v1'"):
        chosen({given: constant(1.0)}, plain)
    with pytest.raises(rt.InputError, match="does not name a task for PerTask"):
        rt.PerTask({"CartPole-v1{g: 1}": constant(1.0)})
    with pytest.raises(rt.InputError, match="takes a teacher for each task by name"):
        rt.PerTask([constant(1.0)])  # type: ignore[arg-type]


def test_a_zip_of_bytes_that_are_no_image_has_a_specification(tmp_path: Path) -> None:
    env = gymnasium.make("CartPole-v1")
    bytes_ = spaces.Box(0, 255, (4,), np.uint8)
    env = gymnasium.wrappers.TransformObservation(env, lambda seen: seen.astype(np.uint8), bytes_)
    path = tmp_path / "ram.zip"
    PPO("MlpPolicy", env, device="cpu").save(path)
    teacher = rt.load_teacher(path)
    assert teacher.spec().observation_space == spaces.Dict(policy=bytes_)
