"""A client's signing key, and sealing envelopes with it. No module of a server imports this one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Never, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quancrypt_fl.envelopes.errors import MembersError
from quancrypt_fl.envelopes.format import DOMAIN, Buffer, Head, Purpose, body_digest
from quancrypt_fl.envelopes.members import Member
from quancrypt_fl.errors import FederatedError
from quancrypt_native import WireFormatError, memory, sealing, wire

__all__ = ["Signer", "SigningKeyPickleError"]

_ALGORITHM = "ed25519"


class SigningKeyPickleError(FederatedError, TypeError):
    """Signing keys refuse to be pickled or copied; use ``Signer.to_bytes(passphrase=...)``."""


class Signer:
    """Seals envelopes in the name of one member. Neither printed, pickled nor stored in the clear.

    Parameters
    ----------
    name
        The member's.
    key
        Its private key; see :meth:`generate` and :meth:`from_bytes`.
    """

    __slots__ = ("_key", "member")

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.member = Member(name, key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, name: str) -> Self:
        """A fresh key, of the operating system's randomness."""
        return cls(name, Ed25519PrivateKey.generate())

    # --- envelopes ---

    def seal(
        self,
        body: Sequence[Buffer],
        *,
        purpose: Purpose,
        run: str,
        round: int,  # noqa: A002
        params: str,
        key: str,
        sender: int = 0,
    ) -> bytes:
        """The seal of a body that travels beside it, in parts: 192 bytes.

        Parameters
        ----------
        body
            Its parts, hashed one after the other without copying. Where they end is not signed:
            frame what must be told apart.
        run, params, key
            32 hexadecimal digits each.
        round
            Rounds finished.
        sender
            Number of the connection it goes over, or 0.
        """
        length, digest = body_digest(body)
        head = Head(
            purpose, round, sender, bytes.fromhex(run), bytes.fromhex(params), bytes.fromhex(key),
            self.member.id, length, digest,
        ).to_bytes()  # fmt: skip
        return head + self._key.sign(DOMAIN + head)

    def envelope(
        self,
        body: Buffer,
        *,
        purpose: Purpose,
        run: str,
        round: int,  # noqa: A002
        params: str,
        key: str,
        sender: int = 0,
    ) -> bytes:
        """Seal and body in one; copies the body once. Arguments as in :meth:`seal`."""
        seal = self.seal(
            [body], purpose=purpose, run=run, round=round, params=params, key=key, sender=sender
        )
        return b"".join((seal, body))

    # --- the key at rest ---

    def to_bytes(self, *, passphrase: bytes, random_passphrase: bool = False) -> bytes:
        """Serialize, sealed with Scrypt and AES-256-GCM as secret keys are; no unsealed form.

        Parameters
        ----------
        passphrase, random_passphrase
            As for :meth:`quancrypt_native.SecretKey.to_bytes`.
        """
        secret = self._key.private_bytes_raw()
        header = {
            "algorithm": _ALGORITHM,
            "member": self.member.name,
            "public": self.member.public.hex(),
        }
        try:
            return sealing.seal(
                wire.Kind.SECRET_KEY,
                header,
                secret,
                passphrase,
                random_passphrase=random_passphrase,
            )
        finally:
            memory.wipe_bytes(secret)

    @classmethod
    def from_bytes(cls, data: Buffer, *, passphrase: bytes) -> Self:
        """Open :meth:`to_bytes`'s output.

        Raises
        ------
        PassphraseError
            If the passphrase is wrong.
        WireFormatError
            If the bytes are damaged, or those of another kind of key.
        """
        header, secret = sealing.open_sealed(wire.Kind.SECRET_KEY, data, passphrase)
        fields = wire.HeaderReader(header)
        if "algorithm" not in header:
            raise WireFormatError("these bytes hold a key of updates; expected a signing key")
        if (algorithm := fields.text("algorithm")) != _ALGORITHM:
            raise WireFormatError(f"a signing key for {algorithm!r}; allowed: {_ALGORITHM!r}")
        name, public = fields.text("member"), fields.hexadecimal("public", 64)
        fields.finish()
        if len(secret) != 32:
            raise WireFormatError(f"a signing key of {len(secret)} bytes; allowed: 32")
        try:
            made = cls(name, Ed25519PrivateKey.from_private_bytes(memoryview(secret)))
        except MembersError as error:
            raise WireFormatError(str(error)) from None
        if made.member.public.hex() != public:
            raise WireFormatError("the signing key is not that of the public key in its header")
        return made

    # --- nothing leaks ---

    def __repr__(self) -> str:
        """Only the public identity."""
        return f"Signer({self.member.name!r}, {self.member.public.hex()[:16]}..., key withheld)"

    def __reduce_ex__(self, protocol: object) -> Never:
        """Refuse pickling and copying."""
        raise SigningKeyPickleError(
            "a signing key is not pickled or copied; use Signer.to_bytes(passphrase=...)"
        )

    __reduce__ = __reduce_ex__  # type: ignore[assignment]
