"""Why an envelope is refused, and what is wrong with a list of members."""

from __future__ import annotations

from enum import StrEnum

from quancrypt_fl.errors import FederatedError

__all__ = ["EnvelopeError", "MembersError", "Refusal"]


class Refusal(StrEnum):
    """Reasons in the order of the checks: what costs least comes first."""

    MISSING = "missing"
    """There is no envelope."""
    MALFORMED = "malformed"
    """Its length, magic, version or purpose is none of this format."""
    STRANGER = "stranger"
    """Its client is not in the list of members."""
    RUN = "run"
    ROUND = "round"
    PARAMETERS = "parameters"
    KEY = "key"
    SENDER = "sender"
    """It was made for another run, round, set of parameters, key, or sender."""
    REPLAY = "replay"
    """This very envelope has been opened in this round."""
    DUPLICATE = "duplicate"
    """Another envelope of the client for the same purpose has been opened in this round."""
    LENGTH = "length"
    """The body has another length."""
    SIGNATURE = "signature"
    """The member did not sign this head."""
    BODY = "body"
    """The body is another than the one that was signed."""
    PURPOSE = "purpose"
    """What is in it is not what it says it is for."""


class EnvelopeError(FederatedError, ValueError):
    """An envelope is refused; the message names the client, what was given and what is allowed.

    Attributes
    ----------
    reason
        Why.
    member
        Name of the member that the envelope *says* it is from, or None for strangers. Proved only
        for the reasons after ``SIGNATURE``.
    """

    def __init__(self, reason: Refusal, message: str, member: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.member = member


class MembersError(FederatedError, ValueError):
    """A list of members is damaged, too large, or holds what it must not."""
