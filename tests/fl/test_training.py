"""Local training and evaluation, beside plain loops in torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from quancrypt_fl.data import ImageDataset, Samples, load_dataset
from quancrypt_fl.errors import MethodError
from quancrypt_fl.models import MODELS, build_model
from quancrypt_fl.seeds import derive_seed
from quancrypt_fl.training import Trainer, TrainingOptions, torch_threads

OPTIONS = TrainingOptions(lr=1e-3, weight_decay=1e-4, batch_size=16, local_epochs=1)
SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar": (3, 32, 32), "ham10000": (3, 64, 64)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of torch wait actively: on a machine that others use, two are slower than one."""
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset("digits", None, 1)


def noise(shape: tuple[int, int, int], count: int, classes: int = 10) -> ImageDataset:
    """Random images with random labels."""
    rng = np.random.default_rng(1)
    images = rng.standard_normal((count, *shape), dtype=np.float32)
    samples = Samples(images, rng.integers(0, classes, count))
    return ImageDataset("noise", samples, samples, classes)


def plain_training(
    dataset: ImageDataset, model: str, batches: list[list[int]] | None = None
) -> tuple[dict[str, np.ndarray], float]:
    """One epoch of round 3, client 2, as torch's tutorials write it."""
    torch.manual_seed(derive_seed(7, "initial-weights"))
    net = build_model(model, dataset.image_shape, dataset.classes)
    layout = torch.channels_last if model != "mlp" else torch.contiguous_format
    net.to(memory_format=layout).train()  # dropout draws its bits in the order of memory
    adam = torch.optim.Adam(net.parameters(), lr=OPTIONS.lr, weight_decay=OPTIONS.weight_decay)
    torch.manual_seed(derive_seed(7, "training", 3, 2))
    order = torch.randperm(len(dataset.train)).tolist()
    size = OPTIONS.batch_size
    total = 0.0
    for batch in batches or [order[i : i + size] for i in range(0, len(order), size)]:
        chosen = [order[i] for i in batch] if batches else batch
        adam.zero_grad()
        scores = net(
            torch.from_numpy(dataset.train.images[chosen]).contiguous(memory_format=layout)
        )
        loss = nn.functional.cross_entropy(scores, torch.from_numpy(dataset.train.labels[chosen]))
        loss.backward()
        adam.step()
        total += loss.item() * len(chosen)
    state = {k: v.numpy().copy() for k, v in net.state_dict().items() if v.is_floating_point()}
    return state, total / len(order)


@pytest.mark.parametrize("model", ["mlp", "cnn", "alexnet", "resnet18"])
def test_training_is_plain_adam(digits: ImageDataset, model: str) -> None:
    """Fused Adam and the exchange of arrays change nothing but the last bits."""
    dataset = digits.limited(40, 10)
    with torch.random.fork_rng():
        expected, expected_loss = plain_training(dataset, model)
    trainer = Trainer(model, dataset, OPTIONS, seed=7)
    trained, loss = trainer.train(trainer.weights(), dataset.train, t=3, client=2)
    assert list(trained) == list(expected)
    assert loss == pytest.approx(expected_loss, rel=5e-3 if model == "resnet18" else 1e-4)
    for name, tensor in expected.items():
        assert trained[name].dtype == np.float32
        assert trained[name].flags.c_contiguous
        # Adam's first steps are lr in size whatever the gradient, so a gradient of about zero may
        # turn a weight by 2 lr per step.
        difference = np.abs(trained[name] - tensor)
        assert difference.max() <= 6.1 * OPTIONS.lr + 0.01 * np.abs(tensor).max(), name
        assert np.mean(difference > 1e-5) < 0.02, name


@pytest.mark.parametrize("dataset", SHAPES)
@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_on_every_shape(model: str, dataset: str) -> None:
    data = noise(SHAPES[dataset], 2, classes=7)
    trainer = Trainer(model, data, OPTIONS, seed=1)
    start = trainer.weights()
    trained, loss = trainer.train(start, data.train, t=0, client=0)
    assert np.isfinite(loss)
    assert list(trained) == list(start)
    assert all(np.isfinite(tensor).all() for tensor in trained.values())
    assert 0 <= trainer.evaluate(trained, data.test).accuracy <= 1


def test_buffers_travel_with_the_weights() -> None:
    data = noise((1, 8, 8), 16)
    trainer = Trainer("resnet18", data, OPTIONS, seed=1)
    start = trainer.weights()
    net = build_model("resnet18", (1, 8, 8), 10)
    assert list(start) == [n for n in net.state_dict() if not n.endswith("num_batches_tracked")]
    assert len(start) == 62 + 40
    assert trainer.buffer_names == {
        name for name in start if name.endswith(("running_mean", "running_var"))
    }
    trained, _ = trainer.train(start, data.train, t=0, client=0)
    # One batch: momentum 0.1 towards the statistics of the first convolution's output.
    y = nn.functional.conv2d(
        torch.from_numpy(data.train.images), torch.from_numpy(start["conv1.weight"]), padding=1
    )
    np.testing.assert_allclose(
        trained["bn1.running_mean"], 0.1 * y.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        trained["bn1.running_var"], 0.9 + 0.1 * y.var(dim=(0, 2, 3)), rtol=1e-4, atol=1e-6
    )
    # What is loaded decides, buffers included; nothing of an earlier training is left.
    before = trainer.evaluate(start, data.test)
    assert trainer.evaluate(trained, data.test) != before
    assert trainer.evaluate(start, data.test) == before
    assert Trainer("cnn", data, OPTIONS, seed=1).buffer_names == frozenset()


def test_a_last_batch_of_one_joins_the_one_before() -> None:
    """Batch norm has no variance of one value: resnet18 ends in 1x1 maps for 8x8 images."""
    data = noise((1, 8, 8), 17)
    with torch.random.fork_rng():
        expected, _ = plain_training(data, "resnet18", batches=[list(range(17))])
    trainer = Trainer("resnet18", data, OPTIONS, seed=7)
    trained, loss = trainer.train(trainer.weights(), data.train, t=3, client=2)
    assert np.isfinite(loss)
    np.testing.assert_allclose(trained["bn1.running_var"], expected["bn1.running_var"], rtol=1e-4)
    # Without batch norm all batches stay as they are.
    mlp = Trainer("mlp", data, OPTIONS, seed=7)
    with torch.random.fork_rng():
        expected, _ = plain_training(data, "mlp", batches=[list(range(16)), [16]])
    trained, _ = mlp.train(mlp.weights(), data.train, t=3, client=2)
    np.testing.assert_allclose(trained["3.bias"], expected["3.bias"], atol=1e-5)


def test_a_client_with_one_sample_trains_too() -> None:
    data = noise((1, 8, 8), 1)
    trainer = Trainer("resnet18", data, OPTIONS, seed=1)
    start = trainer.weights()
    trained, loss = trainer.train(start, data.train, t=0, client=0)
    assert np.isfinite(loss)
    for name, tensor in trained.items():
        assert np.isfinite(tensor).all()
        assert np.array_equal(tensor, start[name]) == (name in trainer.buffer_names), name
    # The next client's batch norms are in training mode again.
    more = noise((1, 8, 8), 4)
    trained, _ = trainer.train(start, more.train, t=0, client=1)
    assert not np.array_equal(trained["bn1.running_mean"], start["bn1.running_mean"])


@pytest.mark.parametrize("model", ["cnn", "resnet18"])
def test_training_depends_on_seed_round_and_client_only(digits: ImageDataset, model: str) -> None:
    samples = digits.train.head(20)
    start = Trainer(model, digits, OPTIONS, seed=1).weights()
    last = list(start)[-2]

    def train(seed: int, t: int, client: int) -> np.ndarray:
        trainer = Trainer(model, digits, OPTIONS, seed)
        torch.rand(3)  # the caller's own random state plays no part
        weights, _ = trainer.train(start, samples, t, client)
        return weights[last]

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


def test_the_loss_is_the_mean_over_samples_and_epochs(digits: ImageDataset) -> None:
    """With a learning rate of next to nothing, every epoch has the loss of the start."""
    samples = digits.train.head(33)  # batches of 16, 16 and 1
    options = replace(OPTIONS, lr=1e-12, local_epochs=2)
    trainer = Trainer("mlp", digits, options, 1)
    start = trainer.weights()
    _, loss = trainer.train(start, samples, 0, 0)
    assert loss == pytest.approx(trainer.evaluate(start, samples).loss, rel=1e-5)


@pytest.mark.parametrize("count", [1, 127, 128, 129, 300])
def test_evaluation_counts_every_sample_once(digits: ImageDataset, count: int) -> None:
    trainer = Trainer("mlp", digits, OPTIONS, 1)
    weights = {name: np.zeros_like(tensor) for name, tensor in trainer.weights().items()}
    weights["3.bias"] = np.eye(10, dtype=np.float32)[4] * 50
    samples = digits.test.head(count)
    assert len(samples) == count
    share = float(np.mean(samples.labels == 4))
    evaluation = trainer.evaluate(weights, samples)
    assert evaluation.accuracy == pytest.approx(share)
    assert evaluation.loss == pytest.approx(50 * (1 - share))


def test_a_device_that_is_not_there_is_named(
    digits: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MethodError, match=r"'cuda' is not available here; available: cpu$"):
        Trainer("mlp", digits, OPTIONS, 1, device="cuda")
    with pytest.raises(MethodError, match="'tpu' is not available"):
        Trainer("mlp", digits, OPTIONS, 1, device="tpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_trains_as_the_cpu_does(digits: ImageDataset) -> None:
    samples = digits.train.head(64)
    cpu, cuda = (Trainer("mlp", digits, OPTIONS, 1, device) for device in ("cpu", "cuda"))
    start = cpu.weights()
    for name, tensor in cuda.weights().items():
        np.testing.assert_array_equal(tensor, start[name])
    (expected, expected_loss), (got, loss) = (t.train(start, samples, 0, 0) for t in (cpu, cuda))
    assert loss == pytest.approx(expected_loss, rel=1e-3)
    for name, tensor in expected.items():
        np.testing.assert_allclose(got[name], tensor, atol=5e-3)
    assert cuda.evaluate(got, samples).accuracy == pytest.approx(
        cpu.evaluate(expected, samples).accuracy, abs=0.05
    )
