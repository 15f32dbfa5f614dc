"""The memory against one that keeps every stack whole, over ends of episodes and of the ring."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.files import checkpoint
from rltransfer.files.checkpoint import load_state, save_state
from rltransfer.learning.minibatches import Batch
from rltransfer.learning.replay_memory import ReplayMemory

CPU = torch.device("cpu")


class Game:
    """Rows of random frames, stacked as the Atari environments do: black before the start."""

    def __init__(self, rows: int, stack: int, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.rows = rows
        self.stacks = torch.zeros(rows, stack, 3, 2, dtype=torch.uint8)
        self.steps = 0
        self.history: list[tuple[Tensor, Tensor]] = []

    def play(self, time: int) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
        """Returns what `ReplayMemory.add` takes, and keeps every stack whole."""
        observations, starts, labels = [], [], []
        for _ in range(time):
            start = torch.rand(self.rows, generator=self.generator) < 0.25
            if self.steps == 0:
                start[:] = True
            # Never 0: black frames are told from others.
            frame = torch.randint(1, 256, (self.rows, 3, 2), generator=self.generator)
            self.stacks = self.stacks.masked_fill(start[:, None, None, None], 0)
            self.stacks = torch.cat([self.stacks[:, 1:], frame.to(torch.uint8).unsqueeze(1)], 1)
            label = 1000 * torch.arange(self.rows) + self.steps
            self.history.append((self.stacks, label))
            observations.append(self.stacks)
            starts.append(start)
            labels.append(label)
            self.steps += 1
        return (
            {"policy": torch.stack(observations)},
            torch.stack(starts),
            {"label": torch.stack(labels)},
        )

    def newest(self, steps: int) -> tuple[Tensor, Tensor]:
        """Returns the stacks and labels of the last steps, rows within steps."""
        stacks, labels = zip(*self.history[-steps:], strict=True)
        return torch.cat(stacks), torch.cat(labels)


def everything(memory: ReplayMemory) -> Batch:
    return memory.take(torch.arange(len(memory)))


@pytest.mark.parametrize(
    ("rows", "stack", "capacity"), [(1, 4, 9), (3, 4, 30), (2, 2, 14), (2, 1, 10), (3, 4, 12)]
)
@pytest.mark.parametrize("on_disk", [False, True])
def test_stacks_are_exactly_those_that_were_seen(
    rows: int, stack: int, capacity: int, on_disk: bool, tmp_path: Path
):
    folder = tmp_path / "ring" if on_disk else None
    memory = ReplayMemory(capacity, rows, CPU, stack, folder)
    game = Game(rows, stack)
    most = -(-capacity // rows)
    chunks = torch.Generator().manual_seed(1)
    while game.steps < 8 * most:
        time = int(torch.randint(1, memory.length + 1, (), generator=chunks))
        memory.add(*game.play(time))
        held = len(memory) // rows
        # All that the capacity promises can be sampled, also in the turn in which the ring fills.
        assert held >= min(game.steps, most)
        stacks, labels = game.newest(held)
        found = everything(memory)
        assert torch.equal(found["observation"]["policy"], stacks)
        assert torch.equal(found["label"], labels)


def test_a_frame_is_stored_once():
    memory = ReplayMemory(30, 3, CPU, 4)
    memory.add(*Game(3, 4).play(10))
    # 10 steps and 3 frames before the oldest, 3 rows: frames of 6 bytes, a label of 8, an age of 1.
    assert memory.nbytes() == 13 * 3 * (6 + 8 + 1)


def test_540_000_atari_steps_fit_in_four_and_a_half_gigabytes():
    small = ReplayMemory(640, 64, CPU, 4)
    observation = {"policy": torch.zeros(1, 64, 4, 84, 84, dtype=torch.uint8)}
    start = torch.ones(1, 64, dtype=torch.bool)
    fields = {
        "label": {"q_values": torch.zeros(1, 64, 18)},
        "task": torch.zeros(1, 64, dtype=torch.int64),
    }
    small.add(observation, start, fields)
    per_step = small.nbytes() / (small.length * 64)
    # A frame of 7056 bytes, 18 float32, an int64 and an age.
    assert per_step == 84 * 84 + 18 * 4 + 8 + 1
    full = ReplayMemory(540_000, 64, CPU, 4)
    assert full.length * 64 >= 540_000
    assert full.length * 64 * per_step <= 4.5e9


def test_observations_that_are_no_stacks():
    # Five steps of two rows in a ring of three: the last three stay.
    memory = ReplayMemory(6, 2, CPU)
    matrix = torch.arange(5 * 2 * 6).view(5, 2, 3, 2).float()
    vector = torch.arange(5 * 2).view(5, 2, 1).double()
    start = torch.zeros(5, 2, dtype=torch.bool)
    for part in range(5):
        step = slice(part, part + 1)
        memory.add({"matrix": matrix[step], "vector": vector[step]}, start[step], {})
    found = everything(memory)
    assert torch.equal(found["observation"]["matrix"], matrix[2:].flatten(0, 1))
    assert torch.equal(found["observation"]["vector"], vector[2:].flatten(0, 1))
    assert found["observation"]["vector"].dtype == torch.float64


def test_only_stacks_are_put_together():
    # Beside a stack of frames, a matrix and an image in colour are kept as they are.
    memory = ReplayMemory(20, 2, CPU, 4)
    observation, start, fields = Game(2, 4).play(6)
    observation["matrix"] = torch.rand(6, 2, 3, 5)
    observation["colour"] = torch.rand(6, 2, 3, 5, 5)
    memory.add(observation, start, fields)
    found = everything(memory)["observation"]
    for name, group in observation.items():
        assert torch.equal(found[name], group.flatten(0, 1))


def test_frames_before_the_first_step_are_black():
    # An episode that was under way before the memory began: its earlier frames were never stored.
    memory = ReplayMemory(20, 1, CPU, 3, None)
    frames = torch.arange(1, 9, dtype=torch.uint8).view(8, 1, 1, 1, 1).expand(8, 1, 3, 1, 1)
    memory.add({"policy": frames}, torch.zeros(8, 1, dtype=torch.bool), {})
    stacks = everything(memory)["observation"]["policy"].flatten(1).tolist()
    assert stacks[:4] == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]


def test_samples_are_uniform_over_all_that_is_held():
    memory = ReplayMemory(30, 3, CPU, 4)
    game = Game(3, 4)
    memory.add(*game.play(12))
    memory.add(*game.play(9))
    _, labels = game.newest(10)
    assert len(memory) == 30
    drawn = memory.sample(60_000, torch.Generator().manual_seed(0))["label"]
    values, counts = drawn.unique(return_counts=True)
    assert sorted(values.tolist()) == sorted(labels.tolist())
    # Tolerance: 5 standard deviations, sqrt(60,000 / 30) = 45, around 2,000 of each.
    assert ((counts - 2_000).abs() < 225).all()


def test_the_rows_of_a_task_are_sampled_by_its_weight():
    # Rows 0 and 1 play task 0, rows 2 and 3 task 1, which has all of the weight.
    memory = ReplayMemory(8, 4, CPU)
    rows = torch.arange(4).expand(2, 4)
    fields = {"row": rows, "task": rows // 2}
    memory.add({"policy": torch.zeros(2, 4, 1)}, torch.zeros(2, 4, dtype=torch.bool), fields)
    weights = torch.tensor([0.0, 1.0])
    batch = memory.sample(1000, torch.Generator().manual_seed(0), weights)
    assert batch["task"].unique().tolist() == [1] and batch["row"].unique().tolist() == [2, 3]


def test_sampled_fields_belong_together():
    memory = ReplayMemory(30, 3, CPU, 4)
    game = Game(3, 4)
    memory.add(*game.play(13))
    memory.add(*game.play(8))
    stacks, labels = game.newest(10)
    of = dict(zip(labels.tolist(), stacks, strict=True))
    batch = memory.sample(200, torch.Generator().manual_seed(0))
    for label, stack in zip(batch["label"].tolist(), batch["observation"]["policy"], strict=True):
        assert torch.equal(stack, of[label])


@pytest.mark.parametrize("steps", [5, 13, 22])
@pytest.mark.parametrize("on_disk", [False, True])
def test_going_on_from_a_state_gives_the_same_samples(steps: int, on_disk: bool, tmp_path: Path):
    def fresh(name: str) -> ReplayMemory:
        return ReplayMemory(30, 3, CPU, 4, tmp_path / name if on_disk else None)

    game = Game(3, 4)
    unbroken = fresh("unbroken")
    for _ in range(steps):
        unbroken.add(*game.play(1))
    save_state(tmp_path, {"memory": unbroken.state_dict()})
    more = game.play(7)
    unbroken.add(*more)

    resumed = fresh("resumed")
    resumed.load_state_dict(load_state(tmp_path)["memory"])
    resumed.add(*more)
    assert len(resumed) == len(unbroken)
    one = unbroken.sample(100, torch.Generator().manual_seed(0))
    same = resumed.sample(100, torch.Generator().manual_seed(0))
    assert torch.equal(one["label"], same["label"])
    assert torch.equal(one["observation"]["policy"], same["observation"]["policy"])


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_checkpoint_copies_nothing(
    on_disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = ReplayMemory(30, 3, CPU, 4, tmp_path / "ring" if on_disk else None)
    memory.add(*Game(3, 4).play(5))
    written: dict[str, Tensor] = {}
    monkeypatch.setattr(checkpoint, "save_tensors", lambda tensors, path: written.update(tensors))
    save_state(tmp_path, memory.state_dict())
    memory.add(*Game(3, 4).play(13))
    # What is to be written changes with the ring, which it is a view of.
    changed = memory.state_dict()["store"]
    assert {"/store/" + name.replace("/", "~1") for name in changed} == written.keys()
    for name, tensor in changed.items():
        assert torch.equal(written["/store/" + name.replace("/", "~1")], tensor[:5])


@pytest.mark.parametrize("on_disk", [False, True])
def test_groups_of_any_name_are_separate(on_disk: bool, tmp_path: Path) -> None:
    names = ["a/b", "a|b", "a-b", "a~1b", "$tensor", "a"]
    folder = tmp_path / "ring" if on_disk else None
    memory = ReplayMemory(8, 1, CPU, folder=folder)
    group = {name: torch.full((2, 1, 1), float(i)) for i, name in enumerate(names)}
    memory.add(
        group, torch.zeros(2, 1, dtype=torch.bool), {"label": {"logits": torch.ones(2, 1, 3)}}
    )
    (tmp_path / "state").mkdir()
    save_state(tmp_path / "state", memory.state_dict())
    restored = ReplayMemory(8, 1, CPU, folder=tmp_path / "again" if on_disk else None)
    restored.load_state_dict(checkpoint.load_state(tmp_path / "state"))
    for one in (memory, restored):
        taken = one.take(torch.tensor([0, 1]))["observation"]
        assert {name: value.flatten().tolist() for name, value in taken.items()} == {
            name: [float(i)] * 2 for i, name in enumerate(names)
        }


def test_a_single_group_named_like_a_reference_is_restored(tmp_path: Path) -> None:
    save_state(tmp_path, {"observation": {"$tensor": torch.ones(1)}, "a/b": {"c": 1}})
    state = checkpoint.load_state(tmp_path)
    assert torch.equal(state["observation"]["$tensor"], torch.ones(1)) and state["a/b"] == {"c": 1}


def test_memory_mapped_files_hold_the_ring(tmp_path: Path):
    memory = ReplayMemory(30, 3, CPU, 4, tmp_path / "ring")
    memory.add(*Game(3, 4).play(10))
    on_disk = sum(path.stat().st_size for path in (tmp_path / "ring").iterdir())
    assert on_disk >= memory.nbytes() == 13 * 3 * 15
    batch = memory.sample(4, torch.Generator().manual_seed(0))
    # Samples are ordinary tensors of their own, in RAM.
    assert type(batch["label"]) is Tensor and type(batch["observation"]["policy"]) is Tensor


def test_memory_mapped_files_of_an_earlier_run_are_written_over(tmp_path: Path):
    earlier = ReplayMemory(30, 3, CPU, 4, tmp_path)
    earlier.add(*Game(3, 4, seed=5).play(13))
    memory, game = ReplayMemory(30, 3, CPU, 4, tmp_path), Game(3, 4)
    memory.add(*game.play(6))
    stacks, labels = game.newest(6)
    found = everything(memory)
    assert torch.equal(found["observation"]["policy"], stacks)
    assert torch.equal(found["label"], labels)


@pytest.mark.parametrize(("capacity", "rows", "stack"), [(2, 3, 0), (11, 3, 4), (0, 1, 0)])
def test_capacity_that_holds_nothing(capacity: int, rows: int, stack: int):
    with pytest.raises(InputError) as caught:
        ReplayMemory(capacity, rows, CPU, stack)
    assert str(caught.value) == (
        f"A memory of {capacity} steps is too small for {max(stack, 1)} steps of each of {rows} "
        "environments: make it larger."
    )


@pytest.mark.parametrize("inside", ["", "deep/folder"])
def test_a_folder_that_is_a_file_is_refused_at_once(inside: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / inside
    with pytest.raises(InputError, match=f"folder {folder} cannot be created: .*file is a file"):
        ReplayMemory(30, 3, CPU, 4, folder)


def test_more_at_once_than_the_ring_holds():
    with pytest.raises(ValueError, match="14 steps at once do not fit a memory of 13"):
        ReplayMemory(30, 3, CPU, 4).add(*Game(3, 4).play(14))


def test_a_state_of_an_earlier_version_loads() -> None:
    # It named the tensors of a label by a prefix.
    made, loaded = ReplayMemory(20, 2, CPU), ReplayMemory(20, 2, CPU)
    label = {"logits": torch.randn(3, 2, 4)}
    made.add({"policy": torch.randn(3, 2, 5)}, torch.ones(3, 2, dtype=torch.bool), {"label": label})
    state = made.state_dict()
    former = {
        name.replace("label/", "teacher_").replace("/", "|"): value
        for name, value in state["store"].items()
    }
    assert "field|teacher_logits" in former
    loaded.load_state_dict({**state, "store": former})
    index = torch.arange(6)
    assert torch.equal(loaded.take(index)["label"]["logits"], made.take(index)["label"]["logits"])
