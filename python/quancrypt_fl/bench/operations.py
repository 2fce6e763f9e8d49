"""Whole operations of the public API, each beside those who do the same job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

import quancrypt_native as qn
from quancrypt_fl.bench.ours import Ours
from quancrypt_fl.bench.rivals import Missing, Paillier, Seal, TenSeal
from quancrypt_fl.bench.subject import Subject
from quancrypt_fl.bench.timing import Spread, interleave, seconds

__all__ = [
    "BITS",
    "COMPARISONS",
    "MAX_WEIGHT",
    "Comparison",
    "Subjects",
    "compare",
    "threads",
    "upload_bytes",
]

BITS = 8
MAX_WEIGHT = 16
SMALL_DEGREE = 4096
_SLOT_CIPHERTEXTS = 8


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row: an operation of ours and a rival's operation that does the same job.

    Attributes
    ----------
    name
        Key in documents.
    label
        What is done, for people.
    ours, operation
        Our subject and its operation.
    rival, rival_operation, rival_does
        The rival, its operation, and that operation in words.
    """

    name: str
    label: str
    ours: str
    operation: str
    rival: str
    rival_operation: str
    rival_does: str


_UPLOAD = "encrypt float32 → seeded upload"
_PARSE_ADD = "parse an upload and add it"
_DECRYPT = "decrypt a sum → float32"
_ONE = "symmetric encryption, same parameters"

COMPARISONS = (
    Comparison("encrypt", _UPLOAD, "packed", "encrypt", "tenseal", "encrypt", "+ serialize"),
    Comparison(
        "encrypt", _UPLOAD, "packed", "encrypt", "tenseal", "encrypt_alone", "encryption alone"
    ),
    Comparison(
        "encrypt", _UPLOAD, "packed", "encrypt", "seal", "encode_encrypt_symmetric_save", "packed"
    ),
    Comparison("encrypt", _UPLOAD, "packed", "encrypt", "paillier", "encrypt", "one value each"),
    Comparison("encrypt", _UPLOAD, "packed", "encrypt", "paillier_packed", "encrypt", ""),
    Comparison(
        "symmetric", _ONE, "packed", "encrypt", "seal", "encrypt_symmetric", "of a ready plaintext"
    ),
    Comparison(
        f"symmetric_{SMALL_DEGREE}",
        f"{_ONE}, N = {SMALL_DEGREE}",
        "packed_small",
        "encrypt",
        "seal_small",
        "encrypt_symmetric",
        "of a ready plaintext",
    ),
    Comparison(
        "encrypt_public",
        "encrypt with the public key → upload",
        "public",
        "encrypt",
        "tenseal",
        "encrypt",
        "+ serialize",
    ),
    Comparison(
        "encrypt_public",
        "encrypt with the public key → upload",
        "public",
        "encrypt",
        "seal_public",
        "encode_encrypt_public",
        "packed, not serialized",
    ),
    Comparison(
        "slots",
        "slots, N = 8192: encode, encrypt with the public key",
        "slots",
        "encrypt",
        "seal_slots",
        "encode_encrypt_public",
        "not serialized",
    ),
    Comparison("parse", "parse and check", "packed", "parse", "tenseal", "parse", "load"),
    Comparison("add", "add a parsed upload", "packed", "add", "tenseal", "add", ""),
    Comparison("add", "add a parsed upload", "packed", "add", "seal", "add", "expanded already"),
    Comparison("parse_add", _PARSE_ADD, "packed", "parse_add", "tenseal", "parse_add", "load, add"),
    Comparison("parse_add", _PARSE_ADD, "packed", "parse_add", "seal", "load_add", "load, add"),
    Comparison("parse_add", _PARSE_ADD, "packed", "parse_add", "paillier", "parse_add", ""),
    Comparison("parse_add", _PARSE_ADD, "packed", "parse_add", "paillier_packed", "parse_add", ""),
    Comparison(
        "aggregate", "parse and sum 10 uploads", "packed", "aggregate", "tenseal", "aggregate", ""
    ),
    Comparison("decrypt", _DECRYPT, "packed", "decrypt", "tenseal", "decrypt", "→ list"),
    Comparison("decrypt", _DECRYPT, "packed", "decrypt", "seal", "decrypt_decode", "still packed"),
    Comparison("decrypt", _DECRYPT, "packed", "decrypt", "paillier", "decrypt", ""),
    Comparison("decrypt", _DECRYPT, "packed", "decrypt", "paillier_packed", "decrypt", ""),
)


class Subjects:
    """Makes subjects when they are first needed, and has each prove its answer before it is timed.

    Parameters
    ----------
    values
        Values of one of our updates.
    pool
        Threads, for us and for TenSEAL.
    missing
        Rivals that cannot be had here.
    seed
        Of the inputs.
    """

    def __init__(self, values: int, pool: int, missing: Iterable[Missing], seed: int) -> None:
        self._values = values
        self._threads = pool
        self._missing = {item.rival for item in missing}
        self._made: dict[str, Subject] = {}
        self.rng = np.random.default_rng(seed)
        self.packed = qn.Parameters.for_aggregation(bits=BITS, max_weight=MAX_WEIGHT)

    def parameters(self, key: str) -> qn.Parameters:
        """Parameter set that the subject ``key`` runs under."""
        if key.endswith("small"):
            return qn.Parameters.for_aggregation(
                bits=BITS, max_weight=MAX_WEIGHT, max_poly_degree=SMALL_DEGREE
            )
        if key.endswith("public"):
            return qn.Parameters.for_aggregation(
                bits=BITS, max_weight=MAX_WEIGHT, key_mode="public"
            )
        return qn.Parameters.slots() if key.endswith("slots") else self.packed

    def has(self, key: str) -> bool:
        """Whether the subject can be had here."""
        return key.partition("_")[0] not in self._missing

    def __getitem__(self, key: str) -> Subject:
        """The subject, checked."""
        if key not in self._made:
            subject = self._make(key)
            subject.check(self.rng)
            self._made[key] = subject
        return self._made[key]

    def _make(self, key: str) -> Subject:
        match key:
            case "tenseal":
                return TenSeal(1, self._threads)
            case "paillier" | "paillier_packed":
                packed = key == "paillier_packed"
                return Paillier(
                    1 if packed else 2,
                    packed=packed,
                    bits=BITS,
                    field_bits=self.packed.explain().as_dict()["field_bits"],
                )
        params = self.parameters(key)
        if key.startswith("seal"):
            return Seal(key, params, 2)
        if key == "slots":
            return Ours(key, params, _SLOT_CIPHERTEXTS * params.values_per_ciphertext, public=True)
        return Ours(key, params, self._values, public=key == "public")


def compare(
    subjects: Subjects, repeat: int, announce: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Every comparison that can be made here, in order.

    Returns
    -------
    list of dict
        ``name``, ``label``, ``values``, ``ours`` (ns per value: median, min, max), and ``rivals``,
        a list with ``rival``, ``label``, ``does``, ``values``, ``ns_per_value``, ``ours`` (as
        measured in these pairs) and ``ratio``.
    """
    rows: dict[str, dict[str, Any]] = {}
    for item in COMPARISONS:
        row = rows.get(item.name)
        if row is None:
            announce(item.label)
            row = rows[item.name] = _alone(subjects, item, repeat)
        if subjects.has(item.rival):
            announce(f"{item.label}: {subjects[item.rival].label}")
            row["rivals"].append(_beside(subjects, item, repeat))
    return list(rows.values())


def _alone(subjects: Subjects, item: Comparison, repeat: int) -> dict[str, Any]:
    subject = subjects[item.ours]
    samples = [subject.ns_per_value(item.operation, subjects.rng) for _ in range(repeat + 1)]
    return {
        "name": item.name,
        "label": item.label,
        "values": subject.values,
        "ours": Spread.of(samples[1:]).as_dict(),
        "rivals": [],
    }


def _beside(subjects: Subjects, item: Comparison, repeat: int) -> dict[str, Any]:
    ours, rival = subjects[item.ours], subjects[item.rival]
    pair = interleave(
        lambda: ours.ns_per_value(item.operation, subjects.rng),
        lambda: rival.ns_per_value(item.rival_operation, subjects.rng),
        repeat,
    )
    return {
        "rival": item.rival,
        "label": rival.label,
        "does": item.rival_does,
        "values": rival.values,
        "ns_per_value": pair.rival.as_dict(),
        "ours": pair.ours.as_dict(),
        "ratio": pair.ratio.as_dict(),
    }


def threads(values: int, repeat: int, seed: int) -> dict[str, Any]:
    """One thread against two on one update.

    Returns
    -------
    dict
        ``values``; ``one`` and ``two`` in ns per value; ``ratio``; and ``cpus``: how many CPUs'
        time this process got while two threads ran, less than 2 if something else ran too.
    """
    params = qn.Parameters.for_aggregation(bits=BITS, max_weight=MAX_WEIGHT)
    subject = Ours("packed", params, values)
    rng = np.random.default_rng(seed)
    before = qn.num_threads()
    shares: list[float] = []

    def sample(count: int) -> float:
        qn.set_num_threads(count)
        subject.refresh(rng)
        busy = time.process_time()
        elapsed = seconds(subject.operations["encrypt"]())
        if count == 2:
            shares.append((time.process_time() - busy) / elapsed)
        return elapsed / values * 1e9

    try:
        pair = interleave(lambda: sample(2), lambda: sample(1), repeat)
    finally:
        qn.set_num_threads(before)
    return {
        "values": values,
        "two": pair.ours.as_dict(),
        "one": pair.rival.as_dict(),
        "ratio": pair.ratio.as_dict(),
        "cpus": Spread.of(shares).median,
    }


def upload_bytes(subjects: Subjects) -> list[dict[str, Any]]:
    """Serialized bytes per value of one upload, ours first."""
    keys = ("packed", "public", "seal", "tenseal", "paillier", "paillier_packed")
    ours = subjects["packed"]
    smallest = ours.upload_bytes / ours.values
    rows: list[dict[str, Any]] = []
    for key in keys:
        if not subjects.has(key):
            continue
        subject = subjects[key]
        each = subject.upload_bytes / subject.values
        rows.append(
            {
                "subject": key,
                "label": subject.label,
                "bytes_per_value": each,
                "ratio": each / smallest,
            }
        )
    return rows
