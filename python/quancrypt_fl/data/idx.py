"""Reader of IDX files, plain or gzipped: the format of MNIST and Fashion-MNIST.

Layout (big-endian): two zero bytes, the element type (0x08: unsigned byte), the number of
dimensions, then one 4-byte size per dimension, then the elements. Offsets in error messages count
bytes of the uncompressed content.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.errors import DataError

__all__ = ["LABEL_OFFSET", "read_idx"]

LABEL_OFFSET = 8
"""Byte at which the first element of a one-dimensional file stands."""

_UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_BYTES = 1 << 32


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes.

    Parameters
    ----------
    path
        The file; it is unzipped if it starts like gzip.
    dimensions
        Expected number of dimensions: 1 for labels, 3 for images.

    Raises
    ------
    DataError
        Naming the file, the offset and the reason, if the file is not such a file, is truncated, or
        has bytes after its end.
    """
    content = _content(path)
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise _broken(path, len(content), f"truncated inside the header of {header} bytes")
    if content[:2] != b"\0\0":
        raise _broken(path, 0, f"an IDX file starts with two zero bytes, found {content[:2].hex()}")
    if content[2] != _UNSIGNED_BYTE:
        raise _broken(path, 2, f"element type 0x{content[2]:02x}, expected 0x08 (unsigned byte)")
    if content[3] != dimensions:
        raise _broken(path, 3, f"{content[3]} dimensions, expected {dimensions}")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4))
    expected = header + math.prod(shape)
    if len(content) < expected:
        raise _broken(
            path,
            len(content),
            f"truncated: shape {shape} needs {expected} bytes, the file has {len(content)}",
        )
    if len(content) > expected:
        raise _broken(path, expected, f"{len(content) - expected} bytes after the end of the data")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _content(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if not raw.startswith(_GZIP_MAGIC):
        return raw
    content = bytearray()
    try:
        with gzip.open(path) as stream:
            while chunk := stream.read1(1 << 20):  # short before damage, where read raises
                content += chunk
                if len(content) > _MAX_BYTES:
                    raise _broken(path, _MAX_BYTES, "unzips to more than 4 GiB")
    except (EOFError, OSError, zlib.error) as error:
        raise _broken(path, len(content), f"damaged gzip stream ({error})") from error
    return bytes(content)


def _broken(path: Path, offset: int, reason: str) -> DataError:
    return DataError(f"{path}: at byte {offset}: {reason}")
