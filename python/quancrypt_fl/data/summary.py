"""What there is of each class, in the whole data set and with each client, as a document."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.data.dataset import ImageDataset
from quancrypt_fl.data.partition import Split

__all__ = ["summarise"]


def summarise(dataset: ImageDataset, divided: Split) -> dict[str, Any]:
    """Sizes and counts, in plain lists and numbers.

    Returns
    -------
    dict
        ``dataset``, ``image_shape`` (channels, height, width), ``classes``, ``class_names``,
        ``notes``; ``train`` and ``test`` with ``samples`` and ``counts`` (per class); ``split``
        with ``validation`` as these, and ``clients``: ``samples``, ``classes`` (how many are there)
        and ``counts`` of each.
    """
    labels, classes = dataset.train.labels, dataset.classes
    return {
        "dataset": dataset.name,
        "image_shape": list(dataset.image_shape),
        "classes": classes,
        "class_names": [dataset.class_name(label) for label in range(classes)],
        "notes": list(dataset.notes),
        "train": _part(labels, classes),
        "test": _part(dataset.test.labels, classes),
        "split": {
            "validation": _part(labels[divided.validation], classes),
            "clients": [
                {
                    "samples": int(counts.sum()),
                    "classes": int(np.count_nonzero(counts)),
                    "counts": counts.tolist(),
                }
                for counts in divided.counts(labels, classes)
            ],
        },
    }


def _part(labels: NDArray[np.int64], classes: int) -> dict[str, Any]:
    return {
        "samples": len(labels),
        "counts": np.bincount(labels, minlength=classes).tolist(),
    }
