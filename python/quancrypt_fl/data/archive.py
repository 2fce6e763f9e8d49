"""Members of a gzipped tar archive, read into memory: nothing in it is ever unpacked to disk.

Names in an archive therefore cannot lead anywhere, and links and devices in it are passed over.
The whole archive is read to its end, so that gzip's checksum covers what is returned.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, cast

from quancrypt_fl.errors import DataError

__all__ = ["read_members"]

_MAX_BYTES = 1 << 30  # of the unpacked archive; the largest data set here has 185 MB
_MAX_MEMBERS = 1000


class _Counting:
    """A reader that knows how much it has handed out and stops at ``_MAX_BYTES``."""

    def __init__(self, stream: gzip.GzipFile, path: Path) -> None:
        self._stream, self._path = stream, path
        self.offset = 0

    def read(self, size: int) -> bytes:
        data = self._stream.read1(size)  # hands out all that precedes damage
        self.offset += len(data)
        if self.offset > _MAX_BYTES:
            raise DataError(
                f"{self._path}: unpacks to more than {_MAX_BYTES >> 20} MiB: not this data set"
            )
        return data


def read_members(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Contents of the regular files whose base name is wanted, by base name.

    Raises
    ------
    DataError
        Naming the file, the offset in the unpacked archive and the reason, if it is damaged,
        unreasonably large, or holds a wanted name twice.
    """
    found: dict[str, bytes] = {}
    offset = 0
    try:
        with gzip.open(path) as unzipped:
            stream = _Counting(unzipped, path)
            try:
                _collect(path, stream, wanted, found)
                while stream.read(1 << 20):
                    pass
            finally:
                offset = stream.offset
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: at byte {offset}: damaged archive ({error})") from error
    return found


def _collect(
    path: Path, stream: _Counting, wanted: Callable[[str], bool], found: dict[str, bytes]
) -> None:
    with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|") as archive:
        for count, member in enumerate(archive, start=1):
            if count > _MAX_MEMBERS:
                raise DataError(f"{path}: has more than {_MAX_MEMBERS} members: not this data set")
            name = PurePosixPath(member.name).name
            if not member.isreg() or not wanted(name):
                continue
            if name in found:
                raise DataError(f"{path}: holds {name} twice")
            content = archive.extractfile(member)
            assert content is not None  # of a regular file
            found[name] = content.read()
            if len(found[name]) != member.size:
                raise DataError(
                    f"{path}: at byte {stream.offset}: truncated: {name} should have "
                    f"{member.size} bytes, {len(found[name])} are there"
                )
