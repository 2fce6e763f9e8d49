"""Models and local training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quancrypt_fl.config import CHOICES
from quancrypt_fl.data import ImageDataset, Samples, load_dataset
from quancrypt_fl.errors import MethodError
from quancrypt_fl.models import MODELS, build_model
from quancrypt_fl.training import Trainer, TrainingOptions, torch_threads

OPTIONS = TrainingOptions(lr=1e-3, weight_decay=1e-4, batch_size=16, local_epochs=1)


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("cnn", (1, 28, 28), 421_642),
        ("cnn", (1, 8, 8), 53_002),
        ("mlp", (1, 8, 8), 9_610),
        ("mlp", (1, 28, 28), 101_770),
    ],
)
def test_parameter_counts(name: str, shape: tuple[int, int, int], parameters: int) -> None:
    model = build_model(name, shape, 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model(torch.zeros(2, *shape)).shape == (2, 10)


def test_the_configuration_offers_what_there_is() -> None:
    assert CHOICES["model"] == tuple(MODELS)


def test_unknown_and_unfitting_models_are_refused() -> None:
    with pytest.raises(MethodError, match="'vgg' is not available; available: mlp, cnn"):
        build_model("vgg", (1, 8, 8), 10)
    with pytest.raises(MethodError, match="at least 4x4 pixels, got 3x9"):
        build_model("cnn", (1, 3, 9), 10)


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset("digits", None, 1)


def test_training_depends_on_seed_round_and_client_only(digits: ImageDataset) -> None:
    samples = digits.train.head(64)

    def train(seed: int, t: int, client: int) -> np.ndarray:
        trainer = Trainer("cnn", digits, OPTIONS, seed=1)
        start = trainer.weights()
        trainer = Trainer("cnn", digits, OPTIONS, seed)
        torch.rand(3)  # the caller's own random state plays no part
        weights, _ = trainer.train(start, samples, t, client)
        return weights["7.weight"]

    reference = train(1, 0, 0)
    np.testing.assert_array_equal(reference, train(1, 0, 0))
    for other in ((2, 0, 0), (1, 1, 0), (1, 0, 1)):
        assert not np.array_equal(reference, train(*other))


def test_training_leaves_torch_as_it_was(digits: ImageDataset) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    trainer = Trainer("cnn", digits, OPTIONS, 1)
    trainer.train(trainer.weights(), digits.train.head(32), 0, 0)
    assert torch.equal(torch.rand(1), expected)
    threads = torch.get_num_threads()
    with torch_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == threads


def test_training_does_not_touch_the_weights_it_starts_from(digits: ImageDataset) -> None:
    trainer = Trainer("mlp", digits, OPTIONS, 1)
    start = trainer.weights()
    before = {name: tensor.copy() for name, tensor in start.items()}
    trained, loss = trainer.train(start, digits.train.head(32), 0, 0)
    assert loss > 0
    for name, tensor in before.items():
        np.testing.assert_array_equal(start[name], tensor)
        assert not np.array_equal(trained[name], tensor)


def test_evaluation_counts_every_sample_once(digits: ImageDataset) -> None:
    trainer = Trainer("mlp", digits, OPTIONS, 1)
    weights = {name: np.zeros_like(tensor) for name, tensor in trainer.weights().items()}
    weights["3.bias"] = np.eye(10, dtype=np.float32)[4] * 50
    repeated = Samples(np.repeat(digits.test.images, 4, 0), np.repeat(digits.test.labels, 4))
    share = float(np.mean(digits.test.labels == 4))
    assert trainer.evaluate(weights, digits.test).accuracy == pytest.approx(share)
    assert trainer.evaluate(weights, repeated).accuracy == pytest.approx(share)
    assert trainer.evaluate(weights, digits.test).loss == pytest.approx(50 * (1 - share))
