"""Policy distillation learns what the teacher would do, and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from toy import SHORT_TASK, TASK, EchoVectorEnv

import rltransfer as rt
from rltransfer.agents.policy_distillation import PolicyDistillation, PolicyDistillationAgent
from rltransfer.files.serialization import to_json
from rltransfer.nested import map_nested
from rltransfer.rollouts.evaluation import evaluate_teacher
from rltransfer.rollouts.rollout import Rollout
from rltransfer.runs.config import RunOptions
from rltransfer.runs.run import Run
from rltransfer.runs.teacher_check import teacher_check

SMALL: dict[str, Any] = {
    "num_envs": 16, "rollout_length": 10, "batch_size": 80, "epochs": 4, "learning_rate": 3e-3,
    "memory_steps": 5_000, "student": rt.policies.mlp(hidden=(16,)),
}  # fmt: skip

WIDE: dict[str, Any] = {"num_envs": 32, "rollout_length": 20, "batch_size": 160}
"""Rollouts large enough for learning with RL."""


def q_teacher(observation: rt.Observation, task: torch.Tensor) -> rt.PolicyOutput:
    """Q-values that are 0.1 for the symbol after the one that is shown, 0 for the others."""
    return rt.PolicyOutput(q_values=0.1 * observation["policy"].roll(1, -1))


def policy_teacher(observation: rt.Observation, task: torch.Tensor) -> rt.PolicyOutput:
    """The symbol that is shown, with the probability 0.91; it earns what can be earned."""
    return rt.PolicyOutput(logits=3.4 * observation["policy"])


def distilled(tmp_path: Path, total_steps: int = 8_000, **options: Any) -> Run:
    teacher = rt.CallableTeacher(options.pop("function", policy_teacher))
    return rt.train(
        PolicyDistillation(teacher=teacher, **{**SMALL, **options}),
        suite=TASK,
        total_steps=total_steps,
        run_dir=tmp_path / "run",
        episodes=64,
        evaluate_episodes=0,
        quiet=True,
    )


def says(run: Run) -> rt.PolicyOutput:
    """What the student says of the four symbols."""
    with torch.no_grad():
        return run.agent.policy({"policy": torch.eye(4)})


@pytest.mark.parametrize("objective", ["kl", "nll", "mse"])
@pytest.mark.parametrize("teacher_acts", [1.0, 0.0, "1->0@0.5"])
def test_learns_the_teachers_actions_not_the_rewards(
    tmp_path: Path, objective: str, teacher_acts: str | float
) -> None:
    # The teacher's actions earn nothing: who learned from rewards would earn 10 an episode.
    run = distilled(tmp_path, function=q_teacher, objective=objective, teacher_acts=teacher_acts)
    assert says(run).greedy().tolist() == [1, 2, 3, 0]
    assert run.result["tasks"][TASK]["return_mean"] < 0.5


def test_kl_reaches_the_teachers_probabilities(tmp_path: Path) -> None:
    # exp(3.4) / (exp(3.4) + 3) = 29.96 / 32.96 = 0.909: not sharpened, as this is a policy.
    run = distilled(tmp_path)
    probabilities = says(run).preferences().softmax(-1)
    torch.testing.assert_close(probabilities.diagonal(), torch.full((4,), 0.909), atol=0.02, rtol=0)


def test_kl_sharpens_q_values(tmp_path: Path) -> None:
    # Gaps of 0.1 at the temperature 0.01 are gaps of 10: the student is nearly sure.
    run = distilled(tmp_path, function=q_teacher)
    assert says(run).preferences().softmax(-1).amax(-1).min() > 0.98


def test_the_defaults_are_enough_for_cartpole(tmp_path: Path) -> None:
    # With half of the step size and of the epochs the mean of these three is below 400.
    def balance(observation: rt.Observation, task: torch.Tensor) -> rt.PolicyOutput:
        right = 10 * (observation["policy"][:, 2] + 0.5 * observation["policy"][:, 3])
        return rt.PolicyOutput(logits=torch.stack([-right, right], -1))

    method = PolicyDistillation(
        teacher=rt.CallableTeacher(balance), student=rt.policies.mlp(hidden=(16, 16))
    )
    returns = []
    for seed in range(3):
        run = rt.train(
            method,
            suite="CartPole-v1",
            total_steps=50_000,
            seed=seed,
            run_dir=tmp_path / str(seed),
            episodes=20,
            evaluate_episodes=0,
            threads=1,
            quiet=True,
        )
        returns.append(run.result["tasks"]["CartPole-v1"]["return_mean"])
    assert sum(returns) / len(returns) > 450


def test_mse_reaches_the_q_values(tmp_path: Path) -> None:
    run = distilled(tmp_path, function=q_teacher, objective="mse")
    expected = 0.1 * torch.eye(4).roll(1, -1)
    torch.testing.assert_close(says(run).q_values, expected, atol=0.02, rtol=0)


def test_shuffled_labels_teach_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = PolicyDistillationAgent.batches

    def shuffled(self: PolicyDistillationAgent, rollout: Rollout) -> Any:
        order = torch.randperm(rollout.reward.shape[1])
        label = map_nested(lambda tensor: tensor[:, order], rollout.extras["label"])
        rollout.extras["label"] = label
        return straight(self, rollout)

    monkeypatch.setattr(PolicyDistillationAgent, "batches", shuffled)
    run = distilled(tmp_path)
    # The best that is left is the mean label, which names every symbol alike.
    assert says(run).preferences().softmax(-1).amax() < 0.5


def test_who_acts(tmp_path: Path) -> None:
    # Where the two greedy actions differ, the teacher's is taken so often as the share says.
    for share in (1.0, 0.3, 0.0):
        method = PolicyDistillation(
            teacher=rt.CallableTeacher(q_teacher), teacher_acts=share, exploration=0.0,
            **{**SMALL, "num_envs": 1_000},
        )  # fmt: skip
        run = Run("policy-distillation", method, rt.Suite.of(TASK), RunOptions(), tmp_path)
        run.agent.begin_rollout(0.0)
        rollout = run.engine.collect(run.agent, 10)
        seen = rollout.observation["policy"]
        taught, action = seen.roll(1, -1).argmax(-1), rollout.extras["action"]
        with torch.no_grad():
            own = run.agent.policy({"policy": seen}).greedy()
        assert ((action == taught) | (action == own)).all()
        differ = taught != own
        assert differ.any()
        # At least 2,500 of the 10,000 draws: a standard error of less than 0.01.
        assert (action == taught)[differ].float().mean() == pytest.approx(share, abs=0.03)


def test_exploration_replaces_a_share_of_the_actions(tmp_path: Path) -> None:
    method = PolicyDistillation(
        teacher=rt.CallableTeacher(q_teacher), exploration=0.4, **{**SMALL, "num_envs": 1000}
    )
    run = Run("policy-distillation", method, rt.Suite.of(TASK), RunOptions(), tmp_path)
    rollout = run.engine.collect(run.agent, 10)
    taught = rollout.observation["policy"].roll(1, -1).argmax(-1)
    # A random action is the teacher's own in one of four cases: 1 - 0.4 * 3 / 4 = 0.7.
    assert (rollout.extras["action"] == taught).float().mean() == pytest.approx(0.7, abs=0.02)


def test_kickstarting_ends_above_its_teacher(tmp_path: Path) -> None:
    # The teacher names the wrong symbol; its fading weight leaves the reward to learn from. Seeds 0
    # and 1 earn 10.
    run = distilled(
        tmp_path, total_steps=15_000, function=q_teacher, teacher_acts=0.0,
        distillation_weight="1->0@0.5", reinforcement_weight=1.0, **WIDE,
    )  # fmt: skip
    assert run.result["tasks"][TASK]["return_mean"] > 9.0


def test_the_teachers_actions_do_not_train_the_student(tmp_path: Path) -> None:
    whole = {"num_envs": 200, "rollout_length": 10, "batch_size": 2_000, "epochs": 1}
    method = PolicyDistillation(
        teacher=rt.CallableTeacher(q_teacher), teacher_acts=0.5, distillation_weight=0.0,
        reinforcement_weight=1.0, **{**SMALL, **whole},
    )  # fmt: skip
    run = Run("policy-distillation", method, rt.Suite.of(TASK), RunOptions(), tmp_path)
    agent = run.agent
    agent.begin_rollout(0.0)
    rollout = run.engine.collect(agent, 10)
    # The student has not learned: it takes the teacher's action in a quarter of its own steps.
    teachers = rollout.extras["weight"] == 0
    names = rollout.observation["policy"].roll(1, -1).argmax(-1)
    same = rollout.extras["action"] == names
    assert same[teachers].all()
    assert 0.45 < teachers.float().mean() < 0.55 and 0.2 < same[~teachers].float().mean() < 0.3

    (batch,) = agent.batches(rollout)
    masked = batch["weight"] == 0
    assert masked.sum() == teachers.sum()

    def gradient(batch: Any) -> torch.Tensor:
        agent.policy.zero_grad()
        agent.loss(batch).total.backward()
        gradients = [p.grad for p in agent.policy.parameters() if p.grad is not None]
        return torch.cat([one.flatten() for one in gradients])

    # The metrics of the first minibatch leave its gradient as it is.
    plain = gradient(batch)
    for field in ("advantage", "return", "old_log_prob"):
        changed = {**batch, field: torch.where(masked, -3.0, batch[field])}
        torch.testing.assert_close(gradient(changed), plain)
        changed = {**batch, field: torch.where(masked, batch[field], -3.0)}
        assert not torch.allclose(gradient(changed), plain)


def test_without_distillation_it_is_plain_reinforcement(tmp_path: Path) -> None:
    run = distilled(
        tmp_path, total_steps=12_000, function=q_teacher, teacher_acts=0.0,
        distillation_weight=0.0, reinforcement_weight=1.0, **WIDE,
    )  # fmt: skip
    assert run.result["tasks"][TASK]["return_mean"] > 9.0


def test_a_recurrent_student_learns_from_whole_sequences(tmp_path: Path) -> None:
    student = rt.policies.mlp(hidden=(16,), gru=16)
    run = distilled(tmp_path, total_steps=16_000, student=student)
    assert run.result["tasks"][TASK]["return_mean"] > 9.5


def test_the_teacher_stays_and_the_student_changes(tmp_path: Path) -> None:
    expert = rt.train(
        rt.agents.PPO(num_envs=8, rollout_length=10),
        suite=TASK,
        total_steps=80,
        run_dir=tmp_path / "expert",
        episodes=1,
        evaluate_episodes=0,
        quiet=True,
    )
    teacher = rt.load_teacher(tmp_path / "expert")
    before = {n: t.clone() for n, t in teacher.module.state_dict().items()}
    run = rt.train(
        PolicyDistillation(teacher=teacher, **SMALL), suite=TASK, total_steps=200,
        run_dir=tmp_path / "run", episodes=1, evaluate_episodes=0, quiet=True,
    )  # fmt: skip
    for name, tensor in teacher.module.state_dict().items():
        assert torch.equal(tensor, before[name])
    fresh = Run("x", run.method, run.suite, RunOptions(), tmp_path / "fresh").agent.policy
    learned = dict(run.agent.policy.named_parameters())
    assert all(not torch.equal(p, learned[n]) for n, p in fresh.named_parameters())
    assert expert.result["teacher_parameters"] is None


def test_a_teacher_that_knows_nothing_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    distilled(tmp_path / "bad", total_steps=160, function=q_teacher)
    assert "no better than that of a random policy" in capsys.readouterr().err
    distilled(tmp_path / "good", total_steps=160, function=policy_teacher)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"teacher_acts": 1.5}, "teacher_acts is 1.5: it must be from 0 to 1"),
        ({"teacher_acts": "fast"}, "is not a schedule"),
        ({"distillation_weight": "1->-1"}, "distillation_weight is 1->-1: it must be at least 0"),
        ({"teacher_acts": "lag"}, "'lag' is not a schedule"),
        ({"objective": "kk"}, "There is no objective 'kk'"),
        ({"exploration": 2.0}, "from 0 to 1"),
        ({"num_envs": 0}, "at least 1"),
        ({"memory_steps": 0}, "memory_steps is 0: it must be at least 1"),
        ({"batch_size": -1}, "batch_size is -1: it must be at least 0"),
        ({"rollout_length": -1}, "rollout_length is -1: it must be at least 0"),
        ({"epochs": -1.0}, "epochs is -1.0: it must be finite and at least 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0: it must be finite and at least 0"),
        ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0: it must be above 0"),
        ({"epochs": 1.5, "reinforcement_weight": 1.0}, "epochs is 1.5, .* a whole number"),
        ({"epochs": 0.5, "student": rt.policies.mlp(gru=8)}, "epochs is 0.5, .* a whole number"),
        (
            {"task_sampling": "lag", "teacher_acts": 0.0, "reinforcement_weight": 1.0},
            "task_sampling is lag, but .* without a memory: leave it out",
        ),
        (
            {"memory_dir": Path("memory"), "student": rt.policies.mlp(gru=8)},
            "memory_dir is memory, but .* without a memory: leave it out",
        ),
        (
            {"reinforcement_weight": 1.0, "teacher_acts": 1},
            "teacher_acts is 1, so the student never acts and",
        ),
        ({"distillation_weight": 0.0}, "both 0, so nothing is learned"),
        ({"surrogate": rt.agents.ppo.Surrogate(gamma=0.5)}, "apply to RL only"),
        ({"num_envs": "8"}, "num_envs is '8': it must be a whole number"),
        ({"teacher": q_teacher}, r"The teacher is a function: write CallableTeacher\(function\)"),
        (
            {"distillation_weight": "lag", "teacher_acts": 1},
            "teacher_acts is 1, so the student never acts alone",
        ),
        ({"task_sampling": "lag", "teacher_acts": "1->0.5"}, "its lag is unknown"),
        ({"task_sampling": "lag", "teacher_acts": "1->0"}, "its lag is unknown"),
        (
            {"objective": "mse", "reinforcement_weight": 1.0, "teacher_acts": 0.0},
            "trains a Q-network, .* KL or NLL",
        ),
        (
            {"objective": "Huber()", "reinforcement_weight": 1.0, "teacher_acts": 0.0},
            "trains a Q-network",
        ),
        ({"teacher": "nowhere.zip"}, "There is no teacher"),
    ],
)
def test_refusals(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(rt.InputError, match=words):
        method = PolicyDistillation(**{"teacher": rt.CallableTeacher(q_teacher), **options})
        Run("policy-distillation", method, rt.Suite.of(TASK), RunOptions(), tmp_path)


def test_every_option_of_learning_changes_something(tmp_path: Path) -> None:
    def weights(index: int, **options: Any) -> torch.Tensor:
        run = distilled(tmp_path / str(index), total_steps=400, **options)
        return torch.cat([p.flatten() for p in run.agent.policy.parameters()])

    # Who acts changes nothing here: what this task shows does not depend on the actions.
    settings: list[dict[str, Any]] = [
        {}, {"objective": "nll"}, {"objective": "KL(temperature=0.5)"},
        {"distillation_weight": "1->0.5"}, {"epochs": 1.0},
        {"learning_rate": 1e-3}, {"max_grad_norm": 0.01}, {"memory_steps": 160},
        {"teacher_acts": 0.0, "reinforcement_weight": 1.0},
        {"teacher_acts": 0.0, "reinforcement_weight": 0.5},
    ]  # fmt: skip
    found = [weights(index, **options) for index, options in enumerate(settings)]
    for index, one in enumerate(found):
        for other in found[:index]:
            assert one.shape != other.shape or not torch.equal(one, other)


def test_a_label_is_of_its_own_task(tmp_path: Path) -> None:
    def task_as_action(observation: rt.Observation, task: torch.Tensor) -> rt.PolicyOutput:
        return rt.PolicyOutput(logits=torch.nn.functional.one_hot(task, 4).float())

    method = PolicyDistillation(teacher=rt.CallableTeacher(task_as_action), **SMALL)
    suite = rt.Suite.of(TASK, SHORT_TASK)
    run = Run("policy-distillation", method, suite, RunOptions(), tmp_path)
    rollout = run.engine.collect(run.agent, 10)
    assert torch.equal(rollout.extras["label"]["logits"].argmax(-1), rollout.task)


def half_right(observation: rt.Observation, task: torch.Tensor) -> rt.PolicyOutput:
    """Names two of the four symbols right: better than chance, far from what can be earned."""
    right = observation["policy"] * torch.tensor([1.0, 1.0, 0.0, 0.0])
    wrong = observation["policy"].roll(1, -1) * torch.tensor([0.0, 0.0, 1.0, 1.0])
    return rt.PolicyOutput(logits=6.0 * (right + wrong))


def test_the_teachers_weight_fades_as_the_student_comes_close(tmp_path: Path) -> None:
    # A weight of 1 to the end would hold the student at its teacher's 5 or so of 10.
    held, faded = (
        distilled(
            tmp_path / str(weight),
            total_steps=30_000,
            function=half_right,
            teacher_acts=0.0,
            distillation_weight=weight,
            reinforcement_weight=1.0,
        )
        for weight in (1.0, "lag")
    )
    assert faded.result["tasks"][TASK]["return_mean"] > 9.0
    assert held.result["tasks"][TASK]["return_mean"] < 9.0
    assert faded.agent.lag.lag.item() == 0.0  # type: ignore[attr-defined]


def test_only_what_the_student_plays_by_itself_says_how_far_it_lags(tmp_path: Path) -> None:
    method = PolicyDistillation(
        teacher=rt.CallableTeacher(policy_teacher), teacher_acts="1->0@0.5",
        distillation_weight="lag", exploration=0.05, **{**SMALL, "epochs": 1},
    )  # fmt: skip
    run = Run("policy-distillation", method, rt.Suite.of(TASK), RunOptions(), tmp_path)
    agent = run.agent
    assert isinstance(agent, PolicyDistillationAgent)
    agent.set_reference_returns({TASK: 10.0}, {TASK: 2.5})
    found = []
    for progress in (0.0, 0.49, 0.5):
        agent.begin_rollout(progress)
        found.append(agent.learn(run.engine.collect(agent, 10))["lag"])
    # The teacher's returns are near 10; the student has hardly begun.
    assert found[:2] == [1.0, 1.0] and 0.0 < found[2] < 1.0


class ScaledEcho(EchoVectorEnv):
    """Rewards are what `scale` makes of them."""

    def __init__(self, num_envs: int = 1, scale: float = 1.0, **options: Any) -> None:
        super().__init__(num_envs, **options)
        self.scale = scale

    def recv(self) -> Any:
        observation, reward, *rest = super().recv()
        return observation, reward * self.scale, *rest


@pytest.mark.parametrize("weight", ["lag", 1.0])
def test_lag_is_of_returns_as_they_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight: str | float
) -> None:
    name = "tests/ScaledEcho-v0"
    if name not in gymnasium.registry:
        gymnasium.register(name, entry_point=None, vector_entry_point=ScaledEcho)
    for module in ("rollouts.evaluation", "runs.teacher_check"):
        monkeypatch.setattr(
            f"rltransfer.{module}.evaluation_task", lambda task: task.with_kwargs(scale=5.0)
        )
    method = PolicyDistillation(
        teacher=rt.CallableTeacher(policy_teacher), teacher_acts=0.0, distillation_weight=weight,
        **SMALL,
    )  # fmt: skip
    run = Run("policy-distillation", method, rt.Suite.of(name), RunOptions(), tmp_path)
    agent = run.agent
    assert isinstance(agent, PolicyDistillationAgent)
    told: list[Any] = []
    monkeypatch.setattr(agent, "set_reference_returns", lambda *returns: told.extend(returns))
    seeds: list[int] = []

    def taught(*given: Any, seed: int, **options: Any) -> Any:
        seeds.append(seed)
        return evaluate_teacher(*given, seed=seed, **options)

    monkeypatch.setattr("rltransfer.runs.teacher_check.evaluate_teacher", taught)
    returns, _, sentences = teacher_check(agent, run.context, seed=0, total_steps=1_000)
    # What is said of the teacher is as in an evaluation: ten rewards of 5.
    assert returns[name].mean == 50.0 and not sentences
    if weight == "lag":
        assert told[0] == {name: 10.0} and 0.0 < told[1][name] < 6.0
    else:
        assert not told
    # A teacher that draws its labels' noise by the seed must not draw the same for both.
    assert seeds == ([0, 1] if weight == "lag" else [0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "bf16"}, "no precision 'bf16': did you mean 'bfloat16'"),
        ({"task_sampling": "by-lag"}, "no task_sampling 'by-lag'"),
        ({"student": "mlp"}, "student is 'mlp': it must be a Network"),
        ({"surrogate": None}, "surrogate is None: it must be a Surrogate"),
    ],
)
def test_options_are_checked_in_python_too(options: dict[str, Any], words: str) -> None:
    with pytest.raises(rt.InputError, match=words):
        PolicyDistillation(teacher="zoo", **options)


def test_text_is_read_once_and_kept_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "kl + 0.5*mse()"
    method = PolicyDistillation(
        teacher=rt.CallableTeacher(policy_teacher), objective=text, teacher_acts="1.0 -> 0@.5",
        **SMALL,
    )  # fmt: skip
    changed = dataclasses.replace(method, objective="mse", teacher_acts=0.0)
    assert changed.parsed_objective == rt.Objective.of("mse")
    assert changed.schedules["teacher_acts"] == rt.Schedule(0.0, 0.0)
    # Neither the configuration nor what it is compared by knows of what was read.
    stored = to_json(method)
    assert stored["objective"] == text and stored["teacher_acts"] == "1.0 -> 0@.5"
    assert stored.keys() == {field.name for field in dataclasses.fields(method)}
    again = dataclasses.replace(method)
    assert again == method and to_json(again) == stored
    for reader in ("rltransfer.objectives.objective.read", "rltransfer.schedule._FORM"):
        monkeypatch.setattr(reader, None)
    run = Run("policy-distillation", method, rt.Suite.of(TASK), RunOptions(), tmp_path)
    agent = run.agent
    assert isinstance(agent, PolicyDistillationAgent)
    assert agent.objective.objective is method.parsed_objective
    assert agent.teacher_acts == rt.Schedule(1.0, 0.0, 0.5)


def test_labels_that_are_not_numbers_are_the_teachers_fault(tmp_path: Path) -> None:
    def broken(observation: Any, task: torch.Tensor) -> rt.PolicyOutput:
        logits = policy_teacher(observation, task).logits
        assert logits is not None
        return rt.PolicyOutput(logits=logits + torch.tensor([0.0, torch.nan, 0.0, 0.0]))

    method = PolicyDistillation(teacher=rt.CallableTeacher(broken), **SMALL)
    with pytest.raises(
        rt.InputError, match="outputs logits that are not finite: the teacher is at"
    ):
        rt.train(
            method, suite=TASK, run_dir=tmp_path / "run", total_steps=100, quiet=True, episodes=2
        )


def test_a_vote_counts_no_label_before_the_run(tmp_path: Path) -> None:
    members = [rt.CallableTeacher(policy_teacher)] * 3
    method = PolicyDistillation(teacher=rt.Vote(members, noise_scale=5.0), **SMALL)
    run = Run("policy-distillation", method, rt.Suite.of(TASK), RunOptions(), tmp_path)
    assert run.agent.teacher is not None
    assert set(run.agent.teacher.figures().values()) == {0.0}


def test_tasks_in_which_the_student_lags_are_drawn_more_often(tmp_path: Path) -> None:
    suite = rt.Suite("two", (rt.Task(TASK), rt.Task(TASK, {"nan_at": 0})))

    def drawn(sampling: str) -> torch.Tensor:
        method = PolicyDistillation(
            teacher=rt.CallableTeacher(policy_teacher), task_sampling=sampling,  # type: ignore[arg-type]
            teacher_acts=0.0, **{**SMALL, "batch_size": 4_000, "epochs": 1},
        )  # fmt: skip
        run = Run("policy-distillation", method, suite, RunOptions(), tmp_path)
        agent = run.agent
        assert isinstance(agent, PolicyDistillationAgent)
        agent.lag.lag.copy_(torch.tensor([0.75, 0.25]))
        agent.lag.update = lambda *rollout: None  # type: ignore[assignment,method-assign]
        rollout = run.engine.collect(agent, 10)
        (batch,) = agent.batches(rollout)
        return batch["task"].bincount() / len(batch["task"])

    # Tolerance: 4 standard deviations of a share of 4,000 draws.
    assert drawn("uniform")[0].item() == pytest.approx(0.5, abs=0.032)
    assert drawn("lag")[0].item() == pytest.approx(0.75, abs=0.032)


def test_each_task_keeps_statistics_of_its_own_vectors(tmp_path: Path) -> None:
    method = PolicyDistillation(
        teacher=rt.CallableTeacher(lambda o, t: rt.PolicyOutput(logits=torch.zeros(len(t), 3))),
        **{**SMALL, "student": rt.policies.Network(hidden=(8,), statistics="per-task")},
    )
    suite = rt.Suite.of("CartPole-v1", "Acrobot-v1")
    run = Run("policy-distillation", method, suite, RunOptions(), tmp_path)
    rollout = run.engine.collect(run.agent, 10)
    seen = rollout.observation["policy"].clone()
    run.agent.learn(rollout)
    run.engine.close()
    normalizer = run.agent.policy.encoder.normalizer
    assert normalizer is not None and normalizer.count.tolist() == [[160], [160]]
    # Four numbers of CartPole and six of Acrobot: what pads the former is zero.
    for index, mean in enumerate(seen.unflatten(1, (2, 16)).mean((0, 2))):
        torch.testing.assert_close(normalizer.mean[index], mean)
    assert not normalizer.mean[0, 4:].any() and normalizer.mean[1].all()


def test_a_memory_from_before_labels_had_bounds_is_resumed(tmp_path: Path) -> None:
    def clipped(observation: dict[str, torch.Tensor], task: torch.Tensor) -> rt.PolicyOutput:
        one = torch.ones(len(task), 1)
        return rt.PolicyOutput(mean=4 * one, log_std=0 * one, low=-2 * one, high=2 * one)

    method = PolicyDistillation(
        teacher=rt.CallableTeacher(clipped), **{**SMALL, "objective": "mse", "memory_steps": 400}
    )
    run = Run("policy-distillation", method, rt.Suite.of("Pendulum-v1"), RunOptions(), tmp_path)
    run.agent.learn(run.engine.collect(run.agent, 10))
    run.engine.close()
    state = run.agent.state_dict()
    # Such labels had a mean that was clipped already.
    named = state["memory"]["store"].items()
    store = state["memory"]["store"] = {name.replace("/", "|"): ring for name, ring in named}
    assert (store["field|label|mean"] == 4).all()
    store["field|label|mean"] = torch.full_like(store["field|label|mean"], 2.0)
    for name in ("low", "high"):
        del store[f"field|label|{name}"]
    run.agent.load_state_dict(state)
    assert isinstance(run.agent, PolicyDistillationAgent) and run.agent.memory is not None
    label = run.agent.memory.take(torch.arange(100))["label"]
    assert isinstance(label, dict)
    assert (rt.PolicyOutput(**label).greedy() == 2).all()
