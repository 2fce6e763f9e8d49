"""Median of groups: the same as in NumPy, and what it withstands that a mean does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from tests.fl.fakes import FakeFederation, Tensors, federation
from tests.fl.reference import (
    F32,
    Reference,
    assert_same_tensors,
    kept_and_gain,
    rate_of,
    recorded,
    zeroed,
)
from tests.fl.test_rounds import compare_with_plain

import quancrypt_native as qn
from quancrypt_fl import QuanCryptConfig, Simulation
from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.grouped import Groups
from quancrypt_fl.method.groups import breakdown, by_group, median, median_bounds
from quancrypt_fl.method.meter import RoundMeter
from quancrypt_fl.method.roles import Sealed
from quancrypt_fl.method.rounds import federated_round
from quancrypt_fl.protect import UNREADABLE, Protector
from quancrypt_fl.receipts import receipt_lines
from quancrypt_fl.seeds import generator
from quancrypt_fl.training import torch_threads
from quancrypt_native import _core
from quancrypt_native.update import update_prefix

TinyConfig = Callable[..., QuanCryptConfig]
FEW = {"max_train_samples": 240, "max_test_samples": 50, "clients": 7, "rounds": 2}
MEDIAN = "median-of-groups"


# --- dividing, and medians ---


@pytest.mark.parametrize(("clients", "groups"), [(2, 1), (6, 3), (7, 3), (11, 5), (100, 9)])
def test_groups_divide_the_clients_evenly(clients: int, groups: int) -> None:
    parts = by_group(clients, groups, np.random.default_rng(1))
    assert sorted(place for part in parts for place in part) == list(range(clients))
    sizes = [len(part) for part in parts]
    assert len(sizes) == groups
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 2
    assert all(part == sorted(part) for part in parts)


def test_every_pair_of_clients_is_as_likely_to_share_a_group() -> None:
    """15 pairs of 6 clients in 3 groups: together with probability 1/5 each, within 4.5 sigma."""
    draws, together = 3000, np.zeros((6, 6))
    for t in range(draws):
        for part in by_group(6, 3, generator(5, "groups", t)):
            together[part[0], part[1]] += 1
    counts = together[np.triu_indices(6, 1)]
    assert counts.sum() == 3 * draws
    assert np.abs(counts - draws / 5).max() < 4.5 * np.sqrt(draws * 0.2 * 0.8)


def test_a_group_of_one_is_refused() -> None:
    with pytest.raises(MethodError, match="5 clients in 3 groups; allowed: at least 2"):
        by_group(5, 3, np.random.default_rng(1))


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 5, 8])
def test_medians_are_of_sorted_values(groups: int) -> None:
    rng = np.random.default_rng(groups)
    means = [{"a": rng.normal(size=(3, 4)).astype(F32)} for _ in range(groups)]
    ordered = np.sort(np.stack([mean["a"] for mean in means]), axis=0)
    low, high = ordered[(groups - 1) // 2], ordered[groups // 2]
    found = median(means)["a"]
    assert found.dtype == F32
    np.testing.assert_array_equal(found, low if groups % 2 else (low + high) / F32(2))


def test_medians_of_bounds() -> None:
    assert median_bounds([{"a": 1.0}, {"a": 9.0}, {"a": 2.0}]) == {"a": 2.0}
    assert median_bounds([None, None]) is None


# --- whole runs ---


class GroupedReference(Reference):
    """The reference's round with groups, once more in NumPy."""

    def round(self, t: int) -> None:
        config = self.simulation.config
        chosen, self.lost = self._participants(t)
        order = generator(config.seed, "groups", t).permutation(len(chosen))
        groups = [sorted(part.tolist()) for part in np.array_split(order, config.groups)]
        members = [[chosen[place] for place in part] for part in groups]
        weight, scale = self._shares(chosen)
        rate = rate_of(config, t)
        own_masks = config.mask == "client"
        masks = {
            n: kept_and_gain(w, 0.0 if own_masks else rate, t) for n, w in self.weights.items()
        }
        wholes, kept = {}, {}
        with torch_threads(config.threads or 1):
            for i in chosen:
                wholes[i] = self._whole(i, t, scale[i])
                sent = {n: zeroed(x, rate) if own_masks else x for n, x in wholes[i].items()}
                kept[i] = {n: x[masks[n][0]] for n, x in sent.items()}
        if self.bounds is None:
            found = [self._agree(kept, group, weight) for group in members]
            self.bounds = {n: float(np.median([b[n] for b in found])) for n in self.weights}
        least = max(2, config.min_arrivals)
        here = [[i for i in group if i not in self.lost] for group in members]
        counted = [group for group in here if len(group) >= least]
        if not counted:
            return
        found = [self._agree(kept, group, weight) for group in counted]
        bounds, self.bounds = (
            self.bounds,
            {n: float(np.median([b[n] for b in found])) for n in self.weights},
        )
        self._step(wholes, kept, counted, weight, scale, bounds, masks)
        if config.prune_global:
            self.weights = {n: zeroed(w, rate) for n, w in self.weights.items()}

    def _step(
        self,
        wholes: Mapping[int, Tensors],
        kept: Mapping[int, Tensors],
        counted: list[list[int]],
        weight: Mapping[int, int],
        scale: Mapping[int, float],
        bounds: Mapping[str, float],
        masks: Mapping[str, tuple[np.ndarray, np.ndarray]],
    ) -> None:
        config = self.simulation.config
        q_max = 2 ** (config.bits - 1) - 1
        gains = config.update == "delta" and not config.error_feedback
        sent: dict[int, dict[str, np.ndarray]] = {i: {} for group in counted for i in group}
        new = {}
        for name, before in self.weights.items():
            mask, gain = masks[name]
            bound, means = F32(bounds[name]), []
            for group in counted:
                sums = np.zeros(kept[group[0]][name].shape, np.int64)
                for i in group:
                    unit = np.clip(kept[i][name] / bound, F32(-1), F32(1))
                    integers = np.rint(unit * F32(q_max)).astype(np.int64)
                    sums += weight[i] * integers
                    sent[i][name] = np.zeros(before.shape, F32)
                    sent[i][name][mask] = (integers * (1.0 / q_max)).astype(F32) * bound
                total = sum(weight[i] for i in group)
                mean = (sums * (1.0 / q_max * (1.0 / total))).astype(F32) * bound
                correction = total / sum(weight[i] * scale[i] for i in group)
                means.append(mean if correction == 1.0 else mean * F32(correction))
            ordered = np.sort(np.stack(means), axis=0)
            low, high = ordered[(len(means) - 1) // 2], ordered[len(means) // 2]
            middle = low if len(means) % 2 else (low + high) / F32(2)
            aggregate = before.copy()
            if config.update == "weights":
                aggregate[mask] = middle
            else:
                aggregate[mask] = before[mask] + (middle * gain[mask] if gains else middle)
            new[name] = aggregate
            if config.smoothing != 1.0:
                new[name] = F32(1 - config.smoothing) * before + F32(config.smoothing) * aggregate
        if config.error_feedback:
            for i, own in sent.items():
                self.residual[i] = {n: x - own[n] for n, x in wholes[i].items()}
        self.weights = new


COMBINATIONS: list[dict[str, Any]] = [
    {},
    {"groups": 2, "bits": 5},
    {"partition": "dirichlet", "bits": 4, "p_0": 0.6, "p_target": 0.8},
    {"mask": "client", "error_feedback": True, "bits": 3, "dropout": 0.35},
    {"weighting": "prescaled", "partition": "dirichlet", "dropout": 0.2},
    {"dropout": 0.7, "seed": 4},
    {"min_arrivals": 3, "groups": 2, "dropout": 0.2, "error_feedback": True},
    {"update": "weights", "smoothing": 0.5, "prune_global": True},
    {"clients": 12, "participation": 0.5, "weighting": "uniform"},
    {"max_bound": 1e-3, "bits": 6},
]


@pytest.mark.parametrize("choices", COMBINATIONS, ids=str)
def test_a_round_is_the_same_in_numpy(tiny: TinyConfig, choices: dict[str, Any]) -> None:
    config = tiny(**{**FEW, "aggregation": MEDIAN, **choices})
    _, results, encrypted = recorded(config)
    reference = GroupedReference(Simulation(config))
    for t, state in enumerate(encrypted.states):
        before = reference.weights
        reference.round(t)
        assert_same_tensors(reference.weights, state.weights)
        assert reference.bounds == state.bounds
        for client, residual in encrypted.residuals[t].items():
            assert_same_tensors(reference.residual.get(client, {}), residual)
        opened = results["rounds"][t]["groups"]
        assert opened["formed"] == config.groups
        assert (opened["opened"] == 0) == (reference.weights is before)


@pytest.mark.parametrize(
    "choices",
    [{}, {"dropout": 0.3, "weighting": "prescaled"}, {"rounding": "stochastic", "bits": 4}],
    ids=str,
)
def test_a_round_is_the_same_without_encryption(tiny: TinyConfig, choices: dict[str, Any]) -> None:
    compare_with_plain(tiny(**{**FEW, "aggregation": MEDIAN, **choices}))


def test_what_clients_see_is_said(tiny: TinyConfig) -> None:
    results = Simulation(tiny(**{**FEW, "rounds": 1, "aggregation": MEDIAN})).run()
    claim = results["aggregation"]
    assert claim == results["receipt"]["aggregation"]
    assert claim["smallest_group"] == 2
    assert claim["tolerated_groups"] == 1
    line = dict(receipt_lines(results["receipt"]))["Aggregation"]
    assert "clients see every group's mean, of as few as 2 updates" in line
    # Every client downloads all groups' sums.
    one = Simulation(tiny(**{**FEW, "rounds": 1})).run()
    assert results["rounds"][0]["bytes"]["download"] == 3 * one["rounds"][0]["bytes"]["download"]
    assert results["rounds"][0]["bytes"]["upload"] == one["rounds"][0]["bytes"]["upload"]


# --- what it withstands ---


def grouped_round(fed: FakeFederation, sizes: list[int] | None) -> tuple[Tensors, RoundMeter]:
    """The weights after a round with consecutive groups, or without."""
    meter = RoundMeter()
    groups = None if sizes is None else Groups(sizes, UNREADABLE)
    after = federated_round(
        fed.state, fed.clients, fed.parties.server, fed.parties.method, meter, groups=groups
    )
    return after.weights, meter


def poisoned(poison: int, method: str, groups: int = 3) -> FakeFederation:
    """Three clients in each group, all near a change of 0.01; in ``poison`` groups the first
    client sends a change of -1000."""
    rng = np.random.default_rng(1)
    clients = 3 * groups
    changes = [{"w": rng.uniform(0.008, 0.012, (8, 9)).astype(F32)} for _ in range(clients)]
    for group in range(poison):
        changes[3 * group] = {"w": np.full((8, 9), -1000, F32)}
    weights = {"w": np.zeros((8, 9), F32)}
    return federation(weights, changes, method=method, pruning=False)


@pytest.mark.parametrize("method", ["vanilla", "quancrypt"])
def test_a_minority_of_groups_destroys_a_mean_and_no_median(method: str) -> None:
    mean, _ = grouped_round(poisoned(1, method), None)
    assert mean["w"].max() < -10  # far from 0.01, at every coordinate
    robust, meter = grouped_round(poisoned(1, method), [3, 3, 3])
    # At the edge of the other groups' means, whatever the first holds; clipped at 3 mean sizes.
    assert 0.007 < robust["w"].min() <= robust["w"].max() < 0.013
    assert meter.groups == {"formed": 3, "opened": 3}
    five, _ = grouped_round(poisoned(2, method, groups=5), [3] * 5)
    assert 0.007 < five["w"].min() <= five["w"].max() < 0.013


@pytest.mark.parametrize(("groups", "poison"), [(3, 2), (5, 3)])
def test_beyond_the_breakdown_a_median_is_lost_too(groups: int, poison: int) -> None:
    assert poison == breakdown(groups) + 1
    lost, _ = grouped_round(poisoned(poison, "vanilla", groups), [3] * groups)
    assert lost["w"].max() < -10


class Spoiler:
    """A client's side that encrypts fields beyond their range."""

    def __init__(self, inner: Protector, weight: int) -> None:
        self._inner, self._weight = inner, weight

    def protect(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Sealed:
        params, key = self._inner._params, self._inner._encryptor._key
        sealed = self._inner.protect(tensors, clips, t)
        layout = qn.EncryptedUpdate.from_bytes(sealed.data, params).layout
        far = 2 * params.q_max * self._weight + 1  # with what others add, above every valid sum
        fields = np.full(sum(tensor.size for tensor in layout.tensors), far, np.uint16)
        about = (params, key.key_id, layout, 1, bytes(32))
        frame = _core.encrypt_packed(
            params._core, key._core, None, about[-1], [(fields, 1.0)], None, update_prefix(*about)
        )
        assert not isinstance(frame, int)
        return Sealed(qn.EncryptedUpdate(*about, frame).to_bytes(), sealed.ciphertexts)

    def unprotect(self, data: bytes) -> Any:
        return self._inner.unprotect(data)


def test_a_malformed_ciphertext_costs_its_own_group_only() -> None:
    fed = poisoned(0, "quancrypt")
    spoiler = fed.clients[4]
    sides = spoiler.sides
    object.__setattr__(sides, "updates", Spoiler(sides.updates, weight=3))
    robust, meter = grouped_round(fed, [3, 3, 3])
    assert meter.groups == {"formed": 3, "opened": 2}
    assert 0.007 < robust["w"].min() <= robust["w"].max() < 0.013
    with pytest.raises(qn.DecryptionError):
        grouped_round(fed, None)


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_a_median_moves_no_further_than_the_mean_that_moved(groups: int) -> None:
    """What is said of one client holds for medians too, of odd and even numbers of groups."""
    sizes, states, figures = [3] * groups, [], []
    for attack in (0.0, -1000.0):
        fed = poisoned(0, "quancrypt", groups)
        fed.state = federated_round(
            fed.state, fed.clients, fed.parties.server, fed.parties.method, RoundMeter(),
            groups=Groups(sizes),
        )  # fmt: skip
        fed.clients[1].change = {"w": np.full((8, 9), attack, F32)}
        weights, meter = grouped_round(fed, sizes)
        states.append(weights["w"].astype(float))
        figures.append(meter.influence)
    assert figures[0] is not None
    assert figures[0]["weight_share"] == 1 / 3  # of its group
    moved = np.abs(states[1] - states[0])
    assert (moved.max() > 0) == (groups == 2)  # of more, it was the lowest before already
    assert moved.max() <= figures[0]["coordinate"] * (1 + 1e-6)
    assert np.linalg.norm(moved) <= figures[0]["l2"] * (1 + 1e-6)
