"""Signed, bound uploads: who sent this, for which round of which run, and that nobody changed it.

What is exported here checks envelopes and holds nothing secret. Signing is in
:mod:`quancrypt_fl.envelopes.signer`, which no module of a server imports.
"""

from __future__ import annotations

from quancrypt_fl.envelopes.errors import EnvelopeError, MembersError, Refusal
from quancrypt_fl.envelopes.format import Head, Purpose
from quancrypt_fl.envelopes.gate import Gate, Opened
from quancrypt_fl.envelopes.members import Member, Members

__all__ = [
    "EnvelopeError",
    "Gate",
    "Head",
    "Member",
    "Members",
    "MembersError",
    "Opened",
    "Purpose",
    "Refusal",
]
