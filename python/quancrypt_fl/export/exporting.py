"""From a run's folder to an exported file, and to a comparison of what each step gains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from quancrypt_fl.data import ImageDataset, load_dataset
from quancrypt_fl.errors import MethodError
from quancrypt_fl.export.file import (
    FLOAT_BITS,
    QUANTIZED_FROM_DIMENSIONS,
    Header,
    exported_bytes,
)
from quancrypt_fl.export.integers import (
    LARGEST_BITS,
    SMALLEST_BITS,
    dequantize_weights,
    quantize_weights,
)
from quancrypt_fl.export.kernels import activation_ranges, int8_model
from quancrypt_fl.export.magnitude import prune_weights
from quancrypt_fl.export.measure import compare, in_layout, sizes, verdict, with_sparse_layers
from quancrypt_fl.export.structured import prune_channels
from quancrypt_fl.export.trained import TrainedRun, fill, read_run
from quancrypt_fl.models import build_model
from quancrypt_fl.seeds import derive_seed
from quancrypt_fl.training import TrainingOptions, fit, torch_threads

__all__ = ["Export", "ExportOptions", "export_run"]


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes
    ----------
    rate
        Share of the weights (or of each layer's channels, if ``structured``) to prune, in [0, 1).
    bits
        2 to 8, or 32: float32.
    structured
        Take whole channels out, instead of setting single weights to zero.
    per_channel
        A scale for each output of a layer; otherwise one for each tensor.
    finetune_epochs
        Epochs of training after structured pruning, at a tenth of the run's learning rate.
    calibrate
        Store the ranges of activations, for int8 kernels.
    measure
        Compare passes over the test set.
    repeat
        Pairs of passes of each comparison.
    data_dir
        Folder of the data set's files; None: as in the run.
    threads
        Threads of torch; None: as in the run.
    """

    rate: float = 0.5
    bits: int = 8
    structured: bool = False
    per_channel: bool = True
    finetune_epochs: int = 0
    calibrate: bool = False
    measure: bool = False
    repeat: int = 5
    data_dir: Path | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise MethodError(f"rate = {self.rate}: a pruning rate is in [0, 1)")
        if not (SMALLEST_BITS <= self.bits <= LARGEST_BITS or self.bits == FLOAT_BITS):
            raise MethodError(
                f"bits = {self.bits}; allowed: {SMALLEST_BITS} to {LARGEST_BITS}, and 32 (float32)"
            )
        if self.finetune_epochs < 0 or self.repeat < 1:
            raise MethodError("finetune-epochs is at least 0 and repeat at least 1")
        if self.finetune_epochs and not self.structured:
            raise MethodError(
                "finetune-epochs goes with structured: training would bring back single weights "
                "that were set to zero"
            )

    @property
    def needs_data(self) -> bool:
        """Whether images are read."""
        return self.measure or self.calibrate or self.finetune_epochs > 0


@dataclass(frozen=True)
class Export:
    """The file's bytes, and the document that says what they are."""

    data: bytes
    document: dict[str, Any]


def export_run(folder: Path, options: ExportOptions) -> Export:
    """Export the model of a finished run.

    Raises
    ------
    CheckpointError, DataError, MethodError
        If the run, its data or the options do not allow it.
    """
    run = read_run(folder)
    dataset = _dataset(run, options) if options.needs_data else None
    threads = options.threads or run.config.resolved().threads or 1
    with torch_threads(threads):
        model = _rounded(_pruned(run, options, dataset), options)
        ranges = activation_ranges(model, dataset.train) if dataset else None
        header = _header(run, options)
        data = exported_bytes(header, model, ranges)
        document: dict[str, Any] = {
            "schema": 1,
            **header.metadata(),
            "classes": header.classes,
            "image_shape": list(header.image_shape),
            "bits": header.bits,
            "rate": header.rate,
            "calibrated": ranges is not None,
            "finetune_epochs": options.finetune_epochs,
            "bytes": len(data),
            "float32_bytes": len(exported_bytes(_float(header), run.model())),
            **sizes(model),
            "original_parameters": sizes(run.model())["parameters"],
        }
        if options.measure:
            assert dataset is not None
            assert ranges is not None
            document["measured"] = _measured(run, options, dataset, model, ranges)
            document["measured"]["threads"] = threads
    return Export(data, document)


def _dataset(run: TrainedRun, options: ExportOptions) -> ImageDataset:
    config = run.config
    dataset = load_dataset(config.dataset, options.data_dir or config.data_dir, config.seed)
    return dataset.limited(config.max_train_samples, config.max_test_samples)


def _header(run: TrainedRun, options: ExportOptions) -> Header:
    kind = "structured" if options.structured else "unstructured"
    scales = "channel" if options.per_channel else "tensor"
    return Header(
        model=run.config.model,
        dataset=run.config.dataset,
        classes=run.classes,
        image_shape=run.image_shape,
        bits=options.bits,
        scales="none" if options.bits == FLOAT_BITS else scales,
        pruning=kind if options.rate else "none",
        rate=options.rate,
    )


def _float(header: Header) -> Header:
    return Header(
        header.model, header.dataset, header.classes, header.image_shape, FLOAT_BITS, "none",
        "none", 0.0,
    )  # fmt: skip


def _pruned(run: TrainedRun, options: ExportOptions, dataset: ImageDataset | None) -> nn.Module:
    if options.structured:
        model = in_layout(prune_channels(run.model(), options.rate))
        if options.finetune_epochs:
            assert dataset is not None
            _finetune(model, run, dataset, options.finetune_epochs)
        return model.eval()
    return _unstructured(run, options.rate)


def _rounded(model: nn.Module, options: ExportOptions) -> nn.Module:
    """The model with the weights that its file will hold."""
    if options.bits != FLOAT_BITS:
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim >= QUANTIZED_FROM_DIMENSIONS:
                    array = np.array(parameter.detach().numpy(), order="C")
                    integers = quantize_weights(
                        array, options.bits, per_channel=options.per_channel
                    )
                    parameter.copy_(torch.from_numpy(dequantize_weights(*integers)))
    return model


def _unstructured(run: TrainedRun, rate: float) -> nn.Module:
    model = build_model(run.config.model, run.image_shape, run.classes)
    fill(model, prune_weights(run.weights, rate))
    return in_layout(model).eval()


def _finetune(model: nn.Module, run: TrainedRun, dataset: ImageDataset, epochs: int) -> None:
    config = run.config.resolved()
    assert config.batch_size is not None
    options = TrainingOptions(config.lr / 10, config.weight_decay, config.batch_size, epochs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "finetuning"))
        fit(model, dataset.train, options)


def _measured(
    run: TrainedRun,
    options: ExportOptions,
    dataset: ImageDataset,
    exported: nn.Module,
    ranges: NDArray[np.float32],
) -> dict[str, Any]:
    """Compare the original with each step of an export by itself, and with the exported model."""
    original = in_layout(run.model())
    zeros = _unstructured(run, options.rate)
    original_ranges = activation_ranges(original, dataset.train)
    variants = {
        "zeros in dense tensors": zeros,
        "zeros, sparse linear layers (CSR)": with_sparse_layers(zeros),
        "int8 kernels": int8_model(original, run.image_shape, original_ranges),
        "exported, float32 kernels": exported,
        "exported, int8 kernels": int8_model(exported, run.image_shape, ranges),
    }
    rows = compare(original, variants, dataset.test, options.repeat)
    return {
        "images": len(dataset.test),
        "repeat": options.repeat,
        "rows": rows,
        "verdicts": {name: verdict(row) for name, row in rows.items() if name != "original"},
    }
