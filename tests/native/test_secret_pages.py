"""Memory of secrets: in no core dump, locked, given back, and what is said about it."""

import gc
import hmac
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.native.processes import crash, flags, found_in_memory, holder, places, said
from tests.native.secret_needles import SANITIZED, key_needles, unsanitized

import quancrypt_native as qn
from quancrypt_native import _core, hkdf, memory

MARK = b"a secret that Python holds as bytes"


@pytest.fixture(scope="module")
def params() -> qn.Parameters:
    return qn.Parameters.for_aggregation(max_poly_degree=4096)


@pytest.fixture(scope="module")
def files(params: qn.Parameters, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "params").write_bytes(params.to_bytes())
    return folder


DUMPED = """
import resource
from pathlib import Path
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
params = qn.Parameters.from_bytes(Path(sys.argv[1]).read_bytes())
mark = b"a secret that Python "[:] + b"holds as bytes"
keys = qn.keygen(params)
os.write(1, keys.secret._core.save())
update = qn.Encryptor(params, keys.secret).encrypt(np.ones(5000), clip=1.0)
qn.Decryptor(params, keys.secret).decrypt_mean(update)
os.write(1, b".")
os.read(0, 1)
"""


@unsanitized
def test_a_core_dump_holds_no_key(params: qn.Parameters, files: Path, tmp_path: Path) -> None:
    with holder(DUMPED, str(files / "params"), cwd=tmp_path) as process:
        packed = said(process, params.poly_degree // 4)
        assert said(process, 1) == b"."
        needles = key_needles(params, packed)
        held = found_in_memory(process.pid, needles | {"mark": MARK})
        assert {"mark", "NTT form, middle", "coefficients, first"} <= held
        dump = crash(process, tmp_path)
    if dump is None:
        pytest.skip("this system writes no core dumps into files; the next test reads its flags")
    assert MARK in dump  # it is a dump of the process's memory
    assert [name for name, needle in needles.items() if needle in dump] == []


@unsanitized
def test_all_that_holds_a_key_is_left_out_and_locked(params: qn.Parameters, files: Path) -> None:
    """By the flags of the mappings where the key is found, whoever dumps."""
    with holder(DUMPED, str(files / "params")) as process:
        packed = said(process, params.poly_degree // 4)
        assert said(process, 1) == b"."
        mappings = flags(process.pid)
        spots = 0
        for name, needle in key_needles(params, packed).items():
            for address in places(process.pid, needle):
                (found,) = [f for (a, b), f in mappings.items() if a <= address < b]
                assert "dd" in found, name
                assert "lo" in found, name
                spots += 1
        assert spots >= 6


def limited(code: str, limit: int) -> str:
    """What ``code`` prints in a process that may lock ``limit`` bytes, root or not."""
    start = (
        "import os, resource, numpy as np, quancrypt_native as qn, hashlib, hmac\n"
        f"resource.setrlimit(resource.RLIMIT_MEMLOCK, ({limit}, {limit}))\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", start + code], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


USE = """
params = qn.Parameters.for_aggregation(max_poly_degree=4096)
keys = qn.keygen(params)
update = qn.Encryptor(params, keys.secret).encrypt_integers(np.arange(-100, 100))
sums = qn.Decryptor(params, keys.secret).decrypt_integers(update)
assert np.array_equal(sums, np.arange(-100, 100))
m = qn.secret_memory()
print(m.keys_locked, m.left_out_of_dumps, m.refusals > 0, m.lock_limit)
"""


@unsanitized
def test_a_system_that_locks_nothing_is_no_error() -> None:
    assert limited(USE, 0) == "False True True 0"


def test_the_default_limit_of_many_systems_is_enough_for_a_key() -> None:
    assert limited(USE, 8 * 2**20) == f"True True False {8 * 2**20}"


@unsanitized
def test_a_limit_comes_back_with_the_key() -> None:
    """A key that is gone takes nothing of the limit: many fit one after the other, not at once."""
    code = """
params = qn.Parameters.for_aggregation(max_poly_degree=4096)
refused = []
for _ in range(200):
    keys = qn.keygen(params)
    refused.append(qn.secret_memory().refusals)
    del keys
many = [qn.keygen(params) for _ in range(200)]
print(refused[-1], qn.secret_memory().refusals > 0)
"""
    assert limited(code, 2 * 2**20) == "0 True"


def test_what_is_said(params: qn.Parameters) -> None:
    gc.collect()
    before = qn.secret_memory()
    key = qn.keygen(params).secret
    gc.collect()
    now = qn.secret_memory()
    size = 8 * len(params.coeff_modulus) * params.poly_degree + params.poly_degree
    assert size <= now.key_bytes - before.key_bytes <= size + 2**16
    assert now.bytes_left_out_of_dumps <= now.key_bytes + now.working_bytes
    assert now.key_bytes_locked <= now.key_bytes
    assert now.working_bytes_locked <= now.working_bytes
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    assert now.lock_limit == (None if soft == resource.RLIM_INFINITY else soft)
    assert now.core_dumps == (resource.getrlimit(resource.RLIMIT_CORE)[0] > 1)
    del key
    gc.collect()
    assert qn.secret_memory().key_bytes < now.key_bytes


def test_encryption_locks_nothing_anew(params: qn.Parameters) -> None:
    """What a call works in is kept: from the second call on, no page is mapped or locked."""
    keys = qn.keygen(params)
    encryptor, decryptor = qn.Encryptor(params, keys.secret), qn.Decryptor(params, keys.secret)
    x = np.ones(20_000)
    for _ in range(3):
        decryptor.decrypt_mean(encryptor.encrypt(x, clip=1.0))
    before = qn.secret_memory()
    for _ in range(20):
        decryptor.decrypt_mean(encryptor.encrypt(x, clip=1.0))
    assert qn.secret_memory() == before


def test_a_forked_process_uses_the_key(params: qn.Parameters) -> None:
    """Keys are neither wiped nor missing in a child: with a wiped one, encryption would hide
    nothing."""
    code = """
params = qn.Parameters.for_aggregation(max_poly_degree=4096)
keys = qn.keygen(params)
q = np.arange(-100, 100)
update = qn.Encryptor(params, keys.secret).encrypt_integers(q)
locked = qn.secret_memory().key_bytes_locked
child = os.fork()
if child == 0:
    own = qn.Encryptor(params, keys.secret).encrypt_integers(q)
    decryptor = qn.Decryptor(params, keys.secret)
    right = all(np.array_equal(decryptor.decrypt_integers(u), q) for u in (update, own))
    os._exit(0 if right and qn.secret_memory().key_bytes_locked >= locked > 0 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert limited(code, 8 * 2**20) == "0"


# --- the parts ---


def test_secret_bytes() -> None:
    secret = _core.SecretBytes.copy_of(b"some bytes")
    assert bytes(secret) == b"some bytes"
    assert len(secret) == 10
    with memoryview(secret) as view:
        view[:4] = b"more"
    assert bytes(secret) == b"more bytes"
    secret.wipe()
    assert bytes(secret) == bytes(10)
    assert bytes(_core.SecretBytes(0)) == b""
    assert len({bytes(_core.SecretBytes.random(32)) for _ in range(4)}) == 4
    with pytest.raises(qn.ParameterError, match="contiguous bytes are needed"):
        _core.SecretBytes.copy_of(memoryview(b"abcdef")[::2])
    for other in ("text", None, 7):
        with pytest.raises(TypeError):
            _core.SecretBytes.copy_of(other)  # type: ignore[arg-type]


def test_wiping_bytes() -> None:
    data = os.urandom(16) + b"x"
    memory.wipe_bytes(data)
    assert data == bytes(17)
    shared = b"x"
    memory.wipe_bytes(shared)  # all of Python has this one
    assert shared == bytes([120])


def test_hkdf_wipes_what_it_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bytes] = []
    digest = hmac.digest

    def kept(key: bytes, message: bytes, name: str) -> bytes:
        made.append(digest(key, message, name))
        return made[-1]

    monkeypatch.setattr(hkdf.hmac, "digest", kept)
    out = hkdf.hkdf_secret(b"s" * 40, b"salt", b"info", 70)
    monkeypatch.undo()
    assert [any(data) for data in made] == [False] * 4
    assert bytes(out) == hkdf.hkdf_sha256(bytearray(b"s" * 40), b"salt", b"info", 70)
    assert any(bytes(out))


@pytest.mark.skipif(SANITIZED, reason="the sanitizer forbids core dumps itself, with a limit of 0")
def test_forbidden_core_dumps_stay_forbidden() -> None:
    code = """
import resource, subprocess, sys
from quancrypt_native import memory
memory.forbid_core_dumps()
limit = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE)[0])"
print(subprocess.check_output([sys.executable, "-c", limit]).decode().strip())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
