"""A joint key among all clients of one process: its ceremony, and what each side holds of it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import quancrypt_native as qn
from quancrypt_fl.joint.ceremony import group_parameters
from quancrypt_fl.joint.facts import held_jointly
from quancrypt_fl.joint.protector import JointProtector, sealed_part
from quancrypt_fl.protect import Dither, Summer, parameter_facts
from quancrypt_native import threshold

__all__ = ["JointChannel"]


class JointChannel:
    """Parameters and a fresh joint key for one kind of upload; see :class:`~.protect.Channel`.

    All clients are parties of the ceremony, which runs here: a simulation's clients share a
    process, and what each would hold on a machine of its own is kept apart.

    Parameters
    ----------
    bits, max_weight, security, values
        As of :class:`~quancrypt_fl.protect.Channel`.
    clients
        Parties, 2 to 128.
    needed
        How many of them open a sum together, from 2.
    """

    def __init__(
        self, *, bits: int, max_weight: int, security: int, values: int, clients: int, needed: int
    ) -> None:
        self._params = qn.Parameters.for_aggregation(
            bits=bits,
            max_weight=max_weight,
            security=security,
            key_mode="threshold",
            parties=clients,
            values=values,
        )
        self._ceremony = threshold.Ceremony(
            self._params,
            parties=clients,
            threshold=needed,
            common_seed=secrets.token_bytes(32),
        )
        self._parties = [threshold.Party(self._ceremony, index) for index in range(clients)]
        for sender in self._parties:
            for recipient, data in sender.deal().items():
                self._parties[recipient].receive(sender.index, data)
        self._public = self._ceremony.public_key(
            {party.index: party.public_share() for party in self._parties}
        )
        # Parts are sealed under what all clients share and the server has not; nothing else is.
        self._group = qn.keygen(group_parameters(security)).secret

    def client(self, rounding: str = "nearest", dither: Dither | None = None) -> JointProtector:
        """What every client holds; its party aside, which answers through :meth:`answer`."""
        return JointProtector(self._ceremony, self._public, self._group, rounding, dither)

    def answer(self, client: int, total: bytes, participants: Sequence[int]) -> bytes:
        """One client's sealed part of opening a serialized sum; a sum is answered once."""
        return sealed_part(self._parties[client], self._group, total, participants)

    def server(self) -> Summer:
        """What the server holds."""
        return Summer(self._params, self.key_id)

    @property
    def key_id(self) -> str:
        """Fingerprint of the joint public key."""
        return self._public.key_id

    @property
    def ceremony(self) -> str:
        """Fingerprint of the ceremony: parameters, parties, threshold, common seed."""
        return self._ceremony.fingerprint

    def parameters(self) -> dict[str, Any]:
        """Public facts about the parameters, for a receipt."""
        return self._params.explain().as_dict()

    def facts(self) -> dict[str, Any]:
        """Public facts for a receipt: scheme, library, parameters, security, who opens sums."""
        held = held_jointly(self._ceremony.threshold, self._ceremony.parties)
        return {**parameter_facts(self._params), **held}
