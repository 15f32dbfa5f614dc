"""A run's evaluations: how many environments they make, how long they may play, what is said."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import NormalizeObservation, NormalizeReward
from tensorboard_reader import events_of
from toy import TASK

import rltransfer as rt
from rltransfer.cli.main import main
from rltransfer.runs.config import RunOptions
from rltransfer.runs.run import Run

SMALL: dict[str, Any] = {"total_steps": 64, "episodes": 3, "evaluate_episodes": 4}


class Counted(gymnasium.Env[Any, Any]):
    """Counts the environments that exist at once, of which there may be `limit`."""

    alive, most, limit, length = 0, 0, 1000, 5

    def __init__(self) -> None:
        if Counted.alive >= Counted.limit:
            raise RuntimeError("the port is in use")
        Counted.alive += 1
        Counted.most = max(Counted.most, Counted.alive)
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.zeros(2, np.float32), 1.0, False, self.steps >= self.length, {}

    def close(self) -> None:
        Counted.alive -= 1


class Seen(Counted):
    """The same, rendered."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> Any:
        return np.full((200, 200, 3), 9, np.uint8)


COUNTED = "tests/Counted-v0"
SEEN = "tests/Seen-v0"
NORMALISED = "tests/Normalised-v0"


def normalised() -> gymnasium.Env[Any, Any]:
    return NormalizeReward(NormalizeObservation(gymnasium.make("CartPole-v1")))


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("alive", 0), ("most", 0), ("limit", 1000), ("length", 5)):
        monkeypatch.setattr(Counted, name, value)
    monkeypatch.setattr("rltransfer.runs.pictures.LONGEST_SECONDS", 60.0)
    if COUNTED not in gymnasium.registry:
        gymnasium.register(COUNTED, entry_point=Counted)
        gymnasium.register(SEEN, entry_point=Seen)
        gymnasium.register(NORMALISED, entry_point=normalised)


def trained(run_dir: Path, num_envs: int = 1, task: str = COUNTED, **options: Any) -> rt.Run:
    method = rt.agents.PPO(num_envs=num_envs, rollout_length=16 // num_envs, batch_size=16)
    return rt.train(method, suite=task, run_dir=run_dir, **{**SMALL, **options})


@pytest.mark.parametrize(
    ("num_envs", "asked", "most"),
    # During training, its own environments exist, too: 1 + 1, 2 + 2, 1 + 3; of at most 4 episodes.
    [(1, 0, 2), (2, 0, 4), (1, 3, 3), (1, 9, 5)],
)
def test_evaluations_keep_to_the_number_of_environments(
    num_envs: int, asked: int, most: int, tmp_path: Path
) -> None:
    trained(tmp_path / "run", num_envs, evaluate_num_envs=asked, quiet=True)
    assert Counted.most == most
    assert Counted.alive == 0


@pytest.mark.parametrize("teacher", [False, True])
def test_an_environment_that_exists_only_once_is_evaluated(
    teacher: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Counted.limit = 1
    if teacher:
        left = rt.CallableTeacher(lambda seen, _: rt.PolicyOutput(logits=seen["policy"]))
        method: Any = rt.agents.PolicyDistillation(
            teacher=left, num_envs=1, rollout_length=16, batch_size=16
        )
        run = rt.train(method, suite=COUNTED, run_dir=tmp_path / "run", **SMALL)
    else:
        run = trained(tmp_path / "run")
    assert run.result["tasks"][COUNTED]["return_mean"] == 5
    assert run.env_steps == 64
    said = capsys.readouterr().err
    assert said.count("cannot be made alongside those of training (The environment") == 1
    assert "RuntimeError (the port is in use)): training closes its own" in said


def test_without_evaluations_in_between_nothing_is_closed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Counted.limit = 1
    run = trained(tmp_path / "run", evaluate_episodes=0)
    assert run.result["tasks"][COUNTED]["return_mean"] == 5
    assert "cannot be made" not in capsys.readouterr().err


def test_an_error_of_making_environments_is_raised(tmp_path: Path) -> None:
    Counted.limit = 1
    # Even without training's environment, two do not fit.
    with pytest.raises(rt.InputError, match=r"RuntimeError \(the port is in use\)"):
        trained(tmp_path / "run", evaluate_num_envs=2, quiet=True)


def test_the_last_evaluation_can_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = f"train ppo --task {TASK} --num-envs 2 --rollout-length 8 --batch-size 16".split()
    words += ["--total-steps", "16", "--episodes", "0", "--run-dir", "run", "--quiet"]
    assert main(words) == 0
    result = json.loads(Path("run/result.json").read_text())
    assert result["tasks"] == {} and result["final_evaluation"] is False
    assert "no final evaluation, as --episodes is 0" in capsys.readouterr().out
    # Such a run is a teacher, and can be evaluated later.
    assert list(rt.evaluate(rt.load_teacher("run"), episodes=1)) == [TASK]


def test_the_bound_of_an_episode_is_said_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Counted, "length", 10**9)
    monkeypatch.setattr("rltransfer.runs.progress.PLAIN_SECONDS", 0.0)
    run = trained(tmp_path / "run", evaluate_episodes=0, episodes=1, evaluate_max_steps=100)
    # A look every 64 steps.
    assert run.result["tasks"][COUNTED]["return_mean"] == 128
    said = capsys.readouterr().err
    first = said.index("1 episodes per task, each of at most 100 steps")
    assert first < said.index("evaluating policy on tests/Counted-v0: 0 of 1 episodes")
    assert rt.RunOptions(total_steps=10).max_episode_steps == 1_000
    assert rt.RunOptions(total_steps=5_000).max_episode_steps == 5_000
    assert rt.RunOptions().max_episode_steps == 108_000


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_wrappers_that_normalise_are_said_once(
    mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = rt.Task(NORMALISED, {"vectorization_mode": mode})
    options = {"episodes": 1, "evaluate_episodes": 1, "quiet": True, "total_steps": 16}
    method = rt.agents.PPO(num_envs=1, rollout_length=16, batch_size=16)
    rt.train(method, suite=task, run_dir=tmp_path / "run", **options)
    sentence = (
        f"The task {NORMALISED!r} normalises observations and rewards in its own wrappers: each "
        "evaluation begins with fresh running statistics, and its returns are sums of normalised "
        "rewards."
    )
    assert capsys.readouterr().err.count(sentence) == 1
    assert main(["evaluate", str(tmp_path / "run"), "--episodes", "1", "--num-envs", "1"]) == 0
    assert sentence in capsys.readouterr().err


def evaluation_steps(run_dir: Path, task: str) -> list[int]:
    return [point.step for point in events_of(run_dir).Scalars(f"evaluate/return/{task}")]


def test_a_run_is_evaluated_ten_times(tmp_path: Path) -> None:
    method = rt.agents.PPO(num_envs=8, rollout_length=20, batch_size=160)
    options = {"total_steps": 1600, "episodes": 0, "evaluate_episodes": 1, "quiet": True}
    rt.train(method, suite=TASK, run_dir=tmp_path / "run", **options)
    assert evaluation_steps(tmp_path / "run", TASK) == list(range(160, 1601, 160))


LONG: dict[str, Any] = {"total_steps": 800, "episodes": 0, "evaluate_episodes": 4, "threads": 1}
# 4 episodes of 5 steps: the next ones at the earliest 200 steps later, and one at the end.
FEW = [80, 320, 560, 800]


def test_long_episodes_are_evaluated_less_often(tmp_path: Path) -> None:
    trained(tmp_path / "run", **LONG, quiet=True)
    assert evaluation_steps(tmp_path / "run", COUNTED) == FEW
    # The end is evaluated whenever the last one was.
    trained(tmp_path / "end", **{**LONG, "total_steps": 640}, quiet=True)
    assert evaluation_steps(tmp_path / "end", COUNTED) == [64, 320, 576, 640]
    trained(tmp_path / "every", **{**LONG, "total_steps": 320}, evaluate_every=80, quiet=True)
    assert evaluation_steps(tmp_path / "every", COUNTED) == [80, 160, 240, 320]


def test_a_random_policy_whose_episodes_do_not_end_has_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rltransfer.runs.reference_lines.LONGEST", 100)
    options = {"total_steps": 64, "episodes": 0, "evaluate_episodes": 1, "quiet": True}
    for length, lines in ((100, 1), (101, 0)):
        Counted.length = length
        run = trained(tmp_path / f"{length}", **options, evaluate_max_steps=1000)
        assert len(run.evaluator.reference_lines) == lines


def test_a_resumed_run_is_evaluated_at_the_same_steps(tmp_path: Path) -> None:
    method = rt.agents.PPO(num_envs=1, rollout_length=16, batch_size=16)
    options = RunOptions(**LONG, checkpoint_every=160)
    run = Run("ppo", method, rt.Suite.of(COUNTED), options, tmp_path / "run", quiet=True)
    run.begin(resume=False)
    count, iterate = itertools.count(1), run.iterate

    def failing() -> dict[str, float]:
        if next(count) > 12:  # after step 192, from which on 80 + 200 is remembered
            raise ZeroDivisionError
        return iterate()

    run.iterate = failing  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        run.execute()
    trained(tmp_path / "run", resume=True, **LONG, checkpoint_every=160, quiet=True)
    assert evaluation_steps(tmp_path / "run", COUNTED) == FEW


def test_a_picture_of_each_task_is_written_when_a_run_begins(tmp_path: Path) -> None:
    trained(tmp_path / "run", 1, SEEN, quiet=True)
    trained(tmp_path / "run", 1, SEEN, quiet=True, resume=True, total_steps=128)
    events = events_of(tmp_path / "run")
    (picture,) = events.Images(f"picture/{SEEN}")
    assert (picture.step, picture.width, picture.height) == (0, 200, 200)
    assert Counted.most == 2 and Counted.alive == 0
    breakout = "rltransfer/MinAtar-Breakout-v0"
    trained(tmp_path / "image", 1, breakout, quiet=True, evaluate_max_steps=20)
    assert events_of(tmp_path / "image").Images(f"picture/{breakout}")[0].width == 160


def test_for_a_picture_no_environment_is_made_where_none_is_evaluated(tmp_path: Path) -> None:
    Counted.limit = 1
    trained(tmp_path / "run", 1, SEEN, quiet=True, evaluate_episodes=0, episodes=0)
    assert Counted.most == 1
    assert not events_of(tmp_path / "run").Tags()["images"]


def test_where_only_one_environment_can_exist_a_run_has_no_picture(tmp_path: Path) -> None:
    Counted.limit = 1
    run = trained(tmp_path / "run", 1, SEEN, quiet=True)
    assert run.result["tasks"][SEEN]["return_mean"] == 5
    assert not events_of(tmp_path / "run").Tags()["images"]


def test_environments_that_are_slow_to_make_are_not_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rltransfer.runs.pictures.LONGEST_SECONDS", 0.0)
    trained(tmp_path / "run", 1, SEEN, quiet=True)
    assert not events_of(tmp_path / "run").Tags()["images"]
