"""``quancrypt plan``: what an encrypted round will cost, before anything runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.filesize import decimal

import quancrypt_native as qn
from quancrypt_fl.cli.calibration import Calibration, calibrate
from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.cli.estimate import (
    TENSEAL_BYTES_PER_VALUE,
    Estimate,
    alternatives,
    default_max_weight,
)
from quancrypt_fl.cli.options import Bits, JsonOnly, KeyMode, Security
from quancrypt_fl.cli.text import aligned, counted, print_json, table

__all__ = ["plan"]

_MOST_CLIENTS = 65_536  # each counts at least 1, and no total weight is larger


def plan(
    values: Annotated[int, typer.Option(min=1, help="Values in a client's update.")],
    clients: Annotated[int, typer.Option(min=1, help="Number of clients.")] = 10,
    bits: Bits = 8,
    max_weight: Annotated[
        int | None,
        typer.Option(
            help="Largest total of integer weights.",
            show_default="next power of two from the number of clients",
        ),
    ] = None,
    security: Security = 128,
    key_mode: KeyMode = "symmetric",
    json_only: JsonOnly = False,
) -> None:
    """Show parameters, sizes, headroom and time of an encrypted round.

    Nothing is written. Times are measured here with these parameters, on
    some 4 million values at most, and extrapolated to the whole update.

    Example:

      quancrypt plan --values 11000000 --clients 50 --bits 8
    """
    if clients > _MOST_CLIENTS:
        raise CommandError(f"--clients is {clients}; allowed: 1 to {_MOST_CLIENTS}")
    if max_weight is not None and max_weight < clients:
        raise CommandError(
            f"--max-weight is {max_weight}; allowed: at least the {clients} clients, "
            "each of which counts at least 1"
        )
    params = qn.Parameters.for_aggregation(
        bits=bits,
        max_weight=default_max_weight(clients) if max_weight is None else max_weight,
        security=security,
        key_mode=key_mode,
        values=values,
    )
    estimate = Estimate(params, values, clients)
    speed = calibrate(params, values)
    others = list(alternatives(estimate))
    if json_only:
        print_json(_document(estimate, speed, others))
    else:
        _print(estimate, speed, others)


def _seconds(estimate: Estimate, speed: Calibration) -> dict[str, float]:
    add = speed.add * estimate.ciphertexts
    return {
        "encrypt": speed.encrypt * estimate.ciphertexts,
        "add_one_client": add,
        "add_all_clients": add * estimate.clients,
        "decrypt": speed.decrypt * estimate.ciphertexts,
    }


def _document(
    estimate: Estimate, speed: Calibration, others: list[tuple[str, Estimate]]
) -> dict[str, Any]:
    return {
        "values": estimate.values,
        "clients": estimate.clients,
        "parameters": estimate.params.explain().as_dict(),
        **_sizes(estimate),
        "server_memory_bytes": estimate.server_bytes,
        "influence": _influence(estimate),
        "headroom": {
            "weight_left": estimate.weight_left,
            "noise_margin_bits": estimate.noise_margin_bits,
        },
        "seconds": _seconds(estimate, speed),
        "measured": {
            "here": True,
            "threads": speed.threads,
            "backend": speed.backend,
            "ciphertexts": speed.ciphertexts,
        },
        "alternatives": [{"change": change, **_sizes(other)} for change, other in others],
    }


def _influence(estimate: Estimate) -> dict[str, float]:
    """What one client that counts once can do to a coordinate of the mean of all, in clip bounds.

    Against sending zero: with integers that the encoding holds, and with any that it encrypts.
    """
    return {"in_range": 1 / estimate.clients, "malformed": 1.0}


def _sizes(estimate: Estimate) -> dict[str, Any]:
    params = estimate.params
    return {
        "bits": params.bits,
        "key_mode": params.key_mode,
        "poly_degree": params.poly_degree,
        "ciphertexts": estimate.ciphertexts,
        "upload_bytes": estimate.upload_bytes,
        "download_bytes": estimate.download_bytes,
        "bytes_per_value": estimate.bytes_per_value,
        "expansion_over_float32": estimate.expansion,
        "tenseal_upload_over_this": estimate.times_fewer_than_tenseal,
    }


def _print(estimate: Estimate, speed: Calibration, others: list[tuple[str, Estimate]]) -> None:
    params, seconds = estimate.params, _seconds(estimate, speed)
    print(
        f"{counted(estimate.values, 'value')}, {counted(estimate.clients, 'client')}, "
        f"{params.bits} bits, {params.key_mode} keys\n"
    )
    print(params.explain())
    print()
    weight = f"{estimate.weight_left} left of {params.max_weight} when all clients count once"
    fewer = f"{estimate.times_fewer_than_tenseal:.0f} x fewer than TenSEAL"
    rows: list[tuple[str, object]] = [
        ("ciphertexts", f"{estimate.ciphertexts:,} per client"),
        (
            "upload",
            f"{decimal(estimate.upload_bytes)} per client, {estimate.bytes_per_value:.3f} bytes a "
            f"value: {estimate.expansion:.2f} x float32, "
            f"{fewer}'s {TENSEAL_BYTES_PER_VALUE:g}",
        ),
        ("download", f"{decimal(estimate.download_bytes)}, the encrypted sum"),
        ("server memory", f"{decimal(estimate.server_bytes)}, for any number of clients"),
        ("weight", weight),
        (
            "one client",
            f"moves a coordinate of the mean by up to 1/{estimate.clients} of its clip bound; with "
            "a malformed ciphertext to anywhere within the bound",
        ),
        ("noise margin", f"{estimate.noise_margin_bits:.2f} bits: sums are exact"),
        ("encrypt", f"{_duration(seconds['encrypt'])} per client"),
        (
            "add",
            f"{_duration(seconds['add_one_client'])} per client, "
            f"{_duration(seconds['add_all_clients'])} for all",
        ),
        ("decrypt", f"{_duration(seconds['decrypt'])} per client"),
    ]
    print(aligned(rows))
    print(
        f"\nTimes: measured here on {counted(speed.ciphertexts, 'ciphertext')} with "
        f"{counted(speed.threads, 'thread')}, {speed.backend} kernels, and extrapolated. "
        "Headers\ncome on top of the bytes, about 50 a tensor."
    )
    print(f"\n{_alternatives(estimate, others)}")
    print(f"\nNext: quancrypt keygen --out keys {_keygen_options(estimate)}")


def _alternatives(estimate: Estimate, others: list[tuple[str, Estimate]]) -> str:
    header = ("Alternatives", "N", "upload", "x float32", "download", "ciphertexts")
    return table(
        header,
        [
            (
                change,
                str(other.params.poly_degree),
                decimal(other.upload_bytes),
                f"{other.expansion:.2f}",
                decimal(other.download_bytes),
                f"{other.ciphertexts:,}",
            )
            for change, other in [("as above", estimate), *others]
        ],
    )


def _keygen_options(estimate: Estimate) -> str:
    params = estimate.params
    options = f"--bits {params.bits} --max-weight {params.max_weight} --values {estimate.values}"
    if params.security != 128:
        options += f" --security {params.security}"
    return options + (f" --key-mode {params.key_mode}" if params.key_mode != "symmetric" else "")


def _duration(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
