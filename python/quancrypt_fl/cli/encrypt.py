"""``quancrypt encrypt``: a safetensors file becomes an encrypted update."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import quancrypt_native as qn
from quancrypt_fl.cli.bounds import (
    DEFAULT_FACTOR,
    bounds_to_bytes,
    clip_bounds_of,
    clip_file,
    clipped_values,
)
from quancrypt_fl.cli.errors import naming
from quancrypt_fl.cli.objects import load_key, parameters_of_key, params_beside
from quancrypt_fl.cli.options import Force, JsonOnly, ParamsBesideKey, PassphraseFd
from quancrypt_fl.cli.storage import check_output, write
from quancrypt_fl.cli.tensors import read_tensors
from quancrypt_fl.cli.text import counted, print_json, printable

__all__ = ["encrypt"]

_FLOAT32_BYTES = 4


def encrypt(
    source: Annotated[
        Path, typer.Argument(metavar="IN.safetensors", help="Tensors: F32, F64, F16 or BF16.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT.qcu", help="The encrypted update.")],
    key: Annotated[
        Path, typer.Option(metavar="FILE", help="secret.qck, or public.qck of --key-mode public.")
    ],
    clip: Annotated[
        str,
        typer.Option(
            metavar="BOUND",
            help="Values are clipped to ±BOUND: a number for all tensors; a JSON file, "
            '{"tensor": bound, ...}; or auto, auto:FACTOR for FACTOR times the mean magnitude '
            f"of each tensor (FACTOR {DEFAULT_FACTOR:g}). Equal for all clients, see above.",
        ),
    ],
    params: ParamsBesideKey = None,
    rounding: Annotated[
        str,
        typer.Option(
            metavar="nearest|stochastic", help="nearest: least error. stochastic: unbiased."
        ),
    ] = "nearest",
    save_clip: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json", help="Write the bounds in use, for the other clients' --clip."
        ),
    ] = None,
    passphrase_fd: PassphraseFd = None,
    force: Force = False,
    json_only: JsonOnly = False,
) -> None:
    r"""Encrypt the tensors of a safetensors file.

    Clip bounds must be equal for all clients whose updates are added:
    agree on one number, or on one JSON file. With auto, one client makes
    that file (--save-clip) and the others use it. Bounds, names and shapes
    stand in OUT.qcu in the clear; values do not.

    Example:

      quancrypt encrypt model.safetensors update.qcu \
          --key keys/secret.qck --clip 0.05
    """
    inputs = [source, key, params or params_beside(key), clip_file(clip)]
    check_output(target, force=force, inputs=inputs)
    if save_clip is not None:
        check_output(save_clip, force=force, inputs=[*inputs, target])
    parameters = parameters_of_key(key, params)
    tensors, widened = read_tensors(source)
    bounds = clip_bounds_of(clip, tensors)
    holder = load_key(key, parameters, passphrase_fd)
    with naming(key):
        encryptor = qn.Encryptor(parameters, holder)
    with naming(source):
        update = encryptor.encrypt(tensors, clip=bounds, rounding=rounding)
    clipped = {name: clipped_values(array, bounds[name]) for name, array in tensors.items()}
    if save_clip is not None:
        write(save_clip, bounds_to_bytes(bounds), force=force)
    write(target, update.to_bytes(), force=force)
    if json_only:
        print_json(_document(target, update, clipped, widened))
        return
    share = sum(clipped.values()) / max(update.values, 1)
    expansion = update.nbytes / (_FLOAT32_BYTES * max(update.values, 1))
    print(
        f"{printable(target)}: {counted(len(tensors), 'tensor')}, "
        f"{counted(update.values, 'value')} in {counted(update.ciphertexts, 'ciphertext')}, "
        f"{update.nbytes:,} bytes ({expansion:.2f} x float32), {share:.2%} of values clipped"
    )
    cut = {
        tensor.name: clipped[tensor.name] / tensors[tensor.name].size
        for tensor in update.layout.tensors
        if clipped[tensor.name] > tensors[tensor.name].size / 2
    }
    if cut:
        names = ", ".join(f"{printable(name)} ({share:.0%})" for name, share in cut.items())
        print(f"more than half of the values clipped: {names}")
    if widened:
        print(f"widened to float32: {', '.join(map(printable, widened))}")


def _document(
    target: Path, update: qn.EncryptedUpdate, clipped: dict[str, int], widened: list[str]
) -> dict[str, Any]:
    return {
        "file": str(target),
        "bytes": update.nbytes,
        "values": update.values,
        "ciphertexts": update.ciphertexts,
        "weight": update.weight,
        "key": update.key_id,
        "parameters": update.params.fingerprint,
        "tensors": [
            {
                "name": tensor.name,
                "shape": list(tensor.shape),
                "clip": tensor.clip,
                "clipped_values": clipped[tensor.name],
            }
            for tensor in update.layout.tensors
        ],
        "widened_to_float32": widened,
    }
