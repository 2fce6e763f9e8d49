"""Pictures of results: reconstructions below their originals, and ROC curves."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

__all__ = ["draw_reconstructions", "draw_roc"]

_INCHES = 0.9  # of a picture
_MARGIN = 2.2  # inches for the names of views


def draw_reconstructions(documents: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """One PNG for each data set, network and attack.

    Parameters
    ----------
    documents
        Of finished inversion cells, in order.
    folder
        Where ``reconstructions-DATASET-NETWORK-ATTACK.png`` go.

    Returns
    -------
    list of Path
        The files, in order.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for document in documents:
        parameters = document["parameters"]
        key = f"{parameters['dataset']}-{parameters['network']}-{parameters['attack']}"
        groups.setdefault(key, []).append(document)
    paths = []
    for key, members in groups.items():
        path = folder / f"reconstructions-{key}.png"
        _draw(members, path)
        paths.append(path)
    return paths


def _draw(documents: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A line for the originals, and one for each view."""
    columns = max(len(d["results"]["pictures"]) for d in documents)
    rows = len(documents) + 1
    figure = Figure(figsize=(_MARGIN + columns * _INCHES, rows * _INCHES), dpi=100)
    left = _MARGIN / (_MARGIN + columns * _INCHES)
    figure.subplots_adjust(left, 0.005, 0.995, 0.995, 0.05, 0.05)
    axes = figure.subplots(rows, columns, squeeze=False)
    most = max((d["results"]["pictures"] for d in documents), key=len)  # views begin with the same
    shown = [("original", [pair[0] for pair in most])]
    for document in documents:
        view = document["parameters"]["view"]
        label = f"{view['kind']}\n{view['setting']}".strip()
        shown.append((label, [pair[1] for pair in document["results"]["pictures"]]))
    shape = documents[0]["results"]["shape"]
    for line, (label, pictures) in zip(axes, shown, strict=True):
        for place, axis in enumerate(line):
            axis.set_axis_off()
            if place < len(pictures):
                axis.imshow(_decoded(pictures[place], shape), cmap="gray", vmin=0, vmax=255)
        line[0].text(-0.1, 0.5, label, ha="right", va="center", fontsize=8,
                     transform=line[0].transAxes)  # fmt: skip
    figure.savefig(path, format="png")


def _decoded(text: str, shape: Sequence[int]) -> NDArray[np.uint8]:
    """(height, width) of grey pictures, (height, width, 3) of coloured ones."""
    pixels = np.frombuffer(base64.b64decode(text), dtype=np.uint8).reshape(shape)
    return pixels[0] if shape[0] == 1 else pixels.transpose(1, 2, 0)


_SMALLEST_RATE = 1e-3


def draw_roc(curves: Sequence[Mapping[str, Any]], path: Path) -> None:
    """ROC curves on logarithmic axes, one panel for each training (PNG).

    Parameters
    ----------
    curves
        ``view``, ``training``, ``attack``, ``auc``, and the rates ``false`` and ``true``.
    path
        Where the picture goes.
    """
    trainings = list(dict.fromkeys(str(curve["training"]) for curve in curves))
    figure = Figure(figsize=(5 * len(trainings), 5), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(trainings), squeeze=False)[0]
    for axes, training in zip(panels, trainings, strict=True):
        diagonal = [_SMALLEST_RATE, 1]
        axes.plot(diagonal, diagonal, color="#8793a1", linestyle="--", linewidth=1, label="chance")
        for curve in curves:
            if curve["training"] == training:
                label = f"{curve['view']}, {curve['attack']}: AUC {curve['auc']:.2f}"
                false = np.maximum(curve["false"], _SMALLEST_RATE)
                true = np.maximum(curve["true"], _SMALLEST_RATE)
                axes.plot(false, true, linewidth=1.2, drawstyle="steps-post", label=label)
        axes.set(xscale="log", yscale="log", xlim=(_SMALLEST_RATE, 1), ylim=(_SMALLEST_RATE, 1))
        axes.set_xlabel("false positive rate")
        axes.set_ylabel("true positive rate")
        axes.set_title(f"training: {training}", loc="left", fontsize=10)
        axes.legend(frameon=False, loc="lower right", fontsize=7)
    figure.savefig(path, format="png")
