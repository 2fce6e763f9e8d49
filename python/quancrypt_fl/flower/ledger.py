"""A round's ledger: whose upload is in the sum, and with which weight."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import quancrypt_native as qn
from quancrypt_fl.errors import MethodError
from quancrypt_fl.flower.protocol import Reply
from quancrypt_fl.method.quancrypt import Layout
from quancrypt_fl.method.weighting import Share
from quancrypt_fl.protect import Summer

__all__ = ["Ledger", "Total", "largest_upload"]

_HEADER_BYTES, _TENSOR_BYTES = 1024, 128  # of a serialized update, beside its tensors' names


@dataclass(frozen=True)
class Total:
    """A closed ledger: the serialized sum, and the total weight of what is in it."""

    data: bytes
    weight: int


@dataclass
class Ledger:
    """Adds uploads and keeps the account of them.

    Parameters
    ----------
    params
        Encryption parameters.
    key_id
        The key of every upload.
    layout
        What every upload consists of.
    shares
        Each node's share.
    regions
        Nodes that send sums, with the largest weight of each: see :mod:`.region`.
    """

    params: qn.Parameters
    key_id: str
    layout: Layout
    shares: Mapping[int, Share]
    regions: Mapping[int, int] = field(default_factory=dict)
    entries: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._summer = Summer(self.params, self.key_id, self.layout)

    def add(self, node: int, data: bytes, parts: int = 1) -> None:
        """Add a node's upload, or a region's sum of ``parts`` uploads.

        Raises
        ------
        MethodError, quancrypt_native.QuanCryptError
            If it is not what it must be. The sum and the ledger are then what they were.
        """
        if node in self.entries:
            raise MethodError("repeated: its upload of this round is in the sum already")
        limit = largest_upload(self.params, self.layout, is_sum=node in self.regions)
        if len(data) > limit:
            raise MethodError(f"an upload of {len(data):,} bytes; allowed: {limit:,}")
        weight = self.shares[node].weight
        if node in self.regions:
            if parts > self.regions[node]:
                raise MethodError(
                    f"a sum of {parts} clients; allowed for the region: {self.regions[node]}"
                )
            weight = parts
            self._summer.add_sum(data, weight)
        else:
            self._summer.add(data, weight)
        self.entries[node] = weight

    def close(self) -> Total:
        """The sum of what was added.

        Raises
        ------
        MethodError
            If the sum's own weight is not that of the entries: it must not be used.
        """
        data = self._summer.result()
        total = qn.EncryptedUpdate.from_bytes(data, self.params)
        written = sum(self.entries.values())
        if total.weight != written:
            raise MethodError(
                f"the sum has the weight {total.weight}, the ledger's {len(self.entries)} entries "
                f"add up to {written}"
            )
        return Total(data, written)

    @property
    def arrived(self) -> list[Share]:
        """Shares of those whose uploads are in the sum."""
        return [self.shares[node] for node in self.entries]

    @property
    def clients(self) -> int:
        """How many clients' updates are in the sum; those of a region count 1 each."""
        return sum(w if node in self.regions else 1 for node, w in self.entries.items())

    @property
    def ciphertexts(self) -> int:
        """Ciphertexts of an upload."""
        return -(-_values(self.layout) // self.params.values_per_ciphertext)


def largest_upload(params: qn.Parameters, layout: Layout, *, is_sum: bool = False) -> int:
    """Bytes that no honest upload exceeds, or no region's sum, which has both polynomials."""
    names = sum(6 * len(name) + _TENSOR_BYTES for name in layout)
    fresh = params.upload_bytes(_values(layout)) + names + _HEADER_BYTES
    return 2 * fresh if is_sum else fresh


def check_identity(reply: Reply, *, training: str, round: int, chain: str, params: str) -> None:
    """Refuse a reply from elsewhere, before anything else of it is read.

    Raises
    ------
    MethodError
        Naming what was given and what is expected.
    """
    if reply.training != training:
        raise MethodError(f"it belongs to the training {reply.training}, not {training}")
    if reply.round != round:
        raise MethodError(f"it belongs to round {reply.round + 1}, not {round + 1}")
    if reply.chain != chain:
        raise MethodError(f"it stems from another global model ({reply.chain[:16]}...)")
    if reply.params != params:
        raise MethodError(f"its encryption parameters are {reply.params}, not {params}")


def _values(layout: Layout) -> int:
    return sum(math.prod(shape) for shape, _ in layout.values())
