"""Keys without a single holder: ``n`` parties, any ``t`` of whom decrypt together.

::

    ceremony = Ceremony(params, parties=n, threshold=t, common_seed=seed)   everybody, the same
    party = Party(ceremony, index)                                          each party
    party.public_share() -> everybody         party.deal() -> each party, privately
    party.receive(sender, data)               public = ceremony.public_key(shares)
    ...                                       updates are encrypted with public, and added
    party.partial_decryption(total, participants) -> whoever combines
    ceremony.decrypt_mean(total, parts)

What each step computes and why: docs/cryptography.md. Who learns what: docs/threshold.md.
"""

from quancrypt_native._ceremony import Ceremony
from quancrypt_native._party import Party
from quancrypt_native.errors import AnsweredError

__all__ = ["AnsweredError", "Ceremony", "Party"]
