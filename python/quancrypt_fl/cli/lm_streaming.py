"""Text that grows on the terminal while a model makes it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from quancrypt_fl.cli.text import printable

if TYPE_CHECKING:
    from quancrypt_fl.lm.codecs import Codec

__all__ = ["Shown", "printable_text"]


def printable_text(text: str) -> str:
    """Text of several lines without what a terminal could take for a command."""
    return "\n".join(printable(line) for line in text.replace("\r\n", "\n").split("\n"))


class Shown:
    """Tokens as they come.

    Parameters
    ----------
    codec
        Of the model.
    sequences
        How many texts there are; only a single one is shown as it grows.
    silent
        Show nothing.

    Attributes
    ----------
    tokens
        Of each sequence.
    """

    def __init__(self, codec: Codec, sequences: int, *, silent: bool) -> None:
        from quancrypt_fl.lm.codecs import Pieces

        self.tokens: list[list[int]] = [[] for _ in range(sequences)]
        self._codec = codec
        self._pieces = None if silent or sequences > 1 else Pieces(codec, _write)

    def add(self, sequence: int, token: int) -> None:
        """One more token."""
        self.tokens[sequence].append(token)
        if self._pieces is not None:
            self._pieces.add(token)

    def end(self) -> bool:
        """No more tokens will come; whether text has been shown."""
        if self._pieces is None:
            return False
        self._pieces.end()  # type: ignore[no-untyped-call]
        _write("\n")
        return True

    def text(self, sequence: int) -> str:
        """A whole text, without the prompt."""
        return self._codec.decode(self.tokens[sequence])


def _write(text: str) -> None:
    sys.stdout.write(printable_text(text))
    sys.stdout.flush()
