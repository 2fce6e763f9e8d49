"""What can go wrong in a federated run, one type per cause.

Errors of the native package (``quancrypt_native.QuanCryptError``) pass through unchanged.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "FederatedError",
    "MethodError",
    "NotOpenedError",
]


class FederatedError(Exception):
    """Base of every error raised by ``quancrypt_fl`` itself."""


class ConfigError(FederatedError, ValueError):
    """A command's options do not make a valid configuration."""


class DataError(FederatedError, ValueError):
    """A data set is absent, broken, or cannot be split as asked."""


class MethodError(FederatedError, ValueError):
    """A round cannot be carried out exactly: impossible weights, or an update that diverged."""


class NotOpenedError(MethodError):
    """Too few clients are left to open a sum together: the round changes no weights."""


class CheckpointError(FederatedError):
    """A checkpoint is absent, damaged, or belongs to another configuration."""
