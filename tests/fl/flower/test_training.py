"""A training over Flower's messages gives what the same method gives in one process, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import Result
from tests.fl.flower import numpy_app
from tests.fl.flower.fake_clock import FakeClock
from tests.fl.flower.local_grid import LocalGrid, contexts_for

import quancrypt_native as qn
from quancrypt_fl.flower import QuanCryptStrategy, open_model, quancrypt_mod
from quancrypt_fl.method.agreement import Agreement
from quancrypt_fl.method.meter import RoundMeter
from quancrypt_fl.method.pruning import PruningSchedule
from quancrypt_fl.method.roles import ClientMemory, GlobalState, Trained
from quancrypt_fl.method.rounds import federated_round
from quancrypt_fl.protect import PlainIntegers, PlainIntegerSummer
from quancrypt_fl.seeds import generator

NODES = (11, 12, 13, 14, 15)
ROUNDS = 3
EARLY = PruningSchedule(0.2, 0.5, 0, 3)


@pytest.fixture(scope="session")
def params() -> qn.Parameters:
    return qn.Parameters.for_aggregation(bits=8, max_weight=64, key_mode="symmetric", values=700)


@pytest.fixture(scope="session")
def keys(params: qn.Parameters) -> qn.KeyPair:
    return qn.keygen(params)


@pytest.fixture(scope="session")
def key_file(keys: qn.KeyPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "secret.key"
    path.write_bytes(keys.secret.to_bytes(passphrase=b"correct horse"))
    return path


@pytest.fixture(autouse=True)
def passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANCRYPT_PASSPHRASE", "correct horse")


@dataclass
class Federation:
    """A grid of NumPy clients, and a strategy over it."""

    params: qn.Parameters
    key_file: Path
    folder: Path | None = None
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        def config(index: int, node: int) -> dict[str, Any]:
            settings: dict[str, Any] = {
                "quancrypt-key": str(self.key_file),
                "quancrypt-name": f"client-{index + 1}",
            }
            if self.folder is not None:
                settings["quancrypt-state"] = str(self.folder / f"client-{index + 1}")
            return settings

        self.grid = LocalGrid(
            lambda _: numpy_app.make_app(mods=[quancrypt_mod]),
            contexts_for(NODES, node_config=config),
            clock=self.clock,
        )

    def strategy(self, **options: Any) -> QuanCryptStrategy:
        options = {"clock": self.clock, "sleep": self.clock.sleep, "pruning": EARLY, **options}
        return QuanCryptStrategy(self.params, **options)

    def train(self, rounds: int = ROUNDS, config: Any = None, **options: Any) -> Result:
        self.last = self.strategy(**options)
        return self.last.start(
            self.grid,
            numpy_app.initial_arrays(),
            num_rounds=rounds,
            timeout=60,
            train_config=ConfigRecord(config or {}),
        )


class Reference:
    """The same training in one process, with plain integers instead of ciphertexts."""

    def __init__(self, params: qn.Parameters, **choices: Any) -> None:
        agreement = Agreement(
            bits=params.bits, max_weight=params.max_weight, **{"pruning": EARLY, **choices}
        )
        weights = numpy_app.weights_of(numpy_app.initial_arrays())
        self.method = agreement.method(weights)
        self.state = GlobalState(0, weights)
        self.clients = [_Client(index, params, agreement) for index in range(len(NODES))]
        self.updates, self.reports = PlainIntegerSummer(), PlainIntegerSummer()

    def train(self, rounds: int = ROUNDS, lost: Mapping[int, set[int]] | None = None) -> Any:
        for t in range(rounds):
            self.state = federated_round(
                self.state,
                self.clients,
                self,
                self.method,
                RoundMeter(),
                lost=(lost or {}).get(t, set()),
            )
        return self.state.weights


class _Client:
    def __init__(self, index: int, params: qn.Parameters, agreement: Agreement) -> None:
        self.index = index
        self.memory = ClientMemory({}, {})
        self._data = numpy_app.partition(index, len(NODES))
        dither = lambda t: generator(agreement.seed or 0, "rounding", t, index)  # noqa: E731
        self.updates = PlainIntegers(params, agreement.rounding, dither)
        self.reports = PlainIntegers(params)

    @property
    def samples(self) -> int:
        return len(self._data[1])

    def train(self, state: GlobalState) -> Trained:
        weights, loss = numpy_app.fit(
            dict(state.weights),
            self._data[0],
            self._data[1],
            epochs=1,
            lr=0.5,
            proximal_mu=0.0,
            seed=1000 * (state.round + 1) + self.index,
        )
        return Trained(weights, loss)


def assert_equal(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor)


def final(result: Result, keys: qn.KeyPair) -> dict[str, np.ndarray]:
    assert result.arrays is not None
    assert isinstance(result.arrays, ArrayRecord)
    return dict(open_model(result.arrays, keys.secret).state.weights)


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"weighting": "prescaled"},
        {"weighting": "uniform", "smoothing": 0.5},
        {"rounding": "stochastic", "seed": 3},
        {"update": "weights"},
        {"mask": "client", "prune_global": True},
        {"error_feedback": True},
        {"pruning": None, "clip_factor": 2.0},
    ],
    ids=lambda choices: ",".join(choices) or "default",
)
@pytest.mark.parametrize("on_disk", [False, True], ids=["context", "folder"])
def test_the_model_is_that_of_one_process(
    params: qn.Parameters,
    keys: qn.KeyPair,
    key_file: Path,
    tmp_path: Path,
    choices: dict[str, Any],
    on_disk: bool,
) -> None:
    federation = Federation(params, key_file, tmp_path if on_disk else None)
    result = federation.train(**choices)
    expected = Reference(params, **choices).train()
    assert_equal(final(result, keys), expected)
    assert sorted(result.evaluate_metrics_clientapp) == [1, 2, 3]
    accuracies = [m["eval_acc"] for m in result.evaluate_metrics_clientapp.values()]
    assert accuracies[-1] > 0.6
    records = federation.last.records
    assert [record["participants"] for record in records] == [5, 5, 5]
    assert [record["test_accuracy"] for record in records] == accuracies


def test_no_upload_holds_a_plain_tensor(params: qn.Parameters, key_file: Path) -> None:
    """Nothing that a client sends but ciphertexts depends on the size of the model."""
    federation = Federation(params, key_file)
    federation.train()
    plain = numpy_app.initial_arrays().count_bytes()
    assert plain > 2000
    for exchange in federation.grid.exchanges:
        for _, contents in exchange.replies or []:
            for data in contents.values():
                assert b"numpy.ndarray" not in data
