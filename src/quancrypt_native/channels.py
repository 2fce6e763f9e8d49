"""Private, authentic messages over somebody else's network, such as the deals of a threshold key.

Each message takes two X25519 exchanges (RFC 7748) with the recipient's key: of a key made for the
message alone, and of the sender's own, which shows who sent it. HKDF-SHA256 over both, bound to all
public keys and to a context, gives the key of one AES-256-GCM. This is HPKE's authenticated mode
(RFC 9180) in shape, not in bytes.

Public keys have to reach the others by an authentic way: who can replace one can read along.
"""

from typing import Never, Self

from quancrypt_native import _core, hkdf, sealing, wire
from quancrypt_native.errors import (
    KeyMismatchError,
    ParameterError,
    SecretKeyPickleError,
    WireFormatError,
)

KEY_BYTES = 32
_SALT = b"quancrypt channel v1"
_SUBKEY_SALT = b"quancrypt channel subkey v1"
_MOST_CONTEXT = 2**16


class ChannelKey:
    """A party's own X25519 key: seals to others and opens what others sealed to it.

    Needs the package ``cryptography``. The secret is wiped when the object goes away, and neither
    printed nor pickled.
    """

    __slots__ = ("_public", "_secret")

    def __init__(self) -> None:
        """Make a fresh key from the operating system's randomness."""
        self._take(_core.SecretBytes.random(KEY_BYTES))

    def _take(self, secret: _core.SecretBytes) -> None:
        self._secret = secret
        self._public = sealing.x25519_public(secret)

    @property
    def public(self) -> bytes:
        """32 bytes, for everybody."""
        return self._public

    def seal(self, recipient: bytes, message: bytes, *, context: bytes) -> bytes:
        """Seal ``message`` so that only the holder of the ``recipient`` key reads it.

        Parameters
        ----------
        recipient
            The other's :attr:`public`.
        message
            Anything, such as one of ``Party.deal()``.
        context
            Public; what the message is for, at most 65,536 bytes. It opens with the same context
            only.

        Raises
        ------
        ParameterError
            If an argument is of the wrong type or length, or ``recipient`` is no usable key.
        """
        _require_key("recipient", recipient)
        _require_context(context)
        if not isinstance(message, bytes):
            raise ParameterError(f"message is a {type(message).__name__}; allowed: bytes")
        once = _core.SecretBytes.random(KEY_BYTES)
        once_public = sealing.x25519_public(once)
        fresh = sealing.x25519_exchange(once, recipient)
        own = sealing.x25519_exchange(self._secret, recipient)
        if fresh is None or own is None:
            raise ParameterError("recipient is no usable X25519 key")
        info = once_public + self._public + recipient + context
        return once_public + sealing.seal_once(_key(fresh, own, info), message, info)

    def open(self, sender: bytes, sealed: wire.BytesLike, *, context: bytes) -> bytes:
        """Open what the holder of the ``sender`` key sealed to this key.

        Raises
        ------
        KeyMismatchError
            If it is of another sender, for another recipient or context, or was changed.
        ParameterError
            If an argument is of the wrong type or length.
        """
        _require_key("sender", sender)
        _require_context(context)
        if not isinstance(sealed, bytes | bytearray | memoryview):
            raise ParameterError(f"sealed is a {type(sealed).__name__}; allowed: bytes")
        data = bytes(sealed)
        once_public, body = data[:KEY_BYTES], data[KEY_BYTES:]
        message = None
        if len(once_public) == KEY_BYTES:
            fresh = sealing.x25519_exchange(self._secret, once_public)
            own = sealing.x25519_exchange(self._secret, sender)
            if fresh is not None and own is not None:
                info = once_public + sender + self._public + context
                message = sealing.open_once(_key(fresh, own, info), body, info)
        if message is None:
            raise KeyMismatchError(
                "the message does not open: it is of another sender, for another recipient or "
                "context, or was changed"
            )
        return message

    def derive(self, label: bytes) -> bytes:
        """32 secret bytes for another use, such as sealing this party's own files.

        The same for the same label; they tell nothing about the key or about other labels.

        Parameters
        ----------
        label
            What they are for; at least one byte, public.
        """
        if not isinstance(label, bytes):
            raise ParameterError(f"label is a {type(label).__name__}; allowed: bytes")
        if not label:
            raise ParameterError("label is empty; allowed: at least one byte")
        return hkdf.hkdf_sha256(self._secret, _SUBKEY_SALT, label, KEY_BYTES)

    def to_bytes(self, *, passphrase: bytes, random_passphrase: bool = False) -> bytes:
        """Serialize, sealed as :meth:`SecretKey.to_bytes` seals a key."""
        return sealing.seal(
            wire.Kind.CHANNEL_KEY,
            {"public": self._public.hex()},
            self._secret,
            passphrase,
            random_passphrase=random_passphrase,
        )

    @classmethod
    def from_bytes(cls, data: wire.BytesLike, *, passphrase: bytes) -> Self:
        """Open :meth:`to_bytes`'s output; errors as of :meth:`SecretKey.from_bytes`."""
        header, secret = sealing.open_sealed(wire.Kind.CHANNEL_KEY, data, passphrase)
        fields = wire.HeaderReader(header)
        public = fields.hexadecimal("public", 2 * KEY_BYTES)
        fields.finish()
        if len(secret) != KEY_BYTES:
            raise WireFormatError(f"the channel key has {len(secret)} bytes; expected {KEY_BYTES}")
        key = cls.__new__(cls)
        key._take(secret)
        if key._public.hex() != public:
            raise KeyMismatchError("the channel key is not the one that its header names")
        return key

    def __repr__(self) -> str:
        """Only the public key."""
        return f"ChannelKey({self._public.hex()[:8]}, secret withheld)"

    def __reduce_ex__(self, protocol: object) -> Never:
        """Refuse pickling and copying."""
        raise SecretKeyPickleError(
            "a channel key is not pickled or copied; use ChannelKey.to_bytes(passphrase=...)"
        )

    __reduce__ = __reduce_ex__  # type: ignore[assignment]


def _key(fresh: bytes, own: bytes, info: bytes) -> _core.SecretBytes:
    both = fresh + own
    try:
        return hkdf.hkdf_secret(both, _SALT, info, 32)
    finally:
        for secret in (both, fresh, own):
            _core.wipe_bytes(secret)


def _require_key(name: str, key: object) -> None:
    if not isinstance(key, bytes):
        raise ParameterError(f"{name} is a {type(key).__name__}; allowed: {KEY_BYTES} bytes")
    if len(key) != KEY_BYTES:
        raise ParameterError(f"{name} is {len(key)} bytes; allowed: {KEY_BYTES} bytes")


def _require_context(context: object) -> None:
    if not isinstance(context, bytes):
        raise ParameterError(f"context is a {type(context).__name__}; allowed: bytes")
    if len(context) > _MOST_CONTEXT:
        raise ParameterError(f"context is {len(context)} bytes; allowed: up to {_MOST_CONTEXT}")
