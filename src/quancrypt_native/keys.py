"""Key pairs. A secret key is never printed, pickled or stored without a passphrase."""

import hashlib
from dataclasses import dataclass
from typing import Any, Never, Self

from quancrypt_native import _core, hkdf, sealing, wire
from quancrypt_native._validate import integer
from quancrypt_native.errors import (
    FingerprintError,
    KeyMismatchError,
    ParameterError,
    SecretKeyPickleError,
)
from quancrypt_native.parameters import Parameters, require_parameters

_SUBKEY_SALT = b"quancrypt subkey v1"  # no other use of a secret hashes it with this


class SecretKey:
    """A ternary CKKS secret in memory that is wiped when the object goes away."""

    __slots__ = ("_core", "_key_id", "_params")

    def __init__(self, params: Parameters, core: _core.SecretKey, key_id: str) -> None:
        """For the package's own use; see :func:`keygen` and :meth:`from_bytes`."""
        self._params = params
        self._core = core
        self._key_id = key_id

    @property
    def params(self) -> Parameters:
        """The parameters it belongs to."""
        return self._params

    @property
    def key_id(self) -> str:
        """32 hexadecimal digits of the key pair, derived from the public key."""
        return self._key_id

    def to_bytes(self, *, passphrase: bytes, random_passphrase: bool = False) -> bytes:
        """Serialize, sealed with Scrypt and AES-256-GCM. There is no unsealed form.

        Parameters
        ----------
        passphrase
            At least one byte. Needs the package ``cryptography``
            (``pip install 'quancrypt-native[keys]'``).
        random_passphrase
            The passphrase is 32 or more bytes of a cryptographic generator, such as
            ``os.urandom(32)``: it cannot be guessed, and is not stretched. Opening then takes a
            millisecond in place of a quarter of a second. Never for what a person chose.
        """
        secret = self._core.save()
        try:
            return sealing.seal(
                wire.Kind.SECRET_KEY,
                {"params": self._params.fingerprint, "key": self._key_id},
                secret,
                passphrase,
                random_passphrase=random_passphrase,
            )
        finally:
            secret.wipe()

    @classmethod
    def from_bytes(cls, data: wire.BytesLike, params: Parameters, *, passphrase: bytes) -> Self:
        """Open :meth:`to_bytes`'s output.

        Raises
        ------
        PassphraseError
            If the passphrase is wrong.
        WireFormatError, FingerprintError
            If the bytes are damaged or belong to other parameters.
        """
        require_parameters(params)
        header, secret = sealing.open_sealed(wire.Kind.SECRET_KEY, data, passphrase)
        fields = wire.HeaderReader(header)
        _require_params(fields.hexadecimal("params", 32), params, "secret key")
        key_id = fields.hexadecimal("key", 32)
        fields.finish()
        return cls(params, _core.SecretKey.load(params._core, secret), key_id)

    def derive(self, label: bytes, length: int = 32) -> bytes:
        """A subkey for another use, such as sealing a file for everybody who holds the secret.

        All holders of the secret get the same bytes for the same label. Subkeys of different
        labels are independent, and none of them tells anything about the secret. A shorter subkey
        is the beginning of a longer one with the same label: use one length for each label.

        Parameters
        ----------
        label
            What the subkey is for; at least one byte, public. Begin it with the name of your
            program.
        length
            Bytes, 1 to 8160.

        Returns
        -------
        bytes
            HKDF-SHA256 (RFC 5869) of the secret, with ``label`` as ``info``.

        Raises
        ------
        ParameterError
            If an argument is of the wrong type or out of range.
        """
        if not isinstance(label, bytes):
            raise ParameterError(f"label is a {type(label).__name__}; allowed: bytes")
        if not label:
            raise ParameterError("label is empty; allowed: at least one byte")
        length = integer("length", length, 1, hkdf.MAX_BYTES)
        secret = self._core.save()
        try:
            return hkdf.hkdf_sha256(secret, _SUBKEY_SALT, label, length)
        finally:
            secret.wipe()

    def __repr__(self) -> str:
        """Only the public identity."""
        return f"SecretKey(key={self._key_id[:8]}, secret withheld)"

    def __reduce_ex__(self, protocol: object) -> Never:
        """Refuse pickling and copying."""
        raise SecretKeyPickleError(
            "a secret key is not pickled or copied; use SecretKey.to_bytes(passphrase=...)"
        )

    __reduce__ = __reduce_ex__  # type: ignore[assignment]


class PublicKey:
    """A CKKS public key; half of it is expanded from a seed."""

    __slots__ = ("_core", "_key_id", "_params")

    def __init__(self, params: Parameters, core: _core.PublicKey) -> None:
        """For the package's own use; see :func:`keygen` and :meth:`from_bytes`."""
        self._params = params
        self._core = core
        digest = hashlib.sha256(b"quancrypt key v1" + bytes.fromhex(params.fingerprint))
        digest.update(core.seed)
        digest.update(core.save())
        self._key_id = digest.hexdigest()[:32]

    @property
    def params(self) -> Parameters:
        """The parameters it belongs to."""
        return self._params

    @property
    def key_id(self) -> str:
        """32 hexadecimal digits: SHA-256 over the parameters' fingerprint and the key."""
        return self._key_id

    def to_bytes(self) -> bytes:
        """Serialize; public data."""
        header = {"params": self._params.fingerprint, "seed": self._core.seed.hex()}
        return wire.frame(wire.Kind.PUBLIC_KEY, header, self._core.save())

    @classmethod
    def from_bytes(cls, data: wire.BytesLike, params: Parameters) -> Self:
        """Read :meth:`to_bytes`'s output; safe on bytes from a stranger."""
        require_parameters(params)
        header, body = wire.parse(data, wire.Kind.PUBLIC_KEY)
        fields = wire.HeaderReader(header)
        _require_params(fields.hexadecimal("params", 32), params, "public key")
        seed = bytes.fromhex(fields.hexadecimal("seed", 64))
        fields.finish()
        return cls(params, _core.PublicKey.load(params._core, seed, bytes(body)))

    def __repr__(self) -> str:
        """Public identity."""
        return f"PublicKey(key={self._key_id[:8]})"

    def __eq__(self, other: object) -> bool:
        """Equal if it is the same key of the same parameters."""
        return isinstance(other, PublicKey) and self._key_id == other._key_id

    def __hash__(self) -> int:
        """Hash of the key's identity."""
        return hash(self._key_id)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle through the wire format."""
        return PublicKey.from_bytes, (self.to_bytes(), self._params)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """What :func:`keygen` returns."""

    secret: SecretKey
    public: PublicKey

    @property
    def key_id(self) -> str:
        """Identity of the pair."""
        return self.public.key_id


def keygen(params: Parameters) -> KeyPair:
    """Generate a key pair from the operating system's randomness.

    Raises
    ------
    ParameterError
        If the parameters are for a threshold key, which nobody holds as a whole.
    """
    if require_parameters(params).key_mode == "threshold":
        raise ParameterError(
            "these parameters have key_mode 'threshold': their key is made by the parties of a "
            "quancrypt_native.threshold.Ceremony"
        )
    secret = _core.SecretKey.generate(params._core)
    public = PublicKey(params, _core.PublicKey.generate(secret))
    return KeyPair(SecretKey(params, secret, public.key_id), public)


def require_key(params: Parameters, key: object) -> SecretKey | PublicKey:
    """``key`` if it belongs to ``params``."""
    require_parameters(params)
    if not isinstance(key, SecretKey | PublicKey):
        raise ParameterError(f"key is a {type(key).__name__}; allowed: SecretKey, PublicKey")
    if key.params != params:
        raise KeyMismatchError(
            f"the key belongs to parameters {key.params.fingerprint}, not {params.fingerprint}"
        )
    return key


def _require_params(fingerprint: str, params: Parameters, what: str) -> None:
    if fingerprint != params.fingerprint:
        raise FingerprintError(
            f"the {what} belongs to parameters {fingerprint}, not {params.fingerprint}"
        )
