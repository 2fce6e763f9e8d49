"""A client's party of the joint key: what it says to the others, and its state on disk.

The server passes on what parties say and can change nothing of it unnoticed:

1. ``deal``. The party makes its secret and, for each other party, a deal: sealed to that one's
   channel key, which is in the client's own kit. A deal begins with the SHA-256 of the sender's
   public share: a commitment that is made before anybody shows a share.
2. ``share``. With the deals of all others the party shows its own public share.
3. ``join``. The others' shares must be those that they have committed to. Their sum is the joint
   public key, which the party keeps: it encrypts for no other one.
4. ``open``, in rounds. The party gives its part of opening a sum, sealed for the clients.

Each of them may be asked for again, by a server that was restarted: what was said is said again.

Files, of mode 0600, in a folder for the ceremony::

    party.sealed     the secrets, under a subkey of the channel key
    answered         ciphertexts that were answered; the library keeps it
    received.json    digests of deals and commitments, by sender
    public.key       the joint public key
    openings.json    which sums were opened: see :mod:`.openings`
    part             the last part, as it was sent
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import quancrypt_native as qn
from quancrypt_fl.atomic_files import remove_leftovers, write_atomically
from quancrypt_fl.errors import MethodError
from quancrypt_fl.flower.openings import MOST_SUMS, Asking, Openings
from quancrypt_fl.flower.protocol import Opening, ProtocolError, Request
from quancrypt_fl.flower.stores import StoreError
from quancrypt_fl.joint.ceremony import ceremony_of
from quancrypt_fl.joint.facts import JointFacts
from quancrypt_fl.joint.protector import GroupKey, sealed_part
from quancrypt_fl.method.quancrypt import Layout
from quancrypt_fl.protect import has_layout
from quancrypt_native import threshold
from quancrypt_native.channels import ChannelKey

__all__ = ["JointParty", "party_steps"]

_LOG = logging.getLogger(__name__)
_STATE_LABEL = b"quancrypt_fl party state v1"
_DEAL = b"quancrypt_fl deal v1"
_DIGEST_BYTES = 32
_STATE, _MEMORY, _RECEIVED = "party.sealed", "answered", "received.json"
_PUBLIC, _OPENINGS, _PART = "public.key", "openings.json", "part"


@dataclass(frozen=True)
class _Received:
    """What a party took in from another: SHA-256 of the deal, and of the public share to come."""

    deal: str
    share: str


class JointParty:
    """One client's party. One process at a time uses its folder.

    Parameters
    ----------
    folder
        Where parties keep their state; a folder for the ceremony is made in it.
    facts
        What all sites know of the joint key.
    params
        Encryption parameters, of ``key_mode="threshold"``.
    channel
        This party's channel key, one of ``facts``.
    """

    def __init__(
        self, folder: Path, facts: JointFacts, params: qn.Parameters, channel: ChannelKey
    ) -> None:
        self.facts = facts
        self.ceremony = ceremony_of(facts, params)
        self.index = facts.index_of(channel.public)
        self._channel = channel
        self._folder = folder / self.ceremony.fingerprint[:32]
        self._public: qn.PublicKey | None = None

    @property
    def public(self) -> qn.PublicKey | None:
        """The joint public key, None before this party has joined; read and parsed once."""
        if self._public is None and (data := self._read(_PUBLIC)) is not None:
            self._public = qn.PublicKey.from_bytes(data, self.ceremony.params)
        return self._public

    def require_public(self) -> qn.PublicKey:
        """The joint public key.

        Raises
        ------
        MethodError
            If this party has not joined, or its state is lost.
        """
        public = self.public
        if public is None:
            raise MethodError(
                "this site has no joint key: it has not joined, or its state was lost, which "
                "nobody can restore; the others go on without it, or all of them with new kits "
                f"(quancrypt provision). It would be in {self._folder}"
            )
        return public

    # --- the ceremony ---

    def deals(self) -> dict[int, bytes]:
        """A sealed deal for each other party. The party's secret is on disk when this returns."""
        party = self._party
        committed = _sha256(party.public_share())
        return {
            recipient: self._channel.seal(
                self.facts.parties[recipient].channel,
                committed + deal,
                context=self._context(self.index, recipient),
            )
            for recipient, deal in party.deal().items()
            if recipient != self.index
        }

    def share(self, deals: Mapping[int, bytes]) -> bytes:
        """Take in the others' deals; this party's public share.

        Raises
        ------
        MethodError
            Naming the party, if its deal is missing, was sealed by or for somebody else, was
            changed, or is another one than before.
        """
        party, received = self._party, self._received()
        missing = [name for i, name in self._others() if i not in deals]
        if missing:
            raise MethodError(f"deals are missing from {', '.join(missing)}")
        for sender, name in self._others():
            committed, deal = self._opened_deal(sender, deals[sender])
            said = _Received(_sha256(deal).hex(), committed.hex())
            if received.setdefault(sender, said) != said:
                raise MethodError(
                    f"{name} has dealt otherwise before: it has lost its part of the joint key. "
                    "Make new kits"
                )
            if sender in party.missing:
                try:
                    party.receive(sender, deal)
                except qn.QuanCryptError as error:
                    raise MethodError(f"the deal of {name}: {error}") from None
        document = {str(sender): vars(said) for sender, said in received.items()}
        self._write(_RECEIVED, json.dumps(document).encode())
        self._keep(party)
        return party.public_share()

    def join(self, shares: Mapping[int, bytes]) -> qn.PublicKey:
        """Form the joint public key and keep it.

        Raises
        ------
        MethodError
            If a share is missing or not the one that its party has committed to, or if another
            joint key is here.
        """
        party, received = self._party, self._received()
        if party.missing or len(received) != len(self.facts.parties) - 1:
            raise MethodError("the public shares come before the deals")
        for sender, name in self._others():
            if sender not in shares:
                raise MethodError(f"the public share of {name} is missing")
            if _sha256(shares[sender]).hex() != received[sender].share:
                raise MethodError(
                    f"the public share of {name} is not the one that it has committed to: somebody "
                    "on the way has changed it, or it lies"
                )
        try:
            public = self.ceremony.public_key({**shares, self.index: party.public_share()})
        except qn.QuanCryptError as error:
            raise MethodError(f"a public share is malformed: {error}") from None
        before = self.public
        if before is not None and before.key_id != public.key_id:
            raise MethodError(f"this site has joined the key {before.key_id}, not {public.key_id}")
        self._write(_PUBLIC, public.to_bytes())
        self._public = public
        return public

    def _opened_deal(self, sender: int, sealed: bytes) -> tuple[bytes, bytes]:
        party = self.facts.parties[sender]
        try:
            plain = self._channel.open(
                party.channel, sealed, context=self._context(sender, self.index)
            )
        except qn.QuanCryptError as error:
            raise MethodError(f"the deal of {party.name} to this site: {error}") from None
        return plain[:_DIGEST_BYTES], plain[_DIGEST_BYTES:]

    def _context(self, sender: int, recipient: int) -> bytes:
        return _DEAL + bytes.fromhex(self.ceremony.fingerprint) + bytes([sender, recipient])

    def _others(self) -> list[tuple[int, str]]:
        return [(i, name) for i, name in enumerate(self.facts.names) if i != self.index]

    # --- rounds ---

    def part(
        self, total: bytes, participants: tuple[int, ...], group: GroupKey, asking: Asking
    ) -> bytes:
        """Give this party's part of opening a sum, sealed for the clients; it is on disk by then.

        Parameters
        ----------
        total
            The serialized sum.
        participants
            Parties that open it.
        group
            The clients' group key.
        asking
            In which round, and what its sums consist of.

        Raises
        ------
        MethodError
            If the sum is under another key, of other tensors or of less weight than ``least``, was
            opened before for others, or must not be opened by what was before: see
            :mod:`.openings`.
        QuanCryptError
            As of :func:`~quancrypt_fl.joint.protector.sealed_part`.
        """
        digest = hashlib.sha256(total).digest()
        label = digest + bytes([len(participants), *participants])
        kept = self._read(_PART) or b""
        if kept.startswith(label):
            return kept[len(label) :]
        self._check(total, asking)
        opened = self._openings().with_sum(asking, digest.hex())
        self._write(_OPENINGS, json.dumps(opened.to_document()).encode())
        sealed = sealed_part(self._party, group, total, participants)
        self._write(_PART, label + sealed)
        _LOG.info("helped to open sum %d of at most %d of this joint key", opened.sums, MOST_SUMS)
        return sealed

    def _check(self, data: bytes, asking: Asking) -> None:
        public = self.require_public()
        total = qn.EncryptedUpdate.parse(data, self.ceremony.params)
        if total.key_id != public.key_id:
            raise MethodError(f"a sum under the key {total.key_id}; this site's is {public.key_id}")
        if total.weight < self.facts.least:
            raise MethodError(
                f"a sum of the weight {total.weight}; this site opens none below "
                f"{self.facts.least}: it could be one client's update"
            )
        if not any(has_layout(total, layout) for layout in asking.layouts):
            raise MethodError(
                f"a sum of {total.layout.values:,} values in {len(total.layout.tensors)} tensors, "
                f"which is none of round {asking.round + 1}"
            )

    def _openings(self) -> Openings:
        try:
            return Openings.from_document(self._json(_OPENINGS))
        except ValueError as error:
            raise StoreError(f"{self._folder / _OPENINGS}: is damaged: {error}") from error

    # --- disk ---

    @cached_property
    def _party(self) -> threshold.Party:
        """The party, from its file or made anew: then it is on disk before it says anything."""
        data, memory = self._read(_STATE), self._folder / _MEMORY
        if data is not None:
            return threshold.Party.from_bytes(
                data, self.ceremony, passphrase=self._channel.derive(_STATE_LABEL), memory=memory
            )
        if self._read(_PUBLIC) is not None:
            raise StoreError(
                f"{self._folder / _STATE}: the party's secrets are gone; make new kits"
            )
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            remove_leftovers(self._folder)
            party = threshold.Party(self.ceremony, self.index, memory=memory)
        except OSError as error:
            raise StoreError(f"{self._folder}: cannot be written: {error.strerror}") from error
        self._keep(party)
        return party

    def _keep(self, party: threshold.Party) -> None:
        passphrase = self._channel.derive(_STATE_LABEL)
        self._write(_STATE, party.to_bytes(passphrase=passphrase, random_passphrase=True))

    def _received(self) -> dict[int, _Received]:
        document = self._json(_RECEIVED)
        try:
            return {int(sender): _Received(**said) for sender, said in document.items()}
        except (TypeError, ValueError) as error:
            raise StoreError(f"{self._folder / _RECEIVED}: is damaged: {error}") from error

    def _json(self, name: str) -> dict[str, Any]:
        data = self._read(name)
        try:
            document = {} if data is None else json.loads(data)
        except ValueError as error:
            raise StoreError(f"{self._folder / name}: is damaged: {error}") from error
        if not isinstance(document, dict):
            raise StoreError(f"{self._folder / name}: is damaged")
        return document

    def _read(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{self._folder / name}: cannot be read: {error.strerror}") from error

    def _write(self, name: str, data: bytes) -> None:
        try:
            write_atomically(self._folder / name, data, mode=0o600)
        except OSError as error:
            raise StoreError(
                f"{self._folder / name}: cannot be written: {error.strerror}"
            ) from error


def party_steps(
    party: JointParty,
    request: Request,
    blobs: Mapping[str, bytes],
    group: GroupKey,
    layouts: tuple[Layout, ...],
) -> dict[str, bytes]:
    """Do what a request asks of a party; the bytes of the reply by name.

    Deals are called ``deal-`` and the index of the other party, shares ``share-`` likewise.
    ``layouts``: what sums of the request's round can consist of.
    """
    asks, said = set(request.asks), dict[str, bytes]()
    if "deal" in asks:
        said |= {f"deal-{index}": data for index, data in party.deals().items()}
    if "share" in asks:
        said["share"] = party.share(numbered(blobs, "deal", len(party.facts.parties)))
    if "join" in asks:
        party.join(numbered(blobs, "share", len(party.facts.parties)))
    if "open" in asks:
        opening = _opening(request)
        if "total" not in blobs:
            raise ProtocolError("the request lacks the sum that is to be opened")
        asking = Asking(request.training, request.round, request.chain, layouts)
        said["part"] = party.part(blobs["total"], opening.participants, group, asking)
    return said


def numbered(blobs: Mapping[str, bytes], kind: str, parties: int) -> dict[int, bytes]:
    """Those of the bytes that are called ``KIND-INDEX``, by index."""
    names = {index: f"{kind}-{index}" for index in range(parties)}
    return {index: blobs[name] for index, name in names.items() if name in blobs}


def _opening(request: Request) -> Opening:
    if request.opening is None:
        raise ProtocolError("the request does not say who opens the sum")
    return request.opening


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
