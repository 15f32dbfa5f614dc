"""How a student learns where a user leaves it open: settings that follow from its teacher.

- The objective: KL where the teacher tells a distribution over actions or Q-values, MSE where it
  tells continuous actions alone, or actions whose distribution no Gaussian student can match.
- Who acts: the teacher at first, so that the student sees good states, and soon the student, so
  that it learns to mend its own errors. With RL, the student alone.
- Rollouts: short, so that the student acts on what it has just learned. With RL, or without a
  memory, long ones, which are learned from as a whole.
- Minibatches: large, with a step size in proportion, as they take less time for each sample.
- Epochs: many where environments run on the host, as a step of a simulator costs more than
  learning from it once more; few where they run on the device. With RL, or without a memory, the
  few that rollouts allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rltransfer.files.serialization import from_json
from rltransfer.files.untrusted import damage_refused, read_json
from rltransfer.policies.network import Network
from rltransfer.policies.output import PolicyOutput

AUTO = "auto"
"""What stands for a setting that follows from the teacher."""
TEACHER_ACTS = "1->0@0.2"
"""The teacher acts less and less, and no more after a fifth of the run."""
EPOCHS = 16.0
"""How often each step is learned from out of a memory."""
EPOCHS_ON_DEVICE = 8.0
"""The same where steps cost less than learning from them."""
EPOCHS_ON_POLICY = 4.0
"""The same without a memory."""


ROLLOUT_STEPS, SHORTEST_ROLLOUT, LONGEST_ROLLOUT = 1024, 16, 128
"""Steps of a task between two updates from a memory, and the bounds of its environments' steps."""
BATCH_SIZE, BATCH_SIZE_ON_POLICY = 1024, 512
"""Samples per minibatch of a memory, and of a rollout."""
STEP_SIZE, LARGEST_STEP_SIZE, STEP_SIZE_SAMPLES = 2e-3, 8e-3, 256
"""Initial step size of a minibatch of so many samples, in proportion to them up to the largest; of
a rollout, whatever its minibatches."""

CHOICES = ("objective", "teacher_acts", "epochs", "student")
"""The options that may be left to the teacher."""
CHOSEN = "chosen"
"""The entry of config.json with the settings that a run chose itself, by the option's name."""


def recipe(
    label: PolicyOutput, *, on_device: bool, reinforces: bool, remembers: bool
) -> dict[str, Any]:
    """The settings for a teacher, by the option's name.

    Args:
        label: Labels of the teacher.
        on_device: Whether all environments are on the device.
        reinforces: Whether the student learns with RL too.
        remembers: Whether it learns from a memory, and not from each rollout once.
    """
    gaussian = label.mean is None or label.log_std is not None
    epochs = EPOCHS_ON_DEVICE if on_device else EPOCHS
    return {
        "objective": "kl" if gaussian else "mse",
        "teacher_acts": 0.0 if reinforces else TEACHER_ACTS,
        "epochs": epochs if remembers else EPOCHS_ON_POLICY,
    }


def learner_settings(num_envs: int, batch_size: int, *, remembers: bool) -> dict[str, Any]:
    """The settings that follow from other options, by the option's name.

    Args:
        num_envs: Environments per task.
        batch_size: Samples per minibatch; 0 leaves it open.
        remembers: Whether the student learns from a memory, and not from each rollout once.
    """
    if not remembers:
        return {
            "rollout_length": LONGEST_ROLLOUT,
            "batch_size": BATCH_SIZE_ON_POLICY,
            "learning_rate": STEP_SIZE,
        }
    steps = ROLLOUT_STEPS // max(num_envs, 1)
    samples = batch_size or BATCH_SIZE
    return {
        "rollout_length": min(max(steps, SHORTEST_ROLLOUT), LONGEST_ROLLOUT),
        "batch_size": samples,
        "learning_rate": min(STEP_SIZE * samples / STEP_SIZE_SAMPLES, LARGEST_STEP_SIZE),
    }


def stored_choices(run_dir: Path) -> dict[str, Any]:
    """What a run chose when it began; nothing in those of earlier versions.

    Raises:
        InputError: Its configuration is damaged.
    """
    if not (run_dir / "config.json").is_file():
        return {}
    with damage_refused(f"{run_dir} is not a complete run: its config.json is damaged."):
        stored = read_json(run_dir / "config.json").get(CHOSEN, {})
        found = {name: stored[name] for name in CHOICES if name in stored}
        if "student" in found:
            found["student"] = from_json(Network, found["student"])
        return found


def format_choices(chosen: Mapping[str, Any]) -> str:
    """What a run chose itself, in words.

    Args:
        chosen: The options by name, as JSON.
    """
    words = [f"{name} {value}" for name, value in chosen.items() if name != "student"]
    if "student" in chosen:
        network = from_json(Network, chosen["student"])
        units = ", ".join(str(network.scaled(units)) for units in network.hidden)
        layers = f"{units} hidden units" if network.encoder == "mlp" else f"width {network.width:g}"
        words.append(f"a student with {layers}")
    return f"chooses by its teacher: {'; '.join(words)}"
