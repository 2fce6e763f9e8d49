"""Memory of secrets: what the system does for it, and what Python made of it on the way."""

import resource
from dataclasses import dataclass

from quancrypt_native import _core

Secret = bytes | bytearray | memoryview | _core.SecretBytes
"""Secret bytes, in whatever form they are."""


@dataclass(frozen=True, slots=True)
class SecretMemory:
    """Memory of this process that holds secrets, in bytes of whole pages.

    Attributes
    ----------
    key_bytes
        For secret keys, shares and seeds, as long as they live.
    key_bytes_locked
        How much of it the system keeps out of swap space.
    working_bytes
        For plaintexts, noise and masks while a call lasts. Zeroed after it and kept for the next.
    working_bytes_locked
        How much of it is locked: up to half of the limit, the other half is left to keys.
    bytes_left_out_of_dumps
        How much of both stays out of core dumps.
    refusals
        How often the system refused to lock or to leave out of core dumps.
    lock_limit
        What the system lets this process lock (``RLIMIT_MEMLOCK``, ``ulimit -l``); None: no limit.
    core_dumps
        Whether the system may write core dumps of this process at all (``RLIMIT_CORE``).
    """

    key_bytes: int
    key_bytes_locked: int
    working_bytes: int
    working_bytes_locked: int
    bytes_left_out_of_dumps: int
    refusals: int
    lock_limit: int | None
    core_dumps: bool

    @property
    def keys_locked(self) -> bool:
        """Whether all memory of keys is locked."""
        return self.key_bytes_locked == self.key_bytes

    @property
    def left_out_of_dumps(self) -> bool:
        """Whether all memory of secrets stays out of core dumps."""
        return self.bytes_left_out_of_dumps == self.key_bytes + self.working_bytes


def secret_memory() -> SecretMemory:
    """Say what the system does for the memory of secrets of this process, now.

    A system that refuses is no error elsewhere: keys are then held in memory as it is.
    """
    # A limit of 1 is no dump either: see forbid_core_dumps.
    core_dumps = resource.getrlimit(resource.RLIMIT_CORE)[0] not in (0, 1)
    return SecretMemory(**_core.memory_counts(), core_dumps=core_dumps)


def wipe_bytes(data: bytes) -> None:
    """Overwrite bytes that were made a moment ago, and that nobody else holds.

    ``bytes`` do not change for those who share them. A library that returns a secret as ``bytes``
    made an object for this call alone, which its only holder may overwrite before it goes.
    """
    _core.wipe_bytes(data)


def forbid_core_dumps() -> None:
    """Let the system write no core dump of this process and of those that it starts from now on.

    The limit is one byte: no file holds a dump in it, and Linux starts no program that collects
    dumps at exactly this limit, which it does at 0.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0 if hard == 0 else 1, hard))
