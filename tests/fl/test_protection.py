"""The encrypted path: exact, and closed to the server."""

from __future__ import annotations

import dataclasses
import gc
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load, save

import quancrypt_native as qn
from quancrypt_fl import QuanCryptConfig, Simulation
from quancrypt_fl.audit import secrets_within_reach
from quancrypt_fl.errors import FederatedError, MethodError
from quancrypt_fl.method.meter import RoundMeter
from quancrypt_fl.method.rounds import GlobalState, Sealed, Tensors, federated_round
from quancrypt_fl.protect import SECRET_TYPES, Protection, Summer

TinyConfig = Callable[..., QuanCryptConfig]


class PlainQuantized:
    """Both sides of the same quantized method without encryption, in NumPy integers."""

    def __init__(self, bits: int) -> None:
        self.q_max = 2 ** (bits - 1) - 1
        self.sums: dict[str, NDArray[np.int64]] = {}
        self.clips: Mapping[str, float] = {}
        self.weight = 0

    def protect(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Sealed:
        integers = {}
        for name, tensor in tensors.items():
            clip = np.float32(clips[name])
            scaled = np.clip(tensor, -clip, clip) * np.float32(self.q_max / clips[name])
            integers[name] = np.rint(scaled).astype(np.int64)
        self.clips = clips
        return Sealed(save(integers), 0)

    def add(self, data: bytes, weight: int) -> None:
        for name, integers in load(data).items():
            self.sums[name] = self.sums.get(name, np.zeros_like(integers)) + weight * integers
        self.weight += weight

    def result(self) -> bytes:
        data = save({**self.sums, "weight": np.array([self.weight])})
        self.sums, self.weight = {}, 0
        return data

    def unprotect(self, data: bytes) -> tuple[dict[str, NDArray[np.float32]], int]:
        sums = load(data)
        weight = int(sums.pop("weight")[0])
        factors = {name: self.clips[name] / self.q_max * (1.0 / weight) for name in sums}
        return {n: (s * factors[n]).astype(np.float32) for n, s in sums.items()}, weight


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"bits": 5, "partition": "dirichlet", "dirichlet_alpha": 0.3},
        {"weighting": "prescaled", "partition": "dirichlet"},
        {"bits": 16, "pruning": False},
    ],
    ids=str,
)
def test_encryption_changes_nothing(tiny: TinyConfig, choices: dict[str, Any]) -> None:
    """Weights after every round equal those of the plaintext quantized method, bit for bit."""
    simulation = Simulation(tiny(**choices))
    reference = PlainQuantized(simulation.config.bits)
    clients = [dataclasses.replace(c, side=reference) for c in simulation._clients]
    method = simulation._parties.method
    plain = encrypted = simulation.state
    for _ in range(3):
        plain = federated_round(plain, clients, reference, method, RoundMeter())
        encrypted = federated_round(
            encrypted, simulation._clients, simulation.server, method, RoundMeter()
        )
        assert plain.bounds == encrypted.bounds
        for name, tensor in plain.weights.items():
            np.testing.assert_array_equal(tensor, encrypted.weights[name])


def test_bounds_are_the_mean_of_all_clients(
    tiny: TinyConfig, tiny_run: tuple[Simulation, dict[str, Any]]
) -> None:
    simulation, _ = tiny_run
    start = Simulation(tiny()).state
    after = federated_round(
        start, simulation._clients, simulation.server, simulation._parties.method, RoundMeter()
    )
    masks = simulation._parties.method.masks(start)
    means = []
    for client in simulation._clients:
        delta = client.train(start).weights["1.weight"] - start.weights["1.weight"]
        means.append(np.abs(delta[masks["1.weight"].kept]).mean(dtype=np.float64))
    assert after.bounds is not None
    assert after.bounds["1.weight"] == pytest.approx(3.0 * np.mean(means), abs=3 * 2**-32)


def everything_within(root: object) -> list[object]:
    """All objects that ``root`` leads to, found independently of :mod:`quancrypt_fl.audit`."""
    found: dict[int, object] = {}
    pending = [root]
    while pending:
        item = pending.pop()
        if id(item) in found or isinstance(item, (types.ModuleType, type)):
            continue
        found[id(item)] = item
        pending += getattr(item, "__dict__", {}).values()
        for cls in type(item).__mro__:
            slots = cls.__dict__.get("__slots__", ())
            pending += [getattr(item, name) for name in slots if hasattr(item, name)]
        if not isinstance(item, types.FunctionType):
            pending += gc.get_referents(item)
    return list(found.values())


@pytest.mark.parametrize("moment", ["before", "in a round", "after"])
def test_the_server_cannot_decrypt(tiny: TinyConfig, moment: str) -> None:
    """With everything that the server holds, at any moment, no upload or sum can be opened."""
    simulation = Simulation(tiny(rounds=1))
    client, server = simulation._clients[0], simulation.server
    upload = client.protect({"w": np.ones(3, np.float32)}, {"w": 1.0}, 0).data
    if moment == "in a round":
        server.add(upload, 1)
    if moment == "after":
        simulation.run()
    held = everything_within(server)
    params = next(item for item in held if isinstance(item, qn.Parameters))
    assert secrets_within_reach(server, SECRET_TYPES) == []
    assert not any(isinstance(item, SECRET_TYPES) for item in held)

    key = simulation._clients[0].side._decryptor._key  # type: ignore[attr-defined]
    stream = qn.seal.export_secret_key(key)
    fragment = stream[len(stream) // 2 :][:32]
    assert any(fragment)
    for item in held:
        with pytest.raises((qn.QuanCryptError, TypeError, AttributeError)):
            qn.Decryptor(params, item).decrypt_mean(  # type: ignore[arg-type]
                qn.EncryptedUpdate.from_bytes(upload, params)
            )
        if isinstance(item, (bytes, bytearray)):
            assert fragment not in item
        if isinstance(item, np.ndarray):
            assert fragment not in item.tobytes()
    strangers = qn.keygen(params)
    with pytest.raises(qn.KeyMismatchError):
        qn.Decryptor(params, strangers.secret).decrypt_mean(
            qn.EncryptedUpdate.from_bytes(upload, params)
        )


@dataclasses.dataclass
class Holder:
    thing: object


def test_the_audit_finds_what_is_hidden() -> None:
    protection = Protection(bits=8, max_weight=4, security=128, values=10)
    protector = protection.client()
    secret = protector._decryptor
    hidden: list[object] = [
        Holder(secret),
        Holder({"a": [(secret,)]}),
        Holder(lambda: secret),
        Holder(protector.protect),
        Holder(protection),
    ]
    for holder in hidden:
        assert secrets_within_reach(holder, SECRET_TYPES)
    assert secrets_within_reach(Holder([1, "two", {3: None}]), SECRET_TYPES) == []


def test_a_run_whose_server_holds_a_secret_stops(tiny: TinyConfig) -> None:
    simulation = Simulation(tiny(rounds=1))
    leaky = dataclasses.replace(
        simulation._parties,
        server=dataclasses.replace(simulation.server, summer=Holder(simulation._clients[0])),  # type: ignore[arg-type]
    )
    simulation._parties = leaky
    with pytest.raises(FederatedError, match="can reach secrets"):
        simulation.run()


def test_uploads_show_no_clip_bound_and_never_repeat(tiny: TinyConfig) -> None:
    simulation = Simulation(tiny(rounds=1))
    client, seen = simulation._clients[0], []
    original = type(simulation.server).add

    class Spy:
        def add(self, data: bytes, weight: int) -> None:
            seen.append(data)
            original(simulation.server, data, weight)

        def result(self) -> bytes:
            return simulation.server.result()

    method = simulation._parties.method
    state = GlobalState(0, simulation.state.weights)
    federated_round(state, simulation._clients, Spy(), method, RoundMeter())
    params = client.side._params  # type: ignore[attr-defined]
    updates = [qn.EncryptedUpdate.from_bytes(data, params) for data in seen]
    clips = {tensor.clip for update in updates for tensor in update.layout.tensors}
    assert clips == {1.0, 127.0}
    assert len({data[-64:] for data in seen}) == len(seen) == 8


def test_sums_of_nothing_and_of_too_much() -> None:
    protection = Protection(bits=8, max_weight=4, security=128, values=10)
    server, client = protection.server(), protection.client()
    with pytest.raises(MethodError, match="nothing to sum"):
        server.result()
    upload = client.protect({"w": np.ones(3, np.float32)}, {"w": 1.0}, 0).data
    server.add(upload, 3)
    with pytest.raises(qn.CapacityError):
        server.add(upload, 2)
    claimed = qn.EncryptedUpdate.from_bytes(server.result(), server._params)
    with pytest.raises(MethodError, match="claims the weight 3"):
        server.add(claimed.to_bytes(), 1)
    public = qn.Parameters.for_aggregation(bits=8, max_weight=4, key_mode="public", values=10)
    keys = qn.keygen(public)
    unseeded = qn.Encryptor(public, keys.public).encrypt({"w": np.ones(3, np.float32)}, clip=1.0)
    with pytest.raises(MethodError, match="not seeded"):
        Summer(public).add(unseeded.to_bytes(), 1)
    other = Protection(bits=8, max_weight=8, security=128, values=10)
    with pytest.raises(qn.KeyMismatchError):
        Summer(other.server()._params).add(upload, 1)


@pytest.mark.parametrize("method", ["quancrypt", "vanilla"])
def test_divergence_stops_the_run(
    tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    simulation = Simulation(tiny(rounds=1, method=method))
    weights = {n: np.full_like(w, np.nan) for n, w in simulation.state.weights.items()}
    monkeypatch.setattr(simulation._trainer, "train", lambda *_: (weights, float("nan")))
    with pytest.raises(MethodError, match="client 0, round 1: local training diverged"):
        simulation.run()
    monkeypatch.setattr(simulation._trainer, "train", lambda *_: (weights, 1.0))
    with pytest.raises(MethodError, match="diverged"):
        simulation.run()
