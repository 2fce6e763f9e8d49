"""``quancrypt inspect``: what a file of ours holds, without any key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import quancrypt_native as qn
from quancrypt_fl.cli.errors import naming
from quancrypt_fl.cli.objects import PARAMETERS_FILE, kind_of, load_parameters
from quancrypt_fl.cli.options import JsonOnly
from quancrypt_fl.cli.storage import read
from quancrypt_fl.cli.text import aligned, print_json, printable, table
from quancrypt_fl.cli.threshold_frames import (
    THRESHOLD_KINDS,
    sealing_facts,
    threshold_facts,
    threshold_rows,
)
from quancrypt_native import wire
from quancrypt_native.layout import MAX_TENSORS

__all__ = ["inspect"]


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="params.qcp, a .qck key file, a .qcu update, any frame."
        ),
    ],
    params: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Check an update against these parameters too, every residue of it.",
            show_default="for keys: params.qcp in their folder",
        ),
    ] = None,
    json_only: JsonOnly = False,
) -> None:
    """Say what a file is: kind, parameters, key, tensors, weight, bytes.

    Messages and states of threshold keys too: ceremony, party, participants. Needs no key and no
    passphrase, and checks the file's form and checksum.

    Example:

      quancrypt inspect sum.qcu --params keys/params.qcp
    """
    data = read(path)
    kind = kind_of(path, data)
    facts: dict[str, Any] = {
        "file": str(path),
        "kind": kind.name.lower().replace("_", " "),
        "bytes": len(data),
        "format_version": wire.VERSION,
    }
    with naming(path):
        header, body = wire.parse(data, kind)
        facts["body_bytes"] = len(body)
        if kind == wire.Kind.PARAMETERS:
            facts["parameters"] = qn.Parameters.from_bytes(data).explain().as_dict()
        elif kind in THRESHOLD_KINDS:
            facts |= threshold_facts(kind, header, len(body))
        else:
            facts["parameters"] = wire.HeaderReader(header).hexadecimal("params", 32)
    if kind == wire.Kind.UPDATE:
        facts |= _update(path, data, header, params)
    elif kind == wire.Kind.PUBLIC_KEY:
        facts["key"] = _public_key_id(path, data, params)
    elif kind == wire.Kind.SECRET_KEY:
        facts |= _secret_key(path, header)
    if json_only:
        print_json(facts)
    else:
        _print(facts, data)


def _update(path: Path, data: bytes, header: dict[str, Any], params: Path | None) -> dict[str, Any]:
    with naming(path):
        fields = wire.HeaderReader(header)
        single, integers = fields.flag("single"), fields.flag("integers")
        layout = qn.Layout.from_header(
            fields.items("tensors", MAX_TENSORS), single=single, integers=integers
        )
        facts: dict[str, Any] = {
            "key": fields.hexadecimal("key", 32),
            "weight": fields.number("weight", 1, 2**63 - 1),
            "seeded": fields.optional_hexadecimal("seed", 64) is not None,
            "integers": integers,
            "values": layout.values,
            "tensors": [
                {"name": tensor.name, "shape": list(tensor.shape), "clip": tensor.clip}
                for tensor in layout.tensors
            ],
        }
    if params is not None:
        parameters = load_parameters(params)
        with naming(path):
            update = qn.EncryptedUpdate.from_bytes(data, parameters)
        facts["ciphertexts"] = update.ciphertexts
        facts["max_weight"] = parameters.max_weight
    return facts


def _public_key_id(path: Path, data: bytes, params: Path | None) -> str | None:
    """The key's fingerprint, which is made from its parameters too."""
    beside = path.with_name(PARAMETERS_FILE)
    if params is None and not beside.exists():
        return None
    parameters = load_parameters(params or beside)
    with naming(path):
        return qn.PublicKey.from_bytes(data, parameters).key_id


def _secret_key(path: Path, header: dict[str, Any]) -> dict[str, Any]:
    with naming(path):
        fields = wire.HeaderReader(header)
        return {"key": fields.hexadecimal("key", 32), "sealed": sealing_facts(fields)}


def _print(facts: dict[str, Any], data: bytes) -> None:
    print(f"{printable(facts['file'])}: {facts['kind']}, {facts['bytes']:,} bytes, checksum right")
    if facts["kind"] == "parameters":
        print(qn.Parameters.from_bytes(data).explain())
        return
    rows: list[tuple[str, object]] = threshold_rows(facts)
    if "parameters" in facts:
        key = facts["key"] or f"unknown without its parameters: {PARAMETERS_FILE} or --params"
        rows += [("parameters", facts["parameters"]), ("key", key)]
    if "sealed" in facts:
        sealed = facts["sealed"]
        cost = ", ".join(f"{name[-1]}={sealed[name]}" for name in sealed if "scrypt" in name)
        rows.append(("sealed", f"{sealed['derivation']} ({cost}), {sealed['cipher']}"))
    if facts["kind"] != "update":
        print(aligned(rows))
        return
    limit = f" of at most {facts['max_weight']}" if "max_weight" in facts else ""
    rows += [
        ("weight", f"{facts['weight']}{limit}"),
        ("form", "fresh, one polynomial and a seed" if facts["seeded"] else "two polynomials"),
        ("values", f"{facts['values']:,}"),
        ("bytes a value", f"{facts['body_bytes'] / max(facts['values'], 1):.3f}"),
    ]
    if "ciphertexts" in facts:
        rows.append(("ciphertexts", f"{facts['ciphertexts']:,}, every residue in range"))
    print(aligned(rows))
    print()
    print(
        table(
            ("tensor", "shape", "clip bound"),
            [
                (
                    tensor["name"] or "(one array)",
                    " x ".join(map(str, tensor["shape"])) or "scalar",
                    "-" if tensor["clip"] is None else f"{tensor['clip']:.6g}",
                )
                for tensor in facts["tensors"]
            ],
        )
    )
