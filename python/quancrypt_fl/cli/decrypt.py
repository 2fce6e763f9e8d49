"""``quancrypt decrypt``: an encrypted sum becomes a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from numpy.typing import NDArray

import quancrypt_native as qn
from quancrypt_fl.cli.errors import naming
from quancrypt_fl.cli.objects import (
    load_secret_key,
    load_update,
    parameters_of_key,
    params_beside,
)
from quancrypt_fl.cli.options import Force, JsonOnly, ParamsBesideKey, PassphraseFd
from quancrypt_fl.cli.storage import check_output, write
from quancrypt_fl.cli.tensors import tensors_to_bytes
from quancrypt_fl.cli.text import counted, print_json, printable

__all__ = ["ARRAY_NAME", "decrypt"]

ARRAY_NAME = "array"
"""Name in the file for an update that Python made from one array without a name."""


def decrypt(
    source: Annotated[Path, typer.Argument(metavar="SUM.qcu", help="An encrypted sum or update.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="Tensors as float32.")],
    key: Annotated[Path, typer.Option(metavar="FILE", help="The secret key, secret.qck.")],
    params: ParamsBesideKey = None,
    sum_only: Annotated[
        bool, typer.Option("--sum", help="Write the weighted sum instead of the weighted mean.")
    ] = False,
    passphrase_fd: PassphraseFd = None,
    force: Force = False,
    json_only: JsonOnly = False,
) -> None:
    r"""Decrypt a sum: the weighted mean of the clients' tensors.

    Each value is within half a quantization step, BOUND / (2**bits - 2), of
    the mean of the clipped inputs. Integers encrypted from Python come out
    of --sum exact, as int64.

    Example:

      quancrypt decrypt sum.qcu mean.safetensors --key keys/secret.qck
    """
    check_output(target, force=force, inputs=[source, key, params or params_beside(key)])
    parameters = parameters_of_key(key, params)
    update = load_update(source, parameters)
    secret = load_secret_key(key, parameters, passphrase_fd)
    result = "sum" if sum_only else "mean"
    with naming(source):
        tensors = _opened(qn.Decryptor(parameters, secret), update, result)
    # "pt": what transformers asks of a file before it loads the weights.
    metadata = {"format": "pt", "quancrypt": f"{result} of weight {update.weight}"}
    data = tensors_to_bytes(tensors, metadata)
    write(target, data, force=force)
    if json_only:
        print_json(
            {
                "file": str(target),
                "bytes": len(data),
                "result": result,
                "weight": update.weight,
                "values": update.values,
                "tensors": [
                    {"name": name, "shape": list(array.shape), "dtype": str(array.dtype)}
                    for name, array in tensors.items()
                ],
                "key": update.key_id,
                "parameters": parameters.fingerprint,
            }
        )
        return
    print(
        f"{printable(target)}: {result} of weight {update.weight}, "
        f"{counted(len(tensors), 'tensor')}, {counted(update.values, 'value')}"
    )


def _opened(
    decryptor: qn.Decryptor, update: qn.EncryptedUpdate, result: str
) -> Mapping[str, NDArray[Any]]:
    if result == "mean":
        opened: Any = decryptor.decrypt_mean(update)
    elif update.layout.integers:
        opened = decryptor.decrypt_integers(update)
    else:
        opened = decryptor.decrypt_sum(update)
    return {ARRAY_NAME: opened} if update.layout.single else opened
