"""JPEG files to small images of one size."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.errors import DataError

__all__ = ["read_images"]

_MAX_PIXELS = 50_000_000  # a JPEG of a few kB can claim gigabytes
_SHOWN_FAILURES = 5


def read_images(paths: Sequence[Path], size: int) -> NDArray[np.uint8]:
    """Read JPEG files as RGB, scaled to ``size`` x ``size`` pixels whatever their aspect.

    Returns
    -------
    numpy.ndarray
        uint8, shape (files, 3, size, size).

    Raises
    ------
    DataError
        Naming the broken files, all of which are looked for before it is raised.
    """
    images = np.empty((len(paths), 3, size, size), np.uint8)
    failures = []
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for index, image in enumerate(pool.map(_read, paths, [size] * len(paths))):
            if isinstance(image, str):
                failures.append(f"{paths[index]}: {image}")
            else:
                images[index] = image
    if failures:
        count = "a broken JPEG file" if len(failures) == 1 else f"{len(failures)} broken JPEG files"
        more = len(failures) - _SHOWN_FAILURES
        shown = "; ".join(failures[:_SHOWN_FAILURES]) + (f"; and {more} more" if more > 0 else "")
        raise DataError(f"{count}: {shown}")
    return images


def _read(path: Path, size: int) -> NDArray[np.uint8] | str:
    """Shape (3, size, size), or what is wrong with the file."""
    from PIL import Image, UnidentifiedImageError

    try:
        # The format is named: Pillow shall not try its other fifty decoders on a renamed file.
        with Image.open(path, formats=["JPEG"]) as image:
            if image.width * image.height > _MAX_PIXELS:
                return f"{image.width} x {image.height} pixels, more than {_MAX_PIXELS:,}"
            # Decoding at a half, quarter or eighth of the size is faster; still twice what is kept.
            image.draft("RGB", (2 * size, 2 * size))
            small = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(small, np.uint8).transpose(2, 0, 1)
    except UnidentifiedImageError:
        return "not a JPEG file"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"more than {_MAX_PIXELS:,} pixels"
    except (OSError, SyntaxError, ValueError) as error:
        return (getattr(error, "strerror", None) or str(error)).rstrip(".")
