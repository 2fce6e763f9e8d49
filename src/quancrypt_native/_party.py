"""One party of a threshold key: what it sends, what it keeps, what it answers."""

import os
import secrets
import threading
from collections.abc import Iterable
from typing import Never, Self

import numpy as np

from quancrypt_native import _core, hkdf, sealing, wire
from quancrypt_native._answered import DIGEST_BYTES, Answered
from quancrypt_native._ceremony import (
    Ceremony,
    ciphertext_identity,
    named,
)
from quancrypt_native._validate import integer
from quancrypt_native.errors import (
    KeyMismatchError,
    ParameterError,
    SecretKeyPickleError,
    WireFormatError,
)
from quancrypt_native.update import EncryptedUpdate

_PAIR_BYTES = 32
_PAIR_SALT = b"quancrypt threshold pair v1"
_MASK_SALT = b"quancrypt threshold mask v1"
_REQUEST_SALT = b"quancrypt threshold request v1"
_MOST_ANSWERED = 2**20
_LONGEST_STATE = 2**26  # the largest ring's share takes 3.6 MiB, so many answers 32 MiB

PathLike = str | os.PathLike[str]


class Party:
    """A party's secrets: its own part of the joint secret, and its share of the whole.

    Parameters
    ----------
    ceremony
        The public data, the same for all parties.
    index
        This party, 0 to ``ceremony.parties - 1``.
    memory
        File that remembers which ciphertexts were answered. Without one they are remembered as long
        as the object lives, and in :meth:`to_bytes`.

    Notes
    -----
    Secrets are fresh from the operating system's randomness, wiped when the object goes away, and
    neither printed nor pickled. Several threads may use one party.
    """

    def __init__(self, ceremony: Ceremony, index: int, *, memory: PathLike | None = None) -> None:
        _require_ceremony(ceremony)
        self._index = integer("index", index, 0, ceremony.parties - 1)
        self._ceremony = ceremony
        self._answered = Answered(ceremony.fingerprint, self._index, memory)
        self._core = _core.Party(ceremony.params._core, self._index + 1, ceremony.threshold)
        self._pair_secret = _core.SecretBytes.random(_PAIR_BYTES)
        self._pair_seeds: dict[int, _core.SecretBytes] = {}  # what others sent
        self._lock = threading.Lock()  # of the share and the pair seeds, which deals change

    @property
    def ceremony(self) -> Ceremony:
        """The ceremony."""
        return self._ceremony

    @property
    def index(self) -> int:
        """Its index."""
        return self._index

    @property
    def missing(self) -> list[int]:
        """Parties whose deal was not received yet."""
        others = set(range(self._ceremony.parties)) - {self._index}
        with self._lock:
            return sorted(others - set(self._pair_seeds))

    def public_share(self) -> bytes:
        """Return this party's share of the public key: public, for everybody, always the same."""
        body = self._core.public_share(self._ceremony._common)
        return self._ceremony._frame(wire.Kind.PUBLIC_SHARE, self._index, body)

    def deal(self) -> dict[int, bytes]:
        """Return for each party what it alone may see, always the same.

        Each goes over a channel that is private and authentic. The one for this party itself is
        received already; :meth:`receive` takes note of it once more.
        """
        return {recipient: self._deal_for(recipient) for recipient in range(self._ceremony.parties)}

    def _deal_for(self, recipient: int) -> bytes:
        secret = self._core.deal(recipient + 1)
        body = bytearray().join([self._pair_seed_for(recipient), secret])
        try:
            return self._ceremony._frame(wire.Kind.DEAL, self._index, body, recipient=recipient)
        finally:
            body[:] = bytes(len(body))

    def receive(self, sender: int, data: wire.BytesLike) -> None:
        """Take in what ``sender`` dealt to this party.

        Raises
        ------
        ParameterError
            If ``sender`` is no party, or its deal was received before.
        KeyMismatchError
            If the deal is of another ceremony or another party, or for another party.
        WireFormatError
            If it is malformed; nothing is taken in then.
        """
        sender = integer("sender", sender, 0, self._ceremony.parties - 1)
        fields, body = self._ceremony._parse(wire.Kind.DEAL, data, sender, "deal")
        recipient = fields.number("recipient", 0, 127)
        fields.finish()
        if recipient != self._index:
            raise KeyMismatchError(
                f"the deal of party {sender} is for party {recipient}, not {self._index}"
            )
        expected = _PAIR_BYTES + self._ceremony.params._core.polynomial_bytes
        if len(body) != expected:
            raise WireFormatError(
                f"the deal of party {sender} has {len(body)} bytes; expected {expected}"
            )
        if sender == self._index:
            if not secrets.compare_digest(bytes(data), self._deal_for(sender)):
                raise KeyMismatchError(f"the deal is not the one that party {sender} made itself")
            return
        with self._lock:
            if sender in self._pair_seeds:
                raise ParameterError(f"the deal of party {sender} was received before")
            try:
                self._core.receive(np.frombuffer(body[_PAIR_BYTES:], np.uint8))
            except WireFormatError as error:
                raise WireFormatError(f"the deal of party {sender}: {error}") from None
            self._pair_seeds[sender] = _core.SecretBytes.copy_of(body[:_PAIR_BYTES])

    def partial_decryption(self, total: EncryptedUpdate, participants: Iterable[int]) -> bytes:
        """Return this party's part of decrypting ``total`` together with the other participants.

        The parts of all participants together give the sum and nothing else; fewer give nothing.
        A party answers once for each ciphertext: a second answer, for the same participants or for
        others, is refused, also after a restart if there is a memory.

        Parameters
        ----------
        total
            A sum under the joint key.
        participants
            At least ``threshold`` indices, this party's among them; the same for all of them.

        Raises
        ------
        AnsweredError
            If one of the sum's ciphertexts was answered before, or this party has answered 65,536
            under its key.
        ParameterError
            If the participants are too few, not distinct or without this party, or deals of some
            parties were not received.
        KeyMismatchError
            If ``total`` was made with other parameters; also if it is under another key, where this
            party's ceremony object has formed the public key (:meth:`Ceremony.public_key`). After a
            restart it has not, unless that is called again: compare ``total.key_id`` then.
        """
        chosen = self._participants(participants)
        self._ceremony._require_total(total)
        missing = self.missing
        if missing:  # else nothing changes the share any more, and answers need no lock
            raise ParameterError(
                f"party {self._index} has not received the deals of {named(missing)}"
            )
        digests = total.c1_digests()
        identity = ciphertext_identity(digests)
        header = self._ceremony._header(self._index, participants=chosen, ciphertext=identity.hex())
        size = total.ciphertexts * total.params._core.polynomial_bytes
        self._answered.record(digests)  # before anything leaves
        return self._core.partial_decryption(
            total._body,
            total.ciphertexts,
            [index + 1 for index in chosen],
            self._masks(identity, chosen),
            self._request_seed(identity, chosen),
            wire.prefix(wire.Kind.PARTIAL_DECRYPTION, header, size),
        )

    def _participants(self, participants: object) -> list[int]:
        count = self._ceremony.parties
        if not isinstance(participants, Iterable) or isinstance(participants, str | bytes):
            raise ParameterError(
                f"participants is a {type(participants).__name__}; allowed: a list of indices"
            )
        chosen = sorted(integer("a participant", index, 0, count - 1) for index in participants)
        if len(set(chosen)) != len(chosen):
            raise ParameterError(f"participants are {chosen}; allowed: each party once")
        if len(chosen) < self._ceremony.threshold:
            raise ParameterError(
                f"there are {len(chosen)} participants; needed: {self._ceremony.threshold} of "
                f"{count} parties"
            )
        if self._index not in chosen:
            raise ParameterError(f"participants are {chosen}; party {self._index} is not one")
        return chosen

    def _pair_seed_for(self, other: int) -> _core.SecretBytes:
        return hkdf.hkdf_secret(self._pair_secret, _PAIR_SALT, bytes([other]), _PAIR_BYTES)

    def _request(self, identity: bytes, chosen: list[int]) -> bytes:
        """What is asked: which ciphertexts of which ceremony, and of whom."""
        return bytes.fromhex(self._ceremony.fingerprint) + identity + bytes(chosen)

    def _request_seed(self, identity: bytes, chosen: list[int]) -> _core.SecretBytes:
        """What only this party can compute, another for each request.

        Smudging is drawn from it and from fresh randomness: a machine that is resumed twice from
        one image, with the same randomness to come, still answers two requests with two noises.
        """
        info = self._request(identity, chosen)
        return hkdf.hkdf_secret(self._pair_secret, _REQUEST_SALT, info, _PAIR_BYTES)

    def _masks(self, identity: bytes, chosen: list[int]) -> list[tuple[_core.SecretBytes, bool]]:
        """Seed and sign of what is shared with each other participant, for this sum alone."""
        info = self._request(identity, chosen)
        masks = []
        for other in chosen:
            if other == self._index:
                continue
            pair = [self._pair_seed_for(other), self._pair_seeds[other]]
            if self._index > other:
                pair.reverse()
            both = bytearray().join(pair)
            seed = hkdf.hkdf_secret(both, _MASK_SALT, info, _PAIR_BYTES)
            both[:] = bytes(len(both))
            masks.append((seed, self._index > other))
        return masks

    def to_bytes(self, *, passphrase: bytes, random_passphrase: bool = False) -> bytes:
        """Serialize all of the party's state, sealed as :meth:`SecretKey.to_bytes` seals a key.

        Ciphertexts that are answered later are remembered by ``memory`` only.
        """
        answered = b"".join(sorted(self._answered.known()))
        if len(answered) > DIGEST_BYTES * _MOST_ANSWERED:
            raise ParameterError(
                f"the party has answered {len(answered) // DIGEST_BYTES} ciphertexts; a state "
                f"holds up to {_MOST_ANSWERED}: begin a new ceremony"
            )
        with self._lock:
            core = self._core.save()
            received = sorted(self._pair_seeds)
            secret = bytearray().join(
                [core, self._pair_secret, *(self._pair_seeds[i] for i in received), answered]
            )
        try:
            header = {
                "ceremony": self._ceremony.fingerprint,
                "party": self._index,
                "received": received,
                "answered": len(answered) // DIGEST_BYTES,
                "memory": self._answered.path is not None,
            }
            return sealing.seal(
                wire.Kind.PARTY, header, secret, passphrase, random_passphrase=random_passphrase
            )
        finally:
            core.wipe()
            secret[:] = bytes(len(secret))

    @classmethod
    def from_bytes(
        cls,
        data: wire.BytesLike,
        ceremony: Ceremony,
        *,
        passphrase: bytes,
        memory: PathLike | None = None,
    ) -> Self:
        """Open :meth:`to_bytes`'s output.

        Raises
        ------
        ParameterError
            If the party had a memory, and ``memory`` is None or not there any more.
        PassphraseError
            If the passphrase is wrong.
        KeyMismatchError, WireFormatError
            If the bytes belong to another ceremony, or are damaged.
        """
        _require_ceremony(ceremony)
        header, opened = sealing.open_sealed(
            wire.Kind.PARTY, data, passphrase, longest=_LONGEST_STATE
        )
        fields = wire.HeaderReader(header)
        fingerprint = fields.hexadecimal("ceremony", 64)
        index = fields.number("party", 0, 127)
        received = fields.numbers("received", 128, 0, 127)
        answered = fields.number("answered", 0, _MOST_ANSWERED)
        remembers = fields.flag("memory")
        fields.finish()
        if fingerprint != ceremony.fingerprint:
            raise KeyMismatchError(
                f"the party belongs to ceremony {fingerprint[:16]}..., "
                f"not {ceremony.fingerprint[:16]}..."
            )
        if remembers and memory is None:
            raise ParameterError(
                "memory is None; this party keeps what it has answered in a file: name it"
            )
        params = ceremony.params
        own = params.poly_degree // 4 + 64 + params._core.polynomial_bytes
        ends = [own, own + _PAIR_BYTES, own + _PAIR_BYTES * (1 + len(received))]
        if len(opened) != ends[-1] + DIGEST_BYTES * answered or len(set(received)) != len(received):
            raise WireFormatError("the party's state has the wrong length")
        known = bytes(memoryview(opened)[ends[-1] :])  # public: digests of ciphertexts
        party = cls.__new__(cls)
        party._index = integer("index", index, 0, ceremony.parties - 1)
        party._ceremony = ceremony
        party._answered = Answered(
            fingerprint,
            index,
            memory,
            frozenset(known[at : at + DIGEST_BYTES] for at in range(0, len(known), DIGEST_BYTES)),
            must_exist=remembers,
        )
        party._core = _core.Party.load(
            params._core,
            index + 1,
            ceremony.threshold,
            np.frombuffer(memoryview(opened)[:own], np.uint8),
        )
        party._lock = threading.Lock()
        seeds = [
            _core.SecretBytes.copy_of(memoryview(opened)[at : at + _PAIR_BYTES])
            for at in range(own, ends[-1], _PAIR_BYTES)
        ]
        party._pair_secret = seeds[0]
        party._pair_seeds = dict(zip(received, seeds[1:], strict=True))
        return party

    def __repr__(self) -> str:
        """Only what is public."""
        return f"Party({self._index} of {self._ceremony!r}, secrets withheld)"

    def __reduce_ex__(self, protocol: object) -> Never:
        """Refuse pickling and copying."""
        raise SecretKeyPickleError(
            "a party is not pickled or copied; use Party.to_bytes(passphrase=...)"
        )

    __reduce__ = __reduce_ex__  # type: ignore[assignment]


def _require_ceremony(ceremony: object) -> None:
    if not isinstance(ceremony, Ceremony):
        raise ParameterError(
            f"ceremony is a {type(ceremony).__name__}; allowed: threshold.Ceremony"
        )
