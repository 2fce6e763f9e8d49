"""The parameter search: answers are checked against the standard and the design's inequalities."""

import copy
import dataclasses
import itertools
import math
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import seal
from tests.native import standard
from tests.native.conftest import packed

import quancrypt_native as qn

BITS = range(2, 17)
MAX_WEIGHTS = (1, 2, 3, 7, 16, 100, 1000, 4095, 65536)
SECURITY = (128, 192, 256)
KEY_MODES = ("symmetric", "public")
LEVELS = {
    128: seal.sec_level_type.tc128,
    192: seal.sec_level_type.tc192,
    256: seal.sec_level_type.tc256,
}


def seal_accepts(params: qn.Parameters) -> bool:
    """By SEAL 4.4, which is not the SEAL that the package links."""
    parms = seal.EncryptionParameters(seal.scheme_type.ckks)
    parms.set_poly_modulus_degree(params.poly_degree)
    parms.set_coeff_modulus([seal.Modulus(p) for p in params.coeff_modulus])
    accepted: bool = seal.SEALContext(parms, False, LEVELS[params.security]).parameters_set()
    return accepted


@pytest.mark.parametrize("key_mode", KEY_MODES)
@pytest.mark.parametrize("security", SECURITY)
@pytest.mark.parametrize("bits", BITS)
def test_every_choice_is_met_and_valid(bits: int, security: int, key_mode: str) -> None:
    """At the default ring degrees nothing that the contract lists is impossible."""
    for max_weight in MAX_WEIGHTS:
        params = qn.Parameters.for_aggregation(
            bits=bits, max_weight=max_weight, security=security, key_mode=key_mode
        )
        assert (params.bits, params.max_weight, params.security, params.key_mode) == (
            bits, max_weight, security, key_mode,
        )  # fmt: skip
        assert params.encoding == "packed"
        standard.check_packed(params)
        if max_weight in (1, 16, 65536):
            assert seal_accepts(params)


@pytest.mark.slow
@pytest.mark.parametrize("key_mode", KEY_MODES)
@pytest.mark.parametrize("security", SECURITY)
def test_every_power_of_two_and_its_neighbours(security: int, key_mode: str) -> None:
    """Where fields and guard bits grow by one, in the default rings and in larger ones."""
    weights = {w for k in range(17) for w in (2**k - 1, 2**k, 2**k + 1) if 1 <= w <= 65536}
    for bits, max_weight, degree in itertools.product(BITS, sorted(weights), (8192, 16384)):
        params = qn.Parameters.for_aggregation(
            bits=bits,
            max_weight=max_weight,
            security=security,
            key_mode=key_mode,
            max_poly_degree=degree,
        )
        standard.check_packed(params)


def suggestions(message: str) -> list[dict[str, int]]:
    """The settings that an error names as the nearest possible."""
    _, _, nearest = message.partition("nearest possible: ")
    return [
        {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", part)}
        for part in nearest.split(", or ")
        if part
    ]


@pytest.mark.parametrize("key_mode", KEY_MODES)
@pytest.mark.parametrize("security", SECURITY)
@pytest.mark.parametrize("degree", [1024, 2048])
def test_what_cannot_be_met_names_the_nearest(degree: int, security: int, key_mode: str) -> None:
    """In small rings much is impossible; what the error names works, and nothing nearer does."""

    def search(**choices: Any) -> qn.Parameters:
        return qn.Parameters.for_aggregation(
            **{"max_poly_degree": degree, "security": security, "key_mode": key_mode, **choices}
        )

    def impossible(**choices: Any) -> bool:
        try:
            search(**choices)
        except qn.ParameterError:
            return True
        return False

    outcomes = {"met": 0, "refused": 0}
    for bits, max_weight in itertools.product((2, 5, 8, 12, 16), (1, 3, 16, 1000, 65536)):
        try:
            params = search(bits=bits, max_weight=max_weight)
        except qn.ParameterError as error:
            outcomes["refused"] += 1
            message = str(error)
            assert f"bits={bits} and max_weight={max_weight} with {key_mode} keys" in message
            assert f"degree up to {degree} at {security}-bit security" in message
            named = suggestions(message)
            assert any("max_poly_degree" in choices for choices in named)
            for choices in named:
                works = {"bits": bits, "max_weight": max_weight, **choices}
                standard.check_packed(search(**works))
                if "max_poly_degree" in choices:
                    larger = choices["max_poly_degree"]
                    assert larger > degree
                    assert larger == 2 * degree or impossible(
                        **{**works, "max_poly_degree": larger // 2}
                    )
                elif works["bits"] < bits:
                    assert impossible(bits=works["bits"] + 1, max_weight=max_weight)
                else:
                    assert works["max_weight"] < max_weight
                    assert impossible(bits=bits, max_weight=works["max_weight"] + 1)
            # A way that the error does not name does not exist.
            assert any(c.get("bits", bits) < bits for c in named) or impossible(
                bits=2, max_weight=max_weight
            )
            assert any(
                c.get("max_weight", 0) < max_weight
                for c in named
                if "max_weight" in c and c.get("bits") == bits
            ) or impossible(bits=bits, max_weight=1)
        else:
            outcomes["met"] += 1
            assert params.poly_degree <= degree
            standard.check_packed(params)
    assert outcomes["refused"] > 0


def coefficient_bits(fields: int, width: int, guard: int, largest_sum: int) -> int:
    """ceil(log2) of what the data modulus must reach."""
    needed = sum(largest_sum << (guard + width * f) for f in range(fields)) + 2**guard
    return (needed - 1).bit_length()


@pytest.mark.parametrize("key_mode", KEY_MODES)
@pytest.mark.parametrize(
    ("bits", "max_weight"), [(8, 16), (8, 8), (8, 1), (2, 3), (4, 100), (12, 1000), (16, 65536)]
)
def test_no_simple_design_is_smaller(bits: int, max_weight: int, key_mode: str) -> None:
    """Against a search by brute force with one bit of slack for each prime, and its lower bound."""
    largest_sum = 2 * (2 ** (bits - 1) - 1) * max_weight
    width = largest_sum.bit_length()
    polynomials = 1 if key_mode == "symmetric" else 2
    simple, floor = [], []
    for degree in (1024, 2048, 4096, 8192):
        for special_bits in (0, 20):
            special = 2 ** (special_bits - 1) if special_bits else None
            noise = standard.fresh_noise(degree, special, key_mode)
            guard = (max_weight * noise).bit_length() + 1
            for fields in range(1, 100):
                total = coefficient_bits(fields, width, guard, largest_sum)
                room = standard.LIMITS[degree][128] - special_bits
                if total > room or (not special_bits and total > 50):
                    break
                floor.append(total / fields)
                primes = -(-total // 49)
                if total + primes <= room and (special_bits or primes == 1):
                    simple.append((total + primes) / fields)
    params = qn.Parameters.for_aggregation(bits=bits, max_weight=max_weight, key_mode=key_mode)
    found = params.bytes_per_value * 8 / polynomials
    assert found <= min(simple)
    if key_mode == "symmetric":  # the floor's noise is that of the smallest special prime possible
        assert found >= min(floor)


def test_the_figures_of_the_issue() -> None:
    params = qn.Parameters.for_aggregation(bits=8, max_weight=16)
    assert params.bytes_per_value <= 1.6
    assert packed(bits=8, max_weight=16, max_poly_degree=4096).params.bytes_per_value <= 1.75
    assert packed(bits=8, max_weight=8, max_poly_degree=4096).params.bytes_per_value <= 1.54


@pytest.mark.parametrize("key_mode", KEY_MODES)
@pytest.mark.parametrize("values", [1, 100, 1024, 5000, 25_000, 100_000, 11_000_000])
def test_values_size_the_ciphertexts(values: int, key_mode: str) -> None:
    """With ``values`` an upload is at most as large as with any ring degree chosen by hand."""
    params = qn.Parameters.for_aggregation(values=values, key_mode=key_mode)
    standard.check_packed(params)
    count = -(-values // params.values_per_ciphertext)
    polynomials = 1 if key_mode == "symmetric" else 2
    size = sum((p - 1).bit_length() for p in params.data_primes) * params.poly_degree // 8
    assert params.upload_bytes(values) == count * polynomials * size
    for degree in (1024, 2048, 4096, 8192):
        try:
            other = qn.Parameters.for_aggregation(key_mode=key_mode, max_poly_degree=degree)
        except qn.ParameterError:
            continue
        assert params.upload_bytes(values) <= other.upload_bytes(values)
    if values <= 100_000:
        keys = qn.keygen(params)
        key = keys.public if key_mode == "public" else keys.secret
        update = qn.Encryptor(params, key).encrypt_integers(np.zeros(values, np.int8))
        assert update.ciphertexts == count
        assert 0 < update.nbytes - params.upload_bytes(values) < 400  # header and checksum


def test_a_larger_ring_only_where_nothing_smaller_fits() -> None:
    assert qn.Parameters.for_aggregation().poly_degree <= 8192
    large = qn.Parameters.for_aggregation(max_poly_degree=32768)
    assert large.poly_degree > 8192
    assert large.bytes_per_value <= qn.Parameters.for_aggregation().bytes_per_value
    standard.check_packed(large)
    assert seal_accepts(large)


def test_explain() -> None:
    params = qn.Parameters.for_aggregation(bits=8, max_weight=16, key_mode="public")
    explanation = params.explain()
    figures = explanation.as_dict()
    primes = params.coeff_modulus
    noise = standard.fresh_noise(params.poly_degree, primes[-1], "public")
    assert figures == {
        "encoding": "packed",
        "poly_degree": params.poly_degree,
        "coeff_modulus": primes,
        "security": 128,
        "key_mode": "public",
        "max_weight": 16,
        "bits": 8,
        "fields": params.fields,
        "field_bits": 12,
        "guard_bits": (16 * noise).bit_length() + 1,
        "noise_bound": noise,
        "scale_bits": 0,
        "noise_bound_of_sum": 16 * noise,
        "noise_allowed": 2 ** (16 * noise).bit_length() - 1,
        "noise_margin_bits": math.log2(2 ** (16 * noise).bit_length() / (16 * noise)),
        "modulus_bits": math.prod(primes).bit_length(),
        "modulus_limit": standard.LIMITS[params.poly_degree][128],
        "values_per_ciphertext": params.fields * params.poly_degree,
        "bytes_per_value": params.bytes_per_value,
        "expansion_over_float32": params.bytes_per_value / 4,
        "fingerprint": params.fingerprint,
    }
    text = str(explanation)
    for part in (
        "packed", str(params.poly_degree), "50 + 50 + 49 + 49 + 20 bits", "(the last is special)",
        f"modulus of {figures['modulus_bits']} bits, at most 218 allowed", "secret or public",
        f"{params.fields} of 12 bits each", f"at most {16 * noise} (16 x {noise})",
        f"{figures['noise_allowed']} allowed", f"{params.bytes_per_value:.3f} uploaded",
        params.fingerprint,
    ):  # fmt: skip
        assert part in text
    figures["bits"] = 0
    assert explanation.as_dict()["bits"] == 8


def test_explain_slots() -> None:
    figures = qn.Parameters.slots().explain().as_dict()
    assert "noise_bound_of_sum" not in figures
    assert figures["modulus_bits"] == 200
    assert figures["values_per_ciphertext"] == 4096
    assert "2^40: approximate sums" in str(qn.Parameters.slots().explain())


@pytest.mark.parametrize(
    ("degree", "sizes"),
    [
        (8192, (60, 40, 40, 60)),
        (16384, (60, 40, 40, 40, 60)),
        (4096, (40, 20, 40)),
        (2048, (54,)),
        (32768, (60,) * 14),
    ],
)
def test_slots_have_the_primes_that_seal_chooses(degree: int, sizes: tuple[int, ...]) -> None:
    params = qn.Parameters.slots(poly_degree=degree, coeff_modulus_bits=sizes, scale_bits=20)
    standard.check(params)
    assert params.coeff_modulus == tuple(
        p.value() for p in seal.CoeffModulus.Create(degree, list(sizes))
    )
    assert params.encoding == "slots"
    assert params.values_per_ciphertext == degree // 2
    assert params.key_mode == "public"
    assert seal_accepts(params)
    data = sizes[:-1] or sizes
    assert params.bytes_per_value == sum(data) * degree / 8 / (degree / 2)
    assert 0 < math.log2(params.slot_limit()) + 2 + 20 + 10 <= sum(data)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"bits": 1}, "bits is 1; allowed: 2 to 16"),
        ({"bits": 17}, "bits is 17"),
        ({"bits": 8.0}, "bits is 8.0"),
        ({"bits": True}, "bits is True"),
        ({"bits": None}, "bits is None"),
        ({"max_weight": 0}, "max_weight is 0; allowed: 1 to 65536"),
        ({"max_weight": 65537}, "max_weight is 65537"),
        ({"max_weight": "16"}, "max_weight is '16'"),
        ({"security": 100}, "security is 100"),
        ({"security": 130}, "security is 130; allowed: 128, 192, 256"),
        ({"key_mode": "secret"}, "key_mode is 'secret'; allowed: symmetric, public"),
        ({"key_mode": ["public"]}, "key_mode is"),
        ({"key_mode": np.array(["public", "symmetric"])}, "key_mode is"),
        ({"values": 0}, "values is 0"),
        ({"values": 1.5}, "values is 1.5"),
        ({"max_poly_degree": 3000}, "max_poly_degree is 3000; allowed: 1024, 2048"),
        ({"max_poly_degree": 4096.0}, "max_poly_degree is 4096.0"),
    ],
)
def test_wrong_choices_are_named(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(qn.ParameterError, match=re.escape(message)) as caught:
        qn.Parameters.for_aggregation(**choices)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"poly_degree": 1000}, "poly_degree is 1000"),
        ({"poly_degree": 8192.0}, "poly_degree is 8192.0"),
        ({"poly_degree": [8192]}, "poly_degree is [8192]"),
        ({"security": 64}, "security is 64"),
        ({"coeff_modulus_bits": ()}, "number of primes is 0"),
        ({"coeff_modulus_bits": 60}, "coeff_modulus_bits is 60"),
        ({"coeff_modulus_bits": (60, 61)}, "coeff_modulus_bits is 61; allowed: 2 to 60"),
        ({"coeff_modulus_bits": (60, "40")}, "coeff_modulus_bits is '40'"),
        ({"coeff_modulus_bits": (10, 10)}, "there are 0 10-bit primes for poly_degree 8192"),
        ({"coeff_modulus_bits": (60,) * 4}, "the modulus has 240 bits"),
        ({"scale_bits": 0}, "scale_bits is 0"),
        ({"scale_bits": 61}, "scale_bits is 61"),
        ({"coeff_modulus_bits": (30,), "scale_bits": 30}, "scale_bits is 30"),
        ({"max_weight": 0}, "max_weight is 0"),
        ({"max_weight": 2**16 + 1}, "max_weight is 65537"),
    ],
)
def test_wrong_slots_are_named(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(qn.ParameterError, match=re.escape(message)):
        qn.Parameters.slots(**choices)


def test_numpy_integers_are_integers() -> None:
    params = qn.Parameters.for_aggregation(
        bits=np.int8(8), max_weight=np.uint16(16), max_poly_degree=np.int64(4096)
    )
    assert params == packed(bits=8, max_weight=16, max_poly_degree=4096).params
    assert qn.Parameters.slots(poly_degree=np.int64(8192)) == qn.Parameters.slots()
    assert qn.Parameters.from_bytes(params.to_bytes()) == params


def test_equal_sets_are_one() -> None:
    first, second = qn.Parameters.for_aggregation(), qn.Parameters.for_aggregation()
    assert first == second
    assert hash(first) == hash(second)
    assert first.fingerprint == second.fingerprint
    assert first is copy.copy(first) is copy.deepcopy(first)
    different = [
        qn.Parameters.for_aggregation(max_weight=15),
        qn.Parameters.for_aggregation(bits=7),
        qn.Parameters.for_aggregation(key_mode="public"),
        qn.Parameters.for_aggregation(security=192),
        qn.Parameters.slots(),
        qn.Parameters.slots(scale_bits=39),
    ]
    assert len({first, *different}) == len({p.fingerprint for p in (first, *different)}) == 7
    assert first != "parameters"


def test_sets_are_immutable() -> None:
    params = qn.Parameters.for_aggregation()
    for name in ("bits", "max_weight", "coeff_modulus", "anything"):
        with pytest.raises(AttributeError):
            setattr(params, name, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        params._literal.bits = 2  # type: ignore[misc]
    assert isinstance(params.coeff_modulus, tuple)


def test_slots_have_no_integers() -> None:
    params = qn.Parameters.slots()
    with pytest.raises(qn.ParameterError, match="q_max needs packed encoding"):
        _ = params.q_max
    with pytest.raises(qn.ParameterError, match="values is -1"):
        params.upload_bytes(-1)


def test_repr_names_the_choices() -> None:
    assert repr(packed(bits=8, max_weight=16, max_poly_degree=4096).params) == (
        "Parameters(packed, N=4096, primes=41+41+20 bits, bits=8, fields=6, max_weight=16, "
        "symmetric, 128-bit security)"
    )
    assert "scale_bits=40" in repr(qn.Parameters.slots())


def test_the_search_goes_on_where_the_most_fields_find_no_primes() -> None:
    smallest = qn.Parameters.for_aggregation(
        bits=4, max_weight=1, security=256, max_poly_degree=1024
    )
    assert smallest.fields == 1
    wide = qn.Parameters.for_aggregation(
        bits=15, max_weight=16, security=192, key_mode="public", max_poly_degree=4096
    )
    assert wide.bytes_per_value <= 9.0


TOO_LARGE = """
import resource
from tests.native import oracle
import quancrypt_native as qn
from quancrypt_native import _core

header, body = oracle.unframe(qn.Parameters.for_aggregation(max_poly_degree=1024).to_bytes())
del header["body_bytes"]
primes = _core.find_primes(32768, 50, 64)
data = oracle.frame(2, {**header, "poly_degree": 32768, "coeff_modulus": primes}, body)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    qn.Parameters.from_bytes(data)
except qn.WireFormatError as error:
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(len(data), grown, error)
"""


def test_a_modulus_too_large_for_its_ring_is_refused_before_tables_are_made() -> None:
    """They would take 128 MiB, for some 1,300 bytes of a stranger."""
    done = subprocess.run(
        [sys.executable, "-c", TOO_LARGE], capture_output=True, text=True, check=True
    )
    size, grown, message = done.stdout.split(maxsplit=2)
    assert int(size) < 1500
    assert int(grown) < 16 * 1024  # KiB
    assert "the modulus has 3200 bits; at ring degree 32768" in message
