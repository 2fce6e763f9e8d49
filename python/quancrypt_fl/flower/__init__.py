"""Encrypted aggregation in a Flower app: one mod for the ClientApp, one strategy for the ServerApp.

>>> from quancrypt_fl.flower import quancrypt_mod, QuanCryptStrategy

Needs the ``[flower]`` extra: ``pip install 'quancrypt-native[flower]'``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Flower reports its use to its makers unless told otherwise. Here it does where the user says so.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

if TYPE_CHECKING:
    from quancrypt_fl.flower.final import open_model
    from quancrypt_fl.flower.mod import quancrypt_mod
    from quancrypt_fl.flower.strategy import QuanCryptStrategy

__all__ = ["QuanCryptStrategy", "open_model", "quancrypt_mod"]

_HOMES = {
    "QuanCryptStrategy": "quancrypt_fl.flower.strategy",
    "open_model": "quancrypt_fl.flower.final",
    "quancrypt_mod": "quancrypt_fl.flower.mod",
}


def __getattr__(name: str) -> Any:
    """Import on first use: a client needs no strategy, a server no mod and no key."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0].startswith("quancrypt"):
            raise
        raise ImportError(
            f"quancrypt_fl.flower.{name} needs {error.name!r}: "
            "pip install 'quancrypt-native[flower]'"
        ) from error
