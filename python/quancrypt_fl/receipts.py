"""What protected a run, in a form to be shown and kept: "was it really encrypted?"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["encrypted_receipt", "plaintext_receipt", "receipt_lines"]

HOW_KNOWN = (
    "the summing object is made from the public parameters alone; before the first and after the "
    "last round everything it refers to was searched for secret keys, encryptors and decryptors, "
    "and none was found. In a simulation all parties share one process: this shows what the "
    "program hands over, not that machines are separate."
)
SERVER_SEES = (
    "which client uploads, its sample count, tensor names and shapes, and ciphertext sizes; "
    "no update, no statistic, no clip bound and no model"
)


def encrypted_receipt(
    facts: Mapping[str, Any], keys: Sequence[Mapping[str, Any]], rounds: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Receipt of an encrypted run.

    Parameters
    ----------
    facts
        Scheme, library, security level and parameters.
    keys
        Fingerprint of each key and the first round it served; a resumed run has several.
    rounds
        Records of the rounds, as in ``results.json``.
    """
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
        "key_holders": "the clients, which share one secret key",
        "server_sees": SERVER_SEES,
    }


def plaintext_receipt() -> dict[str, Any]:
    """Receipt of a run without protection."""
    return {"protected": False, "scheme": "none: updates travelled in the clear"}


def receipt_lines(receipt: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The receipt as (label, text) pairs for people."""
    if not receipt["protected"]:
        return [("Protection", receipt["scheme"])]
    parameters = receipt["parameters"]
    primes = " + ".join(str(int(p).bit_length()) for p in parameters["coeff_modulus"])
    rounds = receipt["rounds"]
    keys = ", ".join(
        f"{key['fingerprint'][:16]} (from round {key['from_round']})" for key in receipt["keys"]
    )
    lines = [
        ("Protection", receipt["scheme"]),
        ("Library", receipt["library"]),
        ("Security", f"{receipt['security_bits']} bits"),
        (
            "Parameters",
            f"N = {parameters['poly_degree']}, primes {primes} bits, "
            f"{parameters['bits']}-bit values in {parameters['fields']} fields of "
            f"{parameters['field_bits']} bits, total weight up to {parameters['max_weight']}",
        ),
        ("Parameter set", parameters["fingerprint"]),
        ("Key fingerprint", keys),
    ]
    if rounds:
        last = rounds[-1]
        lines.append(
            (
                "Last round",
                f"{last['uploads']} uploads of {last['ciphertexts_per_client']} ciphertexts, "
                f"{last['upload_bytes_per_client']:,} bytes each",
            )
        )
    lines.append(("Secret key", f"held by {receipt['key_holders']}; the summing side held none"))
    return lines
