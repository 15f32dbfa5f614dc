"""The activations of other libraries' networks, by the names that their configurations use.

The tensors of a network do not show its activation. Where no script or configuration that a reader
knows determines it, the option `activation` is needed.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from rltransfer.errors import InputError, unknown

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "identity": nn.Identity,
    "leaky_relu": nn.LeakyReLU,
    "mish": nn.Mish,
    "relu": nn.ReLU,
    "selu": nn.SELU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "swish": nn.SiLU,
    "tanh": nn.Tanh,
}
"""The values of the option `activation`."""


def required_activation(
    name: str | None, path: Path, seems: str, convention: str = ""
) -> type[nn.Module]:
    """The activation that an option names.

    Args:
        name: The value of the option; None where it is missing.
        path: The file, for errors.
        seems: What the file is, e.g. "a plain state_dict".
        convention: What is usual for such files, as a sentence's last part.

    Raises:
        InputError: The option is missing, or has no such value.
    """
    if name is None:
        raise InputError(
            f"{path} is {seems}, which does not contain the activation of its layers: add "
            f"`?activation=NAME` to the path, NAME being one of {', '.join(ACTIVATIONS)}"
            f"{convention}."
        )
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]
