"""Runs: killed and resumed they end as if nothing had happened; nothing is overwritten."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import json
import os
import re
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from processes import kill_at_iteration, shell
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy import NAN_TASK, TASK

import rltransfer as rt
from rltransfer.agents.ppo import PPO
from rltransfer.agents.soft_q import SoftQ
from rltransfer.cli.main import main
from rltransfer.errors import InterruptedRunError
from rltransfer.files import checkpoint
from rltransfer.learning.learner import NonFiniteGradientError
from rltransfer.machine import distributed
from rltransfer.machine.devices import find_device
from rltransfer.rollouts.engine import RolloutEngine
from rltransfer.runs.config import RunOptions, configured, read_config
from rltransfer.runs.folder import lock
from rltransfer.runs.progress import Progress
from rltransfer.runs.run import TRACEBACK, Run, _frame_stack
from rltransfer.tasks import episode_replay

BREAKOUT = "rltransfer/MinAtar-Breakout-v0"
QUICK = ["--episodes", "2", "--evaluate-episodes", "0", "--threads", "1", "--quiet"]
PPO_OPTIONS = ["--num-envs", "8", "--rollout-length", "16", "--batch-size", "64"]


def policy_of(run_dir: Path) -> dict[str, object]:
    return load_file(checkpoint.newest_checkpoint(run_dir) / "policy.safetensors")


CASES = {
    "device": ["ppo", "--task", BREAKOUT, *PPO_OPTIONS],
    "scaled rewards": ["ppo", "--task", "rltransfer/TwoRooms-v0", *PPO_OPTIONS],
    "recurrent": ["ppo", "--task", BREAKOUT, *PPO_OPTIONS, "--gru", "16"],
    "pqn": ["pqn", "--task", BREAKOUT, *PPO_OPTIONS],
    "distral": ["distral", "--task", BREAKOUT, "rltransfer/MinAtar-Asterix-v0",
                "--num-envs", "8", "--rollout-length", "16", "--epochs", "2", "--batch-size", "64"],
    "memory": ["policy-distillation", "--task", BREAKOUT, *PPO_OPTIONS, "--memory-steps", "500",
               "--teacher-acts", "1->0"],
    "random teacher": ["policy-distillation", "--task", BREAKOUT, *PPO_OPTIONS,
                       "--memory-steps", "500", "--teacher", "Noisy('{teacher}', sigma=0.5)"],
}  # fmt: skip


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("teacher") / "run"
    rt.train(
        PPO(num_envs=4, rollout_length=8),
        suite=BREAKOUT,
        total_steps=32,
        run_dir=run_dir,
        episodes=1,
        evaluate_episodes=0,
        quiet=True,
    )
    return run_dir


@pytest.mark.parametrize("case", CASES)
def test_killed_and_resumed_equals_unbroken(case: str, tmp_path: Path, teacher: Path) -> None:
    said = [word.format(teacher=teacher) for word in CASES[case]]
    # 24 iterations of 128 steps, or 12 of 256. A checkpoint is every eighth, or fourth.
    words = ["train", *said, "--steps", "3072", "--checkpoint-every", "1000", *QUICK]
    if said[0] == "policy-distillation" and "--teacher" not in said:
        words += ["--teacher", str(teacher)]
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    assert main([*words, "--run-dir", str(unbroken)]) == 0
    killed = functools.partial(kill_at_iteration, 12)
    process = shell(*words, "--run-dir", broken, folder=tmp_path / "shell", before=killed)
    assert process.code() == -signal.SIGKILL, process.errors
    assert len(checkpoint.checkpoints(broken)) > 0 and not (broken / "result.json").exists()
    assert main(["train", said[0], "--resume", str(broken), "--quiet"]) == 0

    first, second = policy_of(unbroken), policy_of(broken)
    assert first.keys() == second.keys()
    assert all((first[name] == second[name]).all() for name in first)  # type: ignore[attr-defined]
    results = [json.loads((d / "result.json").read_text()) for d in (unbroken, broken)]
    assert results[0]["tasks"] == results[1]["tasks"]


def test_ctrl_c_writes_a_checkpoint_and_exits_with_130(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    words = [*CASES["device"], "--steps", "2e6", "--checkpoint-every", "2000", *QUICK]
    process = shell("train", *words, "--run-dir", run_dir, folder=tmp_path / "shell")
    process.wait_for(lambda: checkpoint.checkpoints(run_dir))
    process.send(signal.SIGINT)
    assert process.code() == 130
    state = checkpoint.load_state(checkpoint.newest_checkpoint(run_dir))
    assert 0 < state["env_steps"] < 2_000_000


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_to_all_processes_lets_workers_finish(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    words = ["ppo", "--task", "CartPole-v1", "--task-option", "vectorization_mode=async"]
    words += ["--num-envs", "2", "--rollout-length", "16", "--batch-size", "32"]
    words += ["--checkpoint-every", "64", *QUICK]
    process = shell(
        "train", *words, "--run-dir", run_dir, folder=tmp_path / "shell", session=True
    )  # fmt: skip
    process.wait_for(lambda: len(checkpoint.checkpoints(run_dir)) > 1)
    os.killpg(process.pid, number)  # as a terminal does
    assert process.code() == code
    assert process.errors == f"Stopped: resume with `rltransfer train ppo --resume {run_dir}`.\n"


METHOD = PPO(num_envs=4, rollout_length=10, batch_size=40)


def begun(run_dir: Path, quiet: bool = True, **options: Any) -> Run:
    """A run of 40 steps an iteration that has begun."""
    asked = RunOptions(**{"total_steps": 10_000, "evaluate_episodes": 0, "episodes": 2, **options})
    run = Run("ppo", METHOD, rt.Suite.of(TASK), asked, run_dir, quiet=quiet)
    run.begin(resume=False)
    return run


def fail_at(run: Run, number: int, error: Exception = ZeroDivisionError()) -> None:  # noqa: B008
    """Lets a run's iteration fail, counted from 1."""
    numbers, iterate = itertools.count(1), run.iterate

    def failing() -> dict[str, float]:
        if next(numbers) == number:
            raise error
        return iterate()

    run.iterate = failing  # type: ignore[method-assign]


def quick_run(run_dir: Path, **options: object) -> Run:
    return rt.train(
        METHOD, suite=TASK, run_dir=run_dir,
        **{"total_steps": 200, "episodes": 8, "evaluate_episodes": 4, "quiet": True, **options},
    )  # fmt: skip


def test_result_and_files(tmp_path: Path) -> None:
    run = quick_run(tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result == run.result
    assert result["agent"] == "ppo"
    assert result["suite"] == TASK
    assert result["env_steps"] == 200
    assert set(result["tasks"][TASK]) >= {"return_mean", "return_ci95", "episodes"}
    assert result["tasks"][TASK]["random_return_mean"] == pytest.approx(2.5, abs=1.5)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["method"]["surrogate"]["clip_range"] == 0.2


def test_a_run_resumes_from_the_newest_checkpoint_that_is_whole(tmp_path: Path) -> None:
    run = quick_run(tmp_path / "run", checkpoint_every=40)
    old, new = checkpoint.checkpoints(run.run_dir)
    path = new / "state.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    again = Run("ppo", METHOD, rt.Suite.of(TASK), run.options, run.run_dir, True)
    again.restore()
    assert again.env_steps == 160 and old.name.endswith("160")


def test_curves_are_real_event_files(tmp_path: Path) -> None:
    quick_run(tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert tags >= {
        "train/entropy", "train/gradient_norm", "train/policy_loss",
        "speed/env_steps_per_second", f"rollout/return/{TASK}", f"evaluate/return/{TASK}",
        f"final/return_mean/{TASK}",
    }  # fmt: skip
    assert events.Scalars("train/entropy")[-1].step == 200


def steps_of(run_dir: Path, name: str) -> list[int]:
    events = EventAccumulator(str(run_dir))
    events.Reload()
    return [point.step for point in events.Scalars(name)]


def test_resuming_hides_what_came_after_the_checkpoint_alone(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", total_steps=200, checkpoint_every=120)
    fail_at(run, 5)
    with pytest.raises(ZeroDivisionError):
        run.execute()
    assert steps_of(run.run_dir, "train/entropy") == [40, 80, 120, 160]
    checkpointed = Run("ppo", METHOD, rt.Suite.of(TASK), run.options, run.run_dir, True)
    checkpointed.begin(resume=True)
    assert checkpointed.env_steps == 120
    fail_at(checkpointed, 1)
    with pytest.raises(ZeroDivisionError):
        checkpointed.execute()
    assert steps_of(run.run_dir, "train/entropy") == [40, 80, 120]


def test_resuming_before_a_checkpoint_hides_everything(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", total_steps=200, checkpoint_every=120)
    fail_at(run, 2)
    with pytest.raises(ZeroDivisionError):
        run.execute()
    again = Run("ppo", METHOD, rt.Suite.of(TASK), run.options, run.run_dir, True)
    again.begin(resume=True)
    fail_at(again, 1)
    with pytest.raises(ZeroDivisionError):
        again.execute()
    assert steps_of(run.run_dir, "train/entropy") == []


def test_an_interval_that_is_infinite_is_null(tmp_path: Path) -> None:
    run = quick_run(tmp_path / "run", episodes=1)
    assert run.result["tasks"][TASK]["return_ci95"] is None
    assert "Infinity" not in (tmp_path / "run" / "result.json").read_text()


def test_a_folder_that_holds_a_run_is_left_alone(tmp_path: Path) -> None:
    quick_run(tmp_path / "run")
    before = (tmp_path / "run" / "result.json").read_bytes()
    with pytest.raises(rt.InputError, match="already exists"):
        quick_run(tmp_path / "run")
    assert (tmp_path / "run" / "result.json").read_bytes() == before


def test_resuming_with_other_settings_is_refused(tmp_path: Path) -> None:
    quick_run(tmp_path / "run")
    with pytest.raises(rt.InputError, match=r"another seed \(0, not 1\): resume"):
        quick_run(tmp_path / "run", seed=1, resume=True)


def test_a_finished_run_resumes_to_the_same_result(tmp_path: Path) -> None:
    first = quick_run(tmp_path / "run").result
    again = quick_run(tmp_path / "run", resume=True).result
    assert first["tasks"] == again["tasks"]


def test_a_finished_run_is_not_evaluated_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick_run(tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    capsys.readouterr()
    quick_run(tmp_path / "run", resume=True, quiet=False)
    assert "is finished (200 steps): pass more --total-steps" in capsys.readouterr().err
    # Neither are its last points written to a second event file.
    after = {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    changed = {path.name for path in after if after[path] != before.get(path)}
    assert changed <= {".lock"}


def test_a_finished_run_is_extended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    quick_run(folder)
    capsys.readouterr()
    more = {"total_steps": 400, "episodes": 9, "evaluate_every": 80, "threads": 1}
    run = quick_run(folder, resume=True, **{**more, "quiet": False})
    assert "resumes with total_steps 400; it was 200" in capsys.readouterr().err
    assert run.result["env_steps"] == 400 and run.result["tasks"][TASK]["episodes"] == 9
    assert json.loads((folder / "result-200-8.json").read_text())["env_steps"] == 200
    assert steps_of(folder, "train/entropy") == [*range(40, 401, 40)]
    assert steps_of(folder, f"final/return_mean/{TASK}") == [200, 400]
    # The folder has the options of the longer run, as the step size follows them.
    assert configured(read_config(folder))[2] == RunOptions(**more, evaluate_episodes=4)
    words = ["train", "--resume", str(folder), "--steps", "480", "--quiet"]
    assert main(words) == 0
    assert json.loads((folder / "result.json").read_text())["env_steps"] == 480
    with pytest.raises(rt.InputError, match=r"total_steps is 300, but .*run has done 480 steps"):
        quick_run(folder, resume=True, **{**more, "total_steps": 300})


def test_a_run_is_resumed_once_at_a_time(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    fail_at(run, 2)
    with pytest.raises(rt.InputError, match=rf"run is in use by the process {os.getpid()} on "):
        quick_run(run.run_dir, total_steps=10_000, evaluate_episodes=0, episodes=2, resume=True)
    run.save()
    assert rt.evaluate(run.run_dir, episodes=1) and rt.load_teacher(run.run_dir)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:  # another process is refused, and one that the run has forked keeps no lock
        try:
            lock(run.run_dir)
        except rt.InputError:
            os.write(writer, b"refused")
        signal.pause()
    try:
        assert os.read(reader, 7) == b"refused"
        with pytest.raises(ZeroDivisionError):
            run.execute()
        again = Run("ppo", METHOD, rt.Suite.of(TASK), run.options, run.run_dir, True)
        again.begin(resume=True)
        again._held.close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


HOST = {"suite": "CartPole-v1", "total_steps": 400, "episodes": 2, "evaluate_episodes": 0}


def test_checkpoints_do_not_touch_environments_that_cannot_be_saved(tmp_path: Path) -> None:
    policies = []
    for every in (40, 400):
        run = rt.train(METHOD, **HOST, run_dir=tmp_path / f"{every}", quiet=True,
                       checkpoint_every=every)  # fmt: skip
        policies.append(run.agent.policy.state_dict())
    assert all(torch.equal(policies[0][name], policies[1][name]) for name in policies[0])


def test_environments_whose_state_is_lost_begin_anew_on_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(episode_replay, "LONGEST", 5)
    suite, options = rt.Suite.of("CartPole-v1"), RunOptions(total_steps=400, episodes=1)
    run = Run("ppo", METHOD, suite, options, tmp_path / "run", True)
    run.begin(resume=False)
    began = run.engine.collect(run.agent, 7).observation["policy"][0].clone()
    run.save()
    run._held.close()
    seen = []
    for _ in range(2):
        again = Run("ppo", METHOD, suite, options, tmp_path / "run", True)
        again.begin(resume=True)
        rollout = again.engine.collect(again.agent, 7)
        assert rollout.start[0].all() and (again.engine.running_length <= 7).all()
        seen.append(rollout.observation["policy"][0].clone())
        again._held.close()
    # The same after each kill, but not once more what the run has begun with.
    assert torch.equal(seen[0], seen[1])
    assert not torch.isclose(seen[0], began).any()


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(rt.InputError, match="cannot be written"):
        quick_run(tmp_path / "file" / "run")


def test_a_reward_that_is_not_finite_is_named(tmp_path: Path) -> None:
    with pytest.raises(rt.InputError, match=r"EchoNaN.*a reward that is not finite, at step 49 "):
        rt.train(
            METHOD, suite=NAN_TASK, total_steps=4_000,
            run_dir=tmp_path / "run", evaluate_episodes=0, quiet=True,
        )  # fmt: skip


def test_the_step_of_what_is_not_finite_counts_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(tmp_path / "run")
    rollout = run.engine.collect(run.agent, 10)
    rollout.reward[7, 2] = torch.nan
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    # Two processes of four environments each have done ten steps, and this is seven later.
    run.env_steps = 80
    with pytest.raises(rt.InputError, match="at step 17 of its environment 2"):
        run._check_finite(rollout)


class Breaks(gymnasium.Env[Any, Any]):
    """Shows two groups; in training it raises an error at its hundredth step."""

    def __init__(self, at: int = 100) -> None:
        box = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = spaces.Dict({"policy": box, "privileged": box})
        self.action_space = spaces.Discrete(2)
        self.at, self.steps = at, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        if self.steps == self.at and Breaks.breaks:
            raise OSError("the simulator has gone")
        return self.observation_space.sample(), 0.0, self.steps % 10 == 0, False, {}

    breaks = True


gymnasium.register("run-test/Breaks-v0", Breaks)


def test_error_of_an_environment_comes_after_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    words = ["--evaluate-episodes", "0", "--episodes", "2", "--num-envs", "2"]
    words += ["--rollout-length", "8", "--batch-size", "16", "--total-steps", "512"]
    words += ["--run-dir", str(run_dir)]
    assert main(["train", "ppo", "--task", "run-test/Breaks-v0", *words]) == 2
    printed = capfd.readouterr().err
    assert (
        "reads the observation group 'policy', not 'privileged': to read all, pass --groups"
        in printed
    )
    path = run_dir / TRACEBACK
    # Twelve rollouts of 8 steps in 2 environments; the checkpoint before was at 153 steps.
    assert (
        "'run-test/Breaks-v0' raised OSError (the simulator has gone; test_run.py, line " in printed
    )
    assert (
        f"in environment 0 at step 100: correct the environment; its traceback is in {path}"
        in printed
    )
    assert f"`rltransfer train ppo --resume {run_dir}` (from step 192)" in printed
    assert "Traceback" not in printed
    assert 'raise OSError("the simulator has gone")' in path.read_text()
    assert checkpoint.newest_checkpoint(run_dir).name == "step-000000000192"
    monkeypatch.setattr(Breaks, "breaks", False)
    assert main(["train", "ppo", "--resume", str(run_dir)]) == 0


def test_an_error_of_an_environment_is_its_own(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    fail_at(run, 1, BrokenPipeError("the simulator has gone"))
    with pytest.raises(BrokenPipeError, match="the simulator has gone"):
        run.execute()


@pytest.mark.parametrize(
    ("number", "left"),
    [(1, "there is no earlier checkpoint"), (4, "the last checkpoint is .*step-000000000120")],
)
def test_divergence_is_said_in_a_sentence(number: int, left: str, tmp_path: Path) -> None:
    run = begun(tmp_path / "run", checkpoint_every=120)
    fail_at(run, number, NonFiniteGradientError("The gradient of w is not finite at step 3."))
    with pytest.raises(rt.InputError, match=rf"at step 3; .*{left}.*: use a smaller learning"):
        run.execute()


def test_divergence_with_a_pull_may_be_the_pulls_fault(tmp_path: Path) -> None:
    quick_run(tmp_path / "earlier", episodes=0, evaluate_episodes=0)
    earlier = str(tmp_path / "earlier")
    run = begun(tmp_path / "run", init_from=earlier, ewc_from=(earlier,), ewc_weight=1e30)
    fail_at(run, 1, NonFiniteGradientError("The gradient of w is not finite at step 3."))
    with pytest.raises(rt.InputError, match="use a smaller learning rate or ewc_weight"):
        run.execute()


def test_what_is_refused_closes_its_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[RolloutEngine] = []
    monkeypatch.setattr(RolloutEngine, "close", lambda engine: closed.append(engine))
    suite = rt.Suite.of("Pendulum-v1")
    with pytest.raises(rt.InputError, match="continuous"):
        Run("soft-q", SoftQ(num_envs=1), suite, RunOptions(), tmp_path / "run", True)
    assert len(closed) == 1
    begun(tmp_path / "run")
    assert len(closed) == 1
    with pytest.raises(rt.InputError, match="already exists"):
        begun(tmp_path / "run")
    assert len(closed) == 2


def test_frames_are_those_that_all_environments_stack() -> None:
    def env(frame_stack: int, *shape: int) -> Any:
        space = spaces.Box(0, 255, shape, np.uint8)
        return SimpleNamespace(frame_stack=frame_stack, single_observation_space=space)

    assert _frame_stack([env(4, 4, 84, 84), env(4, 4, 84, 84)]) == 4
    assert _frame_stack([env(4, 4, 84, 84), env(0, 4, 84, 84)]) == 0
    assert _frame_stack([env(4, 12, 84, 84)]) == 0
    assert _frame_stack([env(0, 3)]) == 0


def small_disk() -> None:
    """Lets no file of this process grow beyond 20 kB, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    # The checkpoint does not fit.
    words = ["train", "ppo", "--task", "CartPole-v1", *PPO_OPTIONS, "--steps", "500", *QUICK]
    run_dir = tmp_path / "run"
    process = shell(*words, "--run-dir", run_dir, folder=tmp_path / "shell", before=small_disk)
    assert process.code() == 2
    assert process.errors.startswith(f"{run_dir} cannot be written: ")
    assert process.errors.count("\n") == 1
    assert checkpoint.checkpoints(run_dir) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"total_steps": -1}, "total_steps is -1"),
        ({"episodes": -1}, "episodes is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"device": "cuda:99"}, "There is no device 'cuda:99'"),
        ({"device": "gpu"}, "There is no device 'gpu'"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(rt.InputError, match=words):
        quick_run(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_the_options_of_train_are_those_of_a_run(tmp_path: Path) -> None:
    parameters = inspect.signature(rt.train).parameters
    for field in dataclasses.fields(RunOptions):
        parameter = parameters[field.name]
        annotation = parameter.annotation.replace(" | Path", "")  # Python takes paths, too,
        annotation = re.sub(r"Sequence\[(.+)\]", r"tuple[\1, ...]", annotation)  # and lists
        assert (annotation, parameter.default) == (field.type, field.default)
    with pytest.raises(TypeError, match="total_stesp"):
        quick_run(tmp_path / "run", total_stesp=3)
    assert not (tmp_path / "run").exists()


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)
    assert find_device("auto") == find_device("cuda") == torch.device("cuda")
    assert find_device("cuda:0") == torch.device("cuda:0")
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert find_device("auto") == find_device("cuda") == torch.device("cuda:1")
    assert find_device("cpu") == torch.device("cpu")
    with pytest.raises(rt.InputError, match="'cuda:0' would put every process on one GPU: pass cu"):
        find_device("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("auto", "cuda"):
        with pytest.raises(rt.InputError, match="2 processes on this machine and 1 GPUs"):
            find_device(name)
    # On two machines one GPU is enough.
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert find_device("cuda") == torch.device("cuda:0")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"agent"', '"argent"'),
        lambda text: text.replace('"kwargs"', '"arguments"'),
        lambda text: text.replace('"options": {', '"others": {'),
    ],
)
def test_a_damaged_configuration_is_named(damage: Callable[[str], str], tmp_path: Path) -> None:
    begun(tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(rt.InputError) as caught:
        configured(read_config(tmp_path / "run"))
    assert str(caught.value) == (
        f"{tmp_path / 'run'} is not a complete run: its config.json is damaged."
    )


def test_text_in_place_of_a_number_is_refused(tmp_path: Path) -> None:
    config = begun(tmp_path / "run").config()
    configured(config)
    for part, name in (("options", "total_steps"), ("method", "num_envs")):
        damaged = {**config, part: {**config[part], name: "many"}}
        with pytest.raises(rt.InputError, match=f"{name} is 'many': it must be a whole number"):
            configured(damaged)
    damaged = {**config, "method": {**config["method"], "learning_rate": [1]}}
    with pytest.raises(rt.InputError, match=r"learning_rate is \(1,\): it must be a number"):
        configured(damaged)
    network = {**config["method"]["network"], "hidden": 3}
    damaged = {**config, "method": {**config["method"], "network": network}}
    with pytest.raises(rt.InputError, match="hidden is 3: it must be a tuple"):
        configured(damaged)
    network = {**config["method"]["network"], "gru": "many"}
    damaged = {**config, "method": {**config["method"], "network": network}}
    with pytest.raises(rt.InputError, match="gru is 'many': it must be a whole number"):
        configured(damaged)


@pytest.mark.parametrize("phase", ["_draw_tasks", "_finish"])
def test_outside_the_loop_a_signal_stops_at_once(
    phase: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(tmp_path / "run", total_steps=40)
    monkeypatch.setattr(run, phase, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        run.execute()
    assert len(checkpoint.checkpoints(run.run_dir)) == (phase == "_finish")


@pytest.mark.parametrize("place", ["any_of", "remove_old"])
@pytest.mark.parametrize("steps", [40, 400])
def test_a_signal_at_any_time_stops_after_a_checkpoint(
    place: str, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(tmp_path / "run", total_steps=steps, checkpoint_every=40)
    module = distributed if place == "any_of" else checkpoint
    calls = itertools.count()
    called = getattr(module, place)

    def interrupted(*said: Any) -> Any:
        result = called(*said)
        if next(calls) == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return result

    monkeypatch.setattr(module, place, interrupted)
    with pytest.raises(InterruptedRunError):
        run.execute()
    assert run.env_steps == min(steps, 80)
    assert checkpoint.newest_checkpoint(run.run_dir).name.endswith(f"{run.env_steps}")


def test_an_interruption_from_python_raises(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    iterate = run.iterate

    def interrupted() -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGINT)
        return iterate()

    run.iterate = interrupted  # type: ignore[method-assign]
    with pytest.raises(
        InterruptedRunError, match=rf"resume with `.* train ppo --resume {tmp_path / 'run'}`"
    ):
        run.execute()
    assert len(checkpoint.checkpoints(tmp_path / "run")) == 1


def test_the_live_table_shows_no_return_of_another_rollout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(tmp_path / "run", total_steps=80)
    told = iter([{"rollout/return/a": 3.0}, {"train/loss": 1.0}])
    iterate, shown = run.iterate, []

    def figures() -> dict[str, float]:
        iterate()
        return next(told)

    monkeypatch.setattr(run, "iterate", figures)
    monkeypatch.setattr(Progress, "show", lambda self, step, speed, told: shown.append(dict(told)))
    run.execute()
    assert shown == [{"training return": {"a": "3.0"}}, {}]


def test_the_seed_is_a_whole_number() -> None:
    with pytest.raises(rt.InputError, match=r"seed is 1.5: it must be a whole number"):
        RunOptions(seed=1.5)  # type: ignore[arg-type]
    assert RunOptions(total_steps=2e5).total_steps == 200_000  # type: ignore[arg-type]


def test_a_teacher_that_was_moved_is_told_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, seed in (("first", 0), ("second", 1)):
        rt.train(
            METHOD, suite=TASK, run_dir=name, total_steps=40, episodes=2, seed=seed, quiet=True
        )
    words = ["train", "policy-distillation", *QUICK, "--num-envs", "4", "--rollout-length", "10"]
    asked = [*words, "--task", TASK, "--steps", "40", "--teacher", "first", "--run-dir", "student"]
    assert main(asked) == 0
    Path("first").rename("moved")
    resumed = ["train", "policy-distillation", "--resume", "student", "--teacher"]
    assert main([*resumed, "moved"]) == 0
    capsys.readouterr()
    assert main([*resumed, "second"]) == 2
    assert "another" in capsys.readouterr().err


def test_it_says_when_it_evaluates_unless_it_is_quiet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for quiet in (False, True):
        begun(tmp_path / f"run-{quiet}", quiet, total_steps=40).execute()
        said = capsys.readouterr().err
        assert ("evaluating policy and random policy, 2 episodes per task" in said) is not quiet
