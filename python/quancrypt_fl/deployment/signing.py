"""Signing keys of a deployment's clients, one per site, and the server's list of their public keys.

Each is sealed with its site's passphrase, as the key of updates is. What a server runs imports
:mod:`quancrypt_fl.deployment.membership`, and not this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from quancrypt_fl.envelopes import Members
from quancrypt_fl.envelopes.signer import Signer

__all__ = ["make_signers", "members_text"]


def make_signers(names: Iterable[str]) -> dict[str, Signer]:
    """A fresh signing key for each site."""
    return {name: Signer.generate(name) for name in names}


def members_text(signers: Mapping[str, Signer]) -> bytes:
    """Content of the server's ``members.toml``."""
    return Members(signer.member for signer in signers.values()).to_toml().encode()
