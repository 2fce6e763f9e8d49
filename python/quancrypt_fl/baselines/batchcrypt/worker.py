"""One process of the pool: Paillier by ``phe``, on integers from stdin, until stdin ends.

Run as a script, so that it imports ``phe`` and ``gmpy2`` and nothing else: neither torch nor the
program that started it. All numbers are big-endian. The first message is the key::

    4 bytes   width: bytes of the modulus
    width * 3 n, p, q

Each further message is a request, answered by as many numbers of the other width::

    1 byte    E (encrypt) or D (decrypt)
    4 bytes   count
    ...       plaintexts of ``width`` bytes, or ciphertexts of ``2 * width`` bytes
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import BinaryIO

ENCRYPT, DECRYPT = b"E", b"D"
COUNT_BYTES = 4


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer requests until ``source`` ends."""
    from phe.paillier import PaillierPrivateKey, PaillierPublicKey

    width = _number(source, COUNT_BYTES)
    n, p, q = (_number(source, width) for _ in range(3))
    public = PaillierPublicKey(n)
    private = PaillierPrivateKey(public, p, q)
    while kind := source.read(1):
        count = _number(source, COUNT_BYTES)
        if kind == ENCRYPT:
            given, answered, work = width, 2 * width, public.raw_encrypt
        else:
            given, answered, work = 2 * width, width, private.raw_decrypt
        numbers = [_number(source, given) for _ in range(count)]
        sink.write(b"".join(work(number).to_bytes(answered, "big") for number in numbers))
        sink.flush()


def _number(source: BinaryIO, width: int) -> int:
    data = source.read(width)
    if len(data) != width:
        raise EOFError
    return int.from_bytes(data, "big")


if __name__ == "__main__":
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent is gone, or wants us gone
        serve(sys.stdin.buffer, sys.stdout.buffer)
    os._exit(0)  # an answer that nobody reads is not flushed once more
