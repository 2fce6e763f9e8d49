"""TenSEAL: one slot per value, summed by a server without a secret key."""

from __future__ import annotations

import json
import pickle
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tenseal", reason="needs the [baselines] extra")

import tenseal as ts

from quancrypt_fl.audit import secrets_within_reach
from quancrypt_fl.baselines import tenseal_ckks
from quancrypt_fl.baselines.tenseal_ckks import (
    PARAMETERS,
    SECRET_TYPES,
    TensealCkks,
    TensealSummer,
)
from quancrypt_fl.errors import MethodError


@pytest.fixture(scope="module")
def protection() -> TensealCkks:
    return TensealCkks("code")


def update(seed: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return {
        "fc.weight": rng.normal(0, 0.05, (3, 1500)).astype(np.float32),  # 4,096 slots and 404
        "empty": np.zeros((0, 5), np.float32),
        "fc.bias": rng.normal(0, 1, 10).astype(np.float32),
        "scalar": np.float32(rng.normal()).reshape(()),
    }


def summed(protection: TensealCkks, clients: int) -> bytes:
    server, side = protection.server(), protection.client()
    for client in range(clients):
        sealed = side.protect(update(client), {}, 0)
        assert sealed.ciphertexts == 3 + (protection.slots < 4500)
        server.add(sealed.data, 1)
    return server.result()


@pytest.mark.parametrize("name", ["code", "paper"])
def test_means_are_numpys(name: str) -> None:
    protection = TensealCkks(name)
    means, weight = protection.client().unprotect(summed(protection, 3))
    assert weight == 3
    assert list(means) == list(update(0))
    for tensor, mean in means.items():
        expected = np.mean([update(client)[tensor] for client in range(3)], axis=0)
        assert mean.shape == expected.shape
        assert mean.dtype == np.float32
        np.testing.assert_allclose(mean, expected, atol=1e-6)


def test_parameters_are_the_published() -> None:
    paper, code = PARAMETERS["paper"], PARAMETERS["code"]
    assert (paper.poly_degree, paper.coeff_modulus_bits) == (16384, (60, 40, 40, 40, 60))
    assert (code.poly_degree, code.coeff_modulus_bits) == (8192, (60, 40, 40, 60))
    # Largest moduli of the homomorphic encryption standard, ternary secrets.
    standard = {(8192, 128): 218, (16384, 128): 438, (16384, 192): 305, (16384, 256): 237}
    for chosen in (paper, code):
        bits = sum(chosen.coeff_modulus_bits)
        assert bits <= standard[chosen.poly_degree, chosen.security]
    assert sum(paper.coeff_modulus_bits) > standard[16384, 256]
    with pytest.raises(MethodError, match="parameters 'best'; allowed: code, paper"):
        TensealCkks("best")


def test_bytes_per_value_are_those_of_one_slot(protection: TensealCkks) -> None:
    sealed = protection.client().protect({"w": np.zeros(2 * 4096, np.float32)}, {}, 0)
    assert 75 < len(sealed.data) / 8192 < 85  # 80.9 where method.md measured it
    assert sealed.ciphertexts == 2


def test_nothing_is_printed(protection: TensealCkks, capfd: pytest.CaptureFixture[str]) -> None:
    """TenSEAL itself warns on stdout about vectors longer than a ciphertext."""
    protection.client().unprotect(summed(protection, 1))
    assert capfd.readouterr() == ("", "")


def test_the_server_cannot_decrypt(protection: TensealCkks) -> None:
    server = protection.server()
    server.add(protection.client().protect(update(0), {}, 0).data, 1)
    assert secrets_within_reach(server, SECRET_TYPES) == []
    assert not server._context.is_private()
    assert not server._context.has_secret_key()
    with pytest.raises(ValueError, match="doesn't hold a secret_key"):
        server._sums[0].decrypt()
    for holder in ([protection], [protection.client()], [lambda: protection]):
        assert secrets_within_reach(holder, SECRET_TYPES)
    with pytest.raises(TypeError, match="never serialized"):
        pickle.dumps(protection.client())
    assert len(protection.key_id) == 32
    assert protection.facts()["security_bits"] == 128


def test_the_audit_knows_tenseals_own_objects(protection: TensealCkks) -> None:
    """Without any class of ours around them."""
    private = protection._secret.context
    public = ts.context_from(private.serialize(save_secret_key=False))
    for secret in (
        private,
        private.data,
        private.copy(),
        private.secret_key(),
        ts.ckks_vector(private, [1.0]),
        ts.ckks_vector(private, [1.0]).data,
    ):
        assert secrets_within_reach([{"a": secret}], SECRET_TYPES)
    sealed = ts.ckks_vector_from(public, ts.ckks_vector(private, [1.0]).serialize())
    for harmless in (public, public.data, sealed, sealed + sealed, sealed.data):
        assert secrets_within_reach([{"a": harmless}], SECRET_TYPES) == []


def test_a_summing_side_takes_no_secret_key(protection: TensealCkks) -> None:
    private = protection._secret.context.serialize(save_secret_key=True)
    with pytest.raises(MethodError, match="must have no secret key"):
        TensealSummer(PARAMETERS["code"], private, 1)


def test_a_ciphertext_that_cannot_be_added_leaves_the_sum(
    protection: TensealCkks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two, when the first has been added: of another size, past the checks."""
    tensors = {"a": np.ones(5, np.float32), "b": np.ones(7, np.float32)}
    server, side = protection.server(), protection.client()
    data = side.protect(tensors, {}, 0).data
    server.add(data, 1)

    def load(context: ts.Context, part: memoryview, size: int) -> ts.CKKSVector:
        del part
        return ts.ckks_vector(context, [5.0] * (size if size == 5 else 3))

    with monkeypatch.context() as patched:
        patched.setattr(tenseal_ckks, "_load", load)
        with pytest.raises(MethodError, match="a ciphertext of an update cannot be added"):
            server.add(data, 1)
    server.add(data, 1)
    means, weight = side.unprotect(server.result())
    assert weight == 2
    for name, tensor in tensors.items():
        np.testing.assert_allclose(means[name], tensor, atol=1e-6)


def test_only_weight_1(protection: TensealCkks) -> None:
    server = protection.server()
    data = protection.client().protect(update(0), {}, 0).data
    with pytest.raises(MethodError, match="weight is 2; TenSEAL's baseline allows 1"):
        server.add(data, 2)
    with pytest.raises(MethodError, match="nothing to sum"):
        server.result()
    with pytest.raises(MethodError, match="an upload claims the weight 2"):
        server.add(summed(protection, 2), 1)
    server.add(data, 1)
    with pytest.raises(MethodError, match=r"the tensors \['w'\] of 1 ciphertexts; earlier"):
        server.add(protection.client().protect({"w": np.zeros(3, np.float32)}, {}, 0).data, 1)


def rewritten(data: bytes, **changes: object) -> bytes:
    length = int.from_bytes(data[4:8], "big")
    header = json.dumps({**json.loads(data[8 : 8 + length]), **changes}).encode()
    return data[:4] + len(header).to_bytes(4, "big") + header + data[8 + length :]


def test_damaged_uploads_are_refused(protection: TensealCkks) -> None:
    data = protection.client().protect({"w": np.ones(5, np.float32)}, {}, 0).data
    body = len(data) - 8 - int.from_bytes(data[4:8], "big")
    other = TensealCkks("paper").client().protect({"w": np.ones(5, np.float32)}, {}, 0).data
    damaged = {
        data[:-9]: f"ciphertexts of {body} bytes in {body - 9}",
        data[: -(body // 2)] + b"\xff" * (body // 2): "a ciphertext of an update is not TenSEAL's",
        rewritten(data[:-900], lengths=[body - 900]): "a ciphertext of an update is not TenSEAL's",
        rewritten(data, lengths=[body, 1]): "2 ciphertexts in an update; its tensors take 1",
        rewritten(data, lengths=[-body]): "a length in the header of an update is not",
        rewritten(data, weight=0): "an update of weight 0",
        rewritten(data, tensors=[["w", [6], 1.0]]): "a ciphertext of 5 values; its tensor has 6",
        other: "a ciphertext of an update is not TenSEAL's",
        b"QBC1" + data[4:]: "not an update of this method: it begins with b'QBC1'",
    }
    for wrong, message in damaged.items():
        with pytest.raises(MethodError, match=message):
            protection.server().add(wrong, 1)
    scaled = ts.ckks_vector(protection._secret.context, [1.0] * 5, 2**30).serialize()
    length = int.from_bytes(data[4:8], "big")
    forged = rewritten(data[: 8 + length] + scaled, lengths=[len(scaled)])
    with pytest.raises(MethodError, match=r"\(2, 1073741824.0\)\] in an update; allowed: one"):
        protection.server().add(forged, 1)
    with pytest.raises(MethodError, match="'w' holds NaN or infinity"):
        protection.client().protect({"w": np.full(3, np.nan, np.float32)}, {}, 0)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tenseal", None)
    with pytest.raises(MethodError, match=r"needs 'tenseal'.*quancrypt-native\[baselines\]"):
        TensealCkks()
