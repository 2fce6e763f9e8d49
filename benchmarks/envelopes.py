"""``python envelopes.py``: how many envelopes per second a gate opens and refuses, on one thread.

Replays, strangers, envelopes of another round, forged signatures; and honest ones, with the hash of
a body of ``--megabytes``. Checks that each is refused for its own reason, and that resident memory
does not grow. Prints a JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable

from quancrypt_fl.envelopes import EnvelopeError, Gate, Members, Purpose, Refusal
from quancrypt_fl.envelopes.signer import Signer

RUN, PARAMS, KEY = (os.urandom(16).hex() for _ in range(3))


def envelope(signer: Signer, round_: int, body: bytes) -> bytes:
    return signer.envelope(
        body, purpose=Purpose.UPLOAD, run=RUN, round=round_, params=PARAMS, key=KEY
    )


def refused(gate: Gate, make: Callable[[int], bytes], reason: Refusal, count: int) -> float:
    """Refusals per second; the clock does not run while what is sent is made."""
    seconds, reasons = 0.0, set()
    for number in range(count):
        data = make(number)
        start = time.perf_counter()
        try:
            gate.open(data, round=1)
        except EnvelopeError as error:
            reasons.add(error.reason)
        seconds += time.perf_counter() - start
    assert reasons == {reason}
    assert gate.refused[reason] == count
    return count / seconds


def measure(members: int, count: int, megabytes: float) -> dict[str, object]:
    signers = [Signer.generate(f"client-{number}") for number in range(members)]
    gate = Gate(Members(s.member for s in signers), run=RUN, params=PARAMS, key=KEY)
    replay, other, early = (
        envelope(signers[n], t, b"x" * 100) for n, t in ((0, 1), (1, 1), (2, 0))
    )
    gate.open(replay, round=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    floods: dict[str, tuple[Callable[[int], bytes], Refusal]] = {
        "replays": (lambda number: replay, Refusal.REPLAY),
        "strangers": (
            lambda number: other[:72] + os.urandom(16) + other[88:],
            Refusal.STRANGER,
        ),
        "other rounds": (lambda number: early, Refusal.ROUND),
        "forgeries": (
            lambda number: other[:128] + os.urandom(63) + b"\0" + other[192:],
            Refusal.SIGNATURE,
        ),
    }
    rates = {name: refused(gate, make, reason, count) for name, (make, reason) in floods.items()}
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    body = os.urandom(int(megabytes * 1e6))
    data = [envelope(signer, 2, body) for signer in signers[:20]]
    start = time.perf_counter()
    for each in data:
        gate.open(each, round=2)
    seconds = (time.perf_counter() - start) / len(data)
    return {
        "members": members,
        "count": count,
        "refused_per_second": {name: round(rate) for name, rate in rates.items()},
        "resident_kib_grown": grown,
        "honest": {"megabytes": megabytes, "milliseconds": round(1e3 * seconds, 3)},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=1000)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--megabytes", type=float, default=1.0)
    given = parser.parse_args()
    print(json.dumps(measure(given.members, given.count, given.megabytes), indent=2))
