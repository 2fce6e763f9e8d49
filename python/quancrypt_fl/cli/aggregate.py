"""``quancrypt aggregate``: the server's side, on files. No key is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import quancrypt_native as qn
from quancrypt_fl.cli.bounds import EQUAL_BOUNDS
from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.cli.objects import load_parameters, load_update
from quancrypt_fl.cli.options import Force, JsonOnly
from quancrypt_fl.cli.storage import check_output, write
from quancrypt_fl.cli.text import counted, print_json, printable

__all__ = ["aggregate"]


def aggregate(
    sources: Annotated[
        list[Path], typer.Argument(metavar="UPDATE.qcu...", help="Encrypted updates, or sums.")
    ],
    params: Annotated[
        Path, typer.Option(metavar="FILE", help="The updates' parameters, params.qcp.")
    ],
    out: Annotated[Path, typer.Option(metavar="SUM.qcu", help="The encrypted sum.")],
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="A positive integer for each update, in their order.",
            show_default="1 for each",
        ),
    ] = None,
    force: Force = False,
    json_only: JsonOnly = False,
) -> None:
    r"""Add encrypted updates, without any key.

    Reads one update at a time: memory does not grow with their number. All
    must have the same parameters, key, tensors and clip bounds. The total
    weight may not pass --max-weight of the keys.

    Example:

      quancrypt aggregate a.qcu b.qcu c.qcu --weights 3,1,2 \
          --params keys/params.qcp --out sum.qcu
    """
    check_output(out, force=force, inputs=[*sources, params])
    factors = _weights(weights, len(sources))
    _refuse_twice(sources)
    parameters = load_parameters(params)
    total = _sum(parameters, sources, factors)
    write(out, total.to_bytes(), force=force)
    if json_only:
        print_json(
            {
                "file": str(out),
                "bytes": total.nbytes,
                "updates": len(sources),
                "weight": total.weight,
                "weight_left": parameters.max_weight - total.weight,
                "values": total.values,
                "ciphertexts": total.ciphertexts,
                "key": total.key_id,
                "parameters": parameters.fingerprint,
            }
        )
        return
    print(
        f"{printable(out)}: sum of {counted(len(sources), 'update')}, weight {total.weight} of at "
        f"most {parameters.max_weight}, {counted(total.values, 'value')}, {total.nbytes:,} bytes"
    )


def _weights(option: str | None, updates: int) -> list[int]:
    if option is None:
        return [1] * updates
    weights = []
    for text in option.split(","):
        if not (text.strip().isascii() and text.strip().isdecimal() and int(text)):
            raise CommandError(f"--weights holds {text.strip()!r}; allowed: positive integers")
        weights.append(int(text))
    if len(weights) != updates:
        raise CommandError(
            f"--weights holds {counted(len(weights), 'number')} for {counted(updates, 'update')}"
        )
    return weights


def _refuse_twice(sources: Sequence[Path]) -> None:
    """A file that is given twice is a slip: counting it twice is what weights are for."""
    seen: dict[tuple[int, int], Path] = {}
    for path in sources:
        try:
            status = path.stat()
        except OSError:
            continue  # reported when it is read
        first = seen.setdefault((status.st_dev, status.st_ino), path)
        if first is not path:
            raise CommandError(f"{path}: the same file as {first}; --weights counts one more often")


def _sum(
    params: qn.Parameters, sources: Sequence[Path], weights: Sequence[int]
) -> qn.EncryptedUpdate:
    aggregator = qn.Aggregator(params)
    layout: qn.Layout | None = None
    for path, weight in zip(sources, weights, strict=True):
        update = load_update(path, params)
        try:
            aggregator.add(update, weight)
        except qn.QuanCryptError as error:
            hint = f": {EQUAL_BOUNDS}" if layout and _bounds_differ(layout, update.layout) else ""
            raise CommandError(f"{path}: {error}{hint}") from error
        layout = update.layout
        del update  # before the next one is read: memory for one at a time
    return aggregator.result()


def _bounds_differ(mine: qn.Layout, theirs: qn.Layout) -> bool:
    """Whether clip bounds are all that differs."""
    return mine != theirs and [(t.name, t.shape) for t in mine.tensors] == [
        (t.name, t.shape) for t in theirs.tensors
    ]
