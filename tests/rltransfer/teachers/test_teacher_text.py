"""Compositions as text: there and back, through a run's configuration, and refused."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fitting import fitted_teacher
from stable_baselines3 import DQN
from toy import SHORT_TASK, TASK

import rltransfer as rt
from rltransfer.agents.policy_distillation import PolicyDistillation
from rltransfer.agents.ppo import PPO
from rltransfer.files.serialization import to_json
from rltransfer.importers.sb3_zip import ZipPolicy, load_zip
from rltransfer.runs.config import configured, read_config
from rltransfer.runs.run import Run
from rltransfer.teachers import file_teacher
from rltransfer.teachers.file_teacher import FileTeacher
from rltransfer.teachers.policy_teacher import PolicyTeacher
from rltransfer.teachers.teacher import Teacher

CPU = torch.device("cpu")
SMALL = {"num_envs": 4, "rollout_length": 10, "batch_size": 40, "memory_steps": 200}
QUICK = {"episodes": 2, "evaluate_episodes": 0, "quiet": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds two runs and a zip."""
    folder = tmp_path_factory.mktemp("teachers")
    for seed, name in enumerate(("a", "b")):
        rt.train(
            PPO(num_envs=4, rollout_length=10),
            suite=TASK,
            total_steps=40,
            seed=seed,
            run_dir=folder / name,
            **QUICK,
        )
    DQN("MlpPolicy", "CartPole-v1", device="cpu", buffer_size=100).save(folder / "dqn.zip")
    return folder


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


TEXTS = [
    "Ensemble('a', 'b')",
    "Ensemble('a', 'b', weights=(1, 2.5), of='logits')",
    "ProductOfExperts('a', Noisy('b', sigma=0.5), weights=(1, 3))",
    "Vote('a', 'b', 'a', noise_scale=2.0, delta=1e-06)",
    "Noisy(Ensemble('a', Noisy('b', sigma=1)), sigma=0.5, alpha=0.25)",
    "Boltzmann('dqn.zip')",
    "Boltzmann('dqn.zip', temperature=0.5)",
    "MonteCarloDropout('a', samples=4, p=0.5)",
    "Adapted('a', action=(1, 0, 2, 3))",
    "Adapted(Adapted('a', observation={'policy': 'policy'}), observation=(3, 2, 1, 0))",
    f"PerTask({{'{TASK}': 'a', 'CartPole-v1': Noisy('dqn.zip', sigma=0.5)}})",
    "Ensemble(PerTask({'rltransfer/MinAtar-Breakout-v0': 'zoo:rltransfer/MinAtar-Breakout-v0'}))",
]


@pytest.mark.parametrize("text", TEXTS)
def test_there_and_back(text: str) -> None:
    teacher = rt.load_teacher(text)
    assert str(teacher) == text
    assert to_json(teacher) == text
    again = rt.load_teacher(str(teacher))
    assert again.describe() == teacher.describe()
    assert type(again) is type(teacher)


def test_it_reads_as_it_would_in_python() -> None:
    a, b = rt.load_teacher("a"), rt.load_teacher("b")
    for text, made in (
        ("Ensemble('a', 'b', weights=[1, 2])", rt.Ensemble([a, b], weights=[1, 2])),
        (" Ensemble ( ['a', 'b'], weights=(1, 2) )", rt.Ensemble([a, b], (1, 2))),
        ("Noisy('a', 0.5)", rt.Noisy(a, 0.5)),
        ('PerTask({"x": "a"})', rt.PerTask({"x": a})),
        ("Adapted('a', None, [0, 1])", rt.Adapted(a, action=(0, 1))),
    ):
        found = rt.load_teacher(text)
        assert str(found) == str(made)
        assert found.describe() == made.describe()


def test_options_may_stand_by_their_place() -> None:
    assert str(rt.load_teacher("Ensemble(['a', 'b'], [3, 1])")) == (
        "Ensemble('a', 'b', weights=(3, 1))"
    )
    assert str(rt.load_teacher("Vote(['a', 'b'], 20.0, 0.5)")) == (
        "Vote('a', 'b', noise_scale=20.0, delta=0.5)"
    )


def test_numbers_of_numpy_and_torch_are_written_as_pythons() -> None:
    a, b = rt.load_teacher("a"), rt.load_teacher("b")
    for weights in (np.array([1.0, 2.5]), torch.tensor([1.0, 2.5]), [np.float64(1.0), 2.5]):
        text = "Ensemble('a', 'b', weights=(1.0, 2.5))"
        assert str(rt.Ensemble([a, b], weights=weights)) == text
        assert str(rt.load_teacher(text)) == text
    assert str(rt.Noisy(a, sigma=np.float32(0.5))) == "Noisy('a', sigma=0.5)"
    assert str(rt.Adapted(a, action=np.array([1, 0, 2, 3]))) == "Adapted('a', action=(1, 0, 2, 3))"


def test_what_can_be_called_goes_by_its_name() -> None:
    class Halved:
        def __call__(self, observation: Any) -> Any:
            return observation

    a = rt.load_teacher("a")
    assert "observation=the function Halved" in str(rt.Adapted(a, observation=Halved()))
    partly = functools.partial(doubled, 1)
    assert "the function doubled with some" in str(rt.Adapted(a, observation=partly))


def doubled(times: int, observation: Any) -> Any:
    return observation


def test_it_says_what_the_same_composition_of_python_says() -> None:
    suite = rt.Suite.of(TASK)
    made = rt.Ensemble([rt.load_teacher("a"), rt.Noisy(rt.load_teacher("b"), sigma=0.5)], (1, 3))
    seen, task = {"policy": torch.eye(4)}, torch.zeros(4, dtype=torch.int64)
    found, expected = (
        fitted_teacher(one, suite, CPU)(seen, task).logits
        for one in (rt.load_teacher(str(made)), made)
    )
    assert torch.equal(found, expected)


def test_observation_statistics_are_part_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = rt.load_teacher("dqn.zip")
    assert isinstance(teacher, FileTeacher) and str(teacher) == "dqn.zip"
    Path("own.pkl").touch()
    # The statistics themselves are of no interest here: the zip is read without them.
    loaded = []

    def loads(path: Path, vecnormalize: Path | None, config: object) -> ZipPolicy:
        loaded.append(vecnormalize)
        return load_zip(path)

    monkeypatch.setattr(file_teacher, "load_zip", loads)
    text = "Noisy(load_teacher('dqn.zip', vecnormalize='own.pkl'), sigma=0.5)"
    assert str(rt.load_teacher(text)) == text
    assert str(rt.load_teacher("load_teacher('dqn.zip', 'own.pkl')")) == (
        "load_teacher('dqn.zip', vecnormalize='own.pkl')"
    )
    assert loaded == [Path("own.pkl")] * 2


def test_the_zoo_stands_in_compositions() -> None:
    suite = rt.Suite.of("rltransfer/MinAtar-Breakout-v0", "rltransfer/MinAtar-Asterix-v0")
    ids = [task.id for task in suite]
    expected = (
        f"Noisy(PerTask({{'{ids[0]}': 'zoo:{ids[0]}', '{ids[1]}': 'zoo:{ids[1]}'}}), sigma=1)"
    )
    assert str(rt.load_teacher("Noisy('zoo', sigma=1)", suite=suite)) == expected
    # A task's own teacher needs no suite.
    one = rt.load_teacher(f"PerTask({{'{ids[0]}': MonteCarloDropout('zoo', 2, 0.5)}})")
    assert (
        str(one) == f"PerTask({{'{ids[0]}': MonteCarloDropout('zoo:{ids[0]}', samples=2, p=0.5)}})"
    )


def test_a_folder_may_be_called_like_a_composition(folder: Path) -> None:
    (folder / "Ensemble(a)").symlink_to(folder / "a")
    teacher = rt.load_teacher("Ensemble(a)")
    assert isinstance(teacher, PolicyTeacher)
    (folder / "Ensemble(a)").unlink()


def distilled(run_dir: Path, teacher: str | Teacher, **options: object) -> Run:
    method = PolicyDistillation(teacher=teacher, **SMALL)
    return rt.train(method, suite=TASK, total_steps=120, run_dir=run_dir, **QUICK, **options)


def test_a_run_goes_on_with_the_same_composition(tmp_path: Path) -> None:
    teacher = rt.Ensemble(
        [rt.load_teacher("a"), rt.Vote([rt.load_teacher("b"), rt.load_teacher("a")], 3.0)], (1, 2)
    )
    text = "Ensemble('a', Vote('b', 'a', noise_scale=3.0), weights=(1, 2))"
    run = distilled(tmp_path / "run", teacher)
    config = read_config(tmp_path / "run")
    assert config["method"]["teacher"] == text
    assert config["teacher"] == json.loads(json.dumps(run.agent.teacher.describe()))
    hashes = json.dumps(config["teacher"])
    assert all(rt.load_teacher(name).describe()["sha256"] in hashes for name in ("a", "b"))

    method, suite, options = configured(config)
    again = Run("policy-distillation", method, suite, options, tmp_path / "run", quiet=True)
    again.begin(resume=True)
    assert again.agent.teacher.describe() == run.agent.teacher.describe()
    # What it says of itself is logged and stands in the result.
    assert run.result["teacher_labels/1"] > 120
    assert run.result["teacher_epsilon/1"] > 0
    # From the shell the text is given as it is.
    assert distilled(tmp_path / "shell", text).agent.teacher.describe() == config["teacher"]


def test_another_composition_is_not_gone_on_with(tmp_path: Path) -> None:
    distilled(tmp_path / "run", "Ensemble('a', 'b')")
    with pytest.raises(rt.InputError, match="another teacher"):
        distilled(tmp_path / "run", "Ensemble('b', 'a')", resume=True)


def test_a_function_cannot_be_gone_on_with_from_the_shell(tmp_path: Path) -> None:
    def four(observation: dict[str, torch.Tensor], task: torch.Tensor) -> rt.PolicyOutput:
        return rt.PolicyOutput(logits=observation["policy"])

    teacher = rt.Ensemble([rt.load_teacher("a"), rt.CallableTeacher(four)])
    assert str(teacher) == "Ensemble('a', a function)" and not teacher.loadable
    distilled(tmp_path / "run", teacher)
    config = read_config(tmp_path / "run")
    with pytest.raises(rt.InputError, match=r"The teacher of this PolicyDistillation was built in"):
        configured(config)
    # In Python it is, with the same objects.
    distilled(tmp_path / "run", teacher, resume=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ensembel('a', 'b')", "There is no composition of teachers 'Ensembel': did you mean"),
        ("Ensemble(a, b)", "every source in quotes"),
        ("Ensemble('a', 'nowhere')", "There is no teacher 'nowhere'"),
        (
            "Ensemble('a', 'b', weight=(1, 2))",
            "Ensemble cannot be built from .*: got an unexpected",
        ),
        ("Ensemble('a', 'b', weights=(1, 2, 3))", "2 teachers but 3 weights"),
        ("Ensemble('a', 'b', weights=1)", "weights of Ensemble are 1: set a number"),
        ("Ensemble()", "at least one"),
        ("Ensemble('a', of='logit')", "There is no mean of an Ensemble, 'logit'"),
        ("Noisy()", "Noisy cannot be built from .*: missing .* 'sigma'"),
        ("Noisy('a')", "Noisy cannot be built from .*: missing .* 'sigma'"),
        ("Noisy('a', sgma=1)", "Noisy cannot be built from .*: got an unexpected .* 'sgma'"),
        ("Noisy('a', sigma='x')", "sigma of Noisy is 'x': it must be a number"),
        ("Noisy('a', sigma=True)", "not a composition"),
        ("Noisy('a', sigma=1e999)", "not a composition"),
        ("Noisy('a', sigma=1 + 1)", "not a composition"),
        ("Noisy('a', **{'sigma': 1})", "cannot be built from"),
        ("Noisy(Ensemble('a', sigma=1)", "A bracket is left open"),
        ("Ensemble('a'", "A bracket is left open"),
        ("Ensembel('a'", "There is no teacher \"Ensembel\\('a'\""),
        ("PerTask('a')", "PerTask was given 'a': it takes a teacher for each task by name"),
        ("PerTask(Ensemble('a'))", "not a composition"),
        ("PerTask({1: 'a'})", "not a composition"),
        ("PerTask({'x': 'a'}, 3)", "PerTask cannot be built from"),
        ("PerTask()", "it takes a teacher for each task by name"),
        ("PerTask({})", "at least one"),
        ("load_teacher('a', 'b', 'c')", "cannot be built from"),
        ("load_teacher('a', vecnormalize='x.pkl')", "go with a Stable-Baselines3 zip"),
        ("MonteCarloDropout('dqn.zip', 3, 0.5)", "MonteCarloDropout needs a policy"),
        ("__import__('os').system('x')", "not a composition"),
        ("print('a')", "There is no composition of teachers 'print'"),
        ("Ensemble(" * 3_000 + ")" * 3_000, "not a composition"),
        ("Ensemble(" * 150 + "'a'" + ")" * 150, "not a composition"),
        ("Ensemble(" * 90 + "1" + ")" * 90, "not a composition"),
        ("Noisy('a', sigma=" + "9" * 400 + ")", "not a composition"),
        ("Noisy('a', sigma=print('x'))", "not a composition"),
        ("Noisy('a\0', 1)", "not a composition"),
    ],
)
def test_refusals(text: str, words: str) -> None:
    with pytest.raises(rt.InputError, match=words) as caught:
        rt.load_teacher(text)
    assert len(str(caught.value)) < 400


def test_statistics_are_not_those_of_a_composition() -> None:
    with pytest.raises(rt.InputError, match="In a composition, write load_teacher"):
        rt.load_teacher("Ensemble('a', 'b')", vecnormalize="own.pkl")


def test_nothing_is_executed(tmp_path: Path) -> None:
    target = tmp_path / "made"
    with pytest.raises(rt.InputError):
        rt.load_teacher(f"Ensemble(open({str(target)!r}, 'w'))")
    assert not target.exists()


def test_tasks_that_share_a_policy_stand_in_one_composition(tmp_path: Path) -> None:
    suite = rt.Suite.of(TASK, SHORT_TASK)
    text = f"PerTask({{'{TASK}': 'a', '{SHORT_TASK}': Ensemble('a', 'b')}})"
    run = rt.train(
        PolicyDistillation(teacher=text, **SMALL),
        suite=suite,
        total_steps=160,
        run_dir=tmp_path / "run",
        **QUICK,
    )
    assert set(run.result["tasks"]) == {TASK, SHORT_TASK}
