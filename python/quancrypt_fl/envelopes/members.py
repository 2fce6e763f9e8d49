"""The list of members: name and public key of each client that may upload. Nothing in it is secret.

A TOML file, made by ``quancrypt provision``::

    schema = 1

    [[member]]
    name = "client-1"
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from quancrypt_fl.envelopes.errors import MembersError

__all__ = ["MOST_MEMBERS", "Member", "Members"]

SCHEMA = 1
MOST_MEMBERS = 65_536
LARGEST_FILE = 16 << 20  # bytes: 65,536 members fit
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PUBLIC = re.compile(r"[0-9a-f]{64}")
_MEMBER_DOMAIN = b"quancrypt member v1\0"
_LIST_DOMAIN = b"quancrypt members v1\0"

_P = 2**255 - 19
_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER = frozenset({0, 1, _P - 1, _P, _P + 1, _ORDER_8, _P - _ORDER_8})
"""The y of points of order 1 to 8: under such a key anybody can make signatures."""


class Member:
    """One client: its name, and the key that its signatures are checked with.

    Parameters
    ----------
    name
        As sites are called: letters, digits, ``.``, ``_``, ``-``, up to 64.
    public
        Raw Ed25519 public key, 32 bytes.

    Raises
    ------
    MembersError
        If one of them is not as it must be.
    """

    __slots__ = ("_key", "id", "name", "public")

    def __init__(self, name: str, public: bytes) -> None:
        if not _NAME.fullmatch(name):
            raise MembersError(
                f"a member called {name[:80]!r}; allowed: letters, digits, '.', '_', '-', up to 64 "
                "of them, the first a letter or a digit"
            )
        if len(public) != 32:
            raise MembersError(f"{name}: a public key of {len(public)} bytes; allowed: 32")
        if int.from_bytes(public, "little") & (2**255 - 1) in _SMALL_ORDER:
            raise MembersError(f"{name}: a public key of small order, under which anybody can sign")
        self.name = name
        self.public = bytes(public)
        self.id = hashlib.sha256(_MEMBER_DOMAIN + name.encode() + b"\0" + self.public).digest()[:16]
        self._key = Ed25519PublicKey.from_public_bytes(self.public)

    def signed(self, signature: bytes, message: bytes) -> bool:
        """Whether the member made this Ed25519 signature of 64 bytes."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def __repr__(self) -> str:
        return f"Member({self.name!r}, {self.public.hex()[:16]}...)"


class Members:
    """All members, by name and by the id that envelopes have.

    Parameters
    ----------
    members
        1 to 65,536, no two with the same name (upper and lower case are alike) or key.

    Raises
    ------
    MembersError
        Otherwise.
    """

    def __init__(self, members: Iterable[Member]) -> None:
        listed = sorted(members, key=lambda member: member.name)
        if not 1 <= len(listed) <= MOST_MEMBERS:
            raise MembersError(f"{len(listed)} members; allowed: 1 to {MOST_MEMBERS}")
        for what, values in (
            ("name", [member.name.lower() for member in listed]),
            ("public key", [member.public.hex() for member in listed]),
        ):
            twice = [value for value, count in Counter(values).items() if count > 1]
            if twice:
                raise MembersError(f"more than one member has the {what} {twice[0]}; they differ")
        self._by_id = {member.id: member for member in listed}
        self._by_name = {member.name: member for member in listed}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._by_name.values())

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Member:
        return self._by_name[name]

    def by_id(self, id: bytes) -> Member | None:  # noqa: A002
        """The member with the id of an envelope, or None for a stranger."""
        return self._by_id.get(id)

    @cached_property
    def fingerprint(self) -> str:
        """32 hexadecimal digits of the whole list: the same names and keys, the same digits."""
        ids = b"".join(member.id for member in self)
        return hashlib.sha256(_LIST_DOMAIN + ids).hexdigest()[:32]

    def to_toml(self) -> str:
        """The text of the file."""
        tables = [
            f'[[member]]\nname = "{member.name}"\npublic = "{member.public.hex()}"\n'
            for member in self
        ]
        head = (
            "# Clients whose uploads are accepted, with their Ed25519 public keys. Nothing here is "
            f"secret.\nschema = {SCHEMA}\n"
        )
        return "\n".join([head, *tables])

    @classmethod
    def load(cls, path: Path | str) -> Members:
        """Read and check a file.

        Raises
        ------
        MembersError
            Naming the file, what it holds, and what is allowed.
        """
        try:
            with Path(path).open("rb") as stream:
                data = stream.read(LARGEST_FILE + 1)
        except OSError as error:
            raise MembersError(f"{path}: cannot be read: {error.strerror or error}") from error
        if len(data) > LARGEST_FILE:
            raise MembersError(f"{path}: more than {LARGEST_FILE} bytes; allowed: up to that")
        try:
            return cls(_entries(tomllib.loads(data.decode())))
        except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
            raise MembersError(f"{path}: is no TOML file: {error}") from None
        except MembersError as error:
            raise MembersError(f"{path}: {error}") from None


def _entries(document: dict[str, Any]) -> list[Member]:
    schema, entries = document.pop("schema", None), document.pop("member", None)
    if type(schema) is not int or schema != SCHEMA:
        raise MembersError(f"schema = {schema!r:.80}; this version reads {SCHEMA}")
    if document:
        raise MembersError(f"unknown: {', '.join(sorted(document))[:200]}")
    if not isinstance(entries, list) or len(entries) > MOST_MEMBERS:
        raise MembersError(f"member = ...; allowed: 1 to {MOST_MEMBERS} [[member]] tables")
    members = []
    for number, entry in enumerate(entries, 1):
        # Nothing else stands in an entry: a private key in it would not go unnoticed.
        if not isinstance(entry, dict) or set(entry) != {"name", "public"}:
            raise MembersError(f"member {number}: allowed: name and public, and nothing else")
        name, public = entry["name"], entry["public"]
        if not isinstance(name, str):
            raise MembersError(f"member {number}: name = {name!r:.80}; allowed: text")
        if not isinstance(public, str) or not _PUBLIC.fullmatch(public):
            raise MembersError(f"member {number}: public = ...; allowed: 64 hexadecimal digits")
        members.append(Member(name, bytes.fromhex(public)))
    return members
