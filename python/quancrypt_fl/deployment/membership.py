"""The list of members in a server's kit: whose signed uploads it takes. Public keys alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from quancrypt_fl.deployment.tables import KitError
from quancrypt_fl.envelopes import Member, Members, MembersError

__all__ = ["check_members", "with_newcomers", "without"]


def check_members(path: Path, names: Iterable[str]) -> Path:
    """``path``, if the list in it is sound and has every site of these names.

    Raises
    ------
    KitError
        Naming the file and what is wrong.
    """
    members = _loaded(path)
    missing = [name for name in names if name not in members]
    if missing:
        raise KitError(
            f"{path}: there is no signing key of {', '.join(missing[:5])}; every site has one"
        )
    return path


def with_newcomers(path: Path, newcomers: Mapping[str, str]) -> bytes:
    """Content of a list with further members.

    Parameters
    ----------
    newcomers
        Public keys by name, 64 hexadecimal digits; a name that is listed already gets this key.

    Raises
    ------
    KitError
        If the list is damaged, or the newcomers do not go together with it.
    """
    kept = [member for member in _loaded(path) if member.name not in newcomers]
    try:
        new = [Member(name, bytes.fromhex(public)) for name, public in newcomers.items()]
        return Members([*kept, *new]).to_toml().encode()
    except MembersError as error:
        raise KitError(f"{path}: {error}") from None


def without(path: Path, name: str) -> bytes | None:
    """Content of a list without a member; None: it is not in the list.

    Raises
    ------
    KitError
        If the list is damaged, or that member is its only one.
    """
    members = _loaded(path)
    if name not in members:
        return None
    try:
        return Members(one for one in members if one.name != name).to_toml().encode()
    except MembersError as error:
        raise KitError(f"{path}: {error}") from None


def _loaded(path: Path) -> Members:
    try:
        return Members.load(path)
    except MembersError as error:
        raise KitError(str(error)) from None
