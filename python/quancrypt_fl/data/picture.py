"""The picture of a split: a matrix of clients and classes, and how much each client has."""

from __future__ import annotations

from typing import IO

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from quancrypt_fl.data.dataset import ImageDataset

__all__ = ["draw_split"]

_INK, _GREY, _PALE, _BLUE = "#1f2933", "#5d6b7a", "#f1f3f5", "#1f6fb4"
_SHADES = LinearSegmentedColormap.from_list("samples", ["#cfe2f2", "#1f6fb4", "#0b2a4a"])
_WIDTH = 10.0  # inches
_FEW = 12  # columns that have room for a name and a sample image each
_SAMPLES = 20  # images shown where there are more classes
_THUMBNAIL = 32.0  # points
_RASTER_FROM = 3000  # cells from which vector files hold the matrix as an image


def draw_split(
    dataset: ImageDataset,
    counts: NDArray[np.int64],
    title: str,
    subtitle: str,
    stream: IO[bytes],
    file_format: str,
) -> None:
    """Draw how samples are divided over clients.

    Parameters
    ----------
    dataset
        Where names of classes and sample images come from.
    counts
        Samples of each class that each client has, shape (clients, classes).
    title, subtitle
        Two lines above.
    stream, file_format
        Where to write, and ``"png"``, ``"svg"`` or ``"pdf"``. Equal arguments give equal bytes.
    """
    matrix_height = min(max(0.3 * len(counts), 1.2), 7.0)
    strip_height = 0.75
    figure = Figure(
        figsize=(_WIDTH, matrix_height + strip_height + 1.3),
        dpi=150,
        layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06, hspace=0.0),
    )
    grid = figure.add_gridspec(
        2, 2, height_ratios=(strip_height, matrix_height), width_ratios=(1.0, 0.22)
    )
    matrix = figure.add_subplot(grid[1, 0])
    _matrix(figure, matrix, dataset, counts)
    strip = figure.add_subplot(grid[0, 0])
    strip.set_title(subtitle, loc="left", color=_GREY, fontsize=9.5)
    _samples(strip, dataset)
    _totals(figure.add_subplot(grid[1, 1], sharey=matrix), counts)
    figure.suptitle(title, x=0.01, ha="left", color=_INK, fontsize=12, weight="bold")
    # Dates and random identifiers are left out of vector files.
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(file_format)
    with matplotlib.rc_context({"svg.hashsalt": "quancrypt", "svg.fonttype": "path"}):
        figure.savefig(stream, format=file_format, metadata=metadata)


def _matrix(figure: Figure, axes: Axes, dataset: ImageDataset, counts: NDArray[np.int64]) -> None:
    clients, classes = counts.shape
    few = clients <= _FEW and classes <= _FEW
    axes.set_facecolor(_PALE)
    mesh = axes.pcolormesh(
        np.ma.masked_equal(counts, 0),
        cmap=_SHADES,
        vmin=0,
        vmax=max(int(counts.max()), 1),
        edgecolors="white",
        linewidth=1.0 if few else 0.3 if max(clients, classes) <= 100 else 0.0,
        rasterized=counts.size >= _RASTER_FROM,
    )
    if few:
        dark = counts > 0.36 * counts.max()
        for (client, label), number in np.ndenumerate(counts):
            if number:
                axes.text(
                    label + 0.5,
                    client + 0.5,
                    f"{number:,}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if dark[client, label] else _INK,
                )
    else:
        bar = figure.colorbar(mesh, ax=axes, location="bottom", aspect=60, pad=0.02, shrink=0.6)
        bar.set_label("samples of a class (grey: none)", color=_GREY, fontsize=8.5)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8, colors=_INK, length=2)
        bar.locator = MaxNLocator(integer=True, nbins=6)
        bar.update_ticks()
    axes.invert_yaxis()
    _ticks(axes, clients, [dataset.class_name(label) for label in range(classes)])


def _ticks(axes: Axes, clients: int, names: list[str]) -> None:
    step = _step(clients, 25)
    axes.set_yticks(np.arange(0, clients, step) + 0.5, [str(i) for i in range(0, clients, step)])
    axes.set_ylabel("client", color=_INK, fontsize=9.5)
    if len(names) <= _FEW:
        long = max(len(name) for name in names) > 11
        axes.set_xticks(
            np.arange(len(names)) + 0.5,
            names,
            rotation=20 if long else 0,
            ha="right" if long else "center",
        )
        axes.set_xlabel("class", color=_INK, fontsize=9.5)
    else:
        step = _step(len(names), 25)
        shown = range(0, len(names), step)
        axes.set_xticks(np.array(shown) + 0.5, [str(label) for label in shown])
        axes.set_xlabel("class (number of its label)", color=_INK, fontsize=9.5)
    axes.tick_params(colors=_INK, labelsize=8.5, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _step(count: int, most: int) -> int:
    """The smallest of 1, 2, 5, 10, ... that gives at most ``most`` ticks."""
    scale = 1
    while True:
        for step in (scale, 2 * scale, 5 * scale):
            if count <= step * most:
                return step
        scale *= 10


def _totals(axes: Axes, counts: NDArray[np.int64]) -> None:
    totals = counts.sum(axis=1)
    axes.barh(np.arange(len(totals)) + 0.5, totals, height=0.75, color=_BLUE)
    axes.set_xlim(0, 1.28 * totals.max())
    if len(totals) <= 25:
        for client, total in enumerate(totals):
            axes.text(
                total + 0.03 * totals.max(),
                client + 0.5,
                f"{total:,}",
                va="center",
                fontsize=8,
                color=_INK,
            )
        axes.set_xticks([])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    axes.set_xlabel("samples of a client", color=_INK, fontsize=9.5)
    axes.tick_params(colors=_INK, labelsize=8.5, length=0, labelleft=False)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(_GREY)


def _samples(axes: Axes, dataset: ImageDataset) -> None:
    """One training image of each class, above its column; of some classes where there are many."""
    axes.axis("off")
    labels, first = np.unique(dataset.train.labels, return_index=True)
    if dataset.classes <= _FEW:
        shown = [(label + 0.5, index, "") for label, index in zip(labels, first, strict=True)]
        axes.set_xlim(0, dataset.classes)
    else:
        picks = np.unique(np.linspace(0, len(labels) - 1, _SAMPLES).round().astype(np.int64))
        shown = [(place + 0.5, first[pick], str(labels[pick])) for place, pick in enumerate(picks)]
        axes.set_xlim(0, len(picks))
    axes.set_ylim(0, 1)
    images = dataset.train.images[[index for _, index, _ in shown]]
    low = images.min(axis=(0, 2, 3), keepdims=True)
    span = images.max(axis=(0, 2, 3), keepdims=True) - low
    scaled = ((images - low) / np.where(span > 0, span, 1)).transpose(0, 2, 3, 1)
    size = _THUMBNAIL if dataset.classes <= _FEW else 22.0
    for (place, _, caption), image in zip(shown, scaled, strict=True):
        grey = image.shape[2] == 1
        picture = OffsetImage(
            image[:, :, 0] if grey else image,
            zoom=size / max(image.shape[:2]),
            cmap="gray_r" if grey else None,
            interpolation="nearest",
        )
        axes.add_artist(AnnotationBbox(picture, (place, 0.5), frameon=False, pad=0))
        if caption:
            axes.text(place, 0.0, caption, ha="center", va="bottom", fontsize=7.5, color=_GREY)
