"""What makes tokens of a text: the model's own tokenizer or, where it has none, bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from transformers import PreTrainedTokenizerBase

from quancrypt_fl.lm.loading import ModelError, has_tokenizer, load_tokenizer
from quancrypt_fl.lm.texts import Encoder

__all__ = ["ByteEncoder", "TokenizerEncoder", "encoder_of"]

_BYTES = 256


class TokenizerEncoder:
    """A tokenizer of transformers."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        pad = tokenizer.pad_token_id
        end = tokenizer.eos_token_id
        self.pad = int(pad if pad is not None else end if end is not None else 0)

    def encode(self, text: str) -> list[int]:
        """See :class:`.Encoder`."""
        found = self._tokenizer(text, add_special_tokens=False, verbose=False)
        return cast("list[int]", found["input_ids"])

    def encode_sentences(self, sentences: Sequence[str], length: int) -> list[list[int]]:
        """See :class:`.Encoder`."""
        found = self._tokenizer(list(sentences), truncation=True, max_length=length, verbose=False)
        return cast("list[list[int]]", found["input_ids"])


class ByteEncoder:
    """Every byte of the text in UTF-8 is a token."""

    pad = 0

    def encode(self, text: str) -> list[int]:
        """See :class:`.Encoder`."""
        return list(text.encode())

    def encode_sentences(self, sentences: Sequence[str], length: int) -> list[list[int]]:
        """See :class:`.Encoder`."""
        return [list(sentence.encode())[:length] for sentence in sentences]


def encoder_of(folder: Path, vocabulary: int, task: str) -> Encoder:
    """The encoder for a model.

    Parameters
    ----------
    folder
        The model's.
    vocabulary
        Tokens that it knows.
    task
        A text is read in bytes where the folder has no tokenizer; a classifier needs one.

    Raises
    ------
    ModelError
        If there is no way to make tokens that the model knows.
    """
    if has_tokenizer(folder):
        return TokenizerEncoder(load_tokenizer(folder))
    if task != "causal":
        raise ModelError(f"{folder}: has no tokenizer; task {task} needs one")
    if vocabulary < _BYTES:
        raise ModelError(
            f"{folder}: has no tokenizer, and its {vocabulary} tokens are fewer than {_BYTES}, "
            "which reading bytes takes"
        )
    return ByteEncoder()
