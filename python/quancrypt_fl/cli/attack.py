"""``quancrypt attack``: what each view of an update gives away, measured by attacks on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quancrypt_fl.cli.errors import CommandInterruptedError
from quancrypt_fl.cli.experiment import exit_if_failed
from quancrypt_fl.cli.interrupts import MESSAGE, interruptible_imports
from quancrypt_fl.cli.options import DataSets, Device, JsonOnly
from quancrypt_fl.cli.storage import check_folder
from quancrypt_fl.cli.text import print_json

if TYPE_CHECKING:
    from quancrypt_fl.experiments.experiment import Plan
    from quancrypt_fl.leakage.running import Draw, Study

__all__ = ["attack"]

Documents = Sequence[Mapping[str, Any]]

attack = typer.Typer(
    no_args_is_help=True,
    help="Attack every view of a training: inversion, membership, distinguisher.",
)

DataSet = Annotated[
    str, typer.Option(metavar="digits|mnist|fashion-mnist|cifar10", help="Data set.")
]
Scale = Annotated[
    str,
    typer.Option(
        metavar="quick|standard|paper", help="Minutes on two cores; about an hour; for a GPU."
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Decides images, weights and starting points.")]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder for results.",
        show_default="runs/ATTACK-DATASET-SCALE, and what else was chosen",
    ),
]


@attack.command()
def inversion(
    dataset: DataSet = "digits",
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="lenet, cnn, resnet18, resnet18-batch, mlp or alexnet; may be repeated.",
            show_default="lenet and cnn, of digits mlp too; cifar10: lenet and resnet18",
        ),
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(help="dlg, cosine or analytic; may be repeated.", show_default="by model"),
    ] = None,
    view: Annotated[
        list[str] | None,
        typer.Option(
            help="plaintext, difference, clipped, quantized, pruned, all-layers, noise, "
            "aggregate, unmasked, decoded, ciphertext, random or guess; may be repeated.",
            show_default="all; fewer where they would take hours",
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            help="Images for each figure, 1 to 1,000; of sums whole groups of clients.",
            show_default="by scale",
        ),
    ] = None,
    data_dir: DataSets = None,
    scale: Scale = "quick",
    seed: Seed = 1,
    device: Device = "cpu",
    out: Out = None,
    json_only: JsonOnly = False,
) -> None:
    """Draw training images from gradients: plain, pruned, quantized, added up, encrypted.

    Writes inversion.json, table.md and a PNG with the pictures of each attack into --out. The same
    command goes on where it was interrupted. Exit status 1: a cell failed.
    """
    with interruptible_imports():
        from quancrypt_fl.leakage.inversion.study import inversion_study
        from quancrypt_fl.leakage.metrics import require_ssim
        from quancrypt_fl.leakage.pictures import draw_reconstructions

    require_ssim()
    study = inversion_study(dataset, model or (), attack or (), view or (), images)
    plan = _plan(scale, seed, device, data_dir)

    def draw(documents: Documents, summary: Mapping[str, Any], folder: Path) -> list[Path]:
        del summary
        return draw_reconstructions(documents, folder)

    _run(study, plan, out, dataset, "targets", draw, json_only=json_only)


@attack.command()
def membership(
    dataset: DataSet = "digits",
    model: Annotated[
        str | None,
        typer.Option(help="cnn, mlp, alexnet or resnet18.", show_default="cnn; digits: mlp"),
    ] = None,
    members: Annotated[
        int | None,
        typer.Option(
            help="Samples that are trained on, 20 to half of the training set.",
            show_default="by data set",
        ),
    ] = None,
    shadows: Annotated[
        int | None,
        typer.Option(
            help="Shadow models in the clear; half as many with layers, and with noise.",
            show_default="16, 64 or 256, by scale",
        ),
    ] = None,
    data_dir: DataSets = None,
    scale: Scale = "quick",
    seed: Seed = 1,
    device: Device = "cpu",
    out: Out = None,
    json_only: JsonOnly = False,
) -> None:
    """Tell from models, updates, sums and ciphertexts whether a sample was trained on.

    Writes membership.json, table.md and roc.png into --out. The same command goes on where it was
    interrupted. Exit status 1: a cell failed.
    """
    with interruptible_imports():
        from quancrypt_fl.leakage.membership.study import membership_study
        from quancrypt_fl.leakage.membership.summary import curves_of
        from quancrypt_fl.leakage.pictures import draw_roc

    study = membership_study(dataset, model, members, shadows)
    plan = _plan(scale, seed, device, data_dir)

    def draw(documents: Documents, summary: Mapping[str, Any], folder: Path) -> list[Path]:
        del documents
        if not (curves := curves_of(summary)):
            return []
        draw_roc(curves, folder / "roc.png")
        return [folder / "roc.png"]

    _run(study, plan, out, dataset, "views", draw, json_only=json_only)


@attack.command()
def distinguisher(
    scale: Scale = "quick", seed: Seed = 1, out: Out = None, json_only: JsonOnly = False
) -> None:
    """Tell two chosen updates apart by their ciphertexts, sound ones and ones broken on purpose.

    Writes distinguisher.json and table.md into --out. Exit status 1: a cell failed.
    """
    with interruptible_imports():
        from quancrypt_fl.leakage.distinguisher.study import DistinguisherStudy

    def draw(*_: object) -> list[Path]:
        return []

    plan = _plan(scale, seed, "cpu", None)
    _run(DistinguisherStudy(), plan, out, "", "games", draw, json_only=json_only)


def _plan(scale: str, seed: int, device: str, data_dir: Path | None) -> Plan:
    from quancrypt_fl.experiments.experiment import make_plan

    return replace(make_plan(scale, 1, device, data_dir), seeds=(seed,))


def _run(
    study: Study,
    plan: Plan,
    out: Path | None,
    dataset: str,
    key: str,
    draw: Draw,
    *,
    json_only: bool,
) -> None:
    with interruptible_imports():
        from quancrypt_fl.cli.experiment_progress import experiment_watcher
        from quancrypt_fl.experiments.tables import markdown
        from quancrypt_fl.leakage.running import run_study

    folder = out or Path("runs") / _folder_name(study, dataset, plan)
    check_folder(folder)
    with experiment_watcher(study, plan, silent=json_only) as watcher:
        try:
            document, experiment = run_study(study, plan, folder, key, draw, watcher)
        except KeyboardInterrupt as error:
            raise CommandInterruptedError(
                f"{MESSAGE}; finished cells are in {folder}; the same command goes on"
            ) from error
    if json_only:
        print_json(document)
    else:
        print(markdown(experiment))
        print("Written: " + ", ".join(str(folder / name) for name in _written(study, document)))
    exit_if_failed(experiment)


def _folder_name(study: Study, dataset: str, plan: Plan) -> str:
    """With all that was chosen, so that no other choices replace its results."""
    seed = "" if plan.seeds == (1,) else f"seed-{plan.seeds[0]}"
    chosen = getattr(study, "selection", ())
    return "-".join(filter(None, (study.name, dataset, plan.scale, *chosen, seed)))


def _written(study: Study, document: dict[str, Any]) -> list[str]:
    return [f"{study.name}.json", "experiment.json", "table.md", *document["pictures"]]
