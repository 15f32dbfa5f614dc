"""Policy files: safetensors and JSON."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.files.atomic import save_tensors
from rltransfer.files.checkpoint import read_tensors
from rltransfer.files.lfs import check_not_pointer
from rltransfer.files.untrusted import DAMAGE, LimitError, check_size, read_json
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.tasks.action import action_size


def _spec_of(data: dict[str, Any]) -> PolicySpec:
    """The specification in a file: a `PolicySpec`, or an installed subclass.

    A method with a subclass of `Policy` names its specification in the entry-point group
    `rltransfer.policies`, and writes that name as "kind".
    """
    kind = data.get("kind")
    if kind is None:
        return PolicySpec.from_json(data)
    for entry in entry_points(group="rltransfer.policies", name=kind):
        spec: PolicySpec = entry.load().from_json(data)
        return spec
    raise ImportError(f"no installed package provides policies of the kind {kind!r}")


def save_policy(policy: Policy, stem: Path, half: bool = False) -> None:
    """Writes a policy as `stem.safetensors` and `stem.json`.

    Args:
        policy: The policy.
        stem: Path without a suffix.
        half: Writes the weights in float16.
    """
    # Weights are small; the statistics of observations may exceed float16's range.
    weights = {name for name, _ in policy.named_parameters()} if half else set()
    tensors = {
        name: (tensor.half() if name in weights else tensor).cpu().contiguous()
        for name, tensor in policy.state_dict().items()
    }
    save_tensors(tensors, stem.with_suffix(".safetensors"))
    stem.with_suffix(".json").write_text(json.dumps(policy.spec.to_json(), indent=1) + "\n")


def load_policy(stem: Path) -> Policy:
    """Loads a policy that `save_policy` wrote, on the CPU and in evaluation mode.

    Raises:
        InputError: A file is missing, damaged or a pointer of git-lfs, the files do not fit each
            other, or the package that provides such policies is not installed.
    """
    weights, spec = stem.with_suffix(".safetensors"), stem.with_suffix(".json")
    for path in (weights, spec):
        if not path.is_file():
            raise InputError(f"{stem} is not a policy: {path} is missing.")
    try:
        check_size(weights.stat().st_size, weights)
        tensors = read_tensors(weights)
        described = _spec_of(read_json(spec))
        _check_fits(described, tensors, stem)
        policy = described.build()
        policy.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except ImportError as error:
        raise InputError(f"{stem} cannot be loaded: {error}.") from error
    except (LimitError, _UnfitError):
        raise
    except DAMAGE as error:
        check_not_pointer(weights)
        raise InputError(
            f"{stem} is not a complete policy: one of its files is damaged."
        ) from error
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise InputError(
                f"{weights} cannot be used: its tensor {name!r} is not finite, as after a training "
                "that diverged: use an earlier checkpoint."
            )
    return policy.eval()


class _UnfitError(InputError):
    """The weights are not those of the policy that is described."""


def _check_fits(spec: PolicySpec, tensors: dict[str, Tensor], stem: Path) -> None:
    """Checks the shapes of weights before a network of these shapes takes any memory.

    Raises:
        InputError: They are not those of the policy.
    """
    network = spec.network
    layers = len(network.hidden) + len(network.channels or ())
    mask = spec.action_mask
    fits = layers <= len(tensors) and all(map(torch.is_floating_point, tensors.values()))
    if mask is not None:
        sizes = {len(row) for row in mask}
        # Files of earlier versions do not contain the number of tasks.
        fits = (
            fits and spec.num_tasks in (1, len(mask)) and sizes == {action_size(spec.action_space)}
        )
    if fits:
        with torch.device("meta"):
            known = {name: tensor.shape for name, tensor in spec.build().state_dict().items()}
        fits = known == {name: tensor.shape for name, tensor in tensors.items()}
    if not fits:
        raise _UnfitError(
            f"{stem.with_suffix('.safetensors')} does not fit the policy that "
            f"{stem.with_suffix('.json')} describes."
        )
