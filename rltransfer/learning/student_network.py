"""The student's network, where a user leaves it to the teacher.

- The layers are the teacher's, unless the network names others; `width` is a factor on them.
- Convolutions of another width than the teacher's have LayerNorm, unless it names them.
- A size such as "25%" sets the width so that the student has about that fraction of the teacher's
  parameters. Counted are those that acting needs.
"""

from __future__ import annotations

import dataclasses
import re

import torch
from gymnasium import spaces

from rltransfer.errors import InputError
from rltransfer.policies.network import Network
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.tasks.history import GROUP as HISTORY
from rltransfer.teachers.teacher import Teacher

DEFAULT = Network()
LAYERS = ("encoder", "channels", "hidden")
"""The fields that name layers."""
NARROWEST = 2.0**-12
"""The smallest factor on a width that is tried: a single unit everywhere."""
HALVINGS = 20
"""Steps of the search between two factors, one of which is twice the other."""


def check_size(size: str, network: Network) -> None:
    """Refuses a size that does not name a percentage, or that a width contradicts.

    Args:
        size: The size of a student; "" for none.
        network: The student's network.

    Raises:
        InputError: See above.
    """
    if not size:
        return
    if not 0 < fraction_of(size) < float("inf"):
        raise InputError(f'size is {size!r}: it must be above 0 %, e.g. "25%".')
    if network.width != 1:
        raise InputError(
            f"size is {size!r} and width {network.width:g}, but a size determines the width: set "
            "one of them."
        )


def fraction_of(size: str) -> float:
    """The fraction that a percentage such as "25%" or "12.5 %" stands for.

    Raises:
        InputError: It is not a percentage.
    """
    found = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*%\s*", size)
    if found is None:
        raise InputError(
            f'size is {size!r}: it must be a percentage of the teacher\'s parameters, e.g. "25%".'
        )
    return float(found[1]) / 100


def names_no_layers(network: Network) -> bool:
    """Whether a network leaves its layers open."""
    return all(getattr(network, name) == getattr(DEFAULT, name) for name in LAYERS)


def like_teacher(network: Network, teacher: Teacher) -> Network:
    """The network with the teacher's layers, if it names none and they are known.

    A student that does not read a history gets no convolutions over one.
    """
    known = teacher.network()
    if known is None or not names_no_layers(network):
        return network
    if known.encoder == "conv1d" and HISTORY not in network.groups:
        known = dataclasses.replace(known, encoder="mlp", channels=None)
    return dataclasses.replace(
        network.with_activation(known.activation),
        **{name: getattr(known, name) for name in LAYERS},
        width=known.width * network.width,
        layer_norm=known.layer_norm or network.layer_norm,
    )


def with_layer_norm(network: Network, observation: spaces.Dict) -> Network:
    """The network, with LayerNorm if it has convolutions.

    With it, students of images learn more from the same number of large minibatches.

    Args:
        network: A network that names no layers, or has its teacher's.
        observation: The observation groups of the tasks.
    """
    shapes = [
        observation[name].shape or () for name in network.groups if name in observation.spaces
    ]
    convolves = network.encoder != "mlp" and any(len(shape) == 3 for shape in shapes)
    return dataclasses.replace(network, layer_norm=network.layer_norm or convolves)


def with_size(spec: PolicySpec, size: str, teacher: Teacher) -> Network:
    """The network of a student, with the width that gives it a size.

    Args:
        spec: The student with its network.
        size: A percentage of the teacher's parameters.
        teacher: The teacher.

    Raises:
        InputError: The teacher's parameters are unknown, or no width gives this size.
    """
    if not teacher.num_parameters:
        raise InputError(
            f"size is {size!r}, but the number of parameters of the teacher {teacher.source} is "
            "unknown: set width or hidden instead."
        )
    target = round(fraction_of(size) * teacher.num_parameters)

    def scaled(factor: float) -> Network:
        return dataclasses.replace(spec.network, width=spec.network.width * factor)

    def number(factor: float) -> int:
        return _num_parameters(spec, scaled(factor))

    high = 1.0
    while number(high) < target:
        high *= 2
    while high > NARROWEST and number(high / 2) >= target:
        high /= 2
    low = high / 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if number(middle) < target else (low, middle)
    factor = min(low, high, key=lambda one: abs(number(one) - target))
    found = number(factor)
    if not target / 2 <= found <= 2 * target:
        raise InputError(
            f"size is {size!r} of the {teacher.num_parameters:,} parameters of the teacher "
            f"{teacher.source}, but the closest that a width of this network gives are {found:,}: "
            "set another size, or other layers with hidden or channels."
        )
    return scaled(factor)


def _num_parameters(spec: PolicySpec, network: Network) -> int:
    """The number of parameters that a policy's acting needs."""
    with torch.device("meta"):
        return Policy(dataclasses.replace(spec, network=network)).num_acting_parameters()
