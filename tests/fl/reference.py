"""The quantized method once more, in NumPy and plain integers, from its description.

It shares with the package what is not under test here: torch's training of one client, the names of
random streams, and integer weights (:mod:`tests.fl.test_weighting`). Rounding is to nearest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from quancrypt_fl import QuanCryptConfig, Simulation
from quancrypt_fl.method.roles import GlobalState
from quancrypt_fl.method.weighting import integer_weights
from quancrypt_fl.observer import Observer
from quancrypt_fl.seeds import generator
from quancrypt_fl.training import torch_threads

Tensors = Mapping[str, np.ndarray]
F32 = np.float32


class Recorder(Observer):
    """Keeps the global state and all clients' memories after every round."""

    def __init__(self) -> None:
        self.simulation: Simulation | None = None
        self.states: list[GlobalState] = []
        self.residuals: list[dict[int, Tensors]] = []

    def round_finished(self, record: Any) -> None:
        assert self.simulation is not None
        self.states.append(self.simulation.state)
        self.residuals.append({c.index: c.memory.residual for c in self.simulation._clients})


def recorded(config: QuanCryptConfig) -> tuple[Simulation, dict[str, Any], Recorder]:
    """A finished run with its state after every round."""
    recorder = Recorder()
    simulation = Simulation(config, observer=recorder)
    recorder.simulation = simulation
    return simulation, simulation.run(), recorder


def assert_same_tensors(one: Tensors, two: Tensors) -> None:
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        np.testing.assert_array_equal(tensor, two[name], err_msg=name)


def rate_of(config: QuanCryptConfig, t: int) -> float:
    """Equation of the paper, with its cap."""
    if not config.pruning:
        return 0.0
    progress = max(0.0, (t - config.t_eff) / (config.t_target - config.t_eff))
    return config.p_0 + (config.p_target - config.p_0) * min(1.0, progress)


def smallest(magnitude: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    """Flat positions of the ``count`` smallest candidates, the first of equal ones."""
    candidates = np.flatnonzero(among)
    return candidates[np.argsort(magnitude[candidates], kind="stable")[:count]]


def zeroed(tensor: np.ndarray, rate: float) -> np.ndarray:
    """Without the ``floor(rate * size)`` smallest; vectors and scalars as they are."""
    if tensor.ndim < 2:
        return tensor
    count = math.floor(rate * tensor.size + 1e-9)
    flat = tensor.ravel().copy()
    flat[smallest(np.abs(flat), np.ones(flat.size, bool), count)] = 0
    return flat.reshape(tensor.shape)


def kept_and_gain(weights: np.ndarray, rate: float, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Shared mask and how often a coordinate counts, both of the tensor's shape."""
    kept, gain = np.ones(weights.size, bool), np.ones(weights.size, F32)
    count = math.floor(rate * weights.size + 1e-9) if weights.ndim >= 2 else 0
    if count:
        turns = max(2, math.ceil(1 / (1 - rate) - 1e-9))
        exempt = (np.arange(weights.size) + t) % turns == 0
        magnitude = np.abs(weights).ravel()
        pruned = smallest(magnitude, ~exempt, count)
        kept[pruned] = False
        gain[exempt & (magnitude <= magnitude[pruned].max())] = turns
    return kept.reshape(weights.shape), gain.reshape(weights.shape)


@dataclass
class Reference:
    """A run of ``config`` in the clear. It borrows a simulation's data and trainer."""

    simulation: Simulation
    weights: dict[str, np.ndarray] = field(init=False)
    bounds: dict[str, float] | None = None
    residual: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    buffers: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    sent: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    lost: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.weights = dict(self.simulation.state.weights)

    def round(self, t: int) -> None:
        config = self.simulation.config
        chosen, self.lost = self._participants(t)
        weight, scale = self._shares(chosen)
        rate = rate_of(config, t)
        masks = {n: kept_and_gain(w, rate, t) for n, w in self.weights.items()}
        if config.mask == "client":
            masks = {n: kept_and_gain(w, 0.0, t) for n, w in self.weights.items()}
        wholes, kept = {}, {}
        with torch_threads(config.threads or 1):
            for i in chosen:
                wholes[i] = self._whole(i, t, scale[i])
                own = {
                    n: zeroed(x, rate) if config.mask == "client" else x
                    for n, x in wholes[i].items()
                }
                kept[i] = {n: x[masks[n][0]] for n, x in own.items()}
        if self.bounds is None:
            self.bounds = self._agree(kept, chosen, weight)
        here = [i for i in chosen if i not in self.lost]
        if not here:
            return
        bounds, self.bounds = self.bounds, self._agree(kept, here, weight)
        correction = 1.0
        if self.lost:
            correction = sum(weight[i] for i in here) / sum(weight[i] * scale[i] for i in here)
        self._apply(wholes, kept, here, weight, bounds, masks, correction)
        if config.prune_global:
            self.weights = {n: zeroed(w, rate) for n, w in self.weights.items()}

    def _participants(self, t: int) -> tuple[list[int], list[int]]:
        config = self.simulation.config
        count = max(1, round(config.participation * config.clients))
        chosen = list(range(config.clients))
        if count < config.clients:
            draw = generator(config.seed, "participation", t)
            chosen = sorted(draw.choice(config.clients, count, replace=False).tolist())
        if config.dropout == 0:
            return chosen, []
        fate = generator(config.seed, "dropout", t).random(count)
        return chosen, [i for i, u in zip(chosen, fate, strict=True) if u < config.dropout]

    def _shares(self, chosen: list[int]) -> tuple[dict[int, int], dict[int, float]]:
        config = self.simulation.config
        counts = [len(self.simulation._clients[i].data) for i in chosen]
        weights, scales = [1] * len(chosen), [1.0] * len(chosen)
        if config.weighting == "integer":
            assert config.max_weight
            weights = integer_weights(counts, config.max_weight)
        if config.weighting == "prescaled":
            scales = [len(counts) * n / sum(counts) for n in counts]
        return dict(zip(chosen, weights, strict=True)), dict(zip(chosen, scales, strict=True))

    def _whole(self, i: int, t: int, scale: float) -> dict[str, np.ndarray]:
        simulation = self.simulation
        own = self.buffers.get(i, dict(simulation.task.own_buffers))
        data = simulation._clients[i].data
        after, _ = simulation.task.trainer.train({**self.weights, **own}, data, t, i)
        self.buffers[i] = {name: after.pop(name) for name in own}
        whole = {}
        for name, before in self.weights.items():
            x = after[name]
            if simulation.config.update == "delta":
                x = x - before
            if scale != 1.0:
                x = x * F32(scale)
            if i in self.residual:
                x = x + self.residual[i][name]
            whole[name] = x
        return whole

    def _agree(
        self, kept: Mapping[int, Tensors], clients: list[int], weight: Mapping[int, int]
    ) -> dict[str, float]:
        """``alpha`` times the mean of 49-bit fixed-point numbers with 32 bits of fraction."""
        config, bounds = self.simulation.config, {}
        total = sum(weight[i] for i in clients)
        for name in self.weights:
            fixed = 0
            for i in clients:
                x = kept[i][name]
                mu = float(np.abs(x).mean(dtype=np.float64)) if x.size else 0.0
                if config.mask == "client":
                    mu *= x.size / max(1, np.count_nonzero(x))
                fixed += weight[i] * round(mu * 2**32)
            bound = max(config.clip_factor * (fixed / (total << 32)), 2.0**-32)
            bounds[name] = bound if config.max_bound is None else min(bound, config.max_bound)
        return bounds

    def _apply(
        self,
        wholes: Mapping[int, Tensors],
        kept: Mapping[int, Tensors],
        here: list[int],
        weight: Mapping[int, int],
        bounds: Mapping[str, float],
        masks: Mapping[str, tuple[np.ndarray, np.ndarray]],
        correction: float,
    ) -> None:
        config = self.simulation.config
        q_max = 2 ** (config.bits - 1) - 1
        total = sum(weight[i] for i in here)
        gains = config.update == "delta" and not config.error_feedback
        new: dict[str, np.ndarray] = {}
        self.sent = {i: {} for i in here}
        for name, before in self.weights.items():
            mask, gain = masks[name]
            bound = F32(bounds[name])
            integers = {}
            for i in here:
                unit = np.clip(kept[i][name] / bound, F32(-1), F32(1))
                integers[i] = np.rint(unit * F32(q_max)).astype(np.int64)
                sent = np.zeros(before.shape, F32)
                sent[mask] = (integers[i] * (1.0 / q_max)).astype(F32) * bound
                self.sent[i][name] = sent
            sums = sum(weight[i] * integers[i] for i in here)
            mean = (sums * (1.0 / q_max * (1.0 / total))).astype(F32) * bound
            if correction != 1.0:
                mean = mean * F32(correction)
            aggregate = before.copy()
            if config.update == "weights":
                aggregate[mask] = mean
            else:
                step = np.zeros(before.shape, F32)
                step[mask] = mean * gain[mask] if gains else mean
                aggregate = before + step
            new[name] = aggregate
            if config.smoothing != 1.0:
                new[name] = F32(1 - config.smoothing) * before + F32(config.smoothing) * aggregate
        if config.error_feedback:
            for i in here:
                self.residual[i] = {n: x - self.sent[i][n] for n, x in wholes[i].items()}
        self.weights = new
