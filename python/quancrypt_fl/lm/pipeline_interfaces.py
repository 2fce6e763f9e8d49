"""Network interfaces that stages listen on: loopback, unless the user names another."""

from __future__ import annotations

import socket

from quancrypt_fl.errors import ConfigError

__all__ = ["INTERFACE", "checked_interface", "loopback"]

INTERFACE = "GLOO_SOCKET_IFNAME"
"""Environment variable of gloo: the network interface whose address it binds."""


def loopback() -> str:
    """Name of the loopback interface: nothing that is sent over it leaves the machine."""
    names = _names()
    for name in ("lo", "lo0"):
        if name in names:
            return name
    raise ConfigError(f"no loopback interface was found among {', '.join(names)}")


def checked_interface(name: str | None, stages: int, stages_here: int) -> str:
    """The interface to listen on.

    Parameters
    ----------
    name
        What the user named; None: loopback, which is allowed where all stages are on this machine.
    stages, stages_here
        How many there are, and how many on this machine.
    """
    names = _names()
    if name is None:
        if stages_here != stages:
            raise ConfigError(
                "stages are on several machines, and activations, which reveal prompts, travel "
                f"between them in clear; to allow it name --interface, one of {', '.join(names)}"
            )
        return loopback()
    if name not in names:
        raise ConfigError(f"interface {name!r} is not there; allowed: {', '.join(names)}")
    return name


def _names() -> list[str]:
    return [name for _, name in socket.if_nameindex()]
