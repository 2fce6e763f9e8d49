"""The exceptions of this package: one base, one leaf for each cause."""


class QuanCryptError(Exception):
    """Base of every error that this package raises on purpose."""


class ParameterError(QuanCryptError, ValueError):
    """An argument is out of its documented range, or a set of parameters cannot be met."""


class KeyMismatchError(QuanCryptError):
    """Keys, parameters or ciphertexts that do not belong together."""


class CapacityError(QuanCryptError):
    """The total weight of a sum would exceed what the parameters hold exactly."""


class WireFormatError(QuanCryptError):
    """Serialized data is malformed, truncated, damaged or of another version."""


class FingerprintError(KeyMismatchError, WireFormatError):
    """Serialized data carries the fingerprint of other parameters or of another key."""


class PassphraseError(QuanCryptError):
    """A key file does not open: wrong passphrase, or its sealed part was changed."""


class DecryptionError(QuanCryptError):
    """A decrypted plaintext is no valid sum: wrong key, or a malformed summand."""


class AnsweredError(QuanCryptError):
    """A party of a threshold key has answered for a ciphertext before, or for as many as it may."""


class SecretKeyPickleError(QuanCryptError, TypeError):
    """Secret keys refuse to be pickled or copied; use ``SecretKey.to_bytes(passphrase=...)``."""
