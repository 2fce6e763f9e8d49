"""``python threshold_cost.py``: what a threshold key costs beside one shared key, in one run.

Prints ratios: upload, encryption, each participant's part of decryption, and putting the parts
together. Every answer is checked first; times are the least CPU times of several rounds, in turns.
"""

from __future__ import annotations

import argparse
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

import quancrypt_native as qn
from quancrypt_native import threshold

LIMITS = {"upload": 2.6, "encryption": 3.0, "partial decryption": 3.0}
SHAPES = ((2, 3), (3, 5), (7, 10), (5, 5))
CLIP = 0.06
CLIENTS = 3


@dataclass
class Least:
    """Least CPU seconds of a step, over rounds."""

    seconds: dict[str, float] = field(default_factory=dict)

    def take(self, name: str, call: Callable[[], object]) -> object:
        """Run ``call`` once and note its time."""
        start = time.process_time()
        result = call()
        spent = time.process_time() - start
        self.seconds[name] = min(spent, self.seconds.get(name, spent))
        return result


class Shared:
    """One secret key that every client holds."""

    def __init__(self, x: np.ndarray) -> None:
        self.params = qn.Parameters.for_aggregation(bits=8, max_weight=16, values=x.size)
        keys = qn.keygen(self.params)
        self.encryptor = qn.Encryptor(self.params, keys.secret)
        self.decryptor = qn.Decryptor(self.params, keys.secret)
        self.x = x

    def round(self, least: Least) -> int:
        """Bytes of an upload."""
        first = least.take("encryption", lambda: self.encryptor.encrypt(self.x, CLIP).to_bytes())
        total = qn.aggregate([qn.EncryptedUpdate.from_bytes(first, self.params)] * CLIENTS)
        mean = least.take("decryption", lambda: self.decryptor.decrypt_mean(total))
        _check(mean, self.x)
        return len(first)


class Joint:
    """A key of ``parties``, ``needed`` of whom decrypt."""

    def __init__(self, x: np.ndarray, needed: int, parties: int) -> None:
        self.params = qn.Parameters.for_aggregation(
            bits=8, max_weight=16, values=x.size, key_mode="threshold", parties=parties
        )
        self.ceremony = threshold.Ceremony(
            self.params, parties=parties, threshold=needed, common_seed=secrets.token_bytes(32)
        )
        self.parties = [threshold.Party(self.ceremony, i) for i in range(parties)]
        for sender in self.parties:
            for recipient, data in sender.deal().items():
                self.parties[recipient].receive(sender.index, data)
        shares = {party.index: party.public_share() for party in self.parties}
        self.encryptor = qn.Encryptor(self.params, self.ceremony.public_key(shares))
        self.participants = list(range(needed))
        self.x = x

    def round(self, least: Least) -> int:
        """Bytes of an upload."""
        first = least.take("encryption", lambda: self.encryptor.encrypt(self.x, CLIP).to_bytes())
        total = qn.aggregate([qn.EncryptedUpdate.from_bytes(first, self.params)] * CLIENTS)
        # Each party has a copy of its own, and hashes it.
        data = total.to_bytes()
        copies = [qn.EncryptedUpdate.from_bytes(data, self.params) for _ in self.participants]
        parts = {
            i: least.take(
                "partial decryption",
                lambda i=i: self.parties[i].partial_decryption(copies[i], self.participants),
            )
            for i in self.participants
        }
        mean = least.take("combination", lambda: self.ceremony.decrypt_mean(copies[0], parts))
        _check(mean, self.x)
        return len(first)


def _check(mean: object, x: np.ndarray) -> None:
    error = np.abs(np.asarray(mean) - np.clip(x, -CLIP, CLIP)).max()
    assert error <= CLIP / 127 / 2 * (1 + 1e-5), error


def measure(values: int, rounds: int, needed: int, parties: int) -> dict[str, float]:
    """Ratios of a threshold key's costs to those of a shared key."""
    x = np.random.default_rng(1).normal(0, 0.02, values).astype(np.float32)
    shared, joint = Shared(x), Joint(x, needed, parties)
    one, other = Least(), Least()
    for _ in range(rounds):
        upload = shared.round(one)
        joint_upload = joint.round(other)
    decryption = one.seconds["decryption"]
    return {
        "upload": joint_upload / upload,
        "encryption": other.seconds["encryption"] / one.seconds["encryption"],
        "partial decryption": other.seconds["partial decryption"] / decryption,
        "combination": other.seconds["combination"] / decryption,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=int, default=4_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    qn.set_num_threads(args.threads)
    results = {}
    for needed, parties in SHAPES:
        results[f"{needed} of {parties}"] = measure(args.values, args.rounds, needed, parties)
    if args.json:
        print(json.dumps({"kernels": qn.backend(), "limits": LIMITS, "ratios": results}))
        return
    print(f"kernels {qn.backend()}, {args.threads} thread, {args.values:,} values; shared key = 1")
    print(f"{'':>10} " + " ".join(f"{name:>18}" for name in next(iter(results.values()))))
    for name, ratios in results.items():
        print(f"{name:>10} " + " ".join(f"{ratio:>18.2f}" for ratio in ratios.values()))
    print(f"{'at most':>10} " + " ".join(f"{limit:>18.2f}" for limit in LIMITS.values()))


if __name__ == "__main__":
    main()
