"""Local training and evaluation in torch. Weights come and go as named NumPy arrays.

What travels is the model's parameters and its floating-point buffers (a batch norm's running mean
and variance), by their names and in the order of ``state_dict``. Integer buffers (a batch norm's
counter of batches, which decides nothing here) stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.data import ImageDataset, Samples
from quancrypt_fl.errors import MethodError
from quancrypt_fl.models import build_model
from quancrypt_fl.seeds import derive_seed

__all__ = [
    "Evaluation",
    "Trainer",
    "TrainingOptions",
    "evaluate_model",
    "fit",
    "memory_format",
    "seeded",
    "torch_device",
    "torch_threads",
    "trainer_of",
]

Weights = Mapping[str, NDArray[np.float32]]

# Activations of a batch of this size stay in the cache: a pass over MNIST's test set (CNN, 2
# threads) takes 0.6 s, against 1.7 s with batches of 1,000.
_EVALUATION_BATCH = 128


@dataclass(frozen=True)
class TrainingOptions:
    """Adam's learning rate and weight decay, samples per batch, epochs per round."""

    lr: float
    weight_decay: float
    batch_size: int
    local_epochs: int


@dataclass(frozen=True)
class Evaluation:
    """How well a model does.

    Attributes
    ----------
    accuracy
        Share of right answers, in [0, 1].
    loss
        Mean cross-entropy.
    answers
        Over how many: of samples, or of the tokens of texts.
    """

    accuracy: float
    loss: float
    answers: int = 0


class Trainer:
    """One model in torch, loaded with the weights of whoever trains or evaluates next.

    Parameters
    ----------
    model
        Name of the model.
    dataset
        Gives the image shape and the number of classes.
    options
        Local training.
    seed
        Decides the initial weights, the order of samples and dropout.
    device
        Where torch computes: "cpu" or "cuda". Samples stay in main memory and go to the device one
        batch at a time. Initial weights and the order of samples are the same on both. On the CPU
        a training is repeated bit by bit with the same number of threads; CUDA sums in an order
        of its own.

    Attributes
    ----------
    buffer_names
        Names of the tensors in :meth:`weights` that are buffers, not parameters: statistics that
        are measured, not learned. Empty for models without batch norm.

    Raises
    ------
    MethodError
        If the model does not fit the images, or the device is not there.
    """

    def __init__(
        self,
        model: str,
        dataset: ImageDataset,
        options: TrainingOptions,
        seed: int,
        device: str = "cpu",
    ) -> None:
        self._options = options
        self._seed = seed
        self._device = torch_device(device)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(seed, "initial-weights"))
            self._model = build_model(model, dataset.image_shape, dataset.classes)
        layout = memory_format(self._model)
        self._model.to(self._device).to(memory_format=layout)  # type: ignore[call-overload]
        self._batch_norms = _batch_norms(self._model)
        state: dict[str, Tensor] = self._model.state_dict()
        # These share memory with the model.
        self._exchanged = {name: t for name, t in state.items() if t.is_floating_point()}
        buffers = {name for name, _ in self._model.named_buffers()}
        self.buffer_names = frozenset(self._exchanged.keys() & buffers)
        if self._batch_norms and options.batch_size == 1:
            raise MethodError(
                f"batch_size = 1 with model {model!r}: batch norm needs a variance; allowed: 2 or "
                "more"
            )
        self._image_shape = dataset.image_shape

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """A copy of the model's parameters and floating-point buffers by name."""
        return {
            name: np.array(tensor.cpu().numpy(), order="C")
            for name, tensor in self._exchanged.items()
        }

    def train(
        self, weights: Weights, samples: Samples, t: int, client: int
    ) -> tuple[dict[str, NDArray[np.float32]], float]:
        """Train from ``weights`` on a client's samples in round ``t``.

        Returns
        -------
        weights : dict
            Trained weights by name.
        loss : float
            Mean loss over all samples seen.
        """
        self._load(weights)
        with seeded(derive_seed(self._seed, "training", t, client), self._device):
            loss = fit(self._model, samples, self._options)
        return self.weights(), loss

    def evaluate(self, weights: Weights, samples: Samples) -> Evaluation:
        """Accuracy and loss of ``weights`` on all of ``samples``, in bounded memory."""
        self._load(weights)
        return evaluate_model(self._model, samples)

    def warm_up(self) -> None:
        """One step on made-up images: what torch does but once is not part of a round's time."""
        blank = Samples(
            np.zeros((2, *self._image_shape), dtype=np.float32), np.zeros(2, dtype=np.int64)
        )
        with seeded(0, self._device):  # weights are loaded before every use
            fit(self._model, blank, self._options)

    def _load(self, weights: Weights) -> None:
        """Take over weights; a variance that rounding has made negative counts as 0."""
        with torch.no_grad():
            for name, tensor in self._exchanged.items():
                tensor.copy_(torch.from_numpy(weights[name]))
            for layer in self._batch_norms:
                if layer.running_var is not None:
                    layer.running_var.clamp_(min=0)


def trainer_of(config: QuanCryptConfig, dataset: ImageDataset) -> Trainer:
    """The trainer of a resolved configuration; of the data set only shape and classes count."""
    assert config.batch_size is not None
    assert config.local_epochs is not None
    options = TrainingOptions(
        config.lr, config.weight_decay, config.batch_size, config.local_epochs
    )
    return Trainer(config.model, dataset, options, config.seed, config.device)


def fit(model: nn.Module, samples: Samples, options: TrainingOptions) -> float:
    """Train a model where it stands, with Adam, in an order drawn from torch's random state.

    With batch norm, a last batch of one sample is joined to the batch before it, as one sample has
    no variance; a client that has one sample in all normalises by the running statistics that it
    was given, and leaves them as they are.

    Returns
    -------
    float
        Mean loss over all samples seen.
    """
    device, layout = _place(model)
    model.train()
    batch_norms = _batch_norms(model)
    if len(samples) == 1:
        for layer in batch_norms:
            layer.eval()
    optimizer = torch.optim.Adam(
        model.parameters(), lr=options.lr, weight_decay=options.weight_decay, fused=True
    )
    images, labels = torch.from_numpy(samples.images), torch.from_numpy(samples.labels)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    for _ in range(options.local_epochs):
        batches = list(torch.split(torch.randperm(len(labels)), options.batch_size))
        if batch_norms and len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        for batch in batches:
            x, y = images[batch].to(device, memory_format=layout), labels[batch].to(device)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss_sum += loss.detach().double() * len(batch)
    return loss_sum.item() / (len(labels) * options.local_epochs)


def evaluate_model(model: nn.Module, samples: Samples) -> Evaluation:
    """Accuracy and loss of a model on all of ``samples``, on the device of its parameters.

    Batches are of fixed size, so that memory does not grow with the number of samples.
    """
    device, layout = _place(model)
    images, labels = torch.from_numpy(samples.images), torch.from_numpy(samples.labels)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(labels), _EVALUATION_BATCH):
            x, y = (part[start : start + _EVALUATION_BATCH] for part in (images, labels))
            scores, y = model(x.to(device, memory_format=layout)), y.to(device)
            correct += (scores.argmax(dim=1) == y).sum()
            loss_sum += nn.functional.cross_entropy(scores, y, reduction="sum").double()
    answers = len(labels)
    return Evaluation(correct.item() / answers, loss_sum.item() / answers, answers)


def memory_format(model: nn.Module) -> torch.memory_format:
    """The order of images in memory that is fastest for a model: pixels first for convolutions."""
    convolutional = any(isinstance(module, nn.Conv2d) for module in model.modules())
    return torch.channels_last if convolutional else torch.contiguous_format


def _batch_norms(model: nn.Module) -> list[_BatchNorm]:
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]


def _place(model: nn.Module) -> tuple[torch.device, torch.memory_format]:
    """Where and how images must lie for a model; the CPU for one without parameters."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device, memory_format(model)


def torch_device(name: str) -> torch.device:
    """``"cpu"`` or ``"cuda"``, checked.

    Raises
    ------
    MethodError
        If it is not there.
    """
    available = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if name not in available:
        raise MethodError(
            f"device {name!r} is not available here; available: {', '.join(available)}"
        )
    return torch.device(name)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers from ``seed`` inside; outside, torch's states are as they were."""
    devices = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed(seed)
        yield


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run a block with ``count`` threads in torch, and put the old number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
