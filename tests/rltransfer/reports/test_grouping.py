"""Groups: the same settings but the seed, found without being told."""

from __future__ import annotations

import json
from pathlib import Path

from fake_runs import begun_with, distillation, make_run, taught_by

import rltransfer as rt
from rltransfer.reports.grouping import Group, Lineage, Names, group_runs
from rltransfer.reports.reading import find_runs
from rltransfer.tasks.task import Task


def groups(folder: Path) -> list[Group]:
    runs, wrong = find_runs([folder])
    assert not wrong
    return group_runs(runs, Names(runs), Lineage(runs))


def found(folder: Path) -> dict[str, list[str]]:
    return {one.label: [run.path.name for run in one.runs] for one in groups(folder)}


def test_seeds_are_one_group_whatever_machine_and_evaluations(tmp_path: Path) -> None:
    make_run(tmp_path / "a", seed=1, device="cpu", evaluate_every=10, episodes=5)
    make_run(tmp_path / "b", seed=0, threads=3, evaluate_episodes=7, checkpoint_every=9)
    assert found(tmp_path) == {"ppo": ["b", "a"]}


def test_the_label_has_the_settings_that_differ(tmp_path: Path) -> None:
    small, large = (rt.agents.PPO(network=rt.policies.mlp(hidden=(one,))) for one in (8, 64))
    for seed in range(2):
        make_run(tmp_path / f"a{seed}", seed=seed, method=large)
        make_run(tmp_path / f"b{seed}", seed=seed, method=small)
        make_run(tmp_path / f"c{seed}", seed=seed, method=large, total_steps=2_000_000)
        make_run(tmp_path / f"d{seed}", seed=seed, agent="pqn", method=rt.agents.PQN())
    assert found(tmp_path) == {
        "ppo hidden=[64] total_steps=1,000": ["a0", "a1"],
        "ppo hidden=[8] total_steps=1,000": ["b0", "b1"],
        "ppo hidden=[64] total_steps=2,000,000": ["c0", "c1"],
        "pqn": ["d0", "d1"],
    }


def test_single_tasks_are_one_group_and_suites_are_others(tmp_path: Path) -> None:
    make_run(tmp_path / "a", tasks=["CartPole-v1"])
    make_run(tmp_path / "b", tasks=["Acrobot-v1"])
    make_run(tmp_path / "c", tasks=["CartPole-v1", "Acrobot-v1"])
    assert found(tmp_path) == {
        "ppo tasks=none": ["a", "b"],
        "ppo tasks=CartPole-v1, Acrobot-v1": ["c"],
    }


def test_tasks_with_other_arguments_are_other_tasks(tmp_path: Path) -> None:
    make_run(tmp_path / "a", tasks=["CartPole-v1"])
    make_run(tmp_path / "b", tasks=[Task("CartPole-v1", {"sutton_barto_reward": True})])
    runs, _ = find_runs([tmp_path])
    names = Names(runs)
    assert names.all() == ["CartPole-v1", 'CartPole-v1{"sutton_barto_reward": true}']
    # The run's own files call the task by its id alone.
    assert names.tasks(runs[1]) == {names.all()[1]: "CartPole-v1"}
    assert len(group_runs(runs, names, Lineage(runs))) == 1


def test_students_of_each_seeds_teacher_are_one_group(tmp_path: Path) -> None:
    for seed in range(2):
        for task in ("CartPole-v1", "Acrobot-v1"):
            teacher = f"runs/{task}/teacher-{seed}"
            make_run(tmp_path / teacher, tasks=[task], seed=seed, weights=f"{task}{seed}")
            make_run(
                tmp_path / "students" / f"{task}-{seed}", tasks=[task], seed=seed,
                agent="policy-distillation", method=distillation(teacher),
                # One is known by its weights, the other by its path.
                changes=taught_by(f"moved/{seed}" if seed else teacher, f"{task}1" if seed else ""),
            )  # fmt: skip
    (students, teachers) = sorted(groups(tmp_path), key=lambda one: one.label)
    assert (students.label, len(students.runs)) == ("policy-distillation", 4)
    assert (teachers.label, len(teachers.runs)) == ("ppo", 4)
    assert students.settings["teacher"] == "ppo (own task)"
    assert teachers.is_from_scratch and not students.is_from_scratch


def test_the_tasks_of_a_source_tell_groups_apart(tmp_path: Path) -> None:
    for seed in range(2):
        make_run(tmp_path / f"a{seed}", tasks=["CartPole-v1"], seed=seed, weights=f"{seed}")
        for task in ("CartPole-v1", "Acrobot-v1"):
            make_run(
                tmp_path / f"{task}-{seed}", tasks=[task], seed=seed,
                changes=begun_with("somewhere", str(seed)),
            )  # fmt: skip
    assert found(tmp_path) == {
        "ppo init_from=ppo (CartPole-v1)": ["Acrobot-v1-0", "Acrobot-v1-1"],
        "ppo init_from=ppo (own task)": ["CartPole-v1-0", "CartPole-v1-1"],
        "ppo init_from=none": ["a0", "a1"],
    }


def test_teachers_of_each_task_are_one_setting(tmp_path: Path) -> None:
    for task in ("CartPole-v1", "Acrobot-v1"):
        for kind, teacher in (
            ("zip", f"zips/dqn-{task}.zip"),
            ("zoo", "zoo"),
            ("z2", f"zoo:{task}"),
        ):
            make_run(
                tmp_path / f"{kind}-{task}", tasks=[task], seed=int(kind == "z2"),
                agent="policy-distillation", method=distillation(teacher),
                changes=taught_by(teacher),
            )  # fmt: skip
    assert {label: len(runs) for label, runs in found(tmp_path).items()} == {
        "policy-distillation teacher=zips/dqn-TASK.zip": 2,
        "policy-distillation teacher=zoo": 4,
    }


def test_a_name_that_two_runs_have_is_not_a_source(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        make_run(tmp_path / folder / "teacher")
    make_run(tmp_path / "student", changes=begun_with("teacher"))
    runs, _ = find_runs([tmp_path])
    assert Lineage(runs).run_of(runs[1].sources[0], runs[1]) is None


def test_sources_in_a_circle_end(tmp_path: Path) -> None:
    make_run(tmp_path / "a", changes=begun_with("b"))
    make_run(tmp_path / "b", changes=begun_with("a"))
    make_run(tmp_path / "c", changes=begun_with("c"))
    assert sum(map(len, found(tmp_path).values())) == 3


def test_an_option_that_an_earlier_version_lacked_has_its_default(tmp_path: Path) -> None:
    make_run(tmp_path / "a", seed=0)
    old = make_run(tmp_path / "b", seed=1)
    config = json.loads((old / "config.json").read_text())
    del config["method"]["precision"], config["method"]["network"]["layer_norm"]
    config["method"]["horizon"] = config["method"].pop("rollout_length")
    config["options"]["steps"] = config["options"].pop("total_steps")
    (old / "config.json").write_text(json.dumps(config))
    assert found(tmp_path) == {"ppo": ["a", "b"]}


def test_a_method_that_is_not_installed_is_grouped_too(tmp_path: Path) -> None:
    for seed in range(2):
        make_run(tmp_path / f"a{seed}", agent="new-method", seed=seed)
    assert found(tmp_path) == {"new-method": ["a0", "a1"]}


def test_a_repeated_seed_counts_once(tmp_path: Path) -> None:
    make_run(tmp_path / "a", returns=(1, 2), finished=False)
    make_run(tmp_path / "b")
    make_run(tmp_path / "c")
    make_run(tmp_path / "d", seed=1)
    (group,) = groups(tmp_path)
    # Of equal ones the first; a finished one before one that was cut short.
    assert [run.path.name for run in group.runs] == ["b", "d"]
    assert [run.path.name for run in group.repeated] == ["a", "c"]
    assert (group.seeds, group.num_finished) == ([0, 1], 2)


def test_a_finished_run_counts_before_one_of_more_steps(tmp_path: Path) -> None:
    make_run(tmp_path / "a", total_steps=500)
    make_run(tmp_path / "b", total_steps=500, steps=(0, 900), finished=False)
    (group,) = groups(tmp_path)
    assert [run.steps for run in (*group.runs, *group.repeated)] == [500, 900]
    assert [run.path.name for run in group.runs] == ["a"]


def test_an_option_that_names_the_source_is_not_a_setting_besides(tmp_path: Path) -> None:
    make_run(tmp_path / "a", weights="1")
    for name in ("b", "c"):
        made = make_run(tmp_path / name, seed=int(name == "c"))
        config = json.loads((made / "config.json").read_text())
        if name == "b":
            config |= begun_with("moved/a", "1")
        config["options"]["init_from"] = str(tmp_path / "a")
        (made / "config.json").write_text(json.dumps(config))
    assert found(tmp_path) == {
        "ppo init_from=none": ["a"],
        "ppo init_from=ppo (own task)": ["b", "c"],
    }


def test_a_source_elsewhere_counts_without_the_seed_at_its_end(tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run(tmp_path / f"a{seed}", seed=seed)
        for name in ("near", "far"):
            source = f"runs/{name}-{seed}"
            make_run(tmp_path / f"{name}{seed}", seed=seed, changes=begun_with(source, "0" * 64))
    # Another seed's source, and a number that is not a seed, are others.
    make_run(tmp_path / "other", seed=0, changes=begun_with("runs/near-10", "0" * 64))
    assert found(tmp_path) == {
        "ppo init_from=none": ["a0", "a1"],
        "ppo init_from=runs/far-SEED": ["far0", "far1"],
        "ppo init_from=runs/near-SEED": ["near0", "near1"],
        "ppo init_from=runs/near-10": ["other"],
    }


def test_groups_of_one_name_are_told_apart_by_what_their_sources_differ_in(tmp_path: Path) -> None:
    for seed in (0, 1):
        for name, rate in (("slow", 1e-4), ("fast", 1e-2)):
            method = rt.agents.PQN(learning_rate=rate)
            sha256 = f"{name}{seed}".ljust(64, "0")
            make_run(
                tmp_path / f"{name}-source-{seed}", seed=seed, agent="pqn", method=method,
                weights=sha256,
            )  # fmt: skip
            source = begun_with(f"{name}-source-{seed}", sha256)
            make_run(tmp_path / f"{name}-run-{seed}", seed=seed, changes=source)
    labels = found(tmp_path)
    assert labels["ppo learning_rate=0.0001"] == [
        "slow-run-0", "slow-run-1",
    ]  # fmt: skip
    assert labels["ppo learning_rate=0.01"] == ["fast-run-0", "fast-run-1"]


def test_seeds_that_remember_their_own_runs_are_one_group(tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run(tmp_path / f"a{seed}", seed=seed)
        earlier = (f"runs/{seed}/task-1",)
        make_run(tmp_path / f"b{seed}", seed=seed, ewc_from=earlier, ewc_weight=2.0)
    assert found(tmp_path) == {
        "ppo ewc_from=none": ["a0", "a1"], "ppo ewc_from=1 runs": ["b0", "b1"]
    }  # fmt: skip
