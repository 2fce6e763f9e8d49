"""What the tests of threshold keys share: parties that have met, and totals for them."""

import functools
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

import quancrypt_native as qn
from quancrypt_native.threshold import Ceremony, Party

SHAPES = ((2, 3), (3, 5), (7, 10), (5, 5))
"""Threshold, parties."""


@functools.cache
def parameters(parties: int, values: int | None = 3000) -> qn.Parameters:
    """8 bits, weights up to 16; N = 8192 and one field for few values."""
    return qn.Parameters.for_aggregation(
        bits=8, max_weight=16, key_mode="threshold", parties=parties, values=values
    )


def ceremony_of(params: qn.Parameters, threshold: int) -> Ceremony:
    """A new ceremony."""
    return Ceremony(
        params,
        parties=params.parties,
        threshold=threshold,
        common_seed=secrets.token_bytes(32),
    )


@dataclass(frozen=True)
class Group:
    """Parties whose deals have arrived, and their joint key."""

    ceremony: Ceremony
    parties: Sequence[Party]
    public: qn.PublicKey

    @property
    def params(self) -> qn.Parameters:
        return self.ceremony.params

    def encrypt(self, q: npt.NDArray[np.int64]) -> qn.EncryptedUpdate:
        """One update under the joint key."""
        return qn.Encryptor(self.params, self.public).encrypt_integers(q)

    def total(self, *inputs: npt.NDArray[np.int64]) -> qn.EncryptedUpdate:
        """A fresh sum."""
        return qn.aggregate(self.encrypt(q) for q in inputs)

    def parts(self, total: qn.EncryptedUpdate, participants: Iterable[int]) -> dict[int, bytes]:
        """What each participant answers."""
        chosen = list(participants)
        return {i: self.parties[i].partial_decryption(total, chosen) for i in chosen}


def meet(ceremony: Ceremony) -> Group:
    """New parties of a ceremony that send each other all that there is to send."""
    parties = [Party(ceremony, index) for index in range(ceremony.parties)]
    for sender in parties:
        for recipient, data in sender.deal().items():
            parties[recipient].receive(sender.index, data)
    public = ceremony.public_key({party.index: party.public_share() for party in parties})
    return Group(ceremony, parties, public)


@functools.cache
def group(threshold: int, parties: int, values: int | None = 3000) -> Group:
    """The same parties for the same arguments. They remember their answers: ask with new sums."""
    return meet(ceremony_of(parameters(parties, values), threshold))
