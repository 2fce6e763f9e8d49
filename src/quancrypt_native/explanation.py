"""What a parameter set means, in words and figures."""

import math
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Explanation:
    """Returned by ``Parameters.explain()``: ``str()`` for people, ``as_dict()`` for programs."""

    figures: dict[str, Any]

    @classmethod
    def of(cls, **figures: Any) -> Self:
        """Derive the rest from the parameters' own figures."""
        if figures["encoding"] == "packed":
            figures["noise_bound_of_sum"] = figures["max_weight"] * figures["noise_bound"]
            figures["noise_allowed"] = 2 ** (figures["guard_bits"] - 1) - 1
            if figures["key_mode"] == "threshold":
                smudging = figures["parties"] << figures["smudging_bits"]
                figures["noise_bound_of_sum"] += smudging
                smudging_primes = figures["coeff_modulus"][-1 - figures["smudging_primes"] : -1]
                figures["noise_allowed"] = math.prod(smudging_primes) - 1
            figures["noise_margin_bits"] = math.log2(
                (figures["noise_allowed"] + 1) / figures["noise_bound_of_sum"]
            )
        figures["expansion_over_float32"] = figures["bytes_per_value"] / 4
        return cls(figures)

    def as_dict(self) -> dict[str, Any]:
        """All figures; sizes in bytes or bits as named."""
        return dict(self.figures)

    def __str__(self) -> str:
        """A table of one figure a line."""
        f = self.figures
        primes = " + ".join(str((p - 1).bit_length()) for p in f["coeff_modulus"])
        rows = [
            ("encoding", f["encoding"]),
            ("ring degree N", f["poly_degree"]),
            ("primes", f"{primes} bits" + (" (the last is special)" if " + " in primes else "")),
            (
                "security",
                f"{f['security']} bits: modulus of {f['modulus_bits']} bits, "
                f"at most {f['modulus_limit']} allowed",
            ),
            ("keys that encrypt", _keys(f)),
            ("largest total weight", f["max_weight"]),
        ]
        if f["encoding"] == "packed":
            rows += [
                ("bits of a value", f["bits"]),
                ("fields a coefficient", f"{f['fields']} of {f['field_bits']} bits each"),
                ("guard bits", f["guard_bits"]),
                ("noise of a sum", _noise(f)),
            ]
        else:
            rows.append(("scale", f"2^{f['scale_bits']}: approximate sums"))
        rows += [
            ("values a ciphertext", f["values_per_ciphertext"]),
            (
                "bytes a value",
                f"{f['bytes_per_value']:.3f} uploaded "
                f"({f['expansion_over_float32']:.2f} x float32)",
            ),
            ("fingerprint", f["fingerprint"]),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _keys(f: dict[str, Any]) -> str:
    if f["key_mode"] == "threshold":
        return f"joint public key of {f['parties']} parties"
    return "secret" if f["key_mode"] == "symmetric" else "secret or public"


def _noise(f: dict[str, Any]) -> str:
    spare = f"exact, {f['noise_margin_bits']:.2f} bits spare"
    fresh = f"{f['max_weight']} x {f['noise_bound']}"
    if f["key_mode"] != "threshold":
        return f"at most {f['noise_bound_of_sum']} ({fresh}), {f['noise_allowed']} allowed: {spare}"
    most = math.log2(f["noise_allowed"])
    return (
        f"at most {fresh}, and {f['parties']} x 2^{f['smudging_bits']} of smudging: "
        f"2^{most:.2f} allowed, {spare}"
    )
