"""Search for the parameters of packed encoding: exact integer arithmetic, nothing random.

With ``q_max = 2**(bits-1) - 1`` a quantized value ``q`` travels as ``u = q + q_max`` in
``[0, 2 q_max]``; a sum of total weight ``W`` stays in ``[0, 2 q_max W]`` and takes a field of
``F = bit_length(2 q_max W)`` bits. ``k`` fields lie in one coefficient above ``g`` guard bits::

    coefficient = sum_f U_f * 2**(g + F f) + noise,    |noise| <= W * B < 2**(g-1)

where ``B`` bounds the noise of one fresh encryption for certain. Rounding to a multiple of ``2**g``
then gives the integer sum exactly, if ``max coefficient + 2**g <= Q``, the product of the data
primes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from quancrypt_native import _core
from quancrypt_native.errors import ParameterError

DEGREES = (1024, 2048, 4096, 8192, 16384, 32768)
BITS = range(2, 17)
MAX_WEIGHTS = range(1, 65537)
SECURITY_LEVELS = (128, 192, 256)
KEY_MODES = ("symmetric", "public")
DEFAULT_MAX_DEGREE = 8192
"""Larger rings save under 4 % of the bytes and make a ciphertext, their smallest unit, bigger."""

_MAX_PRIME_BITS = 50  # 4 p < 2^52: lazy arithmetic in AVX-512's 52-bit multiplications
_SPECIAL_PRIME_BITS = 20  # enough to make the divided noise of public-key encryption negligible


@dataclass(frozen=True, slots=True)
class PackedDesign:
    """One admissible choice; everything else follows from it."""

    degree: int
    primes: tuple[int, ...]
    fields: int
    field_bits: int
    guard_bits: int
    noise_bound: int

    @property
    def data_primes(self) -> tuple[int, ...]:
        """Primes of ciphertexts: all but the special one; a lone prime is a data prime."""
        return self.primes[:-1] if len(self.primes) > 1 else self.primes

    @property
    def wire_bits(self) -> int:
        """Bits of one coefficient on the wire."""
        return sum((p - 1).bit_length() for p in self.data_primes)


def fresh_noise_bound(degree: int, special_prime: int | None, key_mode: str) -> int:
    """Largest absolute noise of one fresh encryption, for certain.

    Symmetric: ``e`` itself. Public key: ``e0 + e1 s + u e`` with ternary ``u`` and ``s``, divided
    by the special prime ``P``, plus the rounding errors ``t0 + t1 s`` with ``|t| <= 1/2``::

        (B_e (2 N + 1)) / P + (1 + N) / 2
    """
    error: int = _core.MAX_ERROR
    if key_mode == "symmetric":
        return error
    undivided = error * (2 * degree + 1)
    if special_prime is None:
        return undivided
    # ceil of the sum of both fractions over the common denominator 2 P.
    numerator = 2 * undivided + special_prime * (1 + degree)
    return -(-numerator // (2 * special_prime))


def largest_coefficient(fields: int, field_bits: int, guard_bits: int, largest_sum: int) -> int:
    """Every field at its largest sum."""
    return sum(largest_sum << (guard_bits + field_bits * f) for f in range(fields))


def find_design(
    *,
    bits: int,
    max_weight: int,
    security: int,
    key_mode: str,
    values: int | None,
    max_degree: int,
) -> PackedDesign:
    """The design with the fewest bytes for ``values`` values (full ciphertexts if None).

    Raises
    ------
    ParameterError
        If nothing fits; the message says the nearest possible.
    """
    degrees = [d for d in DEGREES if d <= max_degree]
    design = _best(bits, max_weight, security, key_mode, values, degrees)
    if design is None and max_degree == DEFAULT_MAX_DEGREE:
        design = _best(bits, max_weight, security, key_mode, values, list(DEGREES))
    if design is None:
        raise ParameterError(_nearest(bits, max_weight, security, key_mode, degrees))
    return design


def _best(
    bits: int,
    max_weight: int,
    security: int,
    key_mode: str,
    values: int | None,
    degrees: list[int],
) -> PackedDesign | None:
    def cost(design: PackedDesign) -> tuple[float, int, int]:
        capacity = design.degree * design.fields
        if values is None:
            size = design.wire_bits / design.fields
        else:
            size = -(-values // capacity) * design.degree * design.wire_bits
        return size, len(design.primes), design.degree

    designs = [
        design
        for degree in degrees
        for design in _designs(degree, bits, max_weight, security, key_mode, values)
    ]
    return min(designs, key=cost, default=None)


def _designs(
    degree: int, bits: int, max_weight: int, security: int, key_mode: str, values: int | None
) -> Iterator[PackedDesign]:
    limit = _core.max_modulus_bits(degree, security)
    largest_sum = 2 * (2 ** (bits - 1) - 1) * max_weight
    field_bits = largest_sum.bit_length()
    special = next(iter(_core.find_primes(degree, _SPECIAL_PRIME_BITS, 1)), None)
    for special_prime in (None, special):
        # A lone prime is SEAL's key level and data level in one; several need a special prime.
        available = min(limit, _MAX_PRIME_BITS)
        if special_prime is not None:
            available = limit - _SPECIAL_PRIME_BITS
        noise = fresh_noise_bound(degree, special_prime, key_mode)
        guard_bits = (max_weight * noise).bit_length() + 1
        most = (available - guard_bits) // field_bits
        # Bytes per value fall with the number of fields, so the first that works is the best; a
        # given size may be met with fewer.
        for fields in range(most, 0, -1):
            needed = largest_coefficient(fields, field_bits, guard_bits, largest_sum)
            needed += 1 << guard_bits
            data = _data_primes(degree, needed, special_prime, available)
            if data is not None:
                primes = data if special_prime is None else (*data, special_prime)
                yield PackedDesign(degree, primes, fields, field_bits, guard_bits, noise)
                if values is None:
                    break


def _data_primes(
    degree: int, needed: int, special_prime: int | None, available: int
) -> tuple[int, ...] | None:
    """The fewest and then smallest primes whose product is at least ``needed``."""
    exclude = [] if special_prime is None else [special_prime]
    for total in range((needed - 1).bit_length(), available + 1):
        count = -(-total // _MAX_PRIME_BITS)
        if special_prime is None and count > 1:
            return None
        small, larger = divmod(total, count)
        chosen: list[int] = []
        for size, number in ((small + 1, larger), (small, count - larger)):
            chosen += _core.find_primes(degree, size, number, exclude)
        if len(chosen) == count and prod(chosen) >= needed:
            return tuple(chosen)
    return None


def _nearest(bits: int, max_weight: int, security: int, key_mode: str, degrees: list[int]) -> str:
    """Say what fails and what the nearest settings are that would work."""

    def works(b: int, w: int) -> bool:
        return _best(b, w, security, key_mode, None, degrees) is not None

    hints = []
    fewer_bits = next((b for b in reversed(BITS) if b < bits and works(b, max_weight)), None)
    if fewer_bits is not None:
        hints.append(f"bits={fewer_bits} at max_weight={max_weight}")
    low, high = 0, max_weight  # works(low), not works(high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if works(bits, middle) else (low, middle)
    if low:
        hints.append(f"max_weight={low} at bits={bits}")
    larger = next(
        (
            d
            for d in DEGREES
            if d not in degrees and _best(bits, max_weight, security, key_mode, None, [d])
        ),
        None,
    )
    if larger is not None:
        hints.append(f"max_poly_degree={larger}")
    nearest = "; nearest possible: " + ", or ".join(hints) if hints else ""
    return (
        f"bits={bits} and max_weight={max_weight} with {key_mode} keys do not fit any ring of "
        f"degree up to {max(degrees, default=0)} at {security}-bit security{nearest}"
    )
