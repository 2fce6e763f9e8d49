"""One cell of the study: images of a data set, inverted from one view by one attack."""

from __future__ import annotations

import base64
import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quancrypt_fl.data import ImageDataset, load_dataset
from quancrypt_fl.leakage.gradients import local_difference, update_of
from quancrypt_fl.leakage.inversion import ATTACKS
from quancrypt_fl.leakage.inversion.target import Budget, Target, inferred_labels
from quancrypt_fl.leakage.metrics import best_match, mse, psnr, ssim
from quancrypt_fl.leakage.networks import attacked_network
from quancrypt_fl.leakage.views import View, observe
from quancrypt_fl.seeds import derive_seed, generator
from quancrypt_fl.training import torch_threads

__all__ = ["measure_inversion"]

_PICTURES = 6  # images that are kept to be looked at
_SMALL = ("lenet", "mlp", "cnn")  # faster with one thread than with several


def measure_inversion(
    data_dir: Path | None, device: str, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Attack ``parameters["images"]`` images, one batch of clients after the other.

    Returns
    -------
    dict
        ``psnr``, ``ssim``, ``mse``: one value for each image; ``labels``: share of right labels of
        each batch; ``sent``: bytes of one client's upload, ``float32`` the same without
        protection; ``pictures``: pixels of the first images and their reconstructions.
    """
    threads = 1 if parameters["network"] in _SMALL else torch.get_num_threads()
    with torch_threads(threads):
        return _Trial(data_dir, device, parameters).run()


class _Trial:
    """The data, network and view of one cell."""

    def __init__(self, data_dir: Path | None, device: str, parameters: Mapping[str, Any]) -> None:
        self._seed = int(parameters["seed"])
        self._view = View(**parameters["view"])
        self._attack = ATTACKS[parameters["attack"]]
        self._budget = Budget(**parameters["budget"])
        dataset = _dataset(parameters["dataset"], data_dir)
        name = parameters["network"]
        self._device = torch.device(device)
        # L-BFGS gains from double precision, and LeNet is small enough for it.
        self._dtype = torch.float64 if name == "lenet" else torch.float32
        self._shape, self._classes = dataset.image_shape, dataset.classes
        self._others = dataset.test  # which the attacker may have
        low, high = _pixel_range(dataset)
        chosen = _chosen(dataset, int(parameters["images"]), self._view.clients, self._seed)
        images = torch.from_numpy(dataset.train.images[chosen])
        # The attack papers give LeNet pixels in [0, 1].
        unit = name == "lenet"
        self._shift, self._factor = (low, high - low) if unit else (low * 0, low * 0 + 1)
        self._low, self._high = self._scaled(low), self._scaled(high)
        self._images = self._scaled(images)
        self._labels = torch.from_numpy(dataset.train.labels[chosen]).to(self._device)
        built = attacked_network(name, self._shape, self._classes, self._seed)
        self._network: nn.Module = built.to(self._device, self._dtype)

    def run(self) -> dict[str, Any]:
        """See :func:`measure_inversion`."""
        begin = time.perf_counter()
        found: dict[str, list[float]] = {"psnr": [], "ssim": [], "mse": [], "labels": []}
        pictures: list[list[str]] = []
        sent = 0
        for start in range(0, len(self._images), self._view.clients):
            part = slice(start, start + self._view.clients)
            images, right, sent = self._batch(self._images[part], self._labels[part], start)
            originals, guesses = self._pixels(self._images[part]), self._pixels(images)
            order = best_match(originals, guesses)
            for original, guess in zip(originals, guesses[order], strict=True):
                found["psnr"].append(psnr(original, guess))
                found["ssim"].append(ssim(original, guess))
                found["mse"].append(mse(original, guess))
                if len(pictures) < _PICTURES:
                    pictures.append([_encoded(original), _encoded(guess)])
            found["labels"].append(right)
        return {
            **found,
            "sent": sent,
            "float32": 4 * sum(p.numel() for p in self._network.parameters()),
            "seconds": time.perf_counter() - begin,
            "shape": list(self._shape),
            "pictures": pictures,
        }

    def _guess(self, labels: Tensor, start: int) -> tuple[Tensor, float, int]:
        """What somebody says who sees nothing: the mean of other images, or some of them."""
        count = len(labels)
        rng = generator(derive_seed(self._seed, "guess", start), "others")
        chosen = rng.choice(len(self._others), count)
        images = self._others.images[chosen] if count > 1 else self._others.images.mean(0)[None]
        right = _common(self._others.labels[chosen].tolist(), labels.tolist()) / count
        return self._scaled(torch.from_numpy(images)), right, 0

    def _batch(self, images: Tensor, labels: Tensor, start: int) -> tuple[Tensor, float, int]:
        """Reconstructions of the images of ``clients`` clients, right labels, bytes sent."""
        if self._view.kind == "guess":
            return self._guess(labels, start)
        updates = [self._update(images[i : i + 1], labels[i : i + 1]) for i in range(len(images))]
        seed = derive_seed(self._seed, "inversion", start)
        seen = observe(
            self._view, updates, dict(self._network.named_parameters()), self._typical(), seed
        )
        inferred = inferred_labels(
            self._network, seen, len(images), self._low, self._high, self._shape
        )
        right = _common(inferred.tolist(), labels.tolist()) / len(images)
        target = Target(
            self._network,
            seen,
            inferred.to(self._device),
            self._low,
            self._high,
            self._shape,
            seed,
        )
        return self._attack(target, self._budget)[0], right, seen.sent

    def _update(self, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        if self._view.epochs:
            return local_difference(self._network, image, label, self._view.epochs)
        return update_of(self._network, image, label)

    def _typical(self) -> dict[str, Tensor]:
        """An update of the attacker's own, of noise."""
        rng = torch.Generator().manual_seed(derive_seed(self._seed, "typical"))
        noise = self._placed(torch.rand((1, *self._shape), generator=rng))
        label = torch.zeros(1, dtype=torch.int64, device=self._device)
        return update_of(self._network, self._low + noise * (self._high - self._low), label)

    def _scaled(self, images: Tensor) -> Tensor:
        """Images as the network gets them."""
        return self._placed((images - self._shift) / self._factor)

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, self._dtype)

    def _pixels(self, images: Tensor) -> NDArray[np.float32]:
        scaled = (images - self._low) / (self._high - self._low)
        return np.asarray(scaled.cpu().numpy(), dtype=np.float32)


@functools.lru_cache(maxsize=2)
def _dataset(name: str, data_dir: Path | None) -> ImageDataset:
    return load_dataset(name, data_dir, 1)


def _pixel_range(dataset: ImageDataset) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of each channel, which black and white have."""
    images = dataset.train.images
    low, high = images.min(axis=(0, 2, 3)), images.max(axis=(0, 2, 3))
    return torch.from_numpy(low)[:, None, None], torch.from_numpy(high)[:, None, None]


def _chosen(dataset: ImageDataset, images: int, clients: int, seed: int) -> NDArray[np.int64]:
    """Images of the training set, the same for every view; whole batches of ``clients``."""
    order = generator(seed, "attacked-images").permutation(len(dataset.train))
    return np.asarray(order[: max(clients, images // clients * clients)], dtype=np.int64)


def _common(found: Sequence[int], true: Sequence[int]) -> int:
    """Labels that two multisets have in common."""
    return sum(min(found.count(label), true.count(label)) for label in set(true))


def _encoded(image: NDArray[np.float32]) -> str:
    """Pixels as bytes, (channels, height, width), in base64."""
    pixels = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
    return base64.b64encode(pixels.tobytes()).decode()
