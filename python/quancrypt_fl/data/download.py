"""Downloads that resume, and are only kept if their checksum is the published one.

A file grows as ``NAME.part`` and gets its name when it is whole and verified, so that ``NAME``
never is half a file. What an interrupted download left is continued with an HTTP range request; a
server that does not know ranges sends the file from its start, which is noticed.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from quancrypt_fl.data.sources import RemoteFile
from quancrypt_fl.errors import DataError

__all__ = ["Progress", "download"]

Progress = Callable[[str, int, int], None]
"""Called with the name of a file, the bytes that are there, and its size."""

_CHUNK = 1 << 16
_TIMEOUT = 30.0  # seconds without a byte
_ATTEMPTS = 4  # in a row that bring nothing new, for each address
_PAUSE = 1.0  # seconds before the second such attempt; doubled for each further one
_LASTING = frozenset({400, 401, 403, 404, 405, 410, 451})  # asking again will not help


class _TryAgainError(Exception):
    """The attempt failed; another one may not."""


class _GiveUpError(Exception):
    """The address does not have the file."""


class _DiskError(OSError):
    """Writing failed, which no other connection will change."""


def download(
    files: Sequence[RemoteFile],
    folder: Path,
    progress: Progress | None = None,
    *,
    pause: float = _PAUSE,
) -> list[Path]:
    """Bring files into a folder, which is created.

    Parameters
    ----------
    files
        What to bring. Those that are there already, with the right checksum, are left alone.
    folder
        Where to.
    progress
        Is told how far each file is.
    pause
        Seconds to wait after a failed attempt.

    Returns
    -------
    list of pathlib.Path
        The files, verified.

    Raises
    ------
    DataError
        If a file cannot be had, or what came has another checksum (it is removed), or another file
        of that name is there (it is kept).
    """
    report = progress or (lambda name, done, size: None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_bring(file, folder, report, pause) for file in files]
    except OSError as error:
        place = error.filename or folder
        raise DataError(f"{place}: cannot be written: {error.strerror or error}") from error


def _bring(file: RemoteFile, folder: Path, report: Progress, pause: float) -> Path:
    target = folder / file.name
    if target.exists():
        found = _digest(target, file.algorithm)
        if found != file.digest:
            raise DataError(
                f"{target}: is there already, and is not the published file: {file.algorithm} "
                f"{found}, expected {file.digest}; move it away, or use it without --download"
            )
        report(file.name, file.size, file.size)
        return target
    part = folder / f"{file.name}.part"
    with _locked(part) as stream:
        url = _fill(file, stream, report, pause)
        stream.flush()
        os.fsync(stream.fileno())
        found = _digest(part, file.algorithm)
        if found != file.digest:
            part.unlink()
            raise DataError(
                f"{part}: removed: its {file.algorithm} is {found}, expected {file.digest} "
                f"(from {url}); run the command again to start afresh"
            )
        part.replace(target)
    return target


@contextmanager
def _locked(part: Path) -> Iterator[IO[bytes]]:
    """The open file, which no other process fills at the same time."""
    with part.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{part}: another process is downloading it") from error
        except OSError:
            pass  # a file system without locks
        yield stream


def _fill(file: RemoteFile, stream: IO[bytes], report: Progress, pause: float) -> str:
    """Complete the partial file and return the last address that was used."""
    if stream.tell() > file.size:
        _start_over(stream)
    failures = []
    for url in file.urls:
        misses, furthest = 0, stream.tell()
        while stream.tell() < file.size:
            try:
                _attempt(url, file, stream, report)
            except _GiveUpError as error:
                failures.append(f"{url}: {error}")
                break
            except (_TryAgainError, OSError, http.client.HTTPException) as error:
                if isinstance(error, _DiskError):
                    raise
                # Not "further than before": a server without ranges starts over each time.
                misses = 0 if stream.tell() > furthest else misses + 1
                furthest = max(furthest, stream.tell())
                if misses == _ATTEMPTS:
                    failures.append(f"{url}: {_reason(error)}")
                    break
                if misses:
                    time.sleep(pause * 2 ** (misses - 1))
        if stream.tell() == file.size:
            report(file.name, file.size, file.size)
            return url
    kept = f" ({stream.tell():,} of {file.size:,} bytes are kept)" if stream.tell() else ""
    raise DataError(f"{file.name}: cannot be downloaded{kept}: {'; '.join(failures)}")


def _attempt(url: str, file: RemoteFile, stream: IO[bytes], report: Progress) -> None:
    """Append what one connection brings."""
    start = stream.tell()
    headers = {"Accept-Encoding": "identity", "User-Agent": "quancrypt"}
    if start:
        headers["Range"] = f"bytes={start}-"
    # Built anew, so that proxies are those of the environment now.
    opener = urllib.request.build_opener()
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:
                _start_over(stream)
                raise _TryAgainError(f"HTTP {error.code}") from error
            kind = _GiveUpError if error.code in _LASTING else _TryAgainError
            raise kind(f"HTTP {error.code} {error.reason}") from error
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            if start:
                _start_over(stream)
            start = 0
        elif _range_start(response.headers.get("Content-Range")) != start:
            raise _GiveUpError("the server answers with another range than the one asked for")
        length = response.headers.get("Content-Length")
        if length is not None and length.isdigit() and start + int(length) != file.size:
            raise _GiveUpError(
                f"the server offers {start + int(length):,} bytes, expected {file.size:,}"
            )
        _copy(response, file, stream, report)


def _copy(
    response: http.client.HTTPResponse, file: RemoteFile, stream: IO[bytes], report: Progress
) -> None:
    report(file.name, stream.tell(), file.size)
    while chunk := response.read(_CHUNK):
        if stream.tell() + len(chunk) > file.size:
            _start_over(stream)
            raise _GiveUpError(f"the server sends more than the expected {file.size:,} bytes")
        try:
            stream.write(chunk)
        except OSError as error:
            raise _DiskError(error.errno, error.strerror, stream.name) from error
        report(file.name, stream.tell(), file.size)
    if stream.tell() < file.size:
        raise _TryAgainError(f"the connection ended after {stream.tell():,} of {file.size:,} bytes")


def _start_over(stream: IO[bytes]) -> None:
    stream.seek(0)
    stream.truncate()


def _range_start(header: str | None) -> int | None:
    match = re.match(r"bytes (\d+)-", header or "")
    return int(match[1]) if match else None


def _reason(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason) or type(reason).__name__


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(
            stream, lambda: hashlib.new(algorithm, usedforsecurity=False)
        ).hexdigest()
