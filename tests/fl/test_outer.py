"""What clients do with a round's mean: the average, or Nesterov's momentum beside torch's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from quancrypt_fl.checkpoint import Checkpoint, Checkpoints
from quancrypt_fl.method.fedavg import FedAvg
from quancrypt_fl.method.outer import Average, Nesterov
from quancrypt_fl.method.pruning import Mask
from quancrypt_fl.method.roles import GlobalState


def drawn(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("lr", "momentum"), [(0.7, 0.9), (1.0, 0.0), (0.3, 0.5)])
def test_nesterov_is_torchs(lr: float, momentum: float) -> None:
    """``SGD(nesterov=True)`` on the pseudo-gradients, over several steps."""
    start, changes = drawn(0, 5, 4), [0.01 * drawn(1 + t, 5, 4) for t in range(6)]
    parameter = torch.nn.Parameter(torch.tensor(start))
    sgd = torch.optim.SGD([parameter], lr=lr, momentum=momentum, nesterov=momentum > 0)
    weights, kept = start, None
    for change in changes:
        parameter.grad = -torch.tensor(change)
        sgd.step()
        weights, kept = Nesterov(lr, momentum).step(weights, weights + change, kept)
        np.testing.assert_allclose(weights, parameter.detach().numpy(), rtol=0, atol=1e-6)
    assert weights.dtype == np.float32
    assert np.abs(weights - start).max() > 0.01
    assert (kept is None) == (momentum == 0)


def test_factors() -> None:
    """What one unit of a mean does to the weights right after the round."""
    assert Average(0.25).factor == 0.25
    zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    for outer in (Average(), Average(0.25), Nesterov(0.7, 0.9), Nesterov(1.0, 0.0)):
        moved, _ = outer.step(zero, one, None)
        assert moved[0] == pytest.approx(outer.factor)


def test_momentum_is_in_the_state_tensor_by_tensor() -> None:
    """Tensors that do not travel keep theirs; left-out coordinates go on by momentum."""
    method = FedAvg(outer=Nesterov(1.0, 0.5))
    weights = {"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32)}
    everything = Mask(np.array([True, True]))
    mean = {name: np.ones(2, np.float32) for name in weights}
    state = method.apply(GlobalState(0, weights), mean, 1, dict.fromkeys(weights, everything))
    np.testing.assert_array_equal(state.momentum["a"], [1, 1])
    np.testing.assert_array_equal(state.weights["a"], [1.5, 1.5])
    first = Mask(np.array([True, False]))
    state = method.apply(state, {"a": np.ones(1, np.float32)}, 1, {"a": first})
    np.testing.assert_array_equal(state.momentum["a"], [1.5, 0.5])
    np.testing.assert_array_equal(state.weights["a"], [1.5 + 1.75, 1.5 + 0.25])
    np.testing.assert_array_equal(state.momentum["b"], [1, 1])
    np.testing.assert_array_equal(state.weights["b"], [1.5, 1.5])


def test_an_average_keeps_nothing() -> None:
    weights = {"a": np.zeros(2, np.float32)}
    mean, mask = {"a": np.ones(2, np.float32)}, {"a": Mask(np.array([True, True]))}
    assert FedAvg().apply(GlobalState(0, weights), mean, 1, mask).momentum == {}


def test_checkpoints_keep_momentum(tmp_path: Path) -> None:
    momentum = {"b": drawn(1, 3), "a": drawn(2, 2, 2)}
    state = GlobalState(3, {"b": drawn(3, 3), "a": drawn(4, 2, 2)}, None, momentum)
    Checkpoints(tmp_path, {}).save(Checkpoint(state, [], []))
    loaded = Checkpoints(tmp_path, {}).load().state
    assert list(loaded.momentum) == ["b", "a"]
    for name, tensor in momentum.items():
        np.testing.assert_array_equal(loaded.momentum[name], tensor)
    plain = Checkpoints(tmp_path, {})
    plain.save(Checkpoint(GlobalState(4, state.weights), [], []))
    assert Checkpoints(tmp_path, {}).load().state.momentum == {}
    assert not list(tmp_path.glob("momentum-*"))
