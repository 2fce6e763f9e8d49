"""What is public about a threshold key: its ceremony, its public key, and joint decryption."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quancrypt_native import _core, wire
from quancrypt_native._validate import integer
from quancrypt_native.decryptor import FloatResult, IntegerResult, float_factors, shaped
from quancrypt_native.errors import (
    DecryptionError,
    KeyMismatchError,
    ParameterError,
    QuanCryptError,
    WireFormatError,
)
from quancrypt_native.keys import PublicKey
from quancrypt_native.parameters import Parameters, require_parameters
from quancrypt_native.update import EncryptedUpdate

SEED_BYTES = 32


class Ceremony:
    """A threshold key's public data: every party, and everybody else, makes the same object.

    Parameters
    ----------
    params
        ``Parameters.for_aggregation(key_mode="threshold", parties=...)``.
    parties
        As in ``params``.
    threshold
        How many of them decrypt together, 2 to ``parties``. Fewer learn nothing.
    common_seed
        32 random bytes, the same for all; public. A new ceremony takes new ones.

    Raises
    ------
    ParameterError
        If an argument is of the wrong type or out of range.
    """

    def __init__(
        self, params: Parameters, *, parties: int, threshold: int, common_seed: bytes
    ) -> None:
        if require_parameters(params).key_mode != "threshold":
            raise ParameterError(
                f"params have key_mode '{params.key_mode}'; a ceremony needs "
                "for_aggregation(key_mode='threshold', parties=...)"
            )
        self._params = params
        self._parties = integer("parties", parties, 2, 128)
        if self._parties != params.parties:
            raise ParameterError(f"parties is {parties}; params are for {params.parties}")
        self._threshold = integer("threshold", threshold, 2, self._parties)
        common_seed = _require_seed(common_seed)
        digest = hashlib.sha256(b"quancrypt ceremony v1" + bytes.fromhex(params.fingerprint))
        digest.update(bytes([self._parties, self._threshold]) + common_seed)
        self._fingerprint = digest.hexdigest()
        # Two ceremonies that share a seed by mistake share no polynomial.
        self._common = hashlib.sha256(b"quancrypt ceremony a v1" + digest.digest()).digest()
        self._public: PublicKey | None = None

    @property
    def params(self) -> Parameters:
        """The parameters."""
        return self._params

    @property
    def parties(self) -> int:
        """Number of parties; their indices begin with 0."""
        return self._parties

    @property
    def threshold(self) -> int:
        """How many parties decrypt together."""
        return self._threshold

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits over parameters, parties, threshold and common seed."""
        return self._fingerprint

    def public_key(self, shares: Mapping[int, bytes]) -> PublicKey:
        """The joint public key, whose secret is the sum of all parties' secrets.

        Parameters
        ----------
        shares
            ``Party.public_share()`` of every party, by index.

        Raises
        ------
        ParameterError
            If a party's share is missing.
        KeyMismatchError, WireFormatError
            If a share belongs to another ceremony or another party, or is malformed; the message
            names the party.
        """
        require_indices("shares", shares, self._parties)
        missing = sorted(set(range(self._parties)) - set(shares))
        if missing:
            raise ParameterError(
                f"public shares are missing from {named(missing)}: the joint key needs all "
                f"{self._parties}"
            )
        bodies = []
        for index in range(self._parties):
            fields, body = self._parse(wire.Kind.PUBLIC_SHARE, shares[index], index, "public share")
            fields.finish()
            bodies.append(np.frombuffer(body, np.uint8))
        core = _core.combine_public_shares(self._params._core, self._common, bodies)
        self._public = PublicKey(self._params, core)
        return self._public

    def decrypt_mean(self, total: EncryptedUpdate, parts: Mapping[int, bytes]) -> FloatResult:
        """Weighted mean, as :meth:`Decryptor.decrypt_mean`.

        Parameters
        ----------
        total
            The sum that the parts were made for.
        parts
            ``Party.partial_decryption(total, participants)`` of every participant, by index.

        Raises
        ------
        ParameterError
            If there are fewer parts than ``threshold``, or one of a participant is missing.
        KeyMismatchError
            If a part belongs to another ceremony, party, sum or set of participants; or the sum to
            another key, where :meth:`public_key` was called.
        WireFormatError
            If a part is malformed.
        DecryptionError
            If the parts do not give a valid sum.
        """
        self._require_total(total)
        return self._floats(total, parts, 1.0 / total.weight)

    def decrypt_sum(self, total: EncryptedUpdate, parts: Mapping[int, bytes]) -> FloatResult:
        """Weighted sum as float32; see :meth:`decrypt_mean`."""
        self._require_total(total)
        return self._floats(total, parts, 1.0)

    def decrypt_integers(self, total: EncryptedUpdate, parts: Mapping[int, bytes]) -> IntegerResult:
        """Exact weighted sum of the quantized values, as int64; see :meth:`decrypt_mean`."""
        self._require_total(total)
        factors = [0.0] * len(total.layout.tensors)
        sums: IntegerResult = shaped(total, self._combine(total, parts, factors, integers=True))
        return sums

    def _floats(
        self, total: EncryptedUpdate, parts: Mapping[int, bytes], share: float
    ) -> FloatResult:
        factors = float_factors(total, share)
        values: FloatResult = shaped(total, self._combine(total, parts, factors, integers=False))
        return values

    def _combine(
        self,
        total: EncryptedUpdate,
        parts: Mapping[int, bytes],
        factors: list[float],
        *,
        integers: bool,
    ) -> list[Any]:
        bodies = self._part_bodies(total, parts)
        try:
            return _core.combine_packed(
                self._params._core,
                total._body,
                bodies,
                total.weight,
                [tensor.size for tensor in total.layout.tensors],
                factors,
                integers,
            )
        except DecryptionError:
            raise DecryptionError(
                "the partial decryptions do not give a valid sum: a party answered wrongly or "
                "belongs to another key, or a summand was malformed"
            ) from None

    def _part_bodies(
        self, total: EncryptedUpdate, parts: Mapping[int, bytes]
    ) -> list[npt.NDArray[np.uint8]]:
        require_indices("parts", parts, self._parties)
        if len(parts) < self._threshold:
            raise ParameterError(
                f"there are {len(parts)} partial decryptions; needed: {self._threshold} of "
                f"{self._parties} parties"
            )
        identity = ciphertext_identity(total.c1_digests())
        expected = total.ciphertexts * self._params._core.polynomial_bytes
        bodies = []
        for index in sorted(parts):
            what = "partial decryption"
            fields, body = self._parse(wire.Kind.PARTIAL_DECRYPTION, parts[index], index, what)
            participants = fields.numbers("participants", self._parties, 0, self._parties - 1)
            ciphertext = fields.hexadecimal("ciphertext", 64)
            fields.finish()
            if ciphertext != identity.hex():
                raise KeyMismatchError(
                    f"the partial decryption of party {index} belongs to another ciphertext"
                )
            self._require_participants(index, participants, parts)
            if len(body) != expected:
                raise WireFormatError(
                    f"the partial decryption of party {index} has {len(body)} bytes; expected "
                    f"{expected}"
                )
            bodies.append(np.frombuffer(body, np.uint8))
        return bodies

    @staticmethod
    def _require_participants(index: int, named_ones: list[int], parts: Iterable[int]) -> None:
        given = sorted(parts)
        if named_ones == given:
            return
        missing = sorted(set(named_ones) - set(given))
        message = (
            f"party {index} answered for the participants {named_ones}; the parts are of {given}"
        )
        if missing:
            raise ParameterError(f"{message}: missing are {named(missing)}")
        raise KeyMismatchError(message)

    def _require_total(self, total: object) -> EncryptedUpdate:
        """``total`` if it can be a sum under this ceremony's key.

        Which key that is this object knows once it has formed it; before that any will do.
        """
        if not isinstance(total, EncryptedUpdate):
            raise ParameterError(f"total is a {type(total).__name__}; allowed: EncryptedUpdate")
        if total.params != self._params:
            raise KeyMismatchError(
                f"the sum was made with parameters {total.params.fingerprint}, "
                f"not {self._params.fingerprint}"
            )
        if total.seeded:
            raise KeyMismatchError("the sum was encrypted with a secret key, not the joint key")
        if self._public is not None and total.key_id != self._public.key_id:
            raise KeyMismatchError(
                f"the sum was encrypted with key {total.key_id}, not {self._public.key_id}"
            )
        return total

    def _frame(self, kind: wire.Kind, sender: int, body: wire.BytesLike, **header: Any) -> bytes:
        """A message of party ``sender``."""
        return wire.frame(kind, self._header(sender, **header), body)

    def _header(self, sender: int, **header: Any) -> dict[str, Any]:
        """What every message of a party says: its ceremony and its index."""
        return {"ceremony": self._fingerprint, "sender": sender, **header}

    def _parse(
        self, kind: wire.Kind, data: wire.BytesLike, sender: int, what: str
    ) -> tuple[wire.HeaderReader, memoryview]:
        """Header and body of a message that is said to be of party ``sender``."""
        try:
            header, body = wire.parse(data, kind)
            fields = wire.HeaderReader(header)
            fingerprint = fields.hexadecimal("ceremony", 64)
            found = fields.number("sender", 0, 127)
        except QuanCryptError as error:
            raise WireFormatError(f"the {what} of party {sender}: {error}") from None
        if fingerprint != self._fingerprint:
            raise KeyMismatchError(
                f"the {what} of party {sender} belongs to ceremony {fingerprint[:16]}..., "
                f"not {self._fingerprint[:16]}..."
            )
        if found != sender:
            raise KeyMismatchError(f"the {what} given for party {sender} is of party {found}")
        return fields, body

    def __eq__(self, other: object) -> bool:
        """Equal if parameters, parties, threshold and common seed are."""
        return isinstance(other, Ceremony) and self._fingerprint == other._fingerprint

    def __hash__(self) -> int:
        """Hash of the fingerprint."""
        return hash(self._fingerprint)

    def __repr__(self) -> str:
        """Public facts."""
        return (
            f"Ceremony({self._threshold} of {self._parties} parties, {self._fingerprint[:8]}, "
            f"params={self._params.fingerprint[:8]})"
        )


def _require_seed(seed: object) -> bytes:
    if not isinstance(seed, bytes):
        raise ParameterError(f"common_seed is a {type(seed).__name__}; allowed: 32 bytes")
    if len(seed) != SEED_BYTES:
        raise ParameterError(f"common_seed is {len(seed)} bytes; allowed: {SEED_BYTES} bytes")
    return seed


def named(indices: Sequence[int]) -> str:
    """``party 1`` or ``parties 1, 2``."""
    listed = ", ".join(str(index) for index in indices)
    return f"party {listed}" if len(indices) == 1 else f"parties {listed}"


def require_indices(name: str, mapping: object, parties: int) -> None:
    """Raise unless ``mapping`` is one from indices of parties."""
    if not isinstance(mapping, Mapping):
        raise ParameterError(
            f"{name} is a {type(mapping).__name__}; allowed: a mapping of indices to bytes"
        )
    for index in mapping:
        integer(f"an index in {name}", index, 0, parties - 1)


def ciphertext_identity(digests: list[bytes]) -> bytes:
    """One digest for all."""
    return hashlib.sha256(b"quancrypt ciphertext v1" + b"".join(digests)).digest()
