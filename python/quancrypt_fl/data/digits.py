"""scikit-learn's bundled digits: 1,797 real 8x8 images, no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.data.dataset import ImageDataset, Samples
from quancrypt_fl.seeds import generator

__all__ = ["load_digits"]

_LARGEST_PIXEL = 16.0
_MEAN, _STD = 0.3053, 0.3760  # of all pixels, scaled to [0, 1]
_TEST_SHARE = 0.2


def load_digits(data_dir: Path | None, seed: int) -> ImageDataset:
    """Load the digits; a fifth of each class, drawn with ``seed``, is the test set.

    ``data_dir`` is not used: the images come with scikit-learn.
    """
    del data_dir
    from sklearn.datasets import load_digits as load_bundled

    bundle = load_bundled()
    labels = np.asarray(bundle.target, dtype=np.int64)
    pixels = np.asarray(bundle.images, dtype=np.float32)[:, np.newaxis] / _LARGEST_PIXEL
    images = ((pixels - _MEAN) / _STD).astype(np.float32)
    everything = Samples(images, labels)
    test = _stratified(labels, seed)
    train = np.setdiff1d(np.arange(len(labels)), test)
    return ImageDataset(
        "digits",
        everything.take(train),
        everything.take(test),
        classes=10,
        mean=(_MEAN,),
        std=(_STD,),
    )


def _stratified(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Sorted indices of a fifth of every class."""
    rng = generator(seed, "digits-test-set")
    chosen = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        chosen.append(members[: round(_TEST_SHARE * len(members))])
    return np.sort(np.concatenate(chosen))
