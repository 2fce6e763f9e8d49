"""Paillier by ``phe`` over gmpy2: keys, sums without a key, and a pool of processes for the rest.

The processes are started with pipes (:mod:`.worker`) and driven by threads. ``multiprocessing``
would import the main program into every child, torch and all, and would need its ``__main__``
guard; and its children print tracebacks at Ctrl-C.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

from quancrypt_fl.baselines.envelope import required
from quancrypt_fl.errors import MethodError

__all__ = ["MIN_KEY_BITS", "Pool", "PublicKey", "SecretKey", "generate"]

MIN_KEY_BITS, MAX_KEY_BITS = 128, 16384
"""Below 2048 bits a modulus protects nothing; tests and examples use small ones to be quick."""

_ENCRYPT, _DECRYPT = b"E", b"D"
_COUNT_BYTES = 4
_MAX_CHUNK = 32  # integers per request: a third of a second at 2048 bits
_CHUNKS = 4  # requests per process, at least: none waits for the last one of another for long
_PATIENCE = 5.0  # seconds for a child to leave once its stdin has ended


@dataclass(frozen=True)
class PublicKey:
    """The modulus: enough to encrypt and to add.

    Attributes
    ----------
    n
        Product of two primes, of exactly ``bits`` bits.
    """

    n: int

    @property
    def bits(self) -> int:
        """Bits of the modulus."""
        return self.n.bit_length()

    @property
    def width(self) -> int:
        """Bytes of a serialized plaintext; a ciphertext has twice as many."""
        return -(-self.bits // 8)

    @property
    def fingerprint(self) -> str:
        """First 16 bytes of SHA-256 of the modulus, hexadecimal."""
        return hashlib.sha256(self.n.to_bytes(self.width, "big")).hexdigest()[:32]

    def add(self, a: Sequence[int], b: Sequence[int]) -> list[int]:
        """Ciphertexts of sums: products modulo ``n^2``."""
        mulmod, square = _util().mulmod, self.n * self.n
        return [mulmod(x, y, square) for x, y in zip(a, b, strict=True)]


@dataclass(frozen=True)
class SecretKey:
    """The primes. Printed, copied or pickled, it shows nothing or raises."""

    public: PublicKey
    p: int = field(repr=False)
    q: int = field(repr=False)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Paillier secret key is never serialized")


def generate(bits: int) -> SecretKey:
    """A fresh key, from the operating system's randomness.

    Raises
    ------
    MethodError
        If ``phe`` or gmpy2 is not installed, or ``bits`` is odd or out of range.
    """
    if not MIN_KEY_BITS <= bits <= MAX_KEY_BITS or bits % 2:
        raise MethodError(
            f"a Paillier modulus of {bits} bits; allowed: even, {MIN_KEY_BITS} to {MAX_KEY_BITS}"
        )
    _util()
    (phe,) = required("phe.paillier")
    public, private = phe.generate_paillier_keypair(n_length=bits)
    return SecretKey(PublicKey(public.n), private.p, private.q)


class Pool:
    """Encrypts and decrypts many integers over several processes.

    Holds the secret key: nothing that the server can reach may refer to it. Processes start at the
    first use and end with :meth:`close`, with the object, or with the program; after an interrupted
    call they are gone, and the next call starts new ones.

    Parameters
    ----------
    secret
        The key. It goes to the processes through their pipes, and nowhere else.
    processes
        How many; None for one per processor. With 1 everything happens in this process.
    """

    def __init__(self, secret: SecretKey, processes: int | None = None) -> None:
        if processes is not None and processes < 1:
            raise MethodError(f"processes is {processes}; allowed: 1 or more")
        self.processes = processes or len(os.sched_getaffinity(0))
        self._secret = secret
        self._one_call = threading.Lock()  # a child answers one thread at a time
        self._children: list[subprocess.Popen[bytes]] = []
        self._stop: Callable[[], object] = lambda: None

    def encrypt(self, plaintexts: Sequence[int]) -> list[int]:
        """Ciphertexts of integers in ``[0, n)``, with randomness of the operating system."""
        if self.processes == 1:
            encrypt = self._local(secret=False).raw_encrypt
            return [encrypt(number) for number in plaintexts]
        return self._map(_ENCRYPT, plaintexts)

    def decrypt(self, ciphertexts: Sequence[int]) -> list[int]:
        """Integers in ``[0, n)`` of ciphertexts in ``[1, n^2)``."""
        if self.processes == 1:
            decrypt = self._local(secret=True).raw_decrypt
            return [decrypt(number) for number in ciphertexts]
        return self._map(_DECRYPT, ciphertexts)

    def close(self) -> None:
        """End the processes and wait for them."""
        self._stop()
        self._children = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _local(self, *, secret: bool) -> Any:
        (phe,) = required("phe.paillier")
        public = phe.PaillierPublicKey(self._secret.public.n)
        if not secret:
            return public
        return phe.PaillierPrivateKey(public, self._secret.p, self._secret.q)

    def _map(self, kind: bytes, numbers: Sequence[int]) -> list[int]:
        """Answers to ``numbers``, in order: each child has a thread that takes chunks for it.

        The threads share queues that are written in C, and nothing else: an interrupt within the
        locks of ``concurrent.futures`` may leave one of them locked for good.
        """
        width = self._secret.public.width
        given, answered = (width, 2 * width) if kind == _ENCRYPT else (2 * width, width)
        size = _chunk_size(len(numbers), self.processes)
        chunks = [numbers[at : at + size] for at in range(0, len(numbers), size)]
        left: SimpleQueue[int] = SimpleQueue()
        for index in range(len(chunks)):
            left.put(index)
        done: SimpleQueue[tuple[int, list[int] | MethodError]] = SimpleQueue()

        def work(child: subprocess.Popen[bytes]) -> None:
            with contextlib.suppress(Empty):
                while True:
                    index = left.get_nowait()
                    try:
                        done.put((index, _ask(child, kind, chunks[index], given, answered)))
                    except MethodError as error:
                        done.put((index, error))
                        return

        answers: list[list[int]] = [[] for _ in chunks]
        threads: list[threading.Thread] = []
        with self._one_call:
            try:
                for child in self._started():
                    threads.append(threading.Thread(target=work, args=(child,), daemon=True))
                    threads[-1].start()
                for _ in chunks:
                    index, answer = done.get()
                    if isinstance(answer, MethodError):
                        raise answer
                    answers[index] = answer
            except BaseException:  # an interrupt too: answers under way would go to the next call
                self.close()
                raise
            finally:
                for thread in threads:
                    if thread.ident is not None:
                        thread.join(_PATIENCE)
        return [number for answer in answers for number in answer]

    def _started(self) -> list[subprocess.Popen[bytes]]:
        if not self._children:
            _util()
            children: list[subprocess.Popen[bytes]] = []
            self._stop = weakref.finalize(self, _end, children)
            try:
                for _ in range(self.processes):
                    children.append(_child())
                    _hand_over(self._secret, children[-1])
            except BaseException:  # an interrupt too: half a pool, or a child without key
                self.close()
                raise
            self._children = children
        return self._children


def _chunk_size(count: int, processes: int) -> int:
    """Integers per request: few of them are shared out evenly too, so that time grows with them."""
    return max(1, min(_MAX_CHUNK, math.ceil(count / (_CHUNKS * processes))))


def _child() -> subprocess.Popen[bytes]:
    """A process that waits for its key, in a group of its own: Ctrl-C is this program's."""
    # -P: the folder of the script must not shadow other modules.
    command = [sys.executable, "-P", str(Path(__file__).with_name("worker.py"))]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)


def _hand_over(secret: SecretKey, child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    width = secret.public.width
    numbers = (secret.public.n, secret.p, secret.q)
    key = b"".join(number.to_bytes(width, "big") for number in numbers)
    child.stdin.write(width.to_bytes(_COUNT_BYTES, "big") + key)
    child.stdin.flush()


def _ask(
    child: subprocess.Popen[bytes], kind: bytes, chunk: Sequence[int], given: int, answered: int
) -> list[int]:
    assert child.stdin is not None
    assert child.stdout is not None
    request = b"".join(number.to_bytes(given, "big") for number in chunk)
    try:
        child.stdin.write(kind + len(chunk).to_bytes(_COUNT_BYTES, "big") + request)
        child.stdin.flush()
        answer = child.stdout.read(answered * len(chunk))
    except (OSError, ValueError):  # ValueError: closed by another thread
        answer = b""
    if len(answer) != answered * len(chunk):
        raise MethodError(f"a Paillier process ended early, with status {_status(child)}")
    return [
        int.from_bytes(answer[at : at + answered], "big") for at in range(0, len(answer), answered)
    ]


def _status(child: subprocess.Popen[bytes]) -> int | None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_PATIENCE)
    return child.returncode


def _end(children: list[subprocess.Popen[bytes]]) -> None:
    """Leave no process and no open pipe behind, whatever they are doing."""
    for child in children:
        child.terminate()
    for child in children:
        try:
            child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # what is not yet written has nobody to read it
                pipe.close()
    children.clear()


def _util() -> Any:
    """``phe.util``, once it is certain that it computes with GMP."""
    util, _ = required("phe.util", "gmpy2")
    if not util.HAVE_GMP:
        raise MethodError("phe does not use gmpy2: pip install --force-reinstall gmpy2")
    return util
