"""TensorBoard event files of a run: ``quancrypt simulate --tensorboard``, ``tensorboard --logdir``.

They are a view of ``results.json`` for those who follow runs in TensorBoard. The name of an event
file holds the machine's name, as TensorBoard's own do; nothing inside it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quancrypt_fl.errors import FederatedError
from quancrypt_fl.federation_config import FederationConfig
from quancrypt_fl.observer import Observer

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["TensorBoardObserver", "scalars_of"]

_SCALARS = (
    ("test/accuracy", "test_accuracy"),
    ("test/loss", "test_loss"),
    ("train/loss", "train_loss"),
    ("validation/accuracy", "validation_accuracy"),
    ("validation/loss", "validation_loss"),
    ("pruning/rate", "pruning_rate"),
    ("clients/participants", "participants"),
    ("clients/lost", "lost"),
)
_FOLDERS = frozenset({"out", "data_dir"})


class TensorBoardObserver(Observer):
    """Writes the figures of every round as scalars, the configuration as text and hyperparameters.

    A fresh run removes the event files of an earlier one in the folder. A resumed run goes on after
    the last finished round: a reader drops whatever an interrupted run wrote beyond it.

    Parameters
    ----------
    folder
        Where the event files go; made when the run starts.

    Raises
    ------
    FederatedError
        If the package ``tensorboard`` is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise FederatedError(
                "event files need the package tensorboard: "
                "pip install 'quancrypt-native[tensorboard]'"
            ) from error
        self._type = SummaryWriter
        self._folder = folder
        self._writer: SummaryWriter | None = None
        self._config: dict[str, Any] = {}

    def started(self, config: FederationConfig, finished_rounds: int) -> None:
        """Open the event file; the configuration is text of the first round to come."""
        if finished_rounds == 0:
            for old in self._folder.glob("events.out.tfevents.*"):
                old.unlink()
        fields = config.model_dump(mode="json")
        self._config = {name: value for name, value in fields.items() if name not in _FOLDERS}
        first = finished_rounds + 1
        self._writer = self._type(str(self._folder), purge_step=first)
        self._writer.add_text("config", _markdown(self._config), first)
        self._writer.flush()

    def round_finished(self, record: Mapping[str, Any]) -> None:
        """Write a round's figures, at once: they are there to be followed."""
        if self._writer is None:
            return
        for tag, value in scalars_of(record):
            self._writer.add_scalar(tag, value, record["round"])
        self._writer.flush()

    def finished(self, results: Mapping[str, Any]) -> None:
        """Write hyperparameters with the final figures, and close the files."""
        if self._writer is None:
            return
        totals = results["totals"]
        final = {
            "final/test_accuracy": totals["test_accuracy"],
            "final/best_test_accuracy": totals["best_test_accuracy"],
            "final/upload_bytes": float(totals["bytes"]["upload"]),
        }
        fields = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in self._config.items()
        }
        # Beyond the last round: a longer run that goes on from here replaces them.
        step = totals["rounds"] + 1
        self._writer.add_hparams(fields, final, run_name=".", global_step=step)
        self._writer.close()
        self._writer = None


def scalars_of(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Tag and value of every figure in a round's entry of ``results.json``."""
    for tag, key in _SCALARS:
        if record.get(key) is not None:
            yield tag, record[key]
    for phase, value in record["seconds"].items():
        yield f"seconds/{phase}", value
    for way, value in record["bytes"].items():
        yield f"bytes/{way}", value


def _markdown(fields: Mapping[str, Any]) -> str:
    rows = "".join(
        f"| {name} | {str(value).replace('|', '&#124;')} |\n" for name, value in fields.items()
    )
    return f"| field | value |\n| --- | --- |\n{rows}"
