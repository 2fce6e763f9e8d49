"""How like its original a reconstruction is. Pixels are in [0, 1]."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from quancrypt_fl.errors import ConfigError
from quancrypt_fl.machine import installed

__all__ = ["best_match", "mse", "psnr", "require_ssim", "ssim"]

Image = NDArray[np.float32]

PERFECT_PSNR = 100.0  # dB; stands for an error below 1e-10, whose logarithm tells nothing
_LARGEST_WINDOW = 7


def mse(image: Image, other: Image) -> float:
    """Mean squared error."""
    return float(np.mean(np.square(image.astype(np.float64) - other)))


def psnr(image: Image, other: Image) -> float:
    """``-10 log10(MSE)`` in dB, at most 100."""
    error = mse(image, other)
    return min(PERFECT_PSNR, -10 * math.log10(error)) if error > 0 else PERFECT_PSNR


def ssim(image: Image, other: Image) -> float:
    """Structural similarity (Wang et al. 2004) of images (channels, height, width).

    scikit-image's, with a window of 7 x 7, or the largest odd one that fits.
    """
    from skimage.metrics import structural_similarity

    side = min(_LARGEST_WINDOW, *image.shape[1:])
    return float(
        structural_similarity(  # type: ignore[no-untyped-call]
            image.astype(np.float64),
            other.astype(np.float64),
            win_size=side - 1 + side % 2,
            data_range=1.0,
            channel_axis=0,
        )
    )


def require_ssim() -> None:
    """Raise a ConfigError where scikit-image is not installed."""
    if installed("scikit-image") is None:
        raise ConfigError(
            "SSIM needs scikit-image, which is not installed: "
            "pip install 'quancrypt-native[leakage]'"
        )


def best_match(originals: Image, found: Image) -> NDArray[np.int64]:
    """For each original the index of its reconstruction, so that the sum of errors is smallest.

    Both have the shape (images, channels, height, width): the order within a batch does not show
    in its gradient.
    """
    errors = np.square(originals[:, np.newaxis] - found[np.newaxis]).mean(axis=(2, 3, 4))
    return np.asarray(linear_sum_assignment(errors)[1], dtype=np.int64)
