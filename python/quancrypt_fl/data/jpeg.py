"""JPEG files, and others if asked for, to small images of one size."""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.errors import DataError

__all__ = ["read_images"]

_MAX_PIXELS = 50_000_000  # a JPEG of a few kB can claim gigabytes
_LARGE_PIXELS = 4_000_000  # of an image as it is decoded: 30 MB in all its forms
_SHOWN_FAILURES = 5
_ONE_LARGE = threading.Lock()

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
# What Pillow's decoders raise by oversight, on files that contradict themselves:
_OVERSIGHTS = (AssertionError, TypeError, IndexError, KeyError)


def read_images(
    paths: Sequence[Path], size: int, *, formats: Sequence[str] = ("JPEG",), crop: bool = False
) -> NDArray[np.uint8]:
    """Read image files as RGB, scaled to ``size`` x ``size`` pixels whatever their aspect.

    Parameters
    ----------
    paths, size
        Files, and pixels of a side.
    formats
        Those of Pillow's formats that a file may have.
    crop
        Keep the aspect: scale the shorter side, bicubic, and keep the middle of the longer one.

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
    kinds = " or ".join(formats)

    def read(path: Path) -> NDArray[np.uint8] | str:
        return _read(path, size, formats, crop)

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for index, image in enumerate(pool.map(read, paths)):
            if isinstance(image, str):
                failures.append(f"{paths[index]}: {image}")
            else:
                images[index] = image
    if failures:
        count = f"a broken {kinds} file"
        if len(failures) > 1:
            count = f"{len(failures)} broken {kinds} files"
        more = len(failures) - _SHOWN_FAILURES
        shown = "; ".join(failures[:_SHOWN_FAILURES]) + (f"; and {more} more" if more > 0 else "")
        raise DataError(f"{count}: {shown}")
    return images


def _read(path: Path, size: int, formats: Sequence[str], crop: bool) -> NDArray[np.uint8] | str:
    """Shape (3, size, size), or what is wrong with the file."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        # The format is named: Pillow shall not try its other fifty decoders on a renamed file.
        with Image.open(path, formats=list(formats)) as image:
            if image.width * image.height > _MAX_PIXELS:
                return f"{image.width} x {image.height} pixels, more than {_MAX_PIXELS:,}"
            # Decoding at a half, quarter or eighth of the size is faster; still twice what is kept.
            image.draft("RGB", (2 * size, 2 * size))
            is_large = image.width * image.height > _LARGE_PIXELS
            with _ONE_LARGE if is_large else nullcontext():
                whole = image.convert("RGB")
                if crop:
                    small = ImageOps.fit(whole, (size, size), Image.Resampling.BICUBIC)
                else:
                    small = whole.resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(small, np.uint8).transpose(2, 0, 1)
    except UnidentifiedImageError:
        return f"not a {' or '.join(formats)} file"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"more than {_MAX_PIXELS:,} pixels"
    except _BROKEN as error:
        return (getattr(error, "strerror", None) or str(error)).rstrip(".")
    except _OVERSIGHTS as error:
        return f"contradicts itself ({type(error).__name__})"
