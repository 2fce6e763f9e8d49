"""What a node's configuration says of its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quancrypt_fl.errors import ConfigError

__all__ = ["Place", "path_of"]


@dataclass(frozen=True)
class Place:
    """A client among the clients.

    Attributes
    ----------
    index
        Its number, from 0: which part of a divided data set is its own.
    own_data
        It trains and evaluates on all that is in its files, not on a part.
    """

    index: int
    own_data: bool

    @classmethod
    def of(cls, node: Mapping[str, Any], clients: int) -> Place:
        """From ``partition-id`` and ``quancrypt-data`` (``"part"``, the default, or ``"all"``).

        Parameters
        ----------
        clients
            Into how many parts the run divides data: clients may have come since this one's kit was
            made.

        Raises
        ------
        ConfigError
            Naming what is wrong.
        """
        index, mode = node.get("partition-id"), str(node.get("quancrypt-data", ""))
        if not isinstance(index, int):
            raise ConfigError(
                f"partition-id = {index!r} in the node configuration; allowed: a number"
            )
        if mode not in ("", "part", "all"):
            raise ConfigError(
                f"quancrypt-data = {mode!r} in the node configuration; allowed: part, all"
            )
        if index < 0 or (index >= clients and mode != "all"):
            raise ConfigError(
                f"this client is partition {index}, and the run divides its data among "
                f"{clients} clients, 0 to {clients - 1}; a client that came later takes part with "
                "data of its own (quancrypt client --own-data), or from the next quancrypt run on"
            )
        return cls(index, mode == "all")


def path_of(node: Mapping[str, Any], name: str, advice: str) -> Path:
    """A path that a node's configuration must have.

    Parameters
    ----------
    advice
        Who gives it.
    """
    value = node.get(name)
    if not value:
        raise ConfigError(f"{name} is not in the node configuration; {advice}")
    return Path(str(value))
