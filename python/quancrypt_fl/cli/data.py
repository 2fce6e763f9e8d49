"""``quancrypt data``: what a data set holds, how a split divides it, and how to get it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quancrypt_fl.cli import storage
from quancrypt_fl.cli.errors import CommandError, CommandInterruptedError
from quancrypt_fl.cli.interrupts import MESSAGE, interruptible_imports
from quancrypt_fl.cli.options import Force, JsonOnly
from quancrypt_fl.cli.text import aligned, counted, print_json, printable, table
from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.data import DATASETS, load_dataset, split
from quancrypt_fl.data.ham10000 import WHERE_TO_GET_HAM10000
from quancrypt_fl.data.partition import PARTITIONS, VALIDATION_SHARE
from quancrypt_fl.data.sources import SOURCES

if TYPE_CHECKING:
    from quancrypt_fl.data.download import Progress

__all__ = ["data"]

_FIELDS = QuanCryptConfig.model_fields
_SPLIT, _OUTPUT = "Split", "Output"
_FORMATS = ("png", "svg", "pdf")
_MANY_CLASSES = 12  # from which a client's counts no longer fit on a line
_MANY_CLIENTS = 50  # from which they are no longer listed one by one


def data(
    dataset: Annotated[str, typer.Option(metavar="|".join(DATASETS), help="Data set.")] = _FIELDS[
        "dataset"
    ].default,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of the files, or the folder above it (digits need none)."),
    ] = None,
    download: Annotated[
        bool,
        typer.Option(
            "--download", help="Bring the official files into --data-dir first; resumes, verifies."
        ),
    ] = False,
    partition: Annotated[
        str,
        typer.Option(
            metavar="|".join(PARTITIONS),
            help="How samples are divided over clients.",
            rich_help_panel=_SPLIT,
        ),
    ] = _FIELDS["partition"].default,
    clients: Annotated[
        int, typer.Option(help="Number of clients.", rich_help_panel=_SPLIT)
    ] = _FIELDS["clients"].default,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=2**63 - 1,
            help="Decides the split, and the test set of digits and ham10000.",
            rich_help_panel=_SPLIT,
        ),
    ] = _FIELDS["seed"].default,
    dirichlet_alpha: Annotated[
        float,
        typer.Option(
            help="Evenness of the dirichlet partition: small is uneven.", rich_help_panel=_SPLIT
        ),
    ] = _FIELDS["dirichlet_alpha"].default,
    shards_per_client: Annotated[
        int,
        typer.Option(help="Label runs per client of the shards partition.", rich_help_panel=_SPLIT),
    ] = _FIELDS["shards_per_client"].default,
    validation: Annotated[
        float,
        typer.Option(
            help="Share of the training set that no client gets, in [0, 1).",
            rich_help_panel=_SPLIT,
        ),
    ] = VALIDATION_SHARE,
    max_train_samples: Annotated[
        int | None,
        typer.Option(min=1, help="Use only so many training samples.", rich_help_panel=_SPLIT),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw the split into this .png, .svg or .pdf file.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    force: Force = False,
    json_only: JsonOnly = False,
) -> None:
    """Show a data set and its split over clients; --download gets it, --plot draws it."""
    if plot is not None:
        _picture_format(plot)
        storage.check_output(plot, force=force)
    if download:
        _download(dataset, data_dir, quiet=json_only)
    loaded = load_dataset(dataset, data_dir, seed).limited(max_train_samples, None)
    divided = split(
        loaded.train.labels,
        clients,
        partition,
        seed,
        shards_per_client=shards_per_client,
        dirichlet_alpha=dirichlet_alpha,
        validation=validation,
        groups=loaded.train.groups,
    )
    from quancrypt_fl.data.summary import summarise

    document = summarise(loaded, divided)
    how: dict[str, Any] = {"partition": partition, "seed": seed, "validation_share": validation}
    if partition == "shards":
        how["shards_per_client"] = shards_per_client
    elif partition == "dirichlet":
        how["dirichlet_alpha"] = dirichlet_alpha
    document["split"] = {**how, **document["split"]}
    if plot is not None:
        with interruptible_imports():
            from quancrypt_fl.data.picture import draw_split
        stream = io.BytesIO()
        counts = divided.counts(loaded.train.labels, loaded.classes)
        title = f"{dataset} · {_said(document['split'])}"
        draw_split(loaded, counts, title, _sizes(document), stream, _picture_format(plot))
        storage.write(plot, stream.getvalue(), force=force)
    if json_only:
        print_json(document)
        return
    _print(document)
    if plot is not None:
        print(f"\nwritten: {printable(plot)}")


def _picture_format(path: Path) -> str:
    ending = path.suffix.lower().removeprefix(".")
    if ending not in _FORMATS:
        allowed = ", ".join(f".{name}" for name in _FORMATS)
        raise CommandError(f"{path}: a picture's name ends in one of {allowed}")
    return ending


def _download(name: str, data_dir: Path | None, *, quiet: bool) -> None:
    from quancrypt_fl.data.download import download

    if name == "ham10000":
        raise CommandError(WHERE_TO_GET_HAM10000)
    if name not in SOURCES:
        if name in DATASETS:
            raise CommandError(f"dataset {name!r} needs no download: it comes with scikit-learn")
        return  # the loader names what there is
    if data_dir is None:
        raise CommandError("--download needs --data-dir: the folder to write the files to")
    files = SOURCES[name]
    inside = len(files) > 1 and data_dir.name != name
    folder = data_dir / name if inside else data_dir
    try:
        with _progress(quiet=quiet) as report:
            download(files, folder, report)
    except KeyboardInterrupt as error:
        raise CommandInterruptedError(
            f"{MESSAGE}; what is there is kept, the same command goes on"
        ) from error


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Progress]:
    """A bar per file on stderr; without a terminal, nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda name, done, size: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, Any] = {}

        def report(name: str, done: int, size: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=size)
            bars.update(tasks[name], completed=done)

        yield report


def _said(how: Mapping[str, Any]) -> str:
    """The split in words, e.g. ``shards (2 per client) · 10 clients · seed 1``."""
    partition = how["partition"]
    if "shards_per_client" in how:
        partition += f" ({how['shards_per_client']} per client)"
    elif "dirichlet_alpha" in how:
        partition += f" (alpha {how['dirichlet_alpha']:g})"
    return f"{partition} · {counted(len(how['clients']), 'client')} · seed {how['seed']}"


def _sizes(document: Mapping[str, Any]) -> str:
    how = document["split"]
    divided = sum(client["samples"] for client in how["clients"])
    return (
        f"{divided:,} training samples over the clients, {how['validation']['samples']:,} for "
        f"validation, {document['test']['samples']:,} for the test"
    )


def _print(document: Mapping[str, Any]) -> None:
    channels, height, width = document["image_shape"]
    how = document["split"]
    rows = [
        ("data set", document["dataset"]),
        (
            "images",
            f"{document['train']['samples']:,} training, {document['test']['samples']:,} test",
        ),
        ("size", f"{height} x {width} pixels, {counted(channels, 'channel')}"),
        ("classes", document["classes"]),
        ("split", _said(how)),
        ("samples", _sizes(document)),
        *(("note", note) for note in document["notes"]),
    ]
    print(aligned(rows), end="\n\n")
    names = document["class_names"]
    columns = [document["train"]["counts"], how["validation"]["counts"], document["test"]["counts"]]
    print(
        table(
            ("class", "name", "training", "validation", "test")
            if _named(names)
            else ("class", "training", "validation", "test"),
            [
                [
                    str(label),
                    *([name] if _named(names) else []),
                    *(f"{c[label]:,}" for c in columns),
                ]
                for label, name in enumerate(names)
            ],
            left=2 if _named(names) else 1,
        ),
        end="\n\n",
    )
    _print_clients(how["clients"], document["classes"])


def _named(names: list[str]) -> bool:
    return names != [str(label) for label in range(len(names))]


def _print_clients(clients: list[Mapping[str, Any]], classes: int) -> None:
    many = classes > _MANY_CLASSES
    header = ["client", "samples", "classes"]
    header += ["largest class"] if many else [f"class {label}" for label in range(classes)]
    rows = []
    for index, client in enumerate(clients[:_MANY_CLIENTS]):
        counts = client["counts"]
        shown = [max(counts)] if many else counts
        numbers = (client["samples"], client["classes"], *shown)
        rows.append([str(index), *(f"{number:,}" if number else "·" for number in numbers)])
    print(table(header, rows))
    if len(clients) > _MANY_CLIENTS:
        print(f"... and {counted(len(clients) - _MANY_CLIENTS, 'client')} more; --json lists all")
