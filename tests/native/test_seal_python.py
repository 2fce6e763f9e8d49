"""Microsoft SEAL decrypts ours and we decrypt SEAL's: against the independent wheel `seal-python`.

It carries another version of SEAL than the one that is linked in, and knows nothing of us.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import seal
from tests.native import oracle
from tests.native.conftest import Party, integers, packed

import quancrypt_native as qn

PACKED = ("small", "public", "wide", "wide_public")


class SealSide:
    """A SEAL program that got our parameters and keys as streams."""

    def __init__(self, party: Party) -> None:
        parms = seal.EncryptionParameters(seal.scheme_type.ckks)
        parms.load_bytes(qn.seal.export_parameters(party.params))
        self.parms = parms
        self.context = seal.SEALContext(parms, True, seal.sec_level_type.tc128)
        self.secret = self.context.from_secret_str(qn.seal.export_secret_key(party.keys.secret))
        self.public = self.context.from_public_str(qn.seal.export_public_key(party.keys.public))
        self.encoder = seal.CKKSEncoder(self.context)
        self.evaluator = seal.Evaluator(self.context)
        self.encryptor = seal.Encryptor(self.context, self.public, self.secret)
        self.decryptor = seal.Decryptor(self.context, self.secret)

    def load(self, update: qn.EncryptedUpdate) -> list[Any]:
        """Our ciphertexts as SEAL's; SEAL validates them against its context."""
        ciphertexts = []
        for blob in qn.seal.export_ciphertexts(update):
            ciphertext = seal.Ciphertext(self.context)
            ciphertext.load_bytes(self.context, blob)
            ciphertexts.append(ciphertext)
        return ciphertexts

    def residues(self, ciphertext: Any, params: qn.Parameters) -> oracle.Integers:
        """Coefficients ``[primes, N]`` of what SEAL decrypts, out of the plaintext's stream."""
        stream = self.decryptor.decrypt(ciphertext).to_bytes(seal.compr_mode_type.none)
        n, primes = params.poly_degree, params.data_primes
        (count,) = struct.unpack_from("<Q", stream, 16 + 32)
        assert count == n * len(primes)
        values = np.frombuffer(stream, "<u8", count, offset=16 + 32 + 8 + 8 + 16 + 8)
        rows = values.reshape(len(primes), n).astype(object)
        return np.array([oracle.interpolate(row, p) for row, p in zip(rows, primes, strict=True)])

    def blobs(self, ciphertexts: Sequence[Any]) -> list[bytes]:
        return [c.to_string(seal.compr_mode_type.none) for c in ciphertexts]


@pytest.fixture(params=PACKED)
def party(request: pytest.FixtureRequest) -> Party:
    found: Party = request.getfixturevalue(request.param)
    return found


def decoded_sums(side: SealSide, ciphertexts: Sequence[Any], params: qn.Parameters) -> Any:
    """Unsigned field sums, decrypted by SEAL and decoded by the oracle."""
    rows = [
        oracle.decode(oracle.recombine(side.residues(c, params), params.data_primes), params).sums
        for c in ciphertexts
    ]
    return np.concatenate(rows).astype(np.int64)


def test_it_is_another_seal(small: Party) -> None:
    """Streams carry their writer's version: byte 3 major, byte 4 minor."""
    ours = qn.seal.export_parameters(small.params)
    theirs = SealSide(small).parms.to_bytes(seal.compr_mode_type.none)
    assert f"{ours[3]}.{ours[4]}." == qn.seal.version()[:4]
    assert (theirs[3], theirs[4]) == (4, 4)


def test_seal_reads_our_parameters(party: Party) -> None:
    side = SealSide(party)
    assert side.context.parameters_set()
    assert side.parms.poly_modulus_degree() == party.params.poly_degree
    assert tuple(p.value() for p in side.parms.coeff_modulus()) == party.params.coeff_modulus
    assert side.parms.scheme() == seal.scheme_type.ckks


def test_seal_decrypts_packed_integers(party: Party) -> None:
    """Fresh and summed, seeded and not: SEAL's plaintext holds exactly the fields."""
    side, params = SealSide(party), party.params
    rng = np.random.default_rng(1)
    size = params.values_per_ciphertext + 7
    inputs = [integers(rng, params.q_max, size) for _ in range(3)]
    encryptors = [party.seeded, party.encryptor, party.encryptor]
    updates = [e.encrypt_integers(q) for e, q in zip(encryptors, inputs, strict=True)]
    total = qn.aggregate(updates, weights=[2, 1, 13])
    expected = 2 * inputs[0] + inputs[1] + 13 * inputs[2]
    for update, wanted in [*zip(updates, inputs, strict=True), (total, expected)]:
        ciphertexts = side.load(update)
        assert len(ciphertexts) == update.ciphertexts == 2
        for ciphertext in ciphertexts:
            assert (ciphertext.size(), ciphertext.scale(), ciphertext.is_ntt_form()) == (2, 1, True)
            assert ciphertext.parms_id() == side.context.first_parms_id()
        fields = decoded_sums(side, ciphertexts, params)
        np.testing.assert_array_equal(fields[:size], wanted + update.weight * params.q_max)
        np.testing.assert_array_equal(fields[size:], 0)


def test_packed_coefficients_through_seals_evaluations(party: Party) -> None:
    """SEAL's decoder evaluates plaintexts at the roots of X^N + 1: the same numbers in double."""
    side, params = SealSide(party), party.params
    q = integers(np.random.default_rng(2), params.q_max, params.values_per_ciphertext)
    (ciphertext,) = side.load(party.encryptor.encrypt_integers(q))
    slots = np.asarray(side.encoder.decode(side.decryptor.decrypt(ciphertext)))

    noise = np.zeros(params.poly_degree, object)
    coefficients = oracle.encode((q + params.q_max).astype(object), noise, params)
    # Real parts at the odd powers of exp(i pi / N), as doubles; slots are some of them, in SEAL's
    # order of powers of 3.
    n = params.poly_degree
    twisted = coefficients.astype(np.float64) * np.exp(1j * np.pi * np.arange(n) / n)
    at_odd_powers = np.fft.fft(twisted.conj()).conj()
    powers = [pow(3, k, 2 * n) for k in range(n // 2)]
    expected = at_odd_powers[[(power - 1) // 2 for power in powers]].real
    scale = np.abs(expected).max()
    bound = params.explain().as_dict()["noise_bound"] * n
    np.testing.assert_allclose(slots, expected, rtol=0, atol=1e-9 * scale + bound)
    assert scale > 100 * bound  # the comparison means something


def test_seal_adds_and_we_decrypt(party: Party) -> None:
    """SEAL sums exported ciphertexts, also with repetitions; exact after import."""
    side, params = SealSide(party), party.params
    rng = np.random.default_rng(3)
    size = params.values_per_ciphertext + 1
    inputs = [integers(rng, params.q_max, size) for _ in range(5)]
    inputs[0][:] = params.q_max
    updates = [party.encryptor.encrypt_integers(q) for q in inputs]
    columns = zip(*(side.load(update) for update in updates), strict=True)
    sums = [side.evaluator.add_many(list(column)) for column in columns]
    total = qn.seal.import_ciphertexts(side.blobs(sums), params, like=updates[0], weight=5)
    assert total.weight == 5
    assert not total.seeded
    np.testing.assert_array_equal(party.decryptor.decrypt_integers(total), sum(inputs))

    # The same sum as ours, to the bit, and it goes on as one of ours.
    assert total.to_bytes() == qn.aggregate(updates).to_bytes()
    more = qn.aggregate([total, updates[1]], weights=[3, 1])
    result = party.decryptor.decrypt_integers(
        qn.EncryptedUpdate.from_bytes(more.to_bytes(), params)
    )
    np.testing.assert_array_equal(result, 3 * sum(inputs) + inputs[1])


def test_exports_come_back_unchanged(party: Party, standard_slots: Party) -> None:
    for side, x in ((party, np.linspace(-1, 1, 100)), (standard_slots, np.linspace(-1, 1, 5000))):
        update = qn.aggregate([side.encryptor.encrypt(x, clip=1.0)])
        blobs = qn.seal.export_ciphertexts(update)
        back = qn.seal.import_ciphertexts(blobs, side.params, like=update, weight=1)
        assert back.to_bytes() == update.to_bytes()


def test_we_decrypt_what_seal_encrypts_packed(wide: Party) -> None:
    """SEAL encrypts zero with our keys and adds our ciphertext: its noise on top of ours."""
    side, params = SealSide(wide), wide.params
    public = packed(bits=8, max_weight=16, max_poly_degree=4096, key_mode="public")
    for party in (wide, public):
        side, params = SealSide(party), party.params
        q = integers(np.random.default_rng(4), params.q_max, params.values_per_ciphertext)
        update = party.encryptor.encrypt_integers(q)
        plain = seal.Plaintext()
        side.encoder.encode(0.0, 1.0, plain)
        fresh = [side.encryptor.encrypt_symmetric(plain)]
        if party is public:
            fresh += [side.encryptor.encrypt(plain), side.encryptor.encrypt_zero()]
        for zero in fresh:
            zero.scale(1.0)
            total = side.evaluator.add(side.load(update)[0], zero)
            got = qn.seal.import_ciphertexts(side.blobs([total]), params, like=update, weight=2)
            # Weight 2, but the second summand is 0 where a quantized 0 would be q_max.
            result = np.asarray(party.decryptor.decrypt_integers(got)) + params.q_max
            np.testing.assert_array_equal(result, q)


@pytest.mark.parametrize("key", ["secret", "public"])
def test_seal_decodes_our_slots(standard_slots: Party, key: str) -> None:
    side, params = SealSide(standard_slots), standard_slots.params
    assert side.encoder.slot_count() == params.values_per_ciphertext
    x = np.random.default_rng(5).normal(0, 3, params.values_per_ciphertext + 10)
    update = qn.Encryptor(params, getattr(standard_slots.keys, key)).encrypt(x)
    ciphertexts = side.load(update)
    assert [c.scale() for c in ciphertexts] == [2.0**40] * 2
    slots = np.concatenate([side.encoder.decode(side.decryptor.decrypt(c)) for c in ciphertexts])
    np.testing.assert_allclose(slots[: len(x)], x, rtol=0, atol=1e-6)
    np.testing.assert_allclose(slots[len(x) :], 0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("symmetric", [True, False])
def test_we_decode_seals_slots(standard_slots: Party, symmetric: bool) -> None:
    """SEAL encodes, encrypts and adds ciphertexts of its own and ours."""
    side, params = SealSide(standard_slots), standard_slots.params
    rng = np.random.default_rng(6)
    x, y = rng.normal(0, 2, (2, params.values_per_ciphertext))
    plain = side.encoder.encode(x, 2.0**40)
    theirs = (side.encryptor.encrypt_symmetric if symmetric else side.encryptor.encrypt)(plain)
    ours = standard_slots.encryptor.encrypt(y)
    decryptor = standard_slots.decryptor
    got = qn.seal.import_ciphertexts(side.blobs([theirs]), params, like=ours, weight=1)
    np.testing.assert_allclose(decryptor.decrypt_mean(got), x, rtol=1e-6, atol=1e-6)
    total = side.evaluator.add(theirs, side.load(ours)[0])
    got = qn.seal.import_ciphertexts(side.blobs([total]), params, like=ours, weight=2)
    np.testing.assert_allclose(decryptor.decrypt_mean(got), (x + y) / 2, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(decryptor.decrypt_sum(got), x + y, rtol=1e-6, atol=1e-6)


def test_seal_multiplies_our_slots(standard_slots: Party) -> None:
    """Not only sums: the ciphertexts are ordinary CKKS ciphertexts."""
    side = SealSide(standard_slots)
    x, y = np.random.default_rng(7).normal(0, 1, (2, standard_slots.params.values_per_ciphertext))
    a, b = (side.load(standard_slots.encryptor.encrypt(v))[0] for v in (x, y))
    product = side.evaluator.multiply(a, b)
    side.evaluator.rescale_to_next_inplace(product)
    slots = side.encoder.decode(side.decryptor.decrypt(product))
    np.testing.assert_allclose(slots, x * y, rtol=0, atol=1e-5)


def test_seal_with_another_key_sees_nothing(small: Party) -> None:
    side = SealSide(small)
    q = integers(np.random.default_rng(8), 127, small.params.values_per_ciphertext)
    (ciphertext,) = side.load(small.encryptor.encrypt_integers(q))
    stranger = seal.KeyGenerator(side.context).secret_key()
    side.decryptor = seal.Decryptor(side.context, stranger)
    primes = small.params.data_primes
    coefficients = oracle.recombine(side.residues(ciphertext, small.params), primes)
    # Uniform modulo p: the mean of 1024 draws, six standard errors.
    mean = float(np.mean(coefficients.astype(np.float64)) / primes[0])
    assert abs(mean - 0.5) < 6 / np.sqrt(12 * 1024)


def corruptions(blob: bytes) -> dict[str, bytes]:
    half = np.frombuffer(blob, np.uint8).copy()
    half[-8:] = 255  # a residue far above its prime
    return {
        "empty": b"",
        "short": blob[:50],
        "truncated": blob[:-1],
        "magic": b"\0" + blob[1:],
        "major": blob[:3] + b"\3\2" + blob[5:],
        "parameters": blob[:16] + bytes(32) + blob[48:],
        "residue": half.tobytes(),
        "size": blob[:49] + b"\3" + blob[50:],
        "scale": blob[: 16 + 32 + 25] + struct.pack("<d", 2.0) + blob[16 + 32 + 33 :],
    }


@pytest.mark.parametrize("name", sorted(corruptions(bytes(200))))
def test_wrong_streams_are_refused(small: Party, name: str) -> None:
    update = small.encryptor.encrypt_integers(np.zeros(10, np.int8))
    blob = corruptions(qn.seal.export_ciphertexts(update)[0])[name]
    with pytest.raises(qn.WireFormatError, match="SEAL ciphertext 0 is not usable"):
        qn.seal.import_ciphertexts([blob], small.params, like=update, weight=1)


def test_a_lower_level_is_refused(wide: Party) -> None:
    side = SealSide(wide)
    update = wide.encryptor.encrypt_integers(np.zeros(10, np.int8))
    (ciphertext,) = side.load(update)
    side.evaluator.mod_switch_to_next_inplace(ciphertext)
    with pytest.raises(qn.WireFormatError, match="not usable"):
        qn.seal.import_ciphertexts(side.blobs([ciphertext]), wide.params, like=update, weight=1)


def test_three_polynomials_are_refused(standard_slots: Party) -> None:
    side = SealSide(standard_slots)
    update = standard_slots.encryptor.encrypt(np.ones(10))
    (ciphertext,) = side.load(update)
    product = side.evaluator.multiply(ciphertext, ciphertext)
    with pytest.raises(qn.WireFormatError, match="3 polynomials"):
        qn.seal.import_ciphertexts(
            side.blobs([product]), standard_slots.params, like=update, weight=1
        )


def test_imports_check_their_arguments(small: Party, wide: Party) -> None:
    update = small.encryptor.encrypt_integers(np.zeros(2000, np.int8))
    blobs = qn.seal.export_ciphertexts(update)

    def attempt(**changes: Any) -> qn.EncryptedUpdate:
        arguments = {"blobs": blobs, "params": small.params, "like": update, "weight": 1, **changes}
        blob_list, params = arguments.pop("blobs"), arguments.pop("params")
        return qn.seal.import_ciphertexts(blob_list, params, **arguments)

    assert attempt(weight=16).weight == 16
    with pytest.raises(qn.CapacityError, match="weight 17 is above max_weight = 16"):
        attempt(weight=17)
    with pytest.raises(qn.ParameterError, match="weight is 0"):
        attempt(weight=0)
    with pytest.raises(qn.ParameterError, match=r"weight is 1\.5"):
        attempt(weight=1.5)
    with pytest.raises(qn.KeyMismatchError, match="not the parameters of 'like'"):
        attempt(params=wide.params)
    with pytest.raises(qn.ParameterError, match="1 blobs; expected 2"):
        attempt(blobs=blobs[:1])
    with pytest.raises(qn.ParameterError, match="blob 1 is a str"):
        attempt(blobs=[blobs[0], "blob"])
    with pytest.raises(qn.ParameterError, match="blobs is a NoneType"):
        attempt(blobs=None)
    with pytest.raises(qn.ParameterError, match="like is a bytes"):
        attempt(like=b"")
    with pytest.raises(qn.ParameterError, match="params is a NoneType"):
        attempt(params=None)


@pytest.mark.parametrize(
    "export",
    ["export_parameters", "export_secret_key", "export_public_key", "export_ciphertexts"],
)
def test_exports_check_their_argument(small: Party, export: str) -> None:
    wrong: list[Any] = [None, b"", small]
    if export != "export_public_key":
        wrong.append(small.keys.public)
    if export != "export_secret_key":
        wrong.append(small.keys.secret)
    for value in wrong:
        with pytest.raises(qn.ParameterError, match=f"is a {type(value).__name__}; allowed: "):
            getattr(qn.seal, export)(value)


def test_the_linked_version() -> None:
    major, minor, _ = map(int, qn.seal.version().split("."))
    assert (major, minor) >= (4, 1)
