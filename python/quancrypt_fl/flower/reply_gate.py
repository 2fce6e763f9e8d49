"""The server's side of signed replies: nothing of a reply is read before its seal is checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from flwr.app import Message

from quancrypt_fl.envelopes import Gate, Members, MembersError, Opened, Refusal
from quancrypt_fl.flower.protocol import Ask, Reply
from quancrypt_fl.flower.signed_reply import purpose_of, purpose_of_steps, seal_of, signed_parts

__all__ = ["ReplyGate"]

_Version = tuple[int, int, int] | None
_UNREAD = (-1, -1, -1)


class ReplyGate:
    """Admits replies of members, each once.

    Parameters
    ----------
    members
        Who may reply.
    training
        Id of the training.
    params, key_id
        Fingerprints of the encryption parameters and of the clients' key.
    source
        File of the members, read again by :meth:`refresh` when it has changed.
    """

    def __init__(
        self,
        members: Members,
        *,
        training: str,
        params: str,
        key_id: str,
        source: Path | None = None,
    ) -> None:
        self._source = source
        # None of a file: the first refresh reads it, for it may have changed since it was loaded.
        self._version: _Version = _UNREAD
        self._gate = Gate(members, run=training, params=params, key=key_id)
        self._told: Counter[str] = Counter()

    @property
    def members(self) -> Members:
        """Who may reply now."""
        return self._gate.members

    def refresh(self) -> str | None:
        """Read the list again if its file has changed; what people should know of it, if anything.

        A list that is damaged or away is not used: the members stay who they were.
        """
        if self._source is None or (version := _version(self._source)) == self._version:
            return None
        self._version = version
        try:
            members = Members.load(self._source)
        except MembersError as error:
            return f"the new list of members is not in use: {error}"
        before, self._gate.members = self._gate.members, members
        if members.fingerprint == before.fingerprint:
            return None
        return f"a new list of {len(members)} members, {members.fingerprint}"

    def admit(self, node: int, message: Message, *, round: int) -> Opened:
        """Check a reply's seal, before its header or a ciphertext is parsed.

        Parameters
        ----------
        round
            Rounds finished.

        Raises
        ------
        EnvelopeError
            Why it is refused.
        """
        seal = seal_of(message.content)
        if seal is None:
            raise self._gate.refuse(Refusal.MISSING, "the reply is not signed, and members' are")
        return self._gate.check(seal, signed_parts(message.content), round=round, sender=node)

    def identified(self, opened: Opened, reply: Reply) -> Reply:
        """The header of an admitted reply, under the member's own name.

        Raises
        ------
        EnvelopeError
            If the reply is for something else than its seal says.
        """
        purpose = purpose_of(reply)
        if purpose is not opened.purpose:
            raise self._gate.refuse(
                Refusal.PURPOSE,
                f"{opened.member.name} signed it as {opened.purpose.name.lower()}; it is "
                f"{purpose.name.lower()}",
                opened.member,
            )
        return reply.model_copy(update={"name": opened.member.name})

    def again(self, steps: Iterable[Ask]) -> None:
        """Members are asked for these steps once more in this round."""
        self._gate.again(purpose_of_steps(steps))

    def newly_refused(self) -> Mapping[str, int]:
        """How often for each reason, since the last call."""
        now = Counter(self._gate.refused)
        new, self._told = now - self._told, now
        return dict(new)


def _version(path: Path | None) -> _Version:
    """Changes when the file is replaced."""
    try:
        facts = path.stat() if path is not None else None
    except OSError:
        return None
    return facts and (facts.st_ino, facts.st_mtime_ns, facts.st_size)
