"""The encrypted path: exact, and closed to the server."""

from __future__ import annotations

import dataclasses
import gc
import json
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from safetensors.numpy import load, save

import quancrypt_native as qn
from quancrypt_fl import QuanCryptConfig, Simulation
from quancrypt_fl.audit import secrets_within_reach
from quancrypt_fl.engines.parties import Server, Sides
from quancrypt_fl.errors import FederatedError, MethodError
from quancrypt_fl.method.meter import RoundMeter
from quancrypt_fl.method.roles import GlobalState, Sealed, Tensors
from quancrypt_fl.method.rounds import federated_round
from quancrypt_fl.protect import SECRET_TYPES, Channel, PlainIntegers, PlainIntegerSummer, Summer
from quancrypt_fl.training import torch_threads

TinyConfig = Callable[..., QuanCryptConfig]
FEW = {"max_train_samples": 200, "max_test_samples": 40}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Rounds here are run without a simulation around them, which would see to it."""
    with torch_threads(1):
        yield


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

    def quantized(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Tensors:
        raise AssertionError("only error feedback asks for this")

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
    simulation = Simulation(tiny(**FEW, **choices))
    reference = PlainQuantized(simulation.config.bits)
    sides = Sides(reference, reference)
    clients = [dataclasses.replace(c, sides=sides) for c in simulation._clients]
    server = Server(reference, reference)
    method = simulation._parties.method
    plain = encrypted = simulation.state
    for _ in range(3):
        plain = federated_round(plain, clients, server, method, RoundMeter())
        encrypted = federated_round(
            encrypted, simulation._clients, simulation.server, method, RoundMeter()
        )
        assert plain.bounds == encrypted.bounds
        for name, tensor in plain.weights.items():
            np.testing.assert_array_equal(tensor, encrypted.weights[name])


def test_bounds_are_the_mean_of_all_clients(tiny: TinyConfig) -> None:
    simulation = Simulation(tiny(**FEW))
    start = simulation.state
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


@pytest.mark.parametrize("kind", ["updates", "reports"])
@pytest.mark.parametrize("moment", ["before", "in a round", "after"])
def test_the_server_cannot_decrypt(tiny: TinyConfig, moment: str, kind: str) -> None:
    """With everything that the server holds, at any moment, no upload or sum can be opened."""
    simulation = Simulation(tiny(rounds=1, max_train_samples=100, max_test_samples=20))
    server, summer = simulation.server, getattr(simulation.server, kind)
    side = getattr(simulation._clients[0], kind)
    upload = side.protect({"w": np.ones(3, np.float32)}, {"w": 1.0}, 0).data
    if moment == "in a round":
        summer.add(upload, 1)
    if moment == "after":
        simulation.run()
    held = everything_within(server)
    assert len({id(item) for item in held if isinstance(item, qn.Parameters)}) == 2
    params = next(item for item in everything_within(summer) if isinstance(item, qn.Parameters))
    assert secrets_within_reach(server, SECRET_TYPES) == []
    assert not any(isinstance(item, SECRET_TYPES) for item in held)

    key = side._decryptor._key
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
    channel = Channel(bits=8, max_weight=4, security=128, values=10)
    protector = channel.client()
    secret = protector._decryptor
    hidden: list[object] = [
        Holder(secret),
        Holder({"a": [(secret,)]}),
        Holder(lambda: secret),
        Holder(protector.protect),
        Holder(channel),
        Holder(channel.client),
    ]
    for holder in hidden:
        assert secrets_within_reach(holder, SECRET_TYPES)
    assert secrets_within_reach(Holder([1, "two", {3: None}]), SECRET_TYPES) == []


@pytest.mark.parametrize("kind", ["updates", "reports"])
def test_a_run_whose_server_holds_a_secret_stops(tiny: TinyConfig, kind: str) -> None:
    simulation = Simulation(tiny(rounds=1))
    leaky = dataclasses.replace(
        simulation._parties,
        server=dataclasses.replace(simulation.server, **{kind: Holder(simulation._clients[0])}),
    )
    simulation._parties = leaky
    with pytest.raises(FederatedError, match="can reach secrets"):
        simulation.run()
    assert simulation.state.round == 0


class Spy:
    """A summing side that keeps what passes through."""

    def __init__(self, summer: Any) -> None:
        self.summer, self.seen = summer, []

    def add(self, data: bytes, weight: int) -> None:
        self.seen.append(data)
        self.summer.add(data, weight)

    def result(self) -> bytes:
        return self.summer.result()


def test_uploads_show_no_clip_bound_and_never_repeat(tiny: TinyConfig) -> None:
    simulation = Simulation(tiny(rounds=1, **FEW))
    client, server = simulation._clients[0], simulation.server
    spies = Server(Spy(server.updates), Spy(server.reports))
    method = simulation._parties.method
    state = GlobalState(0, simulation.state.weights)
    federated_round(state, simulation._clients, spies, method, RoundMeter())
    clips = set()
    for side, spy in ((client.updates, spies.updates), (client.reports, spies.reports)):
        assert len(spy.seen) == 4
        updates = [qn.EncryptedUpdate.from_bytes(data, side._params) for data in spy.seen]
        clips |= {tensor.clip for update in updates for tensor in update.layout.tensors}
    assert clips == {1.0, 127.0}
    seen = spies.updates.seen + spies.reports.seen
    assert len({data[-64:] for data in seen}) == len(seen) == 8


def test_sums_of_nothing_and_of_too_much() -> None:
    channel = Channel(bits=8, max_weight=4, security=128, values=10)
    server, client = channel.server(), channel.client()
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
    other = Channel(bits=8, max_weight=8, security=128, values=10)
    with pytest.raises(qn.KeyMismatchError):
        Summer(other.server()._params).add(upload, 1)


def test_updates_and_reports_have_keys_of_their_own(tiny: TinyConfig) -> None:
    simulation = Simulation(tiny(rounds=1))
    client = simulation._clients[0]
    report = client.reports.protect({"w": np.ones(3, np.float32)}, {"w": 1.0}, 0).data
    for receive in (client.updates.unprotect, lambda data: simulation.server.updates.add(data, 1)):
        with pytest.raises(qn.QuanCryptError):
            receive(report)
    simulation.server.reports.add(report, 1)
    mean, weight = client.reports.unprotect(simulation.server.reports.result())
    np.testing.assert_array_equal(mean["w"], np.ones(3, np.float32))
    assert weight == 1


UNIT = st.floats(-1.5, 1.5, width=32)


@given(data=st.data(), bits=st.integers(2, 16), stochastic=st.booleans())
@settings(max_examples=25, deadline=None)
def test_plain_integers_are_the_twin_of_encryption(
    data: st.DataObject, bits: int, stochastic: bool
) -> None:
    """Names, shapes (empty ones too), means and weights of a sum are the same bit by bit."""
    channel = Channel(bits=bits, max_weight=8, security=128, values=30)
    shapes = {"b": (2, 3), "a": (5,), "nothing": (0, 4), "one": ()}
    clips = {name: data.draw(st.floats(0.25, 4)) for name in shapes}
    rounding = "stochastic" if stochastic else "nearest"
    server, plain_server = channel.server(), PlainIntegerSummer()
    for client, weight in enumerate(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=2))):

        def dither(t: int, client: int = client) -> np.random.Generator:
            return np.random.default_rng((client, t))

        tensors = {
            n: data.draw(hnp.arrays(np.float32, s, elements=UNIT)) for n, s in shapes.items()
        }
        encrypted, plain = (
            side(rounding, dither) for side in (channel.client, channel.plain_client)
        )
        server.add(encrypted.protect(tensors, clips, 3).data, weight)
        plain_server.add(plain.protect(tensors, clips, 3).data, weight)
        for name, values in encrypted.quantized(tensors, clips, 3).items():
            np.testing.assert_array_equal(values, plain.quantized(tensors, clips, 3)[name])
    one, weight = encrypted.unprotect(server.result())
    two, same_weight = plain.unprotect(plain_server.result())
    assert weight == same_weight
    assert one.keys() == two.keys() == shapes.keys()
    for name, shape in shapes.items():
        assert one[name].dtype == two[name].dtype == np.float32
        assert one[name].shape == two[name].shape == shape
        np.testing.assert_array_equal(one[name], two[name])


def test_plain_sums_of_nothing_and_of_what_does_not_fit() -> None:
    channel = Channel(bits=8, max_weight=4, security=128, values=10)
    server, client = PlainIntegerSummer(), channel.plain_client()
    assert isinstance(client, PlainIntegers)
    with pytest.raises(MethodError, match="nothing to sum"):
        server.result()
    x = np.ones(3, np.float32)
    server.add(client.protect({"w": x}, {"w": 1.0}, 0).data, 1)
    for tensors, clips in (({"v": x}, {"v": 1.0}), ({"w": x}, {"w": 2.0})):
        with pytest.raises(MethodError, match=r"other tensors|other clip bounds"):
            server.add(client.protect(tensors, clips, 0).data, 1)


@pytest.mark.parametrize("method", ["quancrypt", "vanilla"])
def test_divergence_stops_the_run(
    tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    for loss, message in (
        (float("nan"), "client 0, round 1: local training diverged"),
        (1.0, "diverged"),
    ):
        simulation = Simulation(tiny(rounds=1, method=method))
        weights = {n: np.full_like(w, np.nan) for n, w in simulation.state.weights.items()}
        trained = weights, loss
        monkeypatch.setattr(simulation.task.trainer, "train", lambda *_, trained=trained: trained)
        with pytest.raises(MethodError, match=message):
            simulation.run()


def plain_upload(
    tensors: dict[str, NDArray[Any]], clips: list[Any] | None = None, weight: object = 1
) -> bytes:
    about = {"weight": weight, "clips": clips or [[name, 1.0] for name in tensors]}
    return save(tensors, metadata={"quancrypt": json.dumps(about)})


INT16 = {"w": np.arange(6, dtype=np.int16).reshape(2, 3), "b": np.ones(1, np.int16)}
BAD_BFLOAT16 = b'{"w":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("upload", "message"),
    [
        (b"garbage", "an upload is damaged"),
        (plain_upload(INT16)[:-1], "an upload is damaged"),
        (len(BAD_BFLOAT16).to_bytes(8, "little") + BAD_BFLOAT16 + b"12", "an upload is damaged"),
        (save(INT16), "the metadata of an upload is damaged"),
        (save(INT16, {"quancrypt": "[" * 100_000}), "the metadata of an upload is damaged"),
        (save(INT16, {"quancrypt": "{}"}), "the metadata of an upload is damaged"),
        (plain_upload(INT16, [["w", 1.0]]), "clip bounds of"),
        (plain_upload(INT16, [["w", 1.0], ["b", float("nan")]]), "not a finite positive number"),
        (plain_upload(INT16, [["w", 1.0], ["b", 10**400]]), "metadata of an upload is damaged"),
        (plain_upload(INT16, weight=2), "claims the weight 2; a fresh one has 1"),
        (plain_upload(INT16, weight=True), "claims the weight True, not a positive number"),
        (
            plain_upload({**INT16, "b": np.ones(1, np.int64)}),
            "'b' of an upload is int64, not int16",
        ),
        (plain_upload({**INT16, "b": np.ones(1, np.float32)}), "'b' of an upload is float32"),
    ],
)
def test_malformed_plain_integers_leave_the_sum_as_it_was(
    upload: bytes, message: str, first: bool
) -> None:
    good = plain_upload(INT16)
    server, expected = PlainIntegerSummer(), PlainIntegerSummer()
    for summer in (server, expected):
        if not first:
            summer.add(good, 3)
    with pytest.raises(MethodError, match=message):
        server.add(upload, 2)
    for summer in (server, expected):
        summer.add(good, 1)
    clients = Channel(bits=8, max_weight=8, security=128, values=10).plain_client()
    (means, weight), (others, other_weight) = (
        clients.unprotect(summer.result()) for summer in (server, expected)
    )
    assert weight == other_weight == (1 if first else 4)
    assert means.keys() == others.keys() == INT16.keys()
    for name, mean in means.items():
        np.testing.assert_array_equal(mean, others[name])


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"w": INT16["w"]}, "other tensors"),
        (
            {**INT16, "b": np.ones(3, np.int16)},
            r"'b' .* the shape \(3,\); earlier ones have \(1,\)",
        ),
        ({**INT16, "b": np.ones((), np.int16)}, r"'b' of an upload has the shape \(\)"),
        ({**INT16, "w": np.ones(3, np.int16)}, "'w' of an upload has the shape"),
    ],
)
def test_plain_integers_of_other_shapes_are_not_broadcast(
    tensors: dict[str, NDArray[np.int16]], message: str
) -> None:
    server = PlainIntegerSummer()
    server.add(plain_upload(INT16), 1)
    with pytest.raises(MethodError, match=message):
        server.add(plain_upload(tensors), 1)
    sums = load(server.result())
    for name, tensor in INT16.items():
        np.testing.assert_array_equal(sums[name], tensor)
