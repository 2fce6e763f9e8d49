"""Which ciphertexts a party has answered: kept in memory, and in a file if there is one.

Two answers about one ciphertext can give a share away, so a digest is on disk before its answer
leaves. The file is replaced as a whole, under a lock that also keeps other processes out.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quancrypt_native import wire
from quancrypt_native.errors import AnsweredError, KeyMismatchError, ParameterError, WireFormatError

DIGEST_BYTES = 32
MOST_ANSWERED = 65_536
"""Ciphertexts that a party answers: smudging hides its share in all of them up to 2^-40."""


class Answered:
    """Digests of answered ciphertexts of one party of one ceremony."""

    def __init__(
        self,
        ceremony: str,
        index: int,
        path: str | os.PathLike[str] | None,
        known: frozenset[bytes] = frozenset(),
        *,
        must_exist: bool = False,
    ) -> None:
        self._ceremony = ceremony
        self._index = index
        self._path = None if path is None else Path(path).resolve()  # links and folders may change
        self._known = set(known)
        self._lock = threading.Lock()
        if self._path is None:
            return
        if must_exist and not self._path.is_file():
            raise ParameterError(
                f"memory is {self._path}, where there is no file: it holds what this party has "
                "answered, and must not be lost"
            )
        with self._locked():
            self._known |= self._read()
            self._write(self._known)

    @property
    def path(self) -> Path | None:
        """The file, if there is one."""
        return self._path

    def known(self) -> frozenset[bytes]:
        """All digests."""
        return frozenset(self._known)

    def record(self, digests: list[bytes]) -> None:
        """Note that these ciphertexts are about to be answered; on disk when this returns.

        Raises
        ------
        AnsweredError
            If one of them was answered before, or stands twice, or they would be more than
            :data:`MOST_ANSWERED` in all; nothing is noted then.
        """
        with self._lock, self._locked():
            known = self._known | self._read()
            repeated = [i for i, digest in enumerate(digests) if digest in known]
            if repeated:
                raise AnsweredError(
                    f"party {self._index} has answered ciphertext {repeated[0]} of this sum "
                    "before, and answers once: decrypt a sum with a fresh summand"
                )
            if len(set(digests)) != len(digests):
                raise AnsweredError("a ciphertext stands twice in this sum")
            if len(known) + len(digests) > MOST_ANSWERED:
                raise AnsweredError(
                    f"party {self._index} has answered {len(known):,} ciphertexts, and this sum "
                    f"has {len(digests):,}; allowed: {MOST_ANSWERED:,} under one key, which is as "
                    "many as its noise is made for: make a new one"
                )
            known.update(digests)
            self._write(known)
            self._known = known

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self._path is None:
            yield
            return
        lock = os.open(
            self._path.with_name(self._path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _read(self) -> set[bytes]:
        if self._path is None or not self._path.exists():
            return set()
        try:
            header, body = wire.parse(self._path.read_bytes(), wire.Kind.ANSWERED)
            fields = wire.HeaderReader(header)
            ceremony = fields.hexadecimal("ceremony", 64)
            index = fields.number("party", 0, 127)
            fields.finish()
            if len(body) % DIGEST_BYTES:
                raise WireFormatError(f"the body has {len(body)} bytes; expected whole digests")
        except WireFormatError as error:
            raise WireFormatError(f"the memory {self._path}: {error}") from None
        if ceremony != self._ceremony or index != self._index:
            raise KeyMismatchError(
                f"the memory {self._path} belongs to party {index} of ceremony {ceremony[:16]}..., "
                f"not party {self._index} of {self._ceremony[:16]}..."
            )
        return {bytes(body[at : at + DIGEST_BYTES]) for at in range(0, len(body), DIGEST_BYTES)}

    def _write(self, digests: set[bytes]) -> None:
        if self._path is None:
            return
        header = {"ceremony": self._ceremony, "party": self._index}
        data = wire.frame(wire.Kind.ANSWERED, header, b"".join(sorted(digests)))
        temporary = self._path.with_name(self._path.name + ".new")
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        finally:
            os.close(file)
        temporary.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
