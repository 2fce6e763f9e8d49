"""What protected a run, in a form to be shown and kept: "was it really encrypted?"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quancrypt_fl.claims import claim_lines

__all__ = ["receipt", "receipt_lines"]

IN_THE_CLEAR = "none: updates travelled in the clear"

HOW_KNOWN = (
    "the summing object is made from the public parameters alone; before the first and after the "
    "last round everything it refers to was searched for secret keys, shares of them, encryptors "
    "and decryptors, and none was found. In a simulation all parties share one process: this shows "
    "what the program hands over, not that machines are separate."
)
SERVER_SEES = (
    "which client uploads, its sample count, tensor names and shapes, and ciphertext sizes; "
    "no update, no statistic, no clip bound and no model"
)


def receipt(
    facts: Mapping[str, Any], keys: Sequence[Mapping[str, Any]], rounds: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Receipt of a run.

    Parameters
    ----------
    facts
        Scheme, library, security level and parameters of what protects updates; a method that
        hides none from the server has no key, and says in ``scheme`` what it does instead.
    keys
        Fingerprint of each key, the first round it served, and the fingerprint of the key of the
        reports that preceded it, if there were any; a resumed run has several. Of joint keys also
        the fingerprints of their ceremonies.
    rounds
        Records of the rounds, as in ``results.json``. What one client could do is said of the last
        round that states it.
    """
    last = next((r["influence"] for r in reversed(rounds) if "influence" in r), None)
    if last is not None:
        facts = {**facts, "influence": last}
    if "parameters" not in facts:
        return {"protected": False, "scheme": IN_THE_CLEAR, **facts}
    return {
        "protected": True,
        **facts,
        "keys": [dict(key) for key in keys],
        "rounds": [
            {
                "round": record["round"],
                "ciphertexts_per_client": record["ciphertexts"],
                "upload_bytes_per_client": record["bytes"]["upload"],
                "download_bytes_per_client": record["bytes"]["download"],
                "uploads": record["participants"],
            }
            for record in rounds
        ],
        "aggregator_held_secret_key": False,
        "how_known": HOW_KNOWN,
        "key_holders": facts.get("key_holders", "the clients, which share one secret key"),
        "server_sees": facts.get("server_sees", SERVER_SEES),
    }


def receipt_lines(receipt: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The receipt as (label, text) pairs for people."""
    if not receipt["protected"]:
        privacy = receipt.get("privacy", {})
        facts = [("Protection", receipt["scheme"]), *((k, str(v)) for k, v in privacy.items())]
        return facts + claim_lines({**receipt, "privacy": None})
    parameters = receipt["parameters"]
    rounds = receipt["rounds"]
    keys = ", ".join(
        f"{key['fingerprint'][:16]} (from round {key['from_round']})" for key in receipt["keys"]
    )
    lines = [
        ("Protection", receipt["scheme"]),
        ("Library", receipt["library"]),
        ("Security", f"{receipt['security_bits']} bits"),
        ("Parameters", _parameters(parameters)),
        ("Key fingerprint", keys),
    ]
    if opened := receipt.get("threshold"):
        made = ", ".join(key["ceremony"][:16] for key in receipt["keys"] if "ceremony" in key)
        lines.append(
            (
                "Joint key",
                f"{opened['needed']} of {opened['clients']} clients open a sum; ceremony {made}",
            )
        )
    if rounds:
        last = rounds[-1]
        lines.append(
            (
                "Last round",
                f"{_counted(last['uploads'], 'upload')} of "
                f"{_counted(last['ciphertexts_per_client'], 'ciphertext')}, "
                f"{last['upload_bytes_per_client']:,} bytes each",
            )
        )
    lines.append(("Secret key", f"held by {receipt['key_holders']}; the summing side held none"))
    if (seen := receipt.get("server_sees", SERVER_SEES)) != SERVER_SEES:
        lines.append(("Server sees", seen))
    return lines + claim_lines(receipt)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _parameters(parameters: Mapping[str, Any]) -> str:
    if "field_bits" not in parameters:
        return ", ".join(f"{name} {value}" for name, value in parameters.items())
    primes = " + ".join(str(int(p).bit_length()) for p in parameters["coeff_modulus"])
    return (
        f"N = {parameters['poly_degree']}, primes {primes} bits, "
        f"{parameters['bits']}-bit values in {parameters['fields']} fields of "
        f"{parameters['field_bits']} bits, total weight up to {parameters['max_weight']} "
        f"(set {parameters['fingerprint']})"
    )
