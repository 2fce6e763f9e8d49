"""SHA-256 of many pieces: by the CPU's instructions, and by hashlib where it has none."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from tests.native.threshold_parties import group

import quancrypt_native as qn
from quancrypt_native import _core, update

DATA = np.random.default_rng(1).integers(0, 256, 60_000, dtype=np.uint8)


@pytest.mark.parametrize("size", [1, 55, 56, 63, 64, 65, 119, 120, 128, 1000, 12_345])
@pytest.mark.parametrize("threads", [1, 3])
def test_pieces_of_any_length(size: int, threads: int, set_threads: object) -> None:
    assert callable(set_threads)
    set_threads(threads)
    first, step = 7, size + 13
    found = _core.sha256_each(DATA, first, size, step)
    if found is None:
        pytest.skip("this CPU, or the set of kernels in use, has no instructions for it")
    starts = range(first, len(DATA) - size + 1, step)
    assert found == [hashlib.sha256(DATA[at : at + size].tobytes()).digest() for at in starts]


def test_pieces_that_do_not_lie_in_the_data_are_none() -> None:
    assert _core.sha256_each(DATA, len(DATA), 1, 1) in ([], None)
    assert _core.sha256_each(DATA, 0, len(DATA) + 1, 1) in ([], None)
    assert _core.sha256_each(DATA, 2**63, 2**63, 1) in ([], None)
    for size, step in ((0, 1), (1, 0)):
        with pytest.raises(qn.ParameterError):
            _core.sha256_each(DATA, 0, size, step)


@pytest.mark.parametrize("ciphertexts", [1, 2, 5])
def test_digests_of_an_update(ciphertexts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways give the SHA-256 of each second polynomial, as it stands in the frame."""
    party_group = group(2, 3)
    params = party_group.params
    total = party_group.total(np.zeros(ciphertexts * params.values_per_ciphertext, np.int64))
    size = params._core.polynomial_bytes
    body = bytes(total._body)
    expected = [
        hashlib.sha256(body[at + size : at + 2 * size]).digest()
        for at in range(0, len(body), 2 * size)
    ]
    assert total.c1_digests() == expected
    again = qn.EncryptedUpdate.from_bytes(total.to_bytes(), params)
    monkeypatch.setattr(update._core, "sha256_each", lambda *_: None)
    assert again.c1_digests() == expected
