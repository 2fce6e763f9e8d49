"""Fresh encryptions share no randomness: neither seeds nor any 16 bytes of their bodies."""

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.native import oracle
from tests.native.conftest import Party

import quancrypt_native as qn

WINDOW = 16
"""Bytes. Two random strings of a megabyte share one with probability below 2^-87."""


def windows(data: bytes) -> set[bytes]:
    """All strings of ``WINDOW`` bytes in ``data``, at every offset."""
    return {data[at : at + WINDOW] for at in range(len(data) - WINDOW + 1)}


def assert_nothing_shared(parts: Sequence[bytes]) -> None:
    """No window of one part occurs in another, at any offset, nor twice in one part."""
    seen: set[bytes] = set()
    for part in parts:
        own = windows(part)
        assert len(own) == len(part) - WINDOW + 1
        assert not own & seen
        seen |= own


def random_parts(update: qn.EncryptedUpdate) -> list[bytes]:
    """Seed and body, or the polynomials of an unseeded update."""
    header, body = oracle.unframe(update.to_bytes())
    if header["seed"] is not None:
        return [bytes.fromhex(header["seed"]), body]
    size = oracle.polynomial_bytes(update.params)
    return [body[at : at + size] for at in range(0, len(body), size)]


@pytest.mark.parametrize(
    "name", ["small", "public", "wide", "wide_public", "small_slots", "standard_slots"]
)
@pytest.mark.parametrize("key", ["secret", "public"])
def test_equal_inputs_share_nothing(request: pytest.FixtureRequest, name: str, key: str) -> None:
    party: Party = request.getfixturevalue(name)
    if key == "public" and party.params.key_mode != "public":
        key = "secret"
    encryptor = qn.Encryptor(party.params, getattr(party.keys, key))
    x = np.zeros(2 * party.params.values_per_ciphertext)
    parts = [part for _ in range(4) for part in random_parts(encryptor.encrypt(x, clip=1.0))]
    assert len(parts) == (8 if key == "secret" else 16)
    assert_nothing_shared(parts)


def test_many_small_updates_share_nothing(small: Party) -> None:
    q = np.full(10, 127)
    assert_nothing_shared(
        [p for _ in range(40) for p in random_parts(small.encryptor.encrypt_integers(q))]
    )


def test_no_byte_stands_still(small: Party) -> None:
    """At no offset are the bytes of 64 encryptions of one input all equal."""
    bodies = [random_parts(small.encryptor.encrypt_integers(np.zeros(10, int))) for _ in range(64)]
    for part in (0, 1):
        stacked = np.array([np.frombuffer(parts[part], np.uint8) for parts in bodies])
        # 2^-504 for each offset, were it random.
        assert (stacked != stacked[0]).any(axis=0).all()


def test_ciphertexts_of_one_update_differ(small: Party) -> None:
    """Equal plaintexts under one seed: the ciphertext's index keeps c1 and noise apart."""
    count = 8
    update = small.encryptor.encrypt_integers(np.zeros(count * 1024, np.int8))
    seed, _ = random_parts(update)
    c1 = [
        oracle.pack_polynomial(small.params, oracle.expand_c1(small.params, seed, i))
        for i in range(count)
    ]
    assert_nothing_shared(c1)
    noises = [oracle.decrypt(update, small.keys.secret, i).noise for i in range(count)]
    for a, b in itertools.combinations(noises, 2):
        assert (a != b).mean() > 0.5


def test_noise_is_drawn_anew(small: Party, public: Party) -> None:
    for party in (small, public):
        q = np.zeros(party.params.values_per_ciphertext, np.int8)
        noises = [
            oracle.decrypt(party.encryptor.encrypt_integers(q), party.keys.secret).noise
            for _ in range(4)
        ]
        for a, b in itertools.combinations(noises, 2):
            assert (a != b).mean() > 0.5


def test_a_seeded_generator_does_not_reach_the_encryption(small: Party) -> None:
    x = np.full(1024, 0.3)
    parts = []
    for _ in range(4):
        update = small.encryptor.encrypt(
            x, clip=127.0, rounding="stochastic", rng=np.random.default_rng(1)
        )
        parts += random_parts(update)
    assert_nothing_shared(parts)
    np.random.seed(1)  # noqa: NPY002  the legacy state must not matter either
    first = random_parts(small.encryptor.encrypt(x, clip=1.0))
    np.random.seed(1)  # noqa: NPY002
    assert_nothing_shared(first + random_parts(small.encryptor.encrypt(x, clip=1.0)))


def test_threads_share_nothing(small: Party) -> None:
    encryptor, parts, lock = small.encryptor, [], threading.Lock()
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        mine = [random_parts(encryptor.encrypt_integers(np.zeros(2048, int))) for _ in range(8)]
        with lock:
            parts.extend(part for pair in mine for part in pair)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(parts) == 64
    assert_nothing_shared(parts)


FORK = """
import os, sys
import numpy as np
import quancrypt_native as qn

params = qn.Parameters.for_aggregation(bits=8, max_weight=16, max_poly_degree=1024)
keys = qn.keygen(params)
encryptor, decryptor = qn.Encryptor(params, keys.secret), qn.Decryptor(params, keys.secret)
zeros = np.zeros(8 * 1024, np.int8)
qn.set_num_threads(2)
encryptor.encrypt_integers(zeros)  # the pool's threads exist before the fork
children = []
for _ in range(3):
    source, sink = os.pipe()
    if os.fork() == 0:
        update = encryptor.encrypt_integers(zeros)
        assert not np.asarray(decryptor.decrypt_integers(update)).any()
        with os.fdopen(sink, "wb") as out:
            out.write(update.to_bytes())
        os._exit(0)
    os.close(sink)
    children.append(source)
updates = [encryptor.encrypt_integers(zeros).to_bytes()]
for source in children:
    with os.fdopen(source, "rb") as stream:
        updates.append(stream.read())
    _, status = os.wait()
    assert status == 0, status
sys.stdout.write(params.to_bytes().hex() + "\\n" + "\\n".join(u.hex() for u in updates))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
def test_forks_share_nothing(tmp_path: Path) -> None:
    """Parent and children after fork(), the thread pool running: own randomness, right answers."""
    script = tmp_path / "fork.py"
    script.write_text(FORK)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(script)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    params_hex, *updates = done.stdout.split("\n")
    params = qn.Parameters.from_bytes(bytes.fromhex(params_hex))
    assert len(updates) == 4
    assert_nothing_shared(
        [
            part
            for data in updates
            for part in random_parts(qn.EncryptedUpdate.from_bytes(bytes.fromhex(data), params))
        ]
    )


def test_keys_share_nothing(small: Party) -> None:
    pairs = [qn.keygen(small.params) for _ in range(6)]
    assert len({pair.key_id for pair in pairs}) == 6
    frames = [oracle.unframe(pair.public.to_bytes()) for pair in pairs]
    assert_nothing_shared([bytes.fromhex(header["seed"]) for header, _ in frames])
    assert_nothing_shared([body for _, body in frames])
    secrets = [oracle.secret_coefficients(pair.secret) for pair in pairs]
    for a, b in itertools.combinations(secrets, 2):
        assert (a != b).mean() > 0.5


def test_secrets_are_uniform_ternary(small: Party) -> None:
    """Counts of -1, 0, 1 over 48 keys: chi-squared with two degrees of freedom below 50."""
    keys = [qn.keygen(small.params).secret for _ in range(48)]
    drawn = np.concatenate([oracle.secret_coefficients(key) for key in keys]).astype(np.int64)
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [-1, 0, 1]
    expected = len(drawn) / 3
    assert ((counts - expected) ** 2 / expected).sum() < 50


def bodies_of(make: Callable[[], qn.EncryptedUpdate], count: int) -> np.ndarray:
    return np.array([np.frombuffer(b"".join(random_parts(make())), np.uint8) for _ in range(count)])


@pytest.mark.parametrize("value", [-127, 0, 127])
def test_bodies_look_uniform_whatever_they_hold(small: Party, value: int) -> None:
    """Each bit of seed and body over 400 encryptions of one input: set in half of them."""
    q = np.full(1024, value)
    bodies = bodies_of(lambda: small.encryptor.encrypt_integers(q), 400)
    shares = np.unpackbits(bodies, axis=1).mean(axis=0)
    # Eight standard errors; p = 4188161 is 0.15 % below 2^22, which its highest bits show.
    assert np.abs(shares - 0.5).max() < 8 * 0.5 / np.sqrt(400) + 0.002
    assert abs(shares.mean() - 0.5) < 0.002
