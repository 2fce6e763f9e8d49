"""Search for the parameters of packed encoding: exact integer arithmetic, nothing random.

With ``q_max = 2**(bits-1) - 1`` a quantized value ``q`` travels as ``u = q + q_max`` in
``[0, 2 q_max]``; a sum of total weight ``W`` stays in ``[0, 2 q_max W]`` and takes a field of
``F = bit_length(2 q_max W)`` bits. ``k`` fields lie in one coefficient above ``g`` guard bits::

    coefficient = sum_f U_f * 2**(g + F f) + noise,    |noise| <= W * B < 2**(g-1)

where ``B`` bounds the noise of one fresh encryption for certain. Rounding to a multiple of ``2**g``
then gives the integer sum exactly, if ``max coefficient + 2**g <= Q``, the product of the data
primes.

With a threshold key the noise is larger than guard bits hold: each of ``n`` parties adds smudging,
uniform on ``[-2**b, 2**b - 1]``, when a sum is decrypted. The coefficient is then multiplied by the
product ``D`` of the last data primes, ``D >= W B + n 2**b``, and divided by it after decryption. At
most 1 is left of all noise, so ``g = 2``, and ``Q`` is the product of the other data primes
(docs/cryptography.md).
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
KEY_MODES = ("symmetric", "public", "threshold")
MAX_PARTIES = 128
STATISTICAL_SECURITY = 56
"""Bits: what the parts of one decrypted ciphertext tell beyond the sum is at most ``2**-56``, so at
most ``2**-40`` for 65,536 ciphertexts."""
DEFAULT_MAX_DEGREE = 8192
"""Larger rings save under 4 % of the bytes and make a ciphertext, their smallest unit, bigger."""
THRESHOLD_MAX_DEGREE = 16384
"""Smudging takes as many bits of a coefficient in any ring: larger coefficients lose less to it."""

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
    smudging_bits: int = 0
    smudging_primes: int = 0

    @property
    def data_primes(self) -> tuple[int, ...]:
        """Primes of ciphertexts: all but the special one; a lone prime is a data prime."""
        return self.primes[:-1] if len(self.primes) > 1 else self.primes

    @property
    def wire_bits(self) -> int:
        """Bits of one coefficient on the wire."""
        return sum((p - 1).bit_length() for p in self.data_primes)


def fresh_noise_bound(
    degree: int, special_prime: int | None, key_mode: str, parties: int = 0
) -> int:
    """Largest absolute noise of one fresh encryption, for certain.

    Symmetric: ``e`` itself. Public key: ``e0 + e1 s + u e`` with ternary ``u`` and ``s``, divided
    by the special prime ``P``, plus the rounding errors ``t0 + t1 s`` with ``|t| <= 1/2``::

        (B_e (2 N + 1)) / P + (1 + N) / 2

    Threshold: the same with the sums of ``n`` secrets and of ``n`` errors of the public key::

        (B_e (2 n N + 1)) / P + (1 + n N) / 2
    """
    error: int = _core.MAX_ERROR
    if key_mode == "symmetric":
        return error
    norm = degree * max(parties, 1)  # largest |s| coefficient times N
    undivided = error * (2 * norm + 1)
    if special_prime is None:
        return undivided
    # ceil of the sum of both fractions over the common denominator 2 P.
    numerator = 2 * undivided + special_prime * (1 + norm)
    return -(-numerator // (2 * special_prime))


def smudging_bits(degree: int, noise_of_sum: int) -> int:
    """The least ``b`` with ``N V / 2**(b+1) <= 2**-STATISTICAL_SECURITY``; ``V``: noise of a sum.

    Shifting the uniform distribution on ``[-2**b, 2**b - 1]`` by ``v`` moves it by the statistical
    distance ``|v| / 2**(b+1)``; a ciphertext has ``N`` coefficients.
    """
    return ((degree * noise_of_sum << STATISTICAL_SECURITY) - 1).bit_length() - 1


def noise_room(noise_of_sum: int, parties: int, party_bits: int) -> int:
    """What the product of the smudging primes must at least be: all noise of a decryption."""
    return noise_of_sum + (parties << party_bits)


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
    max_degree: int | None = None,
    parties: int = 0,
) -> PackedDesign:
    """The design with the fewest bytes for ``values`` values (full ciphertexts if None).

    ``parties`` is 0 unless the key mode is ``threshold``. ``max_degree`` of None: the default, or
    larger if nothing fits.

    Raises
    ------
    ParameterError
        If nothing fits; the message says the nearest possible.
    """
    default = THRESHOLD_MAX_DEGREE if parties else DEFAULT_MAX_DEGREE
    degrees = [d for d in DEGREES if d <= (default if max_degree is None else max_degree)]
    design = _best(bits, max_weight, security, key_mode, values, degrees, parties)
    if design is None and max_degree is None:
        design = _best(bits, max_weight, security, key_mode, values, list(DEGREES), parties)
    if design is None:
        raise ParameterError(_nearest(bits, max_weight, security, key_mode, degrees, parties))
    return design


def _best(
    bits: int,
    max_weight: int,
    security: int,
    key_mode: str,
    values: int | None,
    degrees: list[int],
    parties: int,
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
        for design in _designs(degree, bits, max_weight, security, key_mode, values, parties)
    ]
    return min(designs, key=cost, default=None)


def _designs(
    degree: int,
    bits: int,
    max_weight: int,
    security: int,
    key_mode: str,
    values: int | None,
    parties: int,
) -> Iterator[PackedDesign]:
    limit = _core.max_modulus_bits(degree, security)
    largest_sum = 2 * (2 ** (bits - 1) - 1) * max_weight
    field_bits = largest_sum.bit_length()
    special = next(iter(_core.find_primes(degree, _SPECIAL_PRIME_BITS, 1)), None)
    for special_prime in (special,) if parties else (None, special):
        if parties and special_prime is None:
            continue
        # A lone prime is SEAL's key level and data level in one; several need a special prime.
        available = min(limit, _MAX_PRIME_BITS)
        if special_prime is not None:
            available = limit - _SPECIAL_PRIME_BITS
        noise = fresh_noise_bound(degree, special_prime, key_mode, parties)
        guard_bits = (max_weight * noise).bit_length() + 1
        exclude = [] if special_prime is None else [special_prime]
        smudging: tuple[int, ...] = ()
        party_bits = 0
        if parties:
            party_bits = smudging_bits(degree, max_weight * noise)
            room = noise_room(max_weight * noise, parties, party_bits)
            found = _data_primes(degree, room, exclude, available)
            if found is None:
                continue
            smudging, guard_bits = found, 2
            available -= sum((p - 1).bit_length() for p in smudging)
            exclude += smudging
        most = (available - guard_bits) // field_bits
        # Bytes per value fall with the number of fields, so the first that works is the best; a
        # given size may be met with fewer.
        for fields in range(most, 0, -1):
            needed = largest_coefficient(fields, field_bits, guard_bits, largest_sum)
            needed += 1 << guard_bits
            data = _data_primes(degree, needed, exclude, available)
            if data is not None:
                yield PackedDesign(
                    degree=degree,
                    primes=data if special_prime is None else (*data, *smudging, special_prime),
                    fields=fields,
                    field_bits=field_bits,
                    guard_bits=guard_bits,
                    noise_bound=noise,
                    smudging_bits=party_bits,
                    smudging_primes=len(smudging),
                )
                if values is None:
                    break


def _data_primes(
    degree: int, needed: int, exclude: list[int], available: int
) -> tuple[int, ...] | None:
    """The fewest and then smallest primes whose product is at least ``needed``.

    Without a special prime to exclude there is one prime, or none.
    """
    for total in range((needed - 1).bit_length(), available + 1):
        count = -(-total // _MAX_PRIME_BITS)
        if not exclude and count > 1:
            return None
        small, larger = divmod(total, count)
        chosen: list[int] = []
        for size, number in ((small + 1, larger), (small, count - larger)):
            chosen += _core.find_primes(degree, size, number, exclude)
        if len(chosen) == count and prod(chosen) >= needed:
            return tuple(chosen)
    return None


def _nearest(
    bits: int, max_weight: int, security: int, key_mode: str, degrees: list[int], parties: int
) -> str:
    """Say what fails and what the nearest settings are that would work."""

    def works(b: int, w: int) -> bool:
        return _best(b, w, security, key_mode, None, degrees, parties) is not None

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
            if d not in degrees
            and _best(bits, max_weight, security, key_mode, None, [d], parties) is not None
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
