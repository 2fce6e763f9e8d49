"""Parameters for threshold keys: every inequality of docs/cryptography.md, in Python integers."""

import copy
import dataclasses
import math
import pickle
import re
from fractions import Fraction
from typing import Any

import pytest
from tests.native import oracle, standard
from tests.native.threshold_parties import parameters

import quancrypt_native as qn
from quancrypt_native.parameters import Parameters

STATISTICAL_SECURITY = 56


def threshold(**choices: Any) -> qn.Parameters:
    return qn.Parameters.for_aggregation(**{"key_mode": "threshold", "parties": 5, **choices})


def fresh_noise(params: qn.Parameters) -> int:
    """``e0 + e1 s + u e`` divided by P, and the rounding ``t0 + t1 s``: |s|, |e| up to n fold."""
    n, degree, special = params.parties, params.poly_degree, params.coeff_modulus[-1]
    undivided = standard.LARGEST_ERROR * (1 + n * degree + n * degree)
    return math.ceil(Fraction(undivided, special) + Fraction(1 + n * degree, 2))


@pytest.mark.parametrize("parties", [2, 3, 5, 10, 50, 128])
@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"values": 1000},
        {"values": 2_000_000},
        {"bits": 2, "max_weight": 1},
        {"bits": 16, "max_weight": 65536},
        {"bits": 12, "max_weight": 1000, "values": 100_000},
        {"security": 192},
        {"security": 256},
        {"max_poly_degree": 32768},
        {"max_poly_degree": 8192},
    ],
    ids=lambda choices: "-".join(f"{k}={v}" for k, v in choices.items()) or "default",
)
def test_every_inequality(parties: int, choices: dict[str, Any]) -> None:
    params = threshold(parties=parties, **choices)
    standard.check_modulus(params)
    figures = params.explain().as_dict()
    degree, weight = params.poly_degree, params.max_weight
    noise, smudging = fresh_noise(params), figures["smudging_bits"]
    assert (params.key_mode, params.parties, figures["parties"]) == ("threshold", parties, parties)
    assert figures["noise_bound"] == noise

    # Statistical distance of a shift by the noise of a sum, over all coefficients of a ciphertext.
    distance = Fraction(degree * weight * noise, 2 ** (smudging + 1))
    assert distance <= Fraction(1, 2**STATISTICAL_SECURITY)
    assert 2 * distance > Fraction(1, 2**STATISTICAL_SECURITY)  # no bit too many

    data, r = params.data_primes, figures["smudging_primes"]
    kept, divided = data[:-r], data[-r:]
    all_noise = weight * noise + parties * 2**smudging
    assert all_noise <= math.prod(divided)
    assert figures["noise_bound_of_sum"] == all_noise
    # What is left after r divisions with rounding is an integer below 2 in absolute value.
    left = Fraction(all_noise, math.prod(divided)) + Fraction(1, 2)
    left += sum(Fraction(1, 2 * math.prod(divided[:i])) for i in range(1, r))
    assert left < 2
    assert figures["guard_bits"] == 2

    largest_field = weight * 2 * params.q_max
    assert largest_field < 2 ** figures["field_bits"]
    largest = sum(largest_field << (2 + figures["field_bits"] * f) for f in range(params.fields))
    assert largest + 2**2 <= math.prod(kept)  # nothing wraps
    assert params.bytes_per_value == 2 * params._core.polynomial_bytes / (degree * params.fields)


def test_the_upload_ratio_to_a_shared_key() -> None:
    """At the defaults and full ciphertexts: the price of no single holder."""
    shared = qn.Parameters.for_aggregation()
    ratios = {n: threshold(parties=n).bytes_per_value / shared.bytes_per_value for n in (3, 5, 10)}
    assert all(2 < ratio <= 2.6 for ratio in ratios.values())
    assert ratios[3] <= ratios[5] <= ratios[10]
    for values in (2_000_000, 4_000_000, 11_173_962):
        joint = threshold(values=values).upload_bytes(values)
        assert joint <= 2.6 * qn.Parameters.for_aggregation(values=values).upload_bytes(values)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"parties": None}, "parties is None; allowed with key_mode 'threshold': 2 to 128"),
        ({"parties": 1}, "parties is 1; allowed: 2 to 128"),
        ({"parties": 129}, "parties is 129; allowed: 2 to 128"),
        ({"parties": 2.5}, "parties is 2.5"),
        ({"key_mode": "public"}, "parties is 5; key_mode 'public' has none"),
        ({"max_poly_degree": 4096}, "with threshold keys do not fit any ring of degree up to 4096"),
    ],
)
def test_refused_choices(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(qn.ParameterError, match=re.escape(message)):
        threshold(**choices)


def test_the_nearest_possible_is_possible() -> None:
    with pytest.raises(qn.ParameterError, match="nearest possible: max_poly_degree=8192"):
        threshold(max_poly_degree=4096)


def test_they_travel_and_compare() -> None:
    params = parameters(3)
    for other in (
        qn.Parameters.from_bytes(params.to_bytes()),
        pickle.loads(pickle.dumps(params)),
        copy.deepcopy(params),
    ):
        assert other == params
        assert other.fingerprint == params.fingerprint
        assert other.parties == 3
    assert len({parameters(n).fingerprint for n in (2, 3, 4)}) == 3
    assert "threshold of 3 parties" in repr(params)
    assert "joint public key of 3 parties" in str(params.explain())
    assert qn.Parameters.for_aggregation().parties == 0
    header, _ = oracle.unframe(qn.Parameters.for_aggregation().to_bytes())
    assert not {"parties", "smudging_bits", "smudging_primes"} & set(header)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("parties", 2),
        ("parties", 4),
        ("smudging_bits", 40),
        ("smudging_bits", 100),
        ("smudging_primes", 1),
        ("smudging_primes", 3),
        ("noise_bound", 21),
        ("guard_bits", 3),
        ("fields", 2),
        ("max_weight", 17),
        ("key_mode", "public"),
    ],
)
def test_what_does_not_fit_together_is_refused(field: str, value: object) -> None:
    """From bytes, and as a literal: less smudging, more parties, more weight than there is room."""
    params = parameters(3)
    header, _ = oracle.unframe(params.to_bytes())
    del header["body_bytes"]
    with pytest.raises(qn.WireFormatError):
        qn.Parameters.from_bytes(oracle.frame(2, {**header, field: value}, b""))
    literal = dataclasses.replace(params._literal, **{field: value})  # type: ignore[arg-type]
    with pytest.raises(qn.ParameterError):
        Parameters(literal)


@pytest.mark.parametrize("name", ["parties", "smudging_bits", "smudging_primes"])
def test_each_field_is_needed(name: str) -> None:
    header, _ = oracle.unframe(parameters(3).to_bytes())
    del header["body_bytes"], header[name]
    with pytest.raises(qn.WireFormatError, match=f"header field '{name}' is missing"):
        qn.Parameters.from_bytes(oracle.frame(2, header, b""))
