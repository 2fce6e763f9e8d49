"""QuanCrypt-FL: federated learning whose server adds updates that it cannot read.

>>> from quancrypt_fl import QuanCryptConfig, Simulation
>>> results = Simulation(QuanCryptConfig(dataset="digits", model="mlp", rounds=1)).run()

Needs the ``[fl]`` extra: ``pip install 'quancrypt-native[fl]'``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quancrypt_fl.config import QuanCryptConfig
    from quancrypt_fl.engines.simulation import Simulation

__all__ = ["QuanCryptConfig", "Simulation"]

_HOMES = {
    "QuanCryptConfig": "quancrypt_fl.config",
    "Simulation": "quancrypt_fl.engines.simulation",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the command line must start where torch is not installed."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0].startswith("quancrypt"):
            raise
        raise ImportError(
            f"quancrypt_fl.{name} needs {error.name!r}: pip install 'quancrypt-native[fl]'"
        ) from error
