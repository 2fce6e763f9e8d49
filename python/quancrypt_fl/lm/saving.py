"""A model's folder, written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedModel

from quancrypt_fl.lm.loading import ModelError, quietly

__all__ = ["check_new_folder", "copy_tokenizer", "folder_bytes", "new_folder", "save_plain"]

_BESIDE_WEIGHTS = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
    "*.model", "chat_template*", "preprocessor_config.json", "processor_config.json",
)  # fmt: skip


def check_new_folder(out: Path, inputs: Collection[Path]) -> None:
    """Raise :class:`ModelError` unless ``out`` can become a folder beside what is read.

    Parameters
    ----------
    out
        Absent, or an empty folder.
    inputs
        Folders that are read: ``out`` is none of them, and in none of them.
    """
    whole = Path(os.path.realpath(out))
    for folder in inputs:
        other = Path(os.path.realpath(folder))
        if whole == other or other in whole.parents:
            raise ModelError(f"{out}: is, or is in, {folder}, which is read; name another folder")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ModelError(f"{out}: exists already; allowed: a folder that is new or empty")
    if not whole.parent.is_dir():
        raise ModelError(f"{out}: there is no folder {whole.parent}")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which gets its name when all is in it, and goes where something fails."""
    whole = Path(os.path.realpath(out))
    scratch = Path(tempfile.mkdtemp(prefix=f".{whole.name}-", dir=whole.parent))
    try:
        yield scratch
        scratch.chmod(0o777 & ~_umask())
        scratch.replace(whole)  # also over an empty folder
    except OSError as error:
        raise ModelError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def save_plain(model: PreTrainedModel, folder: Path) -> None:
    """Weights as safetensors and the configuration, for ``from_pretrained``."""
    with quietly(folder):
        model.save_pretrained(folder)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """The files of tokenizer and preprocessor, as they are; none where the model has none."""
    for pattern in _BESIDE_WEIGHTS:
        for file in source.glob(pattern):
            if file.is_file():
                shutil.copyfile(file, folder / file.name)


def folder_bytes(folder: Path) -> int:
    """Bytes of the weights in a model's folder."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current
