"""Secrets are gone from memory after ``del``, and nothing else of them is there before."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from tests.native import oracle
from tests.native.processes import found_in_memory, holder, said, tell
from tests.native.secret_needles import key_needles, share_needles, unsanitized
from tests.native.threshold_parties import meet, parameters

import quancrypt_native as qn
from quancrypt_native.sealing import x25519_exchange
from quancrypt_native.threshold import Ceremony, Party

PASSPHRASE = b"in-memory passphrase of a test"


@pytest.fixture(scope="module")
def params() -> qn.Parameters:
    return qn.Parameters.for_aggregation(max_poly_degree=4096)


# Each holder says its secret by the file descriptor, out of secret memory; waits; forgets; waits.

GENERATED = """
from pathlib import Path
params = qn.Parameters.from_bytes(Path(sys.argv[1]).read_bytes())
keys = qn.keygen(params)
os.write(1, keys.secret._core.save())
update = qn.Encryptor(params, keys.secret).encrypt(np.ones(5000), clip=1.0)
qn.Decryptor(params, keys.secret).decrypt_mean(update)
keys.secret.derive(b"a use")
sealed = keys.secret.to_bytes(passphrase=os.urandom(32), random_passphrase=True)
os.write(1, b".")
os.read(0, 1)
del keys
os.write(1, b".")
os.read(0, 1)
"""

OPENED = """
from pathlib import Path
params = qn.Parameters.from_bytes(Path(sys.argv[1]).read_bytes())
data = Path(sys.argv[2]).read_bytes()
key = qn.SecretKey.from_bytes(data, params, passphrase=os.read(0, 64))
update = qn.Encryptor(params, key).encrypt(np.ones(5000), clip=1.0)
qn.Decryptor(params, key).decrypt_mean(update)
os.write(1, b".")
os.read(0, 1)
del key
os.write(1, b".")
os.read(0, 1)
"""


@pytest.fixture(scope="module")
def files(params: qn.Parameters, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "params").write_bytes(params.to_bytes())
    return folder


@unsanitized
def test_a_generated_key_is_gone_after_del(params: qn.Parameters, files: Path) -> None:
    with holder(GENERATED, str(files / "params")) as process:
        packed = said(process, params.poly_degree // 4)
        assert said(process, 1) == b"."
        needles = key_needles(params, packed)
        held = found_in_memory(process.pid, needles)
        assert held == {name for name in needles if not name.startswith("packed")}
        tell(process)
        assert said(process, 1) == b"."
        assert found_in_memory(process.pid, needles) == set()


@unsanitized
def test_a_key_file_leaves_nothing_but_the_key(params: qn.Parameters, files: Path) -> None:
    """Neither the opened body nor the key that Scrypt derives; nothing at all after ``del``."""
    secret = qn.keygen(params).secret
    packed = bytes(secret._core.save())
    data = secret.to_bytes(passphrase=PASSPHRASE)
    (files / "key").write_bytes(data)
    header, _ = oracle.unframe(data)
    derived = hashlib.scrypt(
        PASSPHRASE,
        salt=bytes.fromhex(header["salt"]),
        n=header["scrypt_n"],
        r=header["scrypt_r"],
        p=header["scrypt_p"],
        maxmem=2**28,
        dklen=32,
    )
    needles = key_needles(params, packed) | {"derived": derived}
    with holder(OPENED, str(files / "params"), str(files / "key")) as process:
        assert process.stdin
        process.stdin.write(PASSPHRASE)
        assert said(process, 1) == b"."
        held = found_in_memory(process.pid, needles)
        assert held == {n for n in needles if n.startswith(("coefficients", "NTT form"))}
        tell(process)
        assert said(process, 1) == b"."
        assert found_in_memory(process.pid, needles) == set()


PARTY = """
from pathlib import Path
from quancrypt_native.threshold import Ceremony, Party
params = qn.Parameters.from_bytes(Path(sys.argv[1]).read_bytes())
ceremony = Ceremony(params, parties=3, threshold=2, common_seed=bytes(32))
if len(sys.argv) > 2:
    party = Party.from_bytes(Path(sys.argv[2]).read_bytes(), ceremony, passphrase=os.read(0, 64))
    total = qn.EncryptedUpdate.from_bytes(Path(sys.argv[3]).read_bytes(), params)
    party.partial_decryption(total, [0, 1])
else:
    party = Party(ceremony, 0)
    os.write(1, party._core.save())
    os.write(1, party._pair_secret)
    party.public_share()
    party.to_bytes(passphrase=os.urandom(32), random_passphrase=True)
os.write(1, b".")
os.read(0, 1)
del party
os.write(1, b".")
os.read(0, 1)
"""


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Party]:
    """Files of party 0 of three, and that party."""
    folder = tmp_path_factory.mktemp("party")
    shape = parameters(3)
    group = meet(Ceremony(shape, parties=3, threshold=2, common_seed=bytes(32)))
    party = group.parties[0]
    (folder / "params").write_bytes(shape.to_bytes())
    (folder / "total").write_bytes(group.total(np.arange(-50, 50)).to_bytes())
    (folder / "party").write_bytes(party.to_bytes(passphrase=PASSPHRASE))
    return folder, party


@unsanitized
def test_a_party_is_gone_after_del(joint: tuple[Path, Party]) -> None:
    folder, other = joint
    shape = other.ceremony.params
    with holder(PARTY, str(folder / "params")) as process:
        state = said(process, len(other._core.save()))
        pair = said(process, 32)
        assert said(process, 1) == b"."
        needles = key_needles(shape, state[: shape.poly_degree // 4])
        needles |= share_needles(shape, state) | {"pair secret": pair}
        held = found_in_memory(process.pid, needles)
        assert held == {name for name in needles if "packed" not in name}
        tell(process)
        assert said(process, 1) == b"."
        assert found_in_memory(process.pid, needles) == set()


@unsanitized
def test_an_opened_party_is_gone_after_del(joint: tuple[Path, Party]) -> None:
    folder, party = joint
    shape = party.ceremony.params
    state = bytes(party._core.save())
    needles = key_needles(shape, state[: shape.poly_degree // 4]) | share_needles(shape, state)
    needles["pair secret"] = bytes(party._pair_secret)
    for index, seed in party._pair_seeds.items():
        needles[f"seed of {index}"] = bytes(seed)
    names = [str(folder / name) for name in ("params", "party", "total")]
    with holder(PARTY, *names) as process:
        assert process.stdin
        process.stdin.write(PASSPHRASE)
        assert said(process, 1) == b"."
        held = found_in_memory(process.pid, needles)
        assert held == {name for name in needles if "packed" not in name}
        tell(process)
        assert said(process, 1) == b"."
        assert found_in_memory(process.pid, needles) == set()


CHANNEL = """
from quancrypt_native.channels import ChannelKey
key, other = ChannelKey(), ChannelKey()
os.write(1, key._secret)
os.write(1, other.public)
message = key.seal(other.public, b"a message", context=b"a context")
other.open(key.public, message, context=b"a context")
again = ChannelKey.from_bytes(
    key.to_bytes(passphrase=bytes(32), random_passphrase=True), passphrase=bytes(32)
)
os.write(1, b".")
os.read(0, 1)
del key, other, again
os.write(1, b".")
os.read(0, 1)
"""


@unsanitized
def test_a_channel_key_is_gone_after_del() -> None:
    """And so are the secrets that were agreed on with it."""
    with holder(CHANNEL) as process:
        secret, other = said(process, 32), said(process, 32)
        assert said(process, 1) == b"."
        shared = x25519_exchange(secret, other)
        assert shared
        needles = {"secret": secret, "shared": shared}
        assert found_in_memory(process.pid, needles) == {"secret"}
        tell(process)
        assert said(process, 1) == b"."
        assert found_in_memory(process.pid, needles) == set()
