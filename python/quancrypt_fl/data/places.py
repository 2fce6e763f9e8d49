"""Where the files of a data set lie, and what to say if they do not."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from quancrypt_fl.errors import DataError

__all__ = ["download_hint", "find_place", "required_folder"]


def required_folder(name: str, data_dir: Path | None, what: str, hint: str) -> Path:
    """``data_dir``, if it is a folder.

    Parameters
    ----------
    name
        The data set.
    what
        What the folder should hold, for the message.
    hint
        Where to get it, for the message.

    Raises
    ------
    DataError
        If ``data_dir`` is None or not a folder.
    """
    if data_dir is None:
        raise DataError(f"dataset {name!r} needs --data-dir: the folder with {what}; {hint}")
    if not data_dir.is_dir():
        problem = "is not a folder" if data_dir.exists() else "no such folder"
        raise DataError(f"{data_dir}: {problem}; dataset {name!r}: {hint}")
    return data_dir


def find_place(data_dir: Path, inner: Sequence[str], holds: Callable[[Path], bool]) -> Path | None:
    """The first of ``data_dir``'s subfolders ``inner``, then itself, of which ``holds`` is true."""
    for folder in (*(data_dir / name for name in inner), data_dir):
        if folder.is_dir() and holds(folder):
            return folder
    return None


def download_hint(name: str, data_dir: Path | None) -> str:
    """The command that downloads a data set, for messages."""
    folder = shlex.quote(str(data_dir or "data"))
    return f"to download it: quancrypt data --dataset {name} --data-dir {folder} --download"
