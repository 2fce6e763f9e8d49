"""Threads, kernel sets, and what the environment chooses."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from tests.native.conftest import Party, integers, packed
from tests.native.secret_needles import SANITIZED
from tests.native.wire_objects import cheap_scrypt

import quancrypt_native as qn

SetThreads = Callable[[int], None]


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("name", ["small", "public", "wide", "small_slots"])
def test_any_number_of_threads(
    request: pytest.FixtureRequest, set_threads: SetThreads, name: str, threads: int
) -> None:
    """Encrypted with some threads, summed with others, decrypted with others again."""
    party: Party = request.getfixturevalue(name)
    rng = np.random.default_rng(1)
    size = 9 * party.params.values_per_ciphertext + 3
    if name == "small_slots":
        x = rng.normal(0, 0.3, size)
        set_threads(threads)
        update = party.seeded.encrypt(x)
        set_threads(5)
        np.testing.assert_allclose(party.decryptor.decrypt_mean(update), x, atol=0.05)
        return
    q = integers(rng, 127, size)
    set_threads(threads)
    assert qn.num_threads() == threads
    update = party.encryptor.encrypt_integers(q)
    for other in (1, 2, 4):
        set_threads(other)
        data = qn.EncryptedUpdate.from_bytes(update.to_bytes(), party.params)
        total = qn.aggregate([data, update], weights=[2, 3])
        set_threads(threads)
        np.testing.assert_array_equal(party.decryptor.decrypt_integers(total), 5 * q)
        assert total.to_bytes() == qn.aggregate([update], weights=[5]).to_bytes()


def test_stochastic_rounding_does_not_depend_on_threads(
    small: Party, set_threads: SetThreads
) -> None:
    x = np.random.default_rng(1).normal(0, 50, 20_000)
    results = []
    for threads in (1, 2, 7):
        set_threads(threads)
        update = small.encryptor.encrypt(
            x, clip=127.0, rounding="stochastic", rng=np.random.default_rng(2)
        )
        results.append(small.decryptor.decrypt_integers(update))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize("threads", [1, 4])
def test_many_python_threads_at_once(
    small: Party, public: Party, set_threads: SetThreads, threads: int
) -> None:
    """Encryptors, decryptors and parameters are shared; aggregators are one for each thread."""
    set_threads(threads)
    start = threading.Barrier(6)

    def work(seed: int) -> None:
        party = (small, public)[seed % 2]
        rng = np.random.default_rng(seed)
        encryptor, decryptor = party.encryptor, party.decryptor
        start.wait()
        for _ in range(12):
            q = integers(rng, 127, int(rng.integers(1, 12_000)))
            total = qn.Aggregator(party.params)
            for weight in (1, 4, 2):
                data = encryptor.encrypt_integers(q).to_bytes()
                total.add(qn.EncryptedUpdate.from_bytes(data, party.params), weight=weight)
            np.testing.assert_array_equal(decryptor.decrypt_integers(total.result()), 7 * q)

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(work, seed) for seed in range(6)]:
            future.result()


def test_one_update_in_many_threads(wide: Party) -> None:
    """Reading the same object from several threads."""
    q = integers(np.random.default_rng(1), 127, 60_000)
    update = wide.encryptor.encrypt_integers(q)
    data = update.to_bytes()

    def work(_: int) -> bool:
        same = np.array_equal(np.asarray(wide.decryptor.decrypt_integers(update)), q)
        return same and qn.aggregate([update]).weight == 1 and update.to_bytes() == data

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(24)))


def operations() -> dict[str, Callable[[], Any]]:
    """Calls of some tens of milliseconds each, nearly all of it in the core."""
    party = packed(bits=8, max_weight=16)
    encryptor, decryptor = party.seeded, party.decryptor
    values = np.zeros(6_000_000, np.float32)
    update = encryptor.encrypt(values, clip=1.0)
    data = update.to_bytes()
    total = qn.Aggregator(party.params)
    total.add(update)
    return {
        "encrypt": lambda: encryptor.encrypt(values, clip=1.0),
        "decrypt": lambda: decryptor.decrypt_mean(update),
        "parse": lambda: qn.EncryptedUpdate.from_bytes(data, party.params),
        "add": lambda: qn.aggregate([update]),
        "result": total.result,
    }


@pytest.mark.parametrize("name", ["encrypt", "decrypt", "parse", "add", "result"])
def test_other_threads_run_during_native_work(set_threads: SetThreads, name: str) -> None:
    """Some call's middle half sees another Python thread tick; under the GIL none could."""
    set_threads(1)
    operation = operations()[name]
    stop, ticks = threading.Event(), []

    def tick() -> None:
        while not stop.is_set():
            ticks.append(time.perf_counter())

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        for _ in range(100):
            ticks.clear()
            begin = time.perf_counter()
            operation()
            end = time.perf_counter()
            quarter = (end - begin) / 4
            inside = [t for t in list(ticks) if begin + quarter < t < end - quarter]
            if len(inside) >= 3:
                break
    finally:
        stop.set()
        thread.join()
    assert len(inside) >= 3


@pytest.mark.parametrize("threads", [0, -1, 1025, 1.0, "2", None, True, 2**70], ids=repr)
def test_wrong_numbers_of_threads(threads: Any) -> None:
    before = qn.num_threads()
    with pytest.raises(qn.ParameterError, match=r"threads is .*1 to 1024"):
        qn.set_num_threads(threads)
    assert qn.num_threads() == before


def python(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A fresh interpreter with ``quancrypt_native as qn`` and ``numpy as np``."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("QUANCRYPT_")}
    return subprocess.run(
        [sys.executable, "-c", f"import numpy as np, quancrypt_native as qn\n{code}"],
        env=clean | environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_threads_from_the_environment() -> None:
    code = "print(qn.num_threads())"
    assert python(code, QUANCRYPT_NUM_THREADS="3").stdout == "3\n"
    assert python(code, QUANCRYPT_NUM_THREADS="1024").stdout == "1024\n"
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert python(code).stdout == f"{available}\n"
    # The environment sets the start value, a call the number from there on.
    code = "qn.set_num_threads(2); print(qn.num_threads())"
    assert python(code, QUANCRYPT_NUM_THREADS="3").stdout == "2\n"


def test_kernel_sets_from_the_environment() -> None:
    names = qn.backends()
    assert names[-1] == "portable"
    assert len(set(names)) == len(names)
    assert python("print(qn.backend())").stdout == f"{names[0]}\n"
    for name in names:
        assert python("print(qn.backend())", QUANCRYPT_BACKEND=name).stdout == f"{name}\n"
    assert python("print(qn.backend())", QUANCRYPT_BACKEND="").stdout == f"{names[0]}\n"


@pytest.mark.parametrize(
    "use",
    [
        "qn.backend()",
        "qn.Parameters.for_aggregation().to_bytes()",
        "qn.keygen(qn.Parameters.for_aggregation())",
        "qn.quantize(np.zeros(3), 1.0, 8)",
    ],
)
def test_an_unknown_kernel_set_is_an_error(use: str) -> None:
    """Never silently another one: a clear error at the first use, of our kind."""
    done = python(
        f"try:\n    {use}\nexcept qn.ParameterError as error:\n    print(error)",
        QUANCRYPT_BACKEND="sse9",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "QUANCRYPT_BACKEND is 'sse9', which this build and machine do not run; allowed: "
        f"{', '.join(qn.backends())}\n"
    )


DETERMINISTIC = """
import hashlib, json, pathlib, sys
digest = hashlib.sha256()
folder = pathlib.Path(sys.argv[-1])
def note(*items):
    for item in items:
        digest.update(item if isinstance(item, bytes) else np.ascontiguousarray(item).tobytes())
for part in sorted(folder.glob("*.params")):
    params = qn.Parameters.from_bytes(part.read_bytes())
    key = qn.SecretKey.from_bytes(part.with_suffix(".key").read_bytes(), params, passphrase=b"x")
    update = qn.EncryptedUpdate.from_bytes(part.with_suffix(".update").read_bytes(), params)
    public = qn.PublicKey.from_bytes(part.with_suffix(".public").read_bytes(), params)
    decryptor = qn.Decryptor(params, key)
    total = qn.aggregate([update, update], weights=[1, 2])
    # Both polynomials: the seeded expansion of c1, unpacking, scaling, packing.
    note(total.to_bytes(), public.to_bytes())
    note(*qn.seal.export_ciphertexts(update), qn.seal.export_secret_key(key))
    note(qn.seal.export_public_key(public))
    note(decryptor.decrypt_mean(total), decryptor.decrypt_sum(update))
    if params.encoding == "packed":
        note(decryptor.decrypt_integers(total))
        x = np.random.default_rng(1).normal(0, 1, 5000)
        for dtype in (np.float32, np.float64):
            note(qn.quantize(x.astype(dtype), 1.5, params.bits))
            fresh = qn.Encryptor(params, key).encrypt(
                x.astype(dtype), 1.5, rounding="stochastic", rng=np.random.default_rng(3))
            note(decryptor.decrypt_integers(fresh))
        encrypting = public if params.key_mode == "public" else key
        fresh = qn.Encryptor(params, encrypting).encrypt(x, 1.5)
        note(decryptor.decrypt_mean(fresh))
print(qn.backend(), digest.hexdigest())
"""


def test_all_kernel_sets_compute_the_same(
    tmp_path: Any, small: Party, wide: Party, wide_public: Party, standard_slots: Party
) -> None:
    """Every deterministic result of recorded keys and ciphertexts, bit for bit."""
    large = packed(bits=8, max_weight=16)
    for index, party in enumerate((small, wide, wide_public, standard_slots, large)):
        at = tmp_path / f"{index}.params"
        at.write_bytes(party.params.to_bytes())
        with cheap_scrypt():
            at.with_suffix(".key").write_bytes(party.keys.secret.to_bytes(passphrase=b"x"))
        at.with_suffix(".public").write_bytes(party.keys.public.to_bytes())
        update = party.seeded.encrypt(np.linspace(-1, 1, 2100), clip=1.0)
        at.with_suffix(".update").write_bytes(update.to_bytes())
    code = DETERMINISTIC.replace("sys.argv[-1]", repr(str(tmp_path)))
    results = {}
    for name in qn.backends():
        done = python(code, QUANCRYPT_BACKEND=name)
        assert done.returncode == 0, done.stderr
        backend, results[name] = done.stdout.split()
        assert backend == name
    assert len(set(results.values())) == 1, results


CHANGING = """
import sys, threading, time
params = qn.Parameters.for_aggregation(max_poly_degree=1024)
keys = qn.keygen(params)
encryptor, decryptor = qn.Encryptor(params, keys.secret), qn.Decryptor(params, keys.secret)
q = np.arange(40 * 1024) % 255 - 127
sys.setswitchinterval(1e-5)
stop = threading.Event()
def change():
    while not stop.is_set():
        qn.set_num_threads(1)
        qn.set_num_threads(64)
thread = threading.Thread(target=change)
thread.start()
try:
    for _ in range(500):
        update = encryptor.encrypt_integers(q)
        total = qn.aggregate([update, update])
        assert np.array_equal(decryptor.decrypt_integers(total), 2 * q)
finally:
    stop.set()
    thread.join()
print("done")
"""


def test_the_number_of_threads_may_change_at_any_time() -> None:
    """While another thread encrypts, sums and decrypts; in a process of its own."""
    done = python(CHANGING)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_cpu_features_are_names() -> None:
    features = qn.cpu_features()
    assert all(isinstance(name, str) and name == name.lower() for name in features)
    assert len(set(features)) == len(features)
    if "avx512" in qn.backends():
        assert {"avx2", "avx512f"} <= set(features)


def test_a_system_that_gives_no_more_threads_is_no_reason_to_hang() -> None:
    """Room for some threads' stacks, and far from that of 200: each takes 8 MiB."""
    room = 40 if SANITIZED else 150  # MiB; the sanitizer takes some for each thread
    code = f"""
import resource
params = qn.Parameters.for_aggregation(bits=8, max_weight=4, max_poly_degree=1024)
keys = qn.keygen(params)
x = np.arange(5 * params.values_per_ciphertext) % 200 - 100
status = dict(line.split(":") for line in open("/proc/self/status") if ":" in line)
used = int(status["VmSize"].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + {room} * 2**20, resource.RLIM_INFINITY))
total = qn.aggregate([qn.Encryptor(params, keys.secret).encrypt_integers(x)])
print(np.array_equal(qn.Decryptor(params, keys.secret).decrypt_integers(total), x))
"""
    done = python(code, QUANCRYPT_NUM_THREADS="200", OPENBLAS_NUM_THREADS="1")
    assert done.stdout == "True\n", done.stderr
