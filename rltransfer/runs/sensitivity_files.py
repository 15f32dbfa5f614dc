"""A folder with a policy's sensitivities: JSON, a picture, and curves over the layers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rltransfer.errors import InputError
from rltransfer.files.atomic import written_whole
from rltransfer.runs.folder import io_errors_as_input_errors
from rltransfer.runs.sensitivity import Sensitivity
from rltransfer.runs.tensorboard import Tracker

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JSON, PICTURE = "sensitivity.json", "sensitivity.png"
"""The files of a folder, next to TensorBoard's event file."""

MEASURES = {
    "fisher": "average Fisher sensitivity",
    "perturbation": "average perturbation sensitivity",
}
"""What each measure is called in full."""


def check_free(folder: Path) -> None:
    """Checks that a folder can be made, before anything is measured.

    Raises:
        InputError: It exists, or the folder above it does not.
    """
    with io_errors_as_input_errors(folder):
        if os.path.lexists(folder):
            raise InputError(f"{folder} already exists: use another --out.")
        if not folder.parent.is_dir():
            raise InputError(f"{folder} cannot be written: there is no folder {folder.parent}.")


def write_sensitivity(found: Mapping[str, Any], measured: Sensitivity, folder: Path) -> None:
    """Writes a new folder with sensitivities, whole or not at all.

    Args:
        found: The content of `sensitivity.json`.
        measured: The sensitivities.
        folder: The folder.

    Raises:
        InputError: The folder exists, or cannot be written.
    """
    check_free(folder)
    figure = sensitivity_figure(measured)
    with io_errors_as_input_errors(folder), written_whole(folder) as partial:
        (partial / JSON).write_text(json.dumps(found, indent=1) + "\n")
        figure.savefig(partial / PICTURE, dpi=150)
        tracker = Tracker(partial, describe=_describe)
        for one in measured.layers:
            values = {"fisher": one.fisher, "perturbation": one.perturbation}
            curves = {
                f"sensitivity/{name}/column-{one.column}": value
                for name, value in values.items()
                if value is not None
            }
            tracker.scalars(curves, one.layer)
        tracker.picture("sensitivity", _pixels(figure))
        tracker.close()


def _describe(tag: str) -> str:
    _, _, measure = tag.partition("/")
    name = MEASURES.get(measure.partition("/")[0])
    if name is None:
        return "Sensitivities of each layer of each column, 0 to 1."
    return f"The {name} of each layer of a column, 0 to 1. The horizontal axis is the layer."


def sensitivity_figure(measured: Sensitivity) -> Figure:
    """A heat map of each measure: the layers from bottom to top, the columns from left to right.

    matplotlib is imported here, as only a picture needs it.
    """
    from matplotlib.figure import Figure

    layers = max(one.layer for one in measured.layers)
    columns = max(one.column for one in measured.layers)
    names = ["fisher"] if measured.return_mean is None else list(MEASURES)
    size = ((1.0 * columns + 2.2) * len(names), 0.7 * layers + 1.6)
    figure = Figure(figsize=size, layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        values = np.reshape([getattr(one, name) for one in measured.layers], (layers, columns))
        picture = axes.imshow(values, vmin=0, vmax=1, origin="lower", aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            color = "black" if value > 0.6 else "white"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color)
        axes.set_xticks(range(columns), [f"column {column + 1}" for column in range(columns)])
        axes.set_yticks(range(layers), [f"layer {layer + 1}" for layer in range(layers)])
        axes.set_title(MEASURES[name].replace(" sensitivity", "\nsensitivity"))
    figure.colorbar(picture)
    return figure


def _pixels(figure: Figure) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A figure as a picture.    (height, width, 3)"""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return pixels[:, :, :3].copy()
