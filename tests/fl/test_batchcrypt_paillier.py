"""BatchCrypt under Paillier: the pool of processes, the two sides, and what they refuse."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("phe", reason="needs the [baselines] extra")

from quancrypt_fl.audit import secrets_within_reach
from quancrypt_fl.baselines.batchcrypt import (
    SECRET_TYPES,
    BatchCrypt,
    BatchCryptMethod,
    RangeReporter,
    RangeSummer,
)
from quancrypt_fl.baselines.batchcrypt import paillier as paillier_module
from quancrypt_fl.baselines.batchcrypt.paillier import Pool, SecretKey, generate
from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.roles import GlobalState, Update
from quancrypt_fl.method.weighting import Share

KEY_BITS = 256  # breakable in minutes, and quick


@pytest.fixture(scope="module")
def secret() -> SecretKey:
    return generate(KEY_BITS)


@pytest.fixture(scope="module")
def pool(secret: SecretKey) -> Iterator[Pool]:
    with Pool(secret, processes=2) as pool:
        yield pool


def dither(client: int) -> Callable[[int], np.random.Generator]:
    return lambda t: np.random.default_rng((client, t))


def update(seed: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return {
        "conv.weight": rng.normal(0, 0.02, (4, 3, 3)).astype(np.float32),
        "empty": np.zeros((0, 5), np.float32),
        "fc.bias": rng.normal(0, 0.1, 10).astype(np.float32),
    }


CLIPS = {"conv.weight": 0.05, "empty": 1.0, "fc.bias": 0.2}


def alive(pid: int | str) -> bool:
    """Whether the process still runs; one that nobody has waited for does not."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


# --- keys and processes ---


@pytest.mark.parametrize("processes", [1, 2])
def test_encryption_inverts_and_adds(secret: SecretKey, processes: int) -> None:
    n = secret.public.n
    numbers = [0, 1, n - 1, n // 2, n - n // 3 + 1, *range(100)]
    with Pool(secret, processes) as pool:
        first, second = pool.encrypt(numbers), pool.encrypt(numbers)
        assert pool.decrypt(first) == numbers
        assert not set(first) & set(second)  # fresh randomness
        total = secret.public.add(first, second)
        assert pool.decrypt(total) == [2 * number % n for number in numbers]
        assert pool.encrypt([]) == []


@pytest.mark.parametrize("processes", [2, 5])
@pytest.mark.parametrize("count", [0, 1, 7, 100, 149, 1000])
def test_few_integers_are_shared_out_evenly(count: int, processes: int) -> None:
    """A sixteenth of an update takes a sixteenth of its time: no process has much more to do."""
    size = paillier_module._chunk_size(count, processes)
    assert 1 <= size <= 32
    load = [0] * processes
    for at in range(0, count, size):  # a child that is done takes the next
        load[load.index(min(load))] += min(size, count - at)
    assert sum(load) == count
    assert max(load) <= count / processes + size
    assert size == 1 or size == 32 or size - 1 < count / (4 * processes)


def test_gmp_computes(secret: SecretKey, monkeypatch: pytest.MonkeyPatch) -> None:
    import gmpy2
    from phe import util

    calls = []
    original = gmpy2.powmod
    monkeypatch.setattr(gmpy2, "powmod", lambda *a: calls.append(a) or original(*a))
    local = Pool(secret, processes=1)
    local.decrypt(local.encrypt([5]))
    assert len(calls) >= 3  # r^n, and two powers of the decryption
    monkeypatch.setattr(util, "HAVE_GMP", False)
    with pytest.raises(MethodError, match="phe does not use gmpy2"):
        generate(KEY_BITS)


def test_children_import_phe_alone(pool: Pool) -> None:
    pool.encrypt([1])  # by one of them; the others are still starting
    for child in pool._children:
        ending = time.monotonic() + 60
        while "gmpy2" not in (maps := Path(f"/proc/{child.pid}/maps").read_text()):
            assert time.monotonic() < ending
            time.sleep(0.05)
        assert "torch" not in maps
        assert "numpy" not in maps


def test_no_process_is_left(secret: SecretKey) -> None:
    def gone(children: list[subprocess.Popen[bytes]]) -> bool:
        return all(not Path(f"/proc/{child.pid}").exists() for child in children)

    pool = Pool(secret, 2)
    pool.encrypt([1])
    children = list(pool._children)
    assert len(children) == 2
    pool.close()
    assert gone(children)
    assert pool.decrypt(pool.encrypt([7])) == [7]  # starts new ones
    children = list(pool._children)
    del pool
    gc.collect()
    assert gone(children)


def test_a_child_that_dies_is_reported(secret: SecretKey) -> None:
    pool = Pool(secret, 2)
    pool.encrypt([1])
    for child in pool._children:
        child.kill()
    with pytest.raises(MethodError, match="a Paillier process ended early, with status -9"):
        pool.encrypt(list(range(200)))
    assert pool._children == []
    assert pool.decrypt(pool.encrypt([3])) == [3]
    pool.close()


def test_a_start_that_is_interrupted_leaves_nothing(
    secret: SecretKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    original = paillier_module._child

    def child() -> subprocess.Popen[bytes]:
        if started:
            raise KeyboardInterrupt
        started.append(original())
        return started[0]

    monkeypatch.setattr(paillier_module, "_child", child)
    pool = Pool(secret, 2)
    with pytest.raises(KeyboardInterrupt):
        pool.encrypt([1])
    assert not alive(started[0].pid)
    monkeypatch.undo()
    assert pool.decrypt(pool.encrypt([5])) == [5]
    pool.close()


PROGRAM = """
    import signal
    # What runs the tests may ignore SIGINT, which children inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from quancrypt_fl.baselines.batchcrypt.paillier import Pool, generate
    pool = Pool(generate(1024), 2)   # no __main__ guard
    pool.encrypt([1])
    print(*(child.pid for child in pool._children), flush=True)
    try:
        pool.encrypt(range(10**6))
    except KeyboardInterrupt:
        print("interrupted", len(pool._children), flush=True)
"""


def test_ctrl_c_stops_everything() -> None:
    """As a terminal sends it: to the whole foreground group."""
    program = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(PROGRAM)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert program.stdout is not None
    children = program.stdout.readline().split()
    time.sleep(0.3)
    os.killpg(program.pid, signal.SIGINT)
    try:
        out, err = program.communicate(timeout=60)
    finally:
        program.kill()
        program.wait()
    assert (out, err, program.returncode) == ("interrupted 0\n", "", 0)
    assert len(children) == 2
    assert not any(alive(child) for child in children)


def test_children_do_not_outlive_a_killed_program() -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)], stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    children = program.stdout.readline().split()
    program.kill()
    program.communicate()
    deadline = time.monotonic() + 30
    while any(alive(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_secrets_stay(secret: SecretKey) -> None:
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never serialized"):
            attempt(secret)
    assert str(secret.p) not in repr(secret)
    assert str(secret.q) not in repr(secret)


def test_keys_out_of_range() -> None:
    for bits in (0, 64, 257, 20_000):
        with pytest.raises(MethodError, match=f"a Paillier modulus of {bits} bits"):
            generate(bits)
    with pytest.raises(MethodError, match="processes is 0"):
        Pool(SecretKey(paillier_module.PublicKey(15), 3, 5), 0)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "phe.util", None)
    with pytest.raises(MethodError, match=r"needs 'phe.util'.*quancrypt-native\[baselines\]"):
        BatchCrypt(bits=8, parties=2, key_bits=KEY_BITS)


# --- the two sides ---


@pytest.mark.parametrize(("bits", "parties"), [(8, 3), (2, 12), (16, 1)])
def test_encryption_changes_nothing(bits: int, parties: int) -> None:
    """Means equal those of the plain integers and of NumPy, bit for bit; a party may be absent."""
    results = []
    for encryption in (True, False):
        with BatchCrypt(
            bits=bits, parties=parties, key_bits=KEY_BITS, processes=1, encryption=encryption
        ) as protection:
            server = protection.server()
            for arrived in {parties, max(1, parties - 1)}:
                expected = {name: np.zeros(x.shape) for name, x in update(0).items()}
                for client in range(arrived):
                    side = protection.client(dither(client))
                    sealed = side.protect(update(client), CLIPS, t=4)
                    assert sealed.ciphertexts == encryption * protection.lanes.integers(46)
                    server.add(sealed.data, 1)
                    for name, values in side.quantized(update(client), CLIPS, t=4).items():
                        expected[name] += values
                means, weight = protection.client(dither(0)).unprotect(server.result())
                assert weight == arrived
                for name, mean in means.items():
                    np.testing.assert_allclose(mean, expected[name] / arrived, rtol=1e-5, atol=1e-7)
                results.append(means)
    half = len(results) // 2
    for encrypted, plain in zip(results[:half], results[half:], strict=True):
        assert list(encrypted) == list(update(0))
        for name in encrypted:
            assert encrypted[name].dtype == np.float32
            np.testing.assert_array_equal(encrypted[name], plain[name])


def test_means_are_those_of_clipped_updates() -> None:
    protection = BatchCrypt(bits=12, parties=10, key_bits=KEY_BITS, encryption=False)
    server = protection.server()
    for client in range(10):
        server.add(protection.client(dither(client)).protect(update(client), CLIPS, 0).data, 1)
    means, _ = protection.client(dither(0)).unprotect(server.result())
    for name, clip in CLIPS.items():
        clipped = [np.clip(update(client)[name], -clip, clip) for client in range(10)]
        step = clip * 10 / protection.lanes.q_max / 10  # of one party's integer, in the mean
        assert np.abs(means[name] - np.mean(clipped, axis=0)).max(initial=0) < 10 * step


def test_the_server_holds_no_secret() -> None:
    with BatchCrypt(bits=8, parties=2, key_bits=KEY_BITS, processes=1) as protection:
        server, side = protection.server(), protection.client(dither(0))
        server.add(side.protect(update(0), CLIPS, 0).data, 1)
        assert secrets_within_reach(server, SECRET_TYPES) == []
        for holder in ([side], [protection], [protection._pool], [lambda: side]):
            assert secrets_within_reach(holder, SECRET_TYPES)
        key = protection._pool._secret  # type: ignore[union-attr]
        seen: set[int] = set()
        pending: list[object] = [server]
        while pending:  # neither prime is anywhere in what the server refers to
            item = pending.pop()
            if id(item) in seen or isinstance(item, type):
                continue
            seen.add(id(item))
            assert item not in (key.p, key.q)
            pending += [x for x in gc.get_referents(item) if not isinstance(x, type(sys))]
        assert len(seen) > 5


def test_sizes_are_those_of_the_ciphertexts() -> None:
    protection = BatchCrypt(bits=8, parties=10, key_bits=KEY_BITS, processes=1)
    values = {"w": np.zeros(1000, np.float32)}
    sealed = protection.client(dither(0)).protect(values, {"w": 1.0}, 0)
    assert sealed.ciphertexts == -(-1000 // (255 // 13))
    assert 0 < len(sealed.data) - sealed.ciphertexts * KEY_BITS // 4 < 250
    facts = protection.facts()
    assert facts["parameters"]["values_per_ciphertext"] == 255 // 13
    assert facts["security_bits"] == 0
    assert protection.key_id is not None
    plain = BatchCrypt(bits=8, parties=10, key_bits=KEY_BITS, encryption=False)
    assert plain.key_id is None
    assert plain.facts() == {}


def test_only_weight_1() -> None:
    protection = BatchCrypt(bits=8, parties=2, key_bits=KEY_BITS, encryption=False)
    server, side = protection.server(), protection.client(dither(0))
    data = side.protect(update(0), CLIPS, 0).data
    with pytest.raises(MethodError, match="weight is 3; BatchCrypt's lanes allow 1"):
        server.add(data, 3)
    with pytest.raises(MethodError, match="nothing to sum"):
        server.result()
    server.add(data, 1)
    server.add(data, 1)
    with pytest.raises(MethodError, match="more uploads than the 2 that a lane has room for"):
        server.add(data, 1)
    total = server.result()
    with pytest.raises(MethodError, match="an upload claims the weight 2"):
        server.add(total, 1)


def test_uploads_must_agree() -> None:
    protection = BatchCrypt(bits=8, parties=3, key_bits=KEY_BITS, encryption=False)
    server, side = protection.server(), protection.client(dither(0))
    server.add(side.protect(update(0), CLIPS, 0).data, 1)
    with pytest.raises(MethodError, match=r"clip=0.3.*earlier ones have.*clip=0.2"):
        server.add(side.protect(update(0), {**CLIPS, "fc.bias": 0.3}, 0).data, 1)
    fewer = {"conv.weight": update(0)["conv.weight"]}
    with pytest.raises(MethodError, match="an upload has 1 tensors; earlier ones 3"):
        server.add(side.protect(fewer, {"conv.weight": 0.05}, 0).data, 1)
    with pytest.raises(MethodError, match=r"clip bounds of \['a'\]; the tensors are \['b'\]"):
        side.protect({"b": np.zeros(1, np.float32)}, {"a": 1.0}, 0)


def header_of(data: bytes) -> bytes:
    return data[8 : 8 + int.from_bytes(data[4:8], "big")]


def with_header(data: bytes, old: bytes, new: bytes) -> bytes:
    header = header_of(data)
    assert old in header
    changed = header.replace(old, new)
    return data[:4] + len(changed).to_bytes(4, "big") + changed + data[8 + len(header) :]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"bits":8', b'"bits":9', "an update has bits = 9; this run's is 8"),
        (b'"width":64', b'"width":65', "an update has width = 65"),
        (b'"weight":1', b'"weight":9', "an update of weight 9; allowed: 1 to 3"),
        (b'"weight":1', b'"weight":true', "'weight' in the header of an update is True"),
        (b'"weight":1', b'"weight":1.0', "'weight' in the header of an update is 1.0"),
        (b'"weight"', b'"height"', "the header of an update holds"),
        (b'"integers":2', b'"integers":3', "3 integers in 128 bytes; the tensors take 2"),
        (b"[4,3,3]", b"[4,3,9999999]", "the tensors take"),
        (b"[4,3,3]", b"[4,3,-3]", "a tensor in the header"),
        (b"[4,3,3]", b"[4,3,3.0]", "a tensor in the header"),
        (b"[4,3,3]", b"[17179869184,17179869184]", "values in an update; allowed"),
        (b"0.05", b"0.0", "a tensor in the header"),
        (b"0.05", b"NaN", "a tensor in the header"),
        (b'"fc.bias"', b'"empty"', "an update names a tensor twice"),
        (b'{"bits"', b'["bits"', "is not JSON"),
        (b'{"bits"', b'"\xff"', "is not JSON"),
    ],
)
def test_a_changed_header_is_refused(old: bytes, new: bytes, message: str) -> None:
    protection = BatchCrypt(bits=8, parties=3, key_bits=KEY_BITS, processes=1)
    data = protection.client(dither(0)).protect(update(0), CLIPS, 0).data
    with pytest.raises(MethodError, match=message):
        protection.server().add(with_header(data, old, new), 1)


def test_damaged_bytes_are_refused() -> None:
    protection = BatchCrypt(bits=8, parties=3, key_bits=KEY_BITS, processes=1)
    data = protection.client(dither(0)).protect(update(0), CLIPS, 0).data
    square = protection._wire.public.n**2  # type: ignore[union-attr]
    damaged = {
        b"": "not an update of this method: it begins with b''",
        b"XXXX" + data[4:]: "not an update of this method: it begins with b'XXXX'",
        data[:20]: "a header of",
        data[:4] + b"\xff\xff\xff\xff" + data[8:]: "a header of 4294967295 bytes",
        data[:-1]: "2 integers in 127 bytes",
        data + b"\0": "2 integers in 129 bytes",
        data[:-64] + bytes(64): r"a ciphertext is not in \[1, n\^2\)",
        data[:-64] + square.to_bytes(64, "big"): r"a ciphertext is not in \[1, n\^2\)",
    }
    for wrong, message in damaged.items():
        with pytest.raises(MethodError, match=message):
            protection.server().add(wrong, 1)
    deep = b"[" * 100_000
    with pytest.raises(MethodError, match="is not JSON"):
        protection.server().add(data[:4] + len(deep).to_bytes(4, "big") + deep, 1)


def test_integers_in_the_clear_stay_within_their_lanes() -> None:
    """256 bits of room on the wire, of which lanes use fewer."""
    protection = BatchCrypt(bits=8, parties=3, key_bits=KEY_BITS, encryption=False)
    bits = protection.lanes.lane_bits * protection.lanes.count
    width = protection._wire.width
    assert bits < 8 * width
    server, side = protection.server(), protection.client(dither(0))
    data = side.protect(update(0), CLIPS, 0).data
    server.add(data, 1)
    for number in (1 << bits, (1 << 8 * width) - 1):
        with pytest.raises(MethodError, match=f"exceeds its lanes of {bits} bits"):
            server.add(data[:-width] + number.to_bytes(width, "big"), 1)
    means, weight = side.unprotect(server.result())
    assert weight == 1
    for name, mean in side.quantized(update(0), CLIPS, 0).items():
        np.testing.assert_array_equal(means[name], mean)


def test_a_sum_under_another_key_is_noticed() -> None:
    def modulus(run: BatchCrypt) -> int:
        assert run._wire.public is not None
        return run._wire.public.n

    runs = [BatchCrypt(bits=8, parties=3, key_bits=KEY_BITS, processes=1) for _ in range(2)]
    ours, theirs = sorted(runs, key=modulus)  # so that every ciphertext is in their range
    values = {"w": np.zeros(30 * ours.lanes.count, np.float32)}  # by chance in its lanes: not all
    data = ours.client(dither(0)).protect(values, {"w": 1.0}, 0).data
    with pytest.raises(MethodError, match="not within its lanes"):
        theirs.client(dither(0)).unprotect(data)


# --- in a round ---


def test_the_range_exchange() -> None:
    """Reports, bounds and updates as a round calls them."""
    method, reporter = BatchCryptMethod(), RangeReporter()
    state = GlobalState(0, {name: x * 0 for name, x in update(0).items()})
    assert method.must_agree(state)
    updates = [Update(update(client), Share(1, 1.0)) for client in range(3)]
    sizes = {name: x.size for name, x in update(0).items()}
    server = RangeSummer(sizes, bits=8, parties=3)
    for one in updates:
        server.add(reporter.protect(*method.report(one), 0).data, 1)
    opened, parties = reporter.unprotect(server.result())
    assert parties == 3
    bounds = method.agreed(opened, parties)
    assert set(bounds) == set(sizes)
    assert all(bound > 0 for bound in bounds.values())
    tensors, clips = method.outgoing(updates[0], GlobalState(0, state.weights, bounds))
    assert clips == bounds
    assert tensors is updates[0].tensors
    with pytest.raises(MethodError, match="nothing to sum"):
        server.result()
    with pytest.raises(MethodError, match="damaged"):
        server.add(b"nonsense", 1)


def test_a_layer_at_full_key_size() -> None:
    """2048 bits, two processes: 10 parties, 1,000 values each."""
    values = [{"w": np.random.default_rng(c).normal(0, 1, 1000).astype("f4")} for c in range(10)]
    results = []
    for encryption in (True, False):
        with BatchCrypt(bits=8, parties=10, processes=2, encryption=encryption) as protection:
            server = protection.server()
            for client, tensors in enumerate(values):
                sealed = protection.client(dither(client)).protect(tensors, {"w": 3.0}, 0)
                server.add(sealed.data, 1)
                assert sealed.ciphertexts == 7 * encryption
            results.append(protection.client(dither(0)).unprotect(server.result())[0]["w"])
    np.testing.assert_array_equal(*results)
