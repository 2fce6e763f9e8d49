"""Encryption parameters: a literal that is validated once, then immutable."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, cast

from quancrypt_native import _core, _search, wire
from quancrypt_native._validate import choice, integer
from quancrypt_native.errors import ParameterError, QuanCryptError, WireFormatError
from quancrypt_native.explanation import Explanation

KeyMode = Literal["symmetric", "public", "threshold"]
Encoding = Literal["packed", "slots"]
_THRESHOLD_FIELDS = ("parties", "smudging_bits", "smudging_primes")


@dataclass(frozen=True, slots=True)
class _Literal:
    """All that defines a parameter set; what the fingerprint covers and the wire carries."""

    encoding: str
    poly_degree: int
    coeff_modulus: tuple[int, ...]
    security: int
    key_mode: str
    max_weight: int
    bits: int = 0
    fields: int = 0
    field_bits: int = 0
    guard_bits: int = 0
    noise_bound: int = 0
    scale_bits: int = 0
    parties: int = 0
    smudging_bits: int = 0
    smudging_primes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """All fields; those of threshold keys only where there is one."""
        fields = asdict(self)
        if not self.of_threshold():
            for name in _THRESHOLD_FIELDS:
                del fields[name]
        return fields

    def of_threshold(self) -> dict[str, int]:
        """The fields of a threshold key; none of them otherwise."""
        if self.key_mode != "threshold":
            return {}
        return {name: getattr(self, name) for name in _THRESHOLD_FIELDS}


class Parameters:
    """An immutable set of CKKS parameters that Microsoft SEAL accepts at its security level.

    Made by :meth:`for_aggregation` (packed coefficient encoding, exact sums) or :meth:`slots`
    (standard CKKS slots), or read back by :meth:`from_bytes`. Equal sets compare equal, hash equal
    and have the same :attr:`fingerprint`.
    """

    __slots__ = ("_core", "_fingerprint", "_literal")

    scheme = "CKKS"

    def __init__(self, literal: _Literal) -> None:
        _check_exactness(literal)
        self._literal = literal
        self._core = _core.Parameters(
            encoding=literal.encoding,
            degree=literal.poly_degree,
            primes=list(literal.coeff_modulus),
            security=literal.security,
            max_weight=literal.max_weight,
            bits=literal.bits,
            fields=literal.fields,
            field_bits=literal.field_bits,
            guard_bits=literal.guard_bits,
            noise_bound=literal.noise_bound,
            scale_bits=literal.scale_bits,
            **literal.of_threshold(),
        )
        canonical = json.dumps(literal.as_dict(), sort_keys=True, separators=(",", ":"))
        self._fingerprint = hashlib.sha256(
            b"quancrypt parameters v1" + canonical.encode()
        ).hexdigest()[:32]

    @classmethod
    def _new(cls, literal: _Literal) -> Self:
        """Parameters that nobody has made before: SEAL has to accept them, too."""
        made = cls(literal)
        made._core.check_with_seal()
        return made

    @classmethod
    def for_aggregation(
        cls,
        *,
        bits: int = 8,
        max_weight: int = 16,
        security: int = 128,
        key_mode: str = "symmetric",
        values: int | None = None,
        max_poly_degree: int | None = None,
        parties: int | None = None,
    ) -> Self:
        """Find the parameters with the fewest bytes per value for exact encrypted sums.

        Parameters
        ----------
        bits
            Width of a quantized value, sign included, 2 to 16.
        max_weight
            Largest sum of integer weights (clients, if all weigh 1), 1 to 65,536.
        security
            128, 192 or 256 bits, by the Homomorphic Encryption Standard's tables.
        key_mode
            ``"symmetric"``: the secret key encrypts, uploads are half as large.
            ``"public"``: either key encrypts; more guard bits hold the larger noise.
            ``"threshold"``: the public key of several parties encrypts, who decrypt together
            (:mod:`quancrypt_native.threshold`); room for the noise that they add is left.
        values
            Number of values in an update, if known: ciphertexts are then sized for it. Without it,
            bytes per value of full ciphertexts count.
        max_poly_degree
            Largest ring degree to consider. None: 8192, or 16384 for threshold keys, and more
            only if nothing smaller fits.
        parties
            Parties of a threshold key, 2 to 128; with ``key_mode="threshold"`` only.

        Raises
        ------
        ParameterError
            If an argument is out of range, or nothing fits; then with the nearest possible.
        """
        bits = integer("bits", bits, 2, 16)
        max_weight = integer("max_weight", max_weight, 1, 65536)
        choice("security", security, _search.SECURITY_LEVELS)
        choice("key_mode", key_mode, _search.KEY_MODES)
        parties = _parties(key_mode, parties)
        if max_poly_degree is not None:
            max_poly_degree = integer("max_poly_degree", max_poly_degree, 1024, 32768)
            choice("max_poly_degree", max_poly_degree, _search.DEGREES)
        if values is not None:
            values = integer("values", values, 1, 2**48)
        design = _search.find_design(
            bits=bits,
            max_weight=max_weight,
            security=security,
            key_mode=key_mode,
            values=values,
            max_degree=max_poly_degree,
            parties=parties,
        )
        return cls._new(
            _Literal(
                encoding="packed",
                poly_degree=design.degree,
                coeff_modulus=design.primes,
                security=security,
                key_mode=key_mode,
                max_weight=max_weight,
                bits=bits,
                fields=design.fields,
                field_bits=design.field_bits,
                guard_bits=design.guard_bits,
                noise_bound=design.noise_bound,
                parties=parties,
                smudging_bits=design.smudging_bits,
                smudging_primes=design.smudging_primes,
            )
        )

    @classmethod
    def slots(
        cls,
        *,
        poly_degree: int = 8192,
        coeff_modulus_bits: Sequence[int] = (60, 40, 40, 60),
        scale_bits: int = 40,
        security: int = 128,
        max_weight: int = 1024,
    ) -> Self:
        """Return parameters of the standard CKKS slot encoding (approximate, ``N / 2`` values).

        Parameters
        ----------
        poly_degree
            Ring degree ``N``.
        coeff_modulus_bits
            Sizes of the primes; the last is the special prime and carries no data.
        scale_bits
            Values are scaled by ``2**scale_bits``.
        security, max_weight
            As in :meth:`for_aggregation`.
        """
        poly_degree = integer("poly_degree", poly_degree, 1024, 32768)
        choice("poly_degree", poly_degree, _search.DEGREES)
        choice("security", security, _search.SECURITY_LEVELS)
        if not isinstance(coeff_modulus_bits, Iterable):
            raise ParameterError(
                f"coeff_modulus_bits is {coeff_modulus_bits!r}; allowed: a list of integers"
            )
        sizes = [integer("coeff_modulus_bits", b, 2, 60) for b in coeff_modulus_bits]
        scale_bits = integer("scale_bits", scale_bits, 1, 60)
        max_weight = integer("max_weight", max_weight, 1, 65536)
        # As SEAL's CoeffModulus::Create: the largest primes of each size, smallest of them first.
        left = {size: _core.find_primes(poly_degree, size, sizes.count(size)) for size in sizes}
        for size in sizes:
            if len(left[size]) < sizes.count(size):
                raise ParameterError(
                    f"there are {len(left[size])} {size}-bit primes for poly_degree {poly_degree}; "
                    f"coeff_modulus_bits asks for {sizes.count(size)}"
                )
        primes = [left[size].pop() for size in sizes]
        return cls._new(
            _Literal(
                encoding="slots",
                poly_degree=poly_degree,
                coeff_modulus=tuple(primes),
                security=security,
                key_mode="public",
                max_weight=max_weight,
                scale_bits=scale_bits,
            )
        )

    @property
    def encoding(self) -> Encoding:
        """``"packed"`` (integers in coefficients, exact) or ``"slots"`` (standard CKKS)."""
        return cast(Encoding, self._literal.encoding)

    @property
    def poly_degree(self) -> int:
        """Ring degree ``N``."""
        return self._literal.poly_degree

    @property
    def coeff_modulus(self) -> tuple[int, ...]:
        """The data primes, then the special prime (if there is more than one prime)."""
        return self._literal.coeff_modulus

    @property
    def data_primes(self) -> tuple[int, ...]:
        """The primes of ciphertexts."""
        primes = self._literal.coeff_modulus
        return primes[:-1] if len(primes) > 1 else primes

    @property
    def security(self) -> int:
        """Security level in bits."""
        return self._literal.security

    @property
    def key_mode(self) -> KeyMode:
        """Which keys may encrypt: ``"symmetric"``, ``"public"`` (either) or ``"threshold"``."""
        return cast(KeyMode, self._literal.key_mode)

    @property
    def parties(self) -> int:
        """Parties of the threshold key; 0 for other key modes."""
        return self._literal.parties

    @property
    def max_weight(self) -> int:
        """Largest sum of integer weights."""
        return self._literal.max_weight

    @property
    def bits(self) -> int:
        """Bits of a quantized value, sign included (0 for slots)."""
        return self._literal.bits

    @property
    def q_max(self) -> int:
        """Largest quantized value, ``2**(bits-1) - 1`` (packed encoding only)."""
        self.require_packed("q_max")
        return int(2 ** (self._literal.bits - 1) - 1)

    @property
    def fields(self) -> int:
        """Values in one coefficient (0 for slots)."""
        return self._literal.fields

    @property
    def scale_bits(self) -> int:
        """Scale exponent of the slot encoding (0 for packed)."""
        return self._literal.scale_bits

    @property
    def values_per_ciphertext(self) -> int:
        """Values in one full ciphertext."""
        return self._core.values_per_ciphertext

    @property
    def bytes_per_value(self) -> float:
        """Serialized bytes of a fresh upload over its values, for full ciphertexts.

        One polynomial with a symmetric key (the other is expanded from a seed), two with a public
        or a threshold key. For :meth:`slots` the symmetric figure.
        """
        return self._polynomials * self._core.polynomial_bytes / self.values_per_ciphertext

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that identify the set."""
        return self._fingerprint

    def upload_bytes(self, values: int) -> int:
        """Bytes of the body of a fresh upload of ``values`` values; the header comes on top."""
        count = self._core.ciphertext_count(integer("values", values, 0, 2**48))
        return count * self._polynomials * self._core.polynomial_bytes

    @property
    def _polynomials(self) -> int:
        """Polynomials of a fresh ciphertext that travel."""
        return 2 if self.encoding == "packed" and self.key_mode != "symmetric" else 1

    def slot_limit(self) -> float:
        """Largest absolute value that slots hold for a sum of ``max_weight`` without wrapping."""
        log_q = sum(math.log2(p) for p in self.data_primes)
        bits = log_q - 2 - self.scale_bits - math.log2(self.max_weight)
        return float(2.0**bits)

    def require_packed(self, what: str) -> None:
        """Raise :class:`ParameterError` unless the encoding is packed."""
        if self.encoding != "packed":
            raise ParameterError(f"{what} needs packed encoding; these parameters use slots")

    def explain(self) -> Explanation:
        """Fields, guard bits, noise bound, margin, bytes and security, for people and as a dict."""
        literal = self._literal
        limit = _core.max_modulus_bits(self.poly_degree, self.security)
        return Explanation.of(
            **{k: v for k, v in literal.as_dict().items() if k != "noise_bound"},
            noise_bound=literal.noise_bound,
            modulus_bits=math.prod(self.coeff_modulus).bit_length(),
            modulus_limit=limit,
            values_per_ciphertext=self.values_per_ciphertext,
            bytes_per_value=self.bytes_per_value,
            fingerprint=self.fingerprint,
        )

    def to_bytes(self) -> bytes:
        """Serialize; public data."""
        return wire.frame(wire.Kind.PARAMETERS, self._literal.as_dict(), b"")

    @classmethod
    def from_bytes(cls, data: wire.BytesLike) -> Self:
        """Read :meth:`to_bytes`'s output; everything is validated as if it came from a stranger.

        Raises
        ------
        WireFormatError
            If the bytes are damaged, or describe parameters that are not admissible.
        """
        header, body = wire.parse(data, wire.Kind.PARAMETERS)
        if len(body) != 0:
            raise WireFormatError(f"parameters have a body of {len(body)} bytes; expected none")
        fields = wire.HeaderReader(header)
        try:
            literal = _Literal(
                encoding=fields.text("encoding"),
                poly_degree=fields.number("poly_degree", 1024, 32768),
                coeff_modulus=tuple(fields.numbers("coeff_modulus", 64, 2, 2**60)),
                security=fields.number("security", 128, 256),
                key_mode=fields.text("key_mode"),
                max_weight=fields.number("max_weight", 1, 65536),
                bits=fields.number("bits", 0, 16),
                fields=fields.number("fields", 0, 4096),
                field_bits=fields.number("field_bits", 0, 32),
                guard_bits=fields.number("guard_bits", 0, 60),
                noise_bound=fields.number("noise_bound", 0, 2**40),
                scale_bits=fields.number("scale_bits", 0, 60),
                **_threshold_fields(header, fields),
            )
            fields.finish()
            return cls(literal)
        except WireFormatError:
            raise
        except QuanCryptError as error:
            raise WireFormatError(f"parameters are not admissible: {error}") from None

    def __eq__(self, other: object) -> bool:
        """Two sets are equal if every field is."""
        return isinstance(other, Parameters) and self._literal == other._literal

    def __hash__(self) -> int:
        """Hash of the fingerprint."""
        return hash(self._fingerprint)

    def __repr__(self) -> str:
        """Short and public."""
        primes = "+".join(str((p - 1).bit_length()) for p in self.coeff_modulus)
        mode = f"threshold of {self.parties} parties" if self.parties else self.key_mode
        kind = (
            f"bits={self.bits}, fields={self.fields}"
            if self.encoding == "packed"
            else f"scale_bits={self.scale_bits}"
        )
        return (
            f"Parameters({self.encoding}, N={self.poly_degree}, primes={primes} bits, {kind}, "
            f"max_weight={self.max_weight}, {mode}, {self.security}-bit security)"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle through the wire format."""
        return Parameters.from_bytes, (self.to_bytes(),)

    def __copy__(self) -> Self:
        """Immutable: the same object."""
        return self

    def __deepcopy__(self, memo: Mapping[int, object]) -> Self:
        """Immutable: the same object."""
        return self


def require_parameters(params: object) -> Parameters:
    """``params`` if it is a :class:`Parameters`."""
    if not isinstance(params, Parameters):
        raise ParameterError(f"params is a {type(params).__name__}; allowed: Parameters")
    return params


def _check_exactness(literal: _Literal) -> None:
    """Refuse a literal whose sums could come out wrong. SEAL and the core check the rest."""
    choice("encoding", literal.encoding, ("packed", "slots"))
    choice("key_mode", literal.key_mode, _search.KEY_MODES)
    if literal.key_mode != "threshold" and any(getattr(literal, f) for f in _THRESHOLD_FIELDS):
        raise ParameterError("parties and smudging belong to key_mode 'threshold'")
    if literal.encoding == "slots":
        if literal.key_mode == "threshold":
            raise ParameterError("a threshold key needs packed encoding")
        if any((literal.bits, literal.fields, literal.field_bits, literal.guard_bits)):
            raise ParameterError("slots have no bits, fields or guard bits")
        if literal.noise_bound:
            raise ParameterError("slots have no noise_bound")
        return
    if literal.scale_bits:
        raise ParameterError("packed encoding has no scale_bits")
    integer("bits", literal.bits, 2, 16)
    integer("fields", literal.fields, 1, 4096)
    special = literal.coeff_modulus[-1] if len(literal.coeff_modulus) > 1 else None
    data = literal.coeff_modulus[:-1] if special else literal.coeff_modulus
    parties = _parties(literal.key_mode, literal.parties or None)
    noise = _search.fresh_noise_bound(literal.poly_degree, special, literal.key_mode, parties)
    if literal.noise_bound != noise:
        raise ParameterError(f"noise_bound is {literal.noise_bound}; these parameters have {noise}")
    if parties:
        expected = _search.smudging_bits(literal.poly_degree, literal.max_weight * noise)
        if literal.smudging_bits != expected:
            raise ParameterError(
                f"smudging_bits is {literal.smudging_bits}; these parameters have {expected}"
            )
        kept = len(data) - integer("smudging_primes", literal.smudging_primes, 1, len(data) - 1)
        room = _search.noise_room(literal.max_weight * noise, parties, expected)
        if room > math.prod(data[kept:]):
            raise ParameterError("the smudging primes do not hold the noise of a decryption")
        data = data[:kept]
    largest_sum = 2 * (2 ** (literal.bits - 1) - 1) * literal.max_weight
    needed = _search.largest_coefficient(
        literal.fields, literal.field_bits, literal.guard_bits, largest_sum
    ) + (1 << literal.guard_bits)
    if needed > math.prod(data):
        raise ParameterError("the largest sum does not fit below the data modulus")


def _parties(key_mode: str, parties: int | None) -> int:
    """Parties of a threshold key, 0 for other keys."""
    if key_mode == "threshold":
        if parties is None:
            raise ParameterError(
                f"parties is None; allowed with key_mode 'threshold': 2 to {_search.MAX_PARTIES}"
            )
        return integer("parties", parties, 2, _search.MAX_PARTIES)
    if parties is not None:
        raise ParameterError(f"parties is {parties}; key_mode '{key_mode}' has none")
    return 0


def _threshold_fields(header: dict[str, Any], fields: wire.HeaderReader) -> dict[str, int]:
    """What the header of threshold parameters holds beyond that of others."""
    if header.get("key_mode") != "threshold":
        return {}
    return {
        "parties": fields.number("parties", 2, _search.MAX_PARTIES),
        "smudging_bits": fields.number("smudging_bits", 1, 112),
        "smudging_primes": fields.number("smudging_primes", 1, 63),
    }
