"""What every site knows of a joint key before it is made; nothing in it is secret.

A TOML file, the same in all kits, made by ``quancrypt provision --threshold``::

    schema = 1
    threshold = 2
    least = 2
    common_seed = "8f0e..."

    [[party]]
    name = "client-1"
    channel = "5c1d..."

Parties count from 0 in the order of the file. Their channel keys are what a client relies on: deals
are sealed to these, and to no key that a server names.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quancrypt_fl.errors import ConfigError
from quancrypt_fl.method.participation import MOST_PARTIES

__all__ = ["JointFacts", "PartyFacts", "check_threshold", "held_jointly"]

SCHEMA = 1
KEY_BYTES = SEED_BYTES = 32
SERVER_SEES = (
    "which client uploads, which clients open a sum, sample counts, tensor names and shapes, and "
    "sizes; no update, no statistic, no clip bound, no part of opening a sum and no model"
)
_LARGEST_FILE = 1 << 16  # bytes: 128 parties fit
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class PartyFacts:
    """A party: its site's name, and its X25519 public key of 32 bytes."""

    name: str
    channel: bytes


@dataclass(frozen=True)
class JointFacts:
    """All of it.

    Attributes
    ----------
    threshold
        How many parties open a sum together, 2 to their number.
    common_seed
        32 random bytes of the ceremony.
    parties
        2 to 128, by index.
    least
        Weight below which a client gives no part of a sum, 2 or more: the sum of one update is that
        update.

    Raises
    ------
    ConfigError
        If a value is out of range, or two parties share a name or a key.
    """

    threshold: int
    common_seed: bytes
    parties: Sequence[PartyFacts]
    least: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "parties", tuple(self.parties))
        check_threshold(self.threshold, len(self.parties))
        if len(self.common_seed) != SEED_BYTES:
            raise ConfigError(f"common_seed has {len(self.common_seed)} bytes; allowed: 32")
        if not 2 <= self.least <= 65_536:
            raise ConfigError(f"least = {self.least}; allowed: 2 to 65536")
        for party in self.parties:
            if not _NAME.fullmatch(party.name):
                raise ConfigError(f"a party called {party.name[:80]!r}; allowed: a site's name")
            if len(party.channel) != KEY_BYTES:
                raise ConfigError(
                    f"{party.name}: a channel key of {len(party.channel)} bytes; allowed: 32"
                )
        for what, values in (
            ("name", [party.name.lower() for party in self.parties]),
            ("channel key", [party.channel.hex() for party in self.parties]),
        ):
            twice = [value for value, count in Counter(values).items() if count > 1]
            if twice:
                raise ConfigError(f"more than one party has the {what} {twice[0]}; they differ")

    @property
    def names(self) -> tuple[str, ...]:
        """Names by index."""
        return tuple(party.name for party in self.parties)

    def index_of(self, channel: bytes) -> int:
        """The party that a channel key belongs to.

        Raises
        ------
        ConfigError
            If it is no party's.
        """
        for index, party in enumerate(self.parties):
            if party.channel == channel:
                return index
        raise ConfigError(
            f"the channel key {channel.hex()[:16]}... is none of the {len(self.parties)} parties'; "
            "key and list belong to different kits"
        )

    @classmethod
    def load(cls, path: Path | str) -> JointFacts:
        """Read a file.

        Raises
        ------
        ConfigError
            Naming it and what is wrong.
        """
        try:
            if Path(path).stat().st_size > _LARGEST_FILE:
                raise ConfigError(f"{path}: larger than {_LARGEST_FILE} bytes")
            document = tomllib.loads(Path(path).read_bytes().decode())
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: is no TOML: {error!s:.200}") from error
        try:
            return cls._read(document)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @classmethod
    def _read(cls, document: dict[str, Any]) -> JointFacts:
        _fields(document, "the file", schema=int, threshold=int, least=int, common_seed=str,
                party=list)  # fmt: skip
        if document["schema"] != SCHEMA:
            raise ConfigError(f"schema = {document['schema']}; allowed: {SCHEMA}")
        parties = []
        for number, entry in enumerate(document["party"][: MOST_PARTIES + 1]):
            place = f"party {number}"
            if not isinstance(entry, dict):
                raise ConfigError(f"{place} is no table")
            _fields(entry, place, name=str, channel=str)
            parties.append(PartyFacts(entry["name"], _key(place, entry["channel"])))
        seed = _key("common_seed", document["common_seed"])
        return cls(document["threshold"], seed, parties, document["least"])

    def to_toml(self) -> str:
        """What :meth:`load` reads."""
        head = (
            "# Parties of the joint key, by index. Made by quancrypt provision; not secret.\n"
            f"schema = {SCHEMA}\nthreshold = {self.threshold}\nleast = {self.least}\n"
            f'common_seed = "{self.common_seed.hex()}"\n'
        )
        parties = (
            f'\n[[party]]\nname = "{party.name}"\nchannel = "{party.channel.hex()}"\n'
            for party in self.parties
        )
        return head + "".join(parties)


def check_threshold(threshold: int, parties: int) -> None:
    """Raise :class:`ConfigError` unless so many of so many parties can open sums."""
    if not 2 <= parties <= MOST_PARTIES:
        raise ConfigError(f"a threshold key of {parties} clients; allowed: 2 to {MOST_PARTIES}")
    if not 2 <= threshold <= parties:
        raise ConfigError(f"threshold = {threshold} of {parties} clients; allowed: 2 to {parties}")


def held_jointly(needed: int, clients: int) -> dict[str, Any]:
    """Who holds a joint key and who sees what, for a receipt."""
    return {
        "threshold": {"needed": needed, "clients": clients},
        "key_holders": (
            f"nobody as a whole: each of {clients} clients holds a share, and any {needed} of them "
            "open a sum together"
        ),
        "server_sees": SERVER_SEES,
    }


def _fields(table: dict[str, Any], place: str, **kinds: type) -> None:
    for name, kind in kinds.items():
        if type(table.get(name)) is not kind:
            raise ConfigError(
                f"{name} of {place} is {table.get(name)!r:.60}; allowed: {kind.__name__}"
            )
    if unknown := sorted(table.keys() - kinds.keys()):
        raise ConfigError(f"{place} has unknown fields: {', '.join(unknown)[:80]}")


def _key(place: str, text: str) -> bytes:
    if not _HEX.fullmatch(text):
        raise ConfigError(f"{place}: {text[:80]!r}; allowed: 64 hexadecimal digits")
    return bytes.fromhex(text)
