"""A Flower app as a user writes it: softmax regression on digits, in NumPy, with no privacy at all.

It knows nothing of encryption: message.content["arrays"] and ["config"] in, "arrays" and "metrics"
out, as in Flower's quickstarts. ``make_app(mods=[quancrypt_mod])`` is the one line that changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from sklearn.datasets import load_digits

CLASSES = 10
FEATURES = 64


@lru_cache(maxsize=1)
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images, float32 of shape (1797, 64) in [0, 1], and labels, int64; in a fixed random order."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return (images[order] / 16.0).astype(np.float32), labels[order].astype(np.int64)


def partition(index: int, parts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One client's training and test data; sizes differ between clients, so that weights matter."""
    images, labels = digits()
    shares = np.cumsum(np.arange(2, parts + 2))
    ends = (shares * len(labels)) // shares[-1]
    start, end = (0 if index == 0 else int(ends[index - 1])), int(ends[index])
    cut = start + (end - start) * 4 // 5
    return images[start:cut], labels[start:cut], images[cut:end], labels[cut:end]


def initial_arrays() -> ArrayRecord:
    """The model before training: zeros, float32."""
    return arrays_of(
        {
            "linear.weight": np.zeros((CLASSES, FEATURES), np.float32),
            "linear.bias": np.zeros(CLASSES, np.float32),
        }
    )


def arrays_of(weights: dict[str, np.ndarray]) -> ArrayRecord:
    return ArrayRecord({name: Array(value) for name, value in weights.items()})


def weights_of(record: ArrayRecord) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in record.items()}


def probabilities(weights: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """Softmax of the scores, shape (samples, 10)."""
    scores = images @ weights["linear.weight"].T + weights["linear.bias"]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def loss_and_accuracy(
    weights: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray
) -> tuple[float, float]:
    p = probabilities(weights, images)
    loss = -np.log(np.maximum(p[np.arange(len(labels)), labels], 1e-12)).mean()
    return float(loss), float((p.argmax(axis=1) == labels).mean())


def fit(
    weights: dict[str, np.ndarray],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    epochs: int,
    lr: float,
    proximal_mu: float,
    seed: int,
    batch_size: int = 32,
) -> tuple[dict[str, np.ndarray], float]:
    """SGD on the cross-entropy, plus FedProx's ``mu / 2 * |w - w_global|^2``; the mean loss too."""
    start = weights
    weights = {name: value.copy() for name, value in weights.items()}
    random = np.random.default_rng(seed)
    losses: list[float] = []
    for _ in range(epochs):
        order = random.permutation(len(labels))
        for begin in range(0, len(order), batch_size):
            rows = order[begin : begin + batch_size]
            x, y = images[rows], labels[rows]
            error = probabilities(weights, x)
            losses.append(float(-np.log(np.maximum(error[np.arange(len(y)), y], 1e-12)).mean()))
            error[np.arange(len(y)), y] -= 1
            steps = {
                "linear.weight": error.T @ x / np.float32(len(y)),
                "linear.bias": error.mean(axis=0),
            }
            for name, step in steps.items():
                pull = np.float32(proximal_mu) * (weights[name] - start[name])
                weights[name] = (weights[name] - np.float32(lr) * (step + pull)).astype(np.float32)
    return weights, float(np.mean(losses))


def make_app(mods: Sequence[Any] = ()) -> ClientApp:
    """Give the user's ClientApp, with the mods that he lists."""
    app = ClientApp(mods=list(mods))

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = message.content["arrays"]
        config = message.content["config"]
        assert isinstance(arrays, ArrayRecord)
        assert isinstance(config, ConfigRecord)
        index = int(context.node_config["partition-id"])
        images, labels, _, _ = partition(index, int(context.node_config["num-partitions"]))
        weights, loss = fit(
            weights_of(arrays),
            images,
            labels,
            epochs=int(context.run_config.get("local-epochs", 1)),
            lr=float(config.get("lr", 0.5)),
            proximal_mu=float(config.get("proximal-mu", 0.0)),
            seed=1000 * int(config.get("server-round", 0)) + index,
        )
        metrics = MetricRecord({"train_loss": loss, "num-examples": len(labels)})
        content = RecordDict({"arrays": arrays_of(weights), "metrics": metrics})
        return Message(content=content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        arrays = message.content["arrays"]
        assert isinstance(arrays, ArrayRecord)
        index = int(context.node_config["partition-id"])
        _, _, images, labels = partition(index, int(context.node_config["num-partitions"]))
        loss, accuracy = loss_and_accuracy(weights_of(arrays), images, labels)
        metrics = MetricRecord(
            {"eval_loss": loss, "eval_acc": accuracy, "num-examples": len(labels)}
        )
        return Message(content=RecordDict({"metrics": metrics}), reply_to=message)

    return app
