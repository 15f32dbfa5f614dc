"""Policy files: safetensors and JSON."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from rltransfer.errors import InputError
from rltransfer.files.atomic import save_tensors
from rltransfer.files.lfs import check_not_pointer
from rltransfer.policies.policy import Policy, PolicySpec


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
        policy = _spec_of(json.loads(spec.read_text())).build()
        tensors = load_file(weights)
        policy.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except ImportError as error:
        raise InputError(f"{stem} cannot be loaded: {error}.") from error
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        check_not_pointer(weights)
        raise InputError(
            f"{stem} is not a complete policy: one of its files is damaged."
        ) from error
    except RuntimeError as error:
        raise InputError(f"{weights} does not fit the policy that {spec} describes.") from error
    return policy.eval()
