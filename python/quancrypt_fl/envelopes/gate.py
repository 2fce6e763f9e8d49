"""The gate of a server: opens envelopes of members for this run and round, once, and no others.

Checks go from what costs nothing to what costs most: a lookup refuses strangers, comparisons what
is for another run or round, another lookup replays; then the signature, and only for what a member
signed the hash of the body. What is kept is bounded: one signature per member and purpose of the
current round, and one count per member and reason. A member is its name: one that gets another
key in mid-round does not count twice. For one thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quancrypt_fl.envelopes.errors import EnvelopeError, Refusal
from quancrypt_fl.envelopes.format import (
    DOMAIN,
    HEAD_BYTES,
    SEAL_BYTES,
    Buffer,
    Head,
    Purpose,
    body_digest,
)
from quancrypt_fl.envelopes.members import Member, Members

__all__ = ["Gate", "Opened"]


@dataclass(frozen=True, slots=True)
class Opened:
    """An envelope that a member signed for this run and round.

    Attributes
    ----------
    body
        A view of the body's bytes, if they came in the envelope; else empty.
    """

    member: Member
    head: Head
    body: memoryview

    @property
    def purpose(self) -> Purpose:
        """What the member says it is for."""
        return self.head.purpose


class Gate:
    """Opens envelopes, and counts what it refuses.

    Parameters
    ----------
    members
        Who may upload.
    run, params, key
        Id of the run, and fingerprints of the encryption parameters and the clients' key: 32
        hexadecimal digits each.
    """

    def __init__(self, members: Members, *, run: str, params: str, key: str) -> None:
        self.members = members
        self._run = _id("run", run)
        self._params = _id("params", params)
        self._key = _id("key", key)
        self._round = -1
        self._seen: dict[tuple[str, Purpose], list[bytes]] = {}
        self._allowed: dict[Purpose, int] = {}  # envelopes of a member in this round, 1 if absent
        self._refused: dict[Refusal, int] = {}
        self._of_members: dict[str, dict[Refusal, int]] = {}

    # --- opening ---

    def open(self, envelope: Buffer, *, round: int, sender: int = 0) -> Opened:  # noqa: A002
        """Open an envelope with its body in it; nothing is copied.

        Parameters
        ----------
        round
            The current round: rounds finished. It never goes back.
        sender
            Over which connection the envelope came.

        Raises
        ------
        EnvelopeError
            Why it is refused, which is counted.
        """
        view = memoryview(envelope).cast("B")
        if len(view) < SEAL_BYTES:
            raise self.refuse(
                Refusal.MALFORMED,
                f"an envelope of {len(view)} bytes; allowed: {SEAL_BYTES} or more",
            )
        body = view[SEAL_BYTES:]
        opened = self.check(view[:SEAL_BYTES], [body], round=round, sender=sender)
        return Opened(opened.member, opened.head, body)

    def check(
        self,
        seal: Buffer,
        body: Sequence[Buffer],
        *,
        round: int,  # noqa: A002
        sender: int = 0,
    ) -> Opened:
        """Open an envelope whose body lies beside its seal, in parts; see :meth:`open`."""
        self._turn_to(round)
        try:
            head = Head.from_bytes(seal)
        except EnvelopeError as error:
            raise self.refuse(error.reason, str(error)) from None
        member = self.members.by_id(head.member)
        if member is None:
            raise self.refuse(
                Refusal.STRANGER,
                f"the client {head.member.hex()} is none of the {len(self.members)} members",
            )
        self._check_bindings(member, head, sender)
        signature = bytes(seal[HEAD_BYTES:])
        self._check_first(member, head, signature)
        self._check_length(member, head, body)
        if not member.signed(signature, DOMAIN + bytes(seal[:HEAD_BYTES])):
            raise self.refuse(
                Refusal.SIGNATURE, f"it is not signed by {member.name}, which it names", member
            )
        _, digest = body_digest(body)
        if digest != head.digest:
            raise self.refuse(
                Refusal.BODY, f"its body is not the one that {member.name} signed", member
            )
        if head.purpose is not Purpose.CATCH_UP:
            self._seen.setdefault((member.name, head.purpose), []).append(signature)
        return Opened(member, head, memoryview(b""))

    def _turn_to(self, round: int) -> None:  # noqa: A002
        if round < self._round:
            raise ValueError(f"round {round} after round {self._round}; rounds do not go back")
        if round > self._round:
            self._round = round
            self._seen.clear()  # envelopes of earlier rounds are refused by their round
            self._allowed.clear()

    def again(self, purpose: Purpose) -> None:
        """Members are asked once more in this round: one more envelope of each of them counts."""
        self._allowed[purpose] = self._allowed.get(purpose, 1) + 1

    def _check_bindings(self, member: Member, head: Head, sender: int) -> None:
        for reason, what, given, expected in (
            (Refusal.RUN, "run", head.run, self._run),
            (Refusal.PARAMETERS, "set of parameters", head.params, self._params),
            (Refusal.KEY, "key", head.key, self._key),
        ):
            if given != expected:
                raise self.refuse(
                    reason,
                    f"{member.name} made it for the {what} {given.hex()}; expected: "
                    f"{expected.hex()}",
                    member,
                )
        if head.round != self._round:
            raise self.refuse(
                Refusal.ROUND,
                f"{member.name} made it for round {head.round + 1}; expected: round "
                f"{self._round + 1}",
                member,
            )
        if head.sender != sender:
            raise self.refuse(
                Refusal.SENDER,
                f"{member.name} made it to be sent by {head.sender}, and it came from {sender}",
                member,
            )

    def _check_first(self, member: Member, head: Head, signature: bytes) -> None:
        before = self._seen.get((member.name, head.purpose), [])
        what = head.purpose.name.lower().replace("_", " ")
        if signature in before:
            raise self.refuse(
                Refusal.REPLAY, f"{member.name}'s {what} of this round, once more", member
            )
        if len(before) >= self._allowed.get(head.purpose, 1):
            raise self.refuse(
                Refusal.DUPLICATE, f"a second {what} of {member.name} in this round", member
            )

    def _check_length(self, member: Member, head: Head, body: Sequence[Buffer]) -> None:
        length = sum(memoryview(part).nbytes for part in body)
        if length != head.length:
            raise self.refuse(
                Refusal.LENGTH,
                f"its body has {length:,} bytes; {member.name} signed {head.length:,}",
                member,
            )

    # --- what was refused ---

    def refuse(self, reason: Refusal, text: str, member: Member | None = None) -> EnvelopeError:
        """Count a refusal; returns the error to be raised."""
        self._refused[reason] = self._refused.get(reason, 0) + 1
        if member is not None:
            counts = self._of_members.setdefault(member.name, {})
            counts[reason] = counts.get(reason, 0) + 1
        name = None if member is None else member.name
        return EnvelopeError(reason, f"envelope refused ({reason}): {text}", name)

    @property
    def refused(self) -> Mapping[str, int]:
        """How often for each reason."""
        return {str(reason): count for reason, count in self._refused.items()}

    @property
    def refused_of_members(self) -> Mapping[str, Mapping[str, int]]:
        """The same by the member that an envelope named; anybody can name a member."""
        return {
            name: {str(reason): count for reason, count in counts.items()}
            for name, counts in self._of_members.items()
        }


def _id(what: str, text: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != 16 or len(text) != 32:
        raise ValueError(f"{what} = {text!r:.80}; allowed: 32 hexadecimal digits")
    return value
