"""What an attacker sees of an update, layer by layer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from quancrypt_fl.leakage.gradients import local_difference, update_of
from quancrypt_fl.leakage.inversion.views import ALL_VIEWS, FEW_VIEWS, FEWEST_VIEWS, KINDS
from quancrypt_fl.leakage.networks import NETWORKS, attacked_network
from quancrypt_fl.leakage.views import Observation, View, observe

SHAPE, CLASSES = (1, 8, 8), 10
IMAGES = torch.rand((4, *SHAPE), generator=torch.Generator().manual_seed(3))
LABELS = torch.tensor([3, 7, 0, 3])


def seen(
    view: View, name: str = "mlp", seed: int = 1
) -> tuple[Observation, dict[str, torch.Tensor]]:
    network = attacked_network(name, SHAPE, CLASSES, 1)
    updates = [
        update_of(network, IMAGES[i : i + 1], LABELS[i : i + 1]) for i in range(view.clients)
    ]
    typical = update_of(network, torch.full((1, *SHAPE), 0.5), torch.tensor([0]))
    weights = dict(network.named_parameters())
    return observe(view, updates, weights, typical, seed), updates[0]


def test_a_plain_view_is_the_gradient() -> None:
    found, update = seen(View(kind="plaintext"))
    assert all(torch.equal(found.tensors[name], update[name]) for name in update)
    assert found.sent == 4 * sum(t.numel() for t in update.values())
    assert not found.bounds
    assert not found.seen


def test_clipping_bounds_are_three_mean_magnitudes() -> None:
    found, update = seen(View(kind="clipped", clip=True))
    for name, values in update.items():
        bound = found.bounds[name]
        assert bound == pytest.approx(3 * float(values.abs().mean()), rel=1e-5)
        clipped = values.clamp(-bound, bound)
        torch.testing.assert_close(found.tensors[name], clipped, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quantized_values_lie_on_a_grid(bits: int) -> None:
    found, update = seen(View(kind="quantized", bits=bits))
    for name, values in update.items():
        step = float(values.abs().max()) / (2 ** (bits - 1) - 1)
        steps = found.tensors[name].double() / step
        assert float((steps - steps.round()).abs().max()) < 1e-3
        assert float((found.tensors[name] - values).abs().max()) <= step / 2 * (1 + 1e-4)
    assert found.sent == math.ceil(sum(t.numel() for t in update.values()) * bits / 8)


def test_pruned_coordinates_are_not_seen_and_cost_nothing() -> None:
    found, update = seen(View(kind="pruned", rate=0.7))
    weight = next(name for name, t in update.items() if t.ndim == 2)
    hidden = ~found.seen[weight]
    assert float(hidden.double().mean()) == pytest.approx(0.7, abs=0.01)
    assert not bool(found.tensors[weight][hidden].any())
    assert torch.equal(found.tensors[weight][~hidden], update[weight][~hidden])
    assert found.sent == 4 * sum(int(mask.sum()) for mask in found.seen.values())


def test_an_aggregate_is_the_mean_of_its_clients() -> None:
    found, _ = seen(View(kind="aggregate", clients=4))
    network = attacked_network("mlp", SHAPE, CLASSES, 1)
    together = update_of(network, IMAGES, LABELS)
    for name, values in together.items():
        torch.testing.assert_close(found.tensors[name], values, rtol=1e-4, atol=1e-7)


def test_noise_follows_a_norm_of_one() -> None:
    loud, update = seen(View(kind="noise", noise=0.5))
    again, _ = seen(View(kind="noise", noise=0.5))
    other, _ = seen(View(kind="noise", noise=0.5), seed=2)
    name = next(iter(update))
    assert torch.equal(loud.tensors[name], again.tensors[name])
    assert not torch.equal(loud.tensors[name], other.tensors[name])
    norm = math.sqrt(sum(float(t.double().pow(2).sum()) for t in update.values()))
    left = loud.tensors[name] - update[name] / max(1.0, norm)
    assert float(left.std()) == pytest.approx(0.5, rel=0.05)


def test_a_ciphertext_is_read_as_numbers_of_the_usual_size() -> None:
    """Two encryptions of one update have nothing in common; random bytes look the same."""
    view = View(kind="ciphertext", bits=8, encrypted=True)
    one, update = seen(view)
    two, _ = seen(view)
    random, _ = seen(View(kind="random", random=True))
    name = next(iter(update))  # 8,192 values: correlations by chance are below 0.06
    values = torch.stack([*(o.tensors[name].flatten() for o in (one, two, random)),
                          update[name].flatten()])  # fmt: skip
    correlations = torch.corrcoef(values) - torch.eye(4)
    assert float(correlations.abs().max()) < 0.06
    for name in update:
        spreads = [float(o.tensors[name].double().std()) for o in (one, random)]
        assert spreads[0] == pytest.approx(spreads[1], rel=0.5)
    assert one.sent > sum(t.numel() for t in update.values())


def test_local_training_leaves_the_network_as_it_was() -> None:
    network = attacked_network("cnn", SHAPE, CLASSES, 1)
    before = [p.detach().clone() for p in network.parameters()]
    difference = local_difference(network, IMAGES[:1], LABELS[:1], epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    # Adam's first step is the learning rate in the direction of the sign.
    largest = max(float(t.abs().max()) for t in difference.values())
    assert largest == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_made_by_their_seed(name: str) -> None:
    shape = (3, 8, 8)
    weights = [
        torch.cat([p.flatten() for p in attacked_network(name, shape, CLASSES, seed).parameters()])
        for seed in (1, 1, 2)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_statistics_of_batch_norms_are_part_of_an_update() -> None:
    network = attacked_network("resnet18-batch", (3, 8, 8), CLASSES, 1)
    before = {name: b.clone() for name, b in network.named_buffers() if b.is_floating_point()}
    update = update_of(network, torch.rand((2, 3, 8, 8)), torch.tensor([1, 2]))
    assert update["bn1.mean"].shape == update["bn1.var"].shape == (64,)
    assert all(torch.equal(b, before[n]) for n, b in network.named_buffers() if n in before)
    assert sum(name.endswith((".mean", ".var")) for name in update) == 40
    alone = attacked_network("resnet18", (3, 8, 8), CLASSES, 1)
    update = update_of(alone, torch.rand((1, 3, 8, 8)), torch.tensor([1]))
    assert not any(name.endswith((".mean", ".var")) for name in update)


def test_views_have_names_of_their_own() -> None:
    keys = [view.key for view in ALL_VIEWS]
    assert len(set(keys)) == len(keys)
    assert {"plaintext", "quantized", "pruned", "aggregate", "ciphertext"} <= set(KINDS)
    assert (len(FEW_VIEWS), len(FEWEST_VIEWS)) == (13, 5)
    assert FEW_VIEWS[0].kind == "plaintext"
    assert np.all([view.key.replace("-", "").isalnum() for view in ALL_VIEWS])
