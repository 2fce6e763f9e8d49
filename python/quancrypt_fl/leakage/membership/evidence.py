"""What models and updates say about each sample: losses, probabilities, directions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from quancrypt_fl.data import ImageDataset, Samples
from quancrypt_fl.leakage.membership.federation import Weights
from quancrypt_fl.models import build_model

__all__ = ["Model", "update_evidence"]

Values = NDArray[np.float64]

_BATCH = 500
_STEP = 0.05  # of an update, to both sides, for the slope of the loss along it
_TOP = 3  # probabilities that are kept, largest first


class Model:
    """A model whose weights can be exchanged, for evaluation only."""

    def __init__(self, name: str, dataset: ImageDataset) -> None:
        with torch.random.fork_rng(devices=[]):
            self._network = build_model(name, dataset.image_shape, dataset.classes).eval()

    def losses(self, weights: Mapping[str, NDArray[np.float32]], samples: Samples) -> Values:
        """Cross-entropy of each sample, shape (samples,)."""
        return self._log_probabilities(weights, samples)[1]

    def facts(self, weights: Weights, samples: Samples) -> dict[str, Values]:
        """Evidence of a model about each sample.

        ``loss``; ``top``: the largest probabilities, (samples, 3); ``confidence``: the logit
        ``log p_y - log(1 - p_y)`` of LiRA (Carlini et al. 2022, equation 3); ``right``: 0 or 1.
        """
        table, loss = self._log_probabilities(weights, samples)
        rows = np.arange(len(samples))
        others = table.copy()
        others[rows, samples.labels] = -np.inf
        largest = others.max(axis=1)
        rest = largest + np.log(np.exp(others - largest[:, None]).sum(axis=1))
        return {
            "loss": loss,
            "top": np.sort(np.exp(table), axis=1)[:, : -_TOP - 1 : -1],
            "confidence": -loss - rest,
            "right": (table.argmax(axis=1) == samples.labels).astype(np.float64),
        }

    def _log_probabilities(
        self, weights: Mapping[str, NDArray[np.float32]], samples: Samples
    ) -> tuple[Values, Values]:
        """Log-probabilities (samples, classes), and losses (samples,)."""
        state = {name: torch.from_numpy(np.asarray(w)) for name, w in weights.items()}
        self._network.load_state_dict(state, strict=False)
        images, parts = torch.from_numpy(samples.images), []
        with torch.inference_mode():
            for start in range(0, len(samples), _BATCH):
                scores = self._network(images[start : start + _BATCH]).double()
                parts.append(nn.functional.log_softmax(scores, dim=1).numpy())
        table = np.concatenate(parts)
        return table, -table[np.arange(len(samples)), samples.labels]


def update_evidence(model: Model, weights: Weights, update: Weights, samples: Samples) -> Values:
    """Evidence of one update about each sample, shape (samples, 3).

    The loss before the update; the loss after it; and the slope of the loss along the update,
    ``<grad loss(w_t; x), Delta>``, which is lowest for the samples that the update was computed
    from (Nasr et al., "Comprehensive privacy analysis of deep learning", 2019, passive attack).
    """
    before = model.losses(weights, samples)
    after = model.losses(_moved(weights, update, 1.0), samples)
    up = model.losses(_moved(weights, update, _STEP), samples)
    down = model.losses(_moved(weights, update, -_STEP), samples)
    return np.stack([before, after, (up - down) / (2 * _STEP)], axis=1)


def _moved(weights: Weights, update: Weights, step: float) -> Weights:
    return {name: (w + np.float32(step) * update[name]) for name, w in weights.items()}
