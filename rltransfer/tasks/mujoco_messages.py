"""MuJoCo's messages.

By itself, MuJoCo writes each of them to MUJOCO_LOG.TXT in the working directory. A simulation that
is unstable sends thousands, which differ in their numbers alone: a user reads each kind once.
"""

from __future__ import annotations

import re
import sys
import warnings

MESSAGE = "rltransfer_message"
"""The key of a message in an environment's `info`."""

pending: list[str] = []
"""Messages in this process that no `info` contains yet."""

_reported: set[tuple[str, str]] = set()


def collect() -> None:
    """Collects the messages in `pending` from now on, if MuJoCo is loaded.

    A function that a user has set for them stays in place.
    """
    mujoco = sys.modules.get("mujoco")
    if mujoco is None or not hasattr(mujoco, "set_mju_user_warning"):
        return
    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(_on_message)


def _on_message(message: str) -> None:
    # A user cannot change the models of Gymnasium, which deprecations are about.
    if "deprecated" not in message and not pending:
        pending.append(message)


def report(name: str, message: str) -> None:
    """Warns of a message, once for each environment and kind of message.

    Args:
        name: The environment's id.
        message: What MuJoCo wrote.
    """
    kind = name, re.sub(r"[\d.]+", "", message)
    if kind not in _reported:
        _reported.add(kind)
        warnings.warn(f"{name}: MuJoCo: {message}", RuntimeWarning, stacklevel=2)
