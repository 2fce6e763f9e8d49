"""Inversions draw the image where nothing protects it, and noise from ciphertexts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quancrypt_fl.data import load_dataset
from quancrypt_fl.leakage.gradients import Update, gradient, local_difference, update_of
from quancrypt_fl.leakage.inversion import ATTACKS
from quancrypt_fl.leakage.inversion.analytic import layer_input
from quancrypt_fl.leakage.inversion.cosine import cosine_distance, total_variation
from quancrypt_fl.leakage.inversion.sent import as_sent
from quancrypt_fl.leakage.inversion.target import Budget, Target, inferred_labels
from quancrypt_fl.leakage.metrics import best_match, mse, psnr, ssim
from quancrypt_fl.leakage.networks import attacked_network, first_linear
from quancrypt_fl.leakage.views import Observation, View, observe
from quancrypt_fl.training import torch_threads

SHAPE, CLASSES = (1, 8, 8), 10
LOW, HIGH = torch.zeros((1, 1, 1)).double(), torch.ones((1, 1, 1)).double()


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Eight digits with pixels in [0, 1]."""
    samples = load_dataset("digits", None, 1).train.head(8)
    images = torch.from_numpy(samples.images)
    low, high = images.min(), images.max()
    return ((images - low) / (high - low)).double(), torch.from_numpy(samples.labels)


def inverted(
    digits: tuple[torch.Tensor, torch.Tensor],
    network_name: str,
    attack: str,
    view: View,
    budget: Budget,
) -> tuple[float, int]:
    """PSNR of the first image, and its inferred label."""
    network = attacked_network(network_name, SHAPE, CLASSES, 1).double()
    images, labels = digits
    updates = [
        local_difference(network, images[i : i + 1], labels[i : i + 1], view.epochs)
        if view.epochs
        else update_of(network, images[i : i + 1], labels[i : i + 1])
        for i in range(view.clients)
    ]
    typical = update_of(network, torch.full((1, *SHAPE), 0.5).double(), torch.tensor([0]))
    seen = observe(view, updates, dict(network.named_parameters()), typical, 1)
    inferred = inferred_labels(network, seen, view.clients, LOW, HIGH, SHAPE)
    target = Target(network, seen, inferred, LOW, HIGH, SHAPE, 1)
    with torch_threads(1):
        found, facts = ATTACKS[attack](target, budget)
    assert found.shape == (view.clients, *SHAPE)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert facts["restarts"] <= budget.restarts
    pairs = images[: view.clients].numpy().astype(np.float32), found.numpy().astype(np.float32)
    order = best_match(*pairs)
    return psnr(pairs[0][0], pairs[1][order[0]]), int(inferred[0])


@pytest.mark.parametrize(
    ("network", "attack", "view", "iterations"),
    [
        ("lenet", "dlg", View(kind="plaintext"), 300),
        ("lenet", "dlg", View(kind="clipped", clip=True), 300),
        ("lenet", "dlg", View(kind="quantized", bits=8), 300),
        ("lenet", "dlg", View(kind="pruned", rate=0.5), 300),
        ("lenet", "dlg", View(kind="noise", noise=1e-5), 300),
        ("mlp", "analytic", View(kind="plaintext"), 1),
        ("mlp", "analytic", View(kind="clipped", clip=True), 1),
        ("cnn", "analytic", View(kind="plaintext"), 100),
        ("cnn", "cosine", View(kind="plaintext"), 100),
        ("lenet", "cosine", View(kind="clipped", clip=True), 200),
        ("lenet", "cosine", View(kind="difference", epochs=1), 300),
        ("lenet", "cosine", View(kind="all", epochs=1, rate=0.5, clip=True, bits=8), 300),
        ("lenet", "dlg", View(kind="unmasked", bits=8, decoded=True, unmasked=True), 300),
        ("cnn", "analytic", View(kind="unmasked", bits=8, decoded=True, unmasked=True), 200),
    ],
)
def test_what_is_not_encrypted_gives_the_image_away(
    digits: tuple[torch.Tensor, torch.Tensor],
    network: str,
    attack: str,
    view: View,
    iterations: int,
) -> None:
    budget = Budget(restarts=2, iterations=iterations, tv=0.001)
    quality, label = inverted(digits, network, attack, view, budget)
    assert label == int(digits[1][0])
    assert quality > (11 if view.epochs else 15 if attack == "cosine" else 20)


@pytest.mark.parametrize(
    "view",
    [
        View(kind="ciphertext", bits=8, encrypted=True),
        View(kind="decoded", bits=8, decoded=True),
        View(kind="random", random=True),
    ],
    ids=lambda view: view.kind,
)
@pytest.mark.parametrize(("network", "attack"), [("lenet", "dlg"), ("mlp", "analytic")])
def test_ciphertexts_and_random_bytes_give_noise(
    digits: tuple[torch.Tensor, torch.Tensor], network: str, attack: str, view: View
) -> None:
    quality, _ = inverted(digits, network, attack, view, Budget(iterations=100))
    assert quality < 10


def test_the_input_of_a_linear_layer_stands_in_its_gradient(
    digits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    images, labels = digits
    network = attacked_network("mlp", SHAPE, CLASSES, 1).double()
    update = update_of(network, images[:1], labels[:1])
    name, _ = first_linear(network)
    seen = Observation(update, {}, {}, 0)
    features, known = layer_input(seen, name)
    assert bool(known.all())
    torch.testing.assert_close(features, images[0].flatten())


def test_a_column_that_was_not_sent_is_not_known() -> None:
    """Of four inputs: two as they are, one by the row that is left, one not at all."""
    slope, given = torch.tensor([0.5, -2.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    sent = torch.tensor([[True, True, False, False], [True, True, True, False]])
    weight = slope[:, None] * given * sent
    seen = Observation({"fc.weight": weight, "fc.bias": slope}, {"fc.weight": sent}, {}, 0)
    features, known = layer_input(seen, "fc")
    assert known.tolist() == [True, True, True, False]
    torch.testing.assert_close(features[known], given[known])


def test_labels_of_a_batch_are_inferred(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = digits
    network = attacked_network("mlp", SHAPE, CLASSES, 1).double()
    seen = Observation(update_of(network, images, labels), {}, {}, 0)
    found = inferred_labels(network, seen, len(labels), LOW, HIGH, SHAPE).tolist()
    assert len(found) == len(labels)
    common = sum(min(found.count(c), labels.tolist().count(c)) for c in set(found))
    assert common >= len(labels) - 1


@pytest.mark.parametrize("clients", [10, 50])
def test_labels_of_a_sum_are_inferred_where_outputs_are_uneven(clients: int) -> None:
    """LeNet's weights are large: some classes get most of the probability of any image."""
    samples = load_dataset("digits", None, 1).train.head(clients)
    images, labels = torch.from_numpy(samples.images).double(), torch.from_numpy(samples.labels)
    network = attacked_network("lenet", SHAPE, CLASSES, 1).double()
    seen = Observation(update_of(network, (images + 1) / 2, labels), {}, {}, 0)
    found = inferred_labels(network, seen, clients, LOW, HIGH, SHAPE)
    assert sorted(found.tolist()) == sorted(labels.tolist())


def sent(values: list[float], seen: Observation) -> list[float]:
    network = torch.nn.Linear(len(values), 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    return as_sent({"weight": torch.tensor([values])}, network, seen)["weight"].flatten().tolist()


def shown(values: list[float]) -> Update:
    return {"weight": torch.tensor([values])}


def test_a_guess_is_forgiven_what_cannot_be_told() -> None:
    """Beyond a clip bound, and where nothing was sent."""
    seen = Observation(
        shown([1.0, 1.0, -1.0, 0.5, 0.0]),
        {"weight": torch.tensor([[True, True, True, True, False]])},
        {"weight": 1.0},
        0,
    )
    assert sent([3.0, 0.5, -2.0, 3.0, 9.0], seen) == [1.0, 0.5, -1.0, 3.0, 0.0]


def test_a_guess_is_clipped_as_updates_were() -> None:
    seen = Observation(shown([0.6, 0.8]), {}, {}, 0, norm=1.0)
    assert sent([6.0, 8.0], seen) == pytest.approx([0.6, 0.8])
    assert sent([0.3, 0.4], seen) == pytest.approx([0.3, 0.4])


def test_local_epochs_leave_signs(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    """The true image's gradient, as it is sent, is what Adam's first step has made of it."""
    images, labels = digits
    network = attacked_network("lenet", SHAPE, CLASSES, 1).double()
    difference = local_difference(network, images[:1], labels[:1], 1)
    seen = Observation(difference, {}, {}, 0, epochs=1)
    found = as_sent(gradient(network, images[:1], labels[:1]), network, seen)
    for name, values in found.items():
        large = values.abs() > 0.9 * values.abs().max()
        assert bool(large.any())
        torch.testing.assert_close(values[large], difference[name][large], rtol=0.15, atol=0)
    right = float(cosine_distance(found, difference))
    for i in range(1, len(images)):
        other = as_sent(gradient(network, images[i : i + 1], labels[:1]), network, seen)
        assert right < float(cosine_distance(other, difference))


def test_cosine_distance_is_between_zero_and_two() -> None:
    update = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])}
    opposite = {name: -2 * tensor for name, tensor in update.items()}
    assert float(cosine_distance(update, update)) == pytest.approx(0, abs=1e-6)
    assert float(cosine_distance(opposite, update)) == pytest.approx(2, abs=1e-6)


def test_total_variation_is_that_of_neighbours() -> None:
    flat, edge = torch.ones((1, 1, 4, 4)), torch.zeros((1, 1, 4, 4))
    edge[..., 2:] = 1.0
    assert float(total_variation(flat)) == 0.0
    assert float(total_variation(edge)) == pytest.approx(1 / 3)


def test_a_gradient_has_a_graph_where_asked() -> None:
    network = attacked_network("lenet", SHAPE, CLASSES, 1)
    images = torch.rand((1, *SHAPE), requires_grad=True)
    found = gradient(network, images, torch.tensor([1]), graph=True)
    total = torch.stack([t.sum() for t in found.values()]).sum()
    (slope,) = torch.autograd.grad(total, images)
    assert bool(slope.abs().max() > 0)


# --- metrics ---


def test_metrics_of_known_images() -> None:
    image = np.linspace(0, 1, 3 * 16 * 16, dtype=np.float32).reshape(3, 16, 16)
    assert mse(image, image) == 0
    assert psnr(image, image) == 100
    assert psnr(image, image + np.float32(0.1)) == pytest.approx(20, abs=1e-4)
    pytest.importorskip("skimage", reason="SSIM is scikit-image's")
    assert ssim(image, image) == pytest.approx(1)
    assert ssim(image, 1 - image) < 0.5
    assert -1 <= ssim(image[:, :5, :5], image[:, 5:10, :5]) <= 1


def test_a_batch_is_matched_in_any_order() -> None:
    images = np.random.default_rng(1).random((5, 1, 4, 4), dtype=np.float32)
    order = np.array([3, 0, 4, 1, 2])
    assert best_match(images[order], images).tolist() == order.tolist()
