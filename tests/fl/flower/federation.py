"""A federation in memory, what it tells an observer, and the same training in one process.

``Federation`` is the code under test: NumPy clients with ``quancrypt_mod`` around them, and a
``QuanCryptStrategy``. ``Reference`` is the method alone, with plain integers for ciphertexts.
``Federation.expected`` feeds the second with who took part in the first, round by round.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp.strategy import Result
from tests.fl.flower import numpy_app
from tests.fl.flower.fake_clock import FakeClock
from tests.fl.flower.local_grid import LocalGrid, contexts_for

import quancrypt_native as qn
from quancrypt_fl.flower import QuanCryptStrategy, open_model, quancrypt_mod
from quancrypt_fl.flower.observing import RunObserver
from quancrypt_fl.flower.stores import FolderStore, Held
from quancrypt_fl.method.agreement import Agreement
from quancrypt_fl.method.meter import RoundMeter
from quancrypt_fl.method.pruning import PruningSchedule
from quancrypt_fl.method.roles import ClientMemory, GlobalState, Trained
from quancrypt_fl.method.rounds import federated_round
from quancrypt_fl.protect import PlainIntegers, PlainIntegerSummer
from quancrypt_fl.seeds import generator

NODES = (11, 12, 13, 14, 15)
ROUNDS = 3
TIMEOUT = 60.0
EARLY = PruningSchedule(0.2, 0.5, 0, 3)
NO_EVALUATION = {"fraction_evaluate": 0.0}


@dataclass
class Watcher(RunObserver):
    """Remembers what it is told: replies refused, lost and ignored, notes, and who was asked."""

    refusals: list[tuple[int, str, int, str]] = field(default_factory=list)
    losses: list[tuple[int, str, int, str]] = field(default_factory=list)
    ignorings: list[tuple[int, int, str]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    uploaders: dict[int, list[int]] = field(default_factory=dict)
    summed: set[int] = field(default_factory=set)
    records: list[Mapping[str, Any]] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)

    def round_started(self, *, round: int, **_: Any) -> None:
        self.summed.discard(round)
        self.uploaders.pop(round, None)  # of another training, or of a server that died

    def phase_started(self, *, round: int, phase: str, asked: Sequence[int]) -> None:
        if phase == "open" and round in self.uploaders:
            self.summed.add(round)
        if phase in ("upload", "train+upload") and round not in self.summed:
            self.uploaders[round] = list(asked)  # those that encrypt once more were in it before

    def answered(self, *, node: int, name: str, **_: Any) -> None:
        self.names[node] = name
        self.texts.append(name)

    def refused(self, *, round: int, phase: str, node: int, name: str, reason: str) -> None:
        self.refusals.append((round, phase, node, reason))
        self.names[node] = name
        self.texts += [name, reason]

    def lost(self, *, round: int, phase: str, node: int, name: str, reason: str) -> None:
        self.losses.append((round, phase, node, reason))
        self.texts += [name, reason]

    def ignored(self, *, round: int, node: int, name: str, reason: str) -> None:
        self.ignorings.append((round, node, reason))
        self.texts += [name, reason]

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.texts.append(text)

    def round_finished(self, record: Mapping[str, Any]) -> None:
        self.records.append(record)

    def run_finished(self, document: Mapping[str, Any] | None, error: str | None) -> None:
        self.errors.append(error)

    def reasons(self, node: int) -> list[str]:
        """Why replies of a node were refused."""
        return [reason for _, _, key, reason in self.refusals if key == node]


@dataclass
class Federation:
    """A grid of NumPy clients, and strategies over it.

    Attributes
    ----------
    folder
        Where clients keep their state; None: in Flower's context.
    nodes
        All nodes, by partition; ``absent`` are not connected at first.
    mods
        Mods of single nodes, inside ``quancrypt_mod``: what the user's app seems to do.
    key_files
        Of nodes that have another key than the rest.
    node_settings
        More of the node configuration, by node.
    trained
        How often each node's app was called for each round, counted from 1.
    """

    params: qn.Parameters
    key_file: Path
    folder: Path | None = None
    nodes: Sequence[int] = NODES
    absent: Collection[int] = ()
    mods: Mapping[int, Any] = field(default_factory=dict)
    key_files: Mapping[int, Path] = field(default_factory=dict)
    node_names: Mapping[int, str] = field(default_factory=dict)
    node_settings: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    grid_options: Mapping[str, Any] = field(default_factory=dict)
    clock: FakeClock = field(default_factory=FakeClock)
    watcher: Watcher = field(default_factory=Watcher)
    trained: Counter[tuple[int, int]] = field(default_factory=Counter)
    strategies: list[QuanCryptStrategy] = field(default_factory=list)

    def __post_init__(self) -> None:
        def config(index: int, node: int) -> dict[str, Any]:
            settings: dict[str, Any] = {
                "quancrypt-key": str(self.key_files.get(node, self.key_file)),
                "quancrypt-name": self.node_names.get(node, f"client-{index + 1}"),
            }
            if self.folder is not None:
                settings["quancrypt-state"] = str(self.state_of(node))
            return settings | dict(self.node_settings.get(node, {}))

        self.grid = LocalGrid(
            self._app,
            contexts_for(self.nodes, node_config=config),
            clock=self.clock,
            **self.grid_options,
        )
        for node in self.absent:
            self.grid.leave(node)

    def _app(self, node: int) -> ClientApp:
        def count(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
            reply = call_next(message, context)
            if message.metadata.message_type.startswith("train") and reply.has_content():
                config = message.content.config_records["config"]
                self.trained[node, int(config["server-round"])] += 1  # type: ignore[call-overload]
            return reply

        mods = [self.mods[node]] if node in self.mods else []
        return numpy_app.make_app(mods=[quancrypt_mod, *mods, count])

    def index(self, node: int) -> int:
        """The node's partition."""
        return list(self.nodes).index(node)

    def state_of(self, node: int) -> Path:
        """The node's state folder."""
        assert self.folder is not None
        return self.folder / f"client-{self.index(node) + 1}"

    def strategy(self, **options: Any) -> QuanCryptStrategy:
        options = {
            "clock": self.clock,
            "sleep": self.clock.sleep,
            "pruning": EARLY,
            "observer": self.watcher,
            **options,
        }
        return QuanCryptStrategy(self.params, **options)

    def train(self, rounds: int = ROUNDS, config: Any = None, **options: Any) -> Result:
        """Run a training; the strategy is then ``last``."""
        self.last = self.strategy(**options)
        return self.last.start(
            self.grid,
            numpy_app.initial_arrays(),
            num_rounds=rounds,
            timeout=TIMEOUT,
            train_config=ConfigRecord(config or {}),
        )

    def go_on(self, rounds: int = ROUNDS, config: Any = None, **options: Any) -> Result:
        """Another server process, in another run of Flower, goes on with what the first left."""
        self.grid.new_run()
        return self.train(rounds, config, resume=True, **options)

    def held(self, node: int, keys: qn.KeyPair | None = None) -> Held:
        """The state that a node keeps in its folder."""
        del keys
        folder = self.state_of(node)
        trainings = [path for path in folder.iterdir() if (path / "held").is_file()]
        newest = max(trainings, key=lambda path: (path / "held").stat().st_mtime_ns)
        with FolderStore(folder, newest.name) as store:
            held = store.held()
        assert held is not None
        return held

    @property
    def failed(self) -> dict[int, str]:
        """Rounds that failed, by number from 1, with the reason."""
        return {r["round"]: r["failed"] for r in self.last.records if r["failed"]}

    def counted(self, record: Mapping[str, Any]) -> dict[int, int]:
        """Weight of each node in the sum of a round, by its record."""
        return {int(c["node"]): c["weight"] for c in record["clients"] if c["weight"]}

    def expected(
        self, counts: Mapping[int, Mapping[int, int]] | None = None, **choices: Any
    ) -> dict[str, np.ndarray]:
        """The model that the ledgers of the training imply.

        Parameters
        ----------
        counts
            Sample counts that differ from the data's, by round from 1 and node.
        """
        reference = Reference(self.params, len(self.nodes), **choices)
        for record in self.last.records:
            asked = [self.index(n) for n in self.watcher.uploaders.get(record["round"], [])]
            counted = self.counted(record)
            weights = {self.index(node): weight for node, weight in counted.items()}
            lies = {self.index(n): c for n, c in (counts or {}).get(record["round"], {}).items()}
            reference.round(asked, set(asked) - set(weights), bool(record["failed"]), lies)
            if counted:
                assert {i: reference.weights[i] for i in weights} == weights
        return dict(reference.state.weights)


class Reference:
    """The same training in one process, with plain integers instead of ciphertexts."""

    def __init__(self, params: qn.Parameters, clients: int = len(NODES), **choices: Any) -> None:
        agreement = Agreement(
            bits=params.bits, max_weight=params.max_weight, **{"pruning": EARLY, **choices}
        )
        weights = numpy_app.weights_of(numpy_app.initial_arrays())
        self.method = agreement.method(weights)
        self.state = GlobalState(0, weights)
        self.clients = [_Client(index, clients, params, agreement) for index in range(clients)]
        self.updates, self.reports = PlainIntegerSummer(), PlainIntegerSummer()
        self.weights: dict[int, int] = {}

    def train(
        self, rounds: int = ROUNDS, lost: Mapping[int, Collection[int]] | None = None
    ) -> dict[str, np.ndarray]:
        """All clients take part; those in ``lost[t]`` fall silent in round ``t`` before upload."""
        for t in range(rounds):
            self.round(range(len(self.clients)), (lost or {}).get(t, ()))
        return dict(self.state.weights)

    def round(
        self,
        present: Collection[int],
        lost: Collection[int] = (),
        failed: bool = False,
        counts: Mapping[int, int] | None = None,
    ) -> None:
        """One round among the clients ``present``."""
        if failed:
            self.state = replace(self.state, round=self.state.round + 1)
            return
        clients = [self.clients[index] for index in sorted(present)]
        for client in clients:
            client.counted = (counts or {}).get(client.index)
        shares = self.method.shares([client.samples for client in clients])
        self.weights = {c.index: s.weight for c, s in zip(clients, shares, strict=True)}
        self.state = federated_round(
            self.state, clients, self, self.method, RoundMeter(), lost=lost
        )


class _Client:
    def __init__(self, index: int, parts: int, params: qn.Parameters, agreement: Agreement) -> None:
        self.index = index
        self.memory = ClientMemory({}, {})
        self.counted: int | None = None
        self._data = numpy_app.partition(index, parts)
        dither = lambda t: generator(agreement.seed or 0, "rounding", t, index)  # noqa: E731
        self.updates = PlainIntegers(params, agreement.rounding, dither)
        self.reports = PlainIntegers(params)

    @property
    def samples(self) -> int:
        return self.counted or len(self._data[1])

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
    """The same tensors, bit for bit and in the same order."""
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor)


def final(result: Result, keys: qn.KeyPair) -> dict[str, np.ndarray]:
    """The model of a finished training."""
    assert result.arrays is not None
    assert isinstance(result.arrays, ArrayRecord)
    return dict(open_model(result.arrays, keys.secret).state.weights)
