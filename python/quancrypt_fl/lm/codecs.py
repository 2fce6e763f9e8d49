"""From text to tokens and back: the model's tokenizer, or bytes where it has none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase, TextStreamer

from quancrypt_fl.lm.encoders import ByteEncoder, encoder_of
from quancrypt_fl.lm.loading import load_tokenizer

__all__ = ["Codec", "Pieces", "codec_of"]

_BYTES = 256


class Codec(Protocol):
    """Both directions."""

    def encode(self, text: str) -> list[int]:
        """Tokens of a prompt, with those that the model expects at its beginning."""

    def decode(self, tokens: Sequence[int], **options: Any) -> str:
        """Text of tokens, without special ones; ``options`` are of transformers."""


class _TokenizerCodec:
    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        return cast("list[int]", self._tokenizer(text, verbose=False)["input_ids"])

    def decode(self, tokens: Sequence[int] | int, **options: Any) -> str:
        del options
        whole = tokens if isinstance(tokens, int) else list(tokens)
        return cast("str", self._tokenizer.decode(whole, skip_special_tokens=True))


class _ByteCodec:
    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: Sequence[int] | int, **options: Any) -> str:
        del options
        known = [t for t in ([tokens] if isinstance(tokens, int) else tokens) if t < _BYTES]
        return bytes(known).decode("utf-8", "replace")


def codec_of(folder: Path, config: PreTrainedConfig) -> Codec:
    """For the causal model in a folder.

    Raises
    ------
    ModelError
        If it has no tokenizer, and too few tokens for bytes.
    """
    encoder = encoder_of(folder, int(config.get_text_config().vocab_size), "causal")
    if isinstance(encoder, ByteEncoder):
        return _ByteCodec()
    return _TokenizerCodec(load_tokenizer(folder))


class Pieces(TextStreamer):
    """Turns tokens into pieces of text as soon as they are whole words.

    Parameters
    ----------
    codec
        Of the model.
    on_text
        Gets each piece.
    """

    def __init__(self, codec: Codec, on_text: Callable[[str], None]) -> None:
        super().__init__(cast("PreTrainedTokenizerBase", codec))  # of which it uses decode() alone
        self._on_text = on_text

    def add(self, token: int) -> None:
        """One more token."""
        self.put(torch.tensor([token]))  # type: ignore[no-untyped-call]

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Called by the base class; ``stream_end``: it was the last piece."""
        del stream_end
        if text:
            self._on_text(text)
