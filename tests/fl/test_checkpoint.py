"""Checkpoints: whole or absent, whenever a run is killed, and resumed to the same result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fl.reference import assert_same_tensors
from tests.fl.small_nets import batch_norm_net
from tests.fl.test_simulation import assert_equal_weights, without_times

from quancrypt_fl import QuanCryptConfig, Simulation, checkpoint
from quancrypt_fl.atomic_files import write_atomically
from quancrypt_fl.checkpoint import Checkpoint, Checkpoints
from quancrypt_fl.errors import CheckpointError
from quancrypt_fl.method.roles import ClientMemory, GlobalState
from quancrypt_fl.method.stopping import Best
from quancrypt_fl.models import MODELS
from quancrypt_fl.observer import Observer

TinyConfig = Callable[..., QuanCryptConfig]
FEW = {"max_train_samples": 160, "max_test_samples": 40, "rounds": 3}

STATEFUL: list[dict[str, Any]] = [
    {"method": "vanilla", "dropout": 0.3},
    {"error_feedback": True, "bits": 3},
    {"rounding": "stochastic", "bits": 3},
    {"error_feedback": True, "mask": "client", "dropout": 0.4, "rounding": "stochastic"},
    {"participation": 0.5, "dropout": 0.3, "weighting": "prescaled"},
    {"patience": 1, "lr": 0.05},
    {"prune_global": True, "smoothing": 0.5, "update": "weights"},
    {"p_0": 0.1, "p_target": 0.6, "t_eff": 0, "t_target": 2},
    {"model": "resnet18", "batch_norm": "local", "error_feedback": True, "participation": 0.5},
    {"model": "resnet18", "batch_norm": "average", "encryption": False},
]


class _StopAfterRound(Observer):
    def __init__(self, finished: int) -> None:
        self._finished = finished

    def round_finished(self, record: Any) -> None:
        if record["round"] == self._finished:
            raise KeyboardInterrupt


class _StopInRound(Observer):
    """In the middle of round 2, when one client more has trained."""

    def __init__(self) -> None:
        self._rounds = self._trained = 0

    def round_finished(self, record: Any) -> None:
        self._rounds, self._trained = record["round"], 0

    def client_trained(self) -> None:
        self._trained += 1
        if (self._rounds, self._trained) == (1, 2):
            raise KeyboardInterrupt


@pytest.mark.parametrize("choices", STATEFUL, ids=str)
def test_resuming_equals_an_uninterrupted_run(
    tiny: TinyConfig, tmp_path: Path, choices: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "resnet18", batch_norm_net)
    config = tiny(threads=1, **FEW, **choices)
    whole = Simulation(config)
    expected = without_times(whole.run())
    for number, observer in enumerate((_StopAfterRound(1), _StopAfterRound(2), _StopInRound())):
        to_disk = config.model_copy(update={"out": tmp_path / str(number)})
        try:
            Simulation(to_disk, observer=observer).run()
        except KeyboardInterrupt:
            assert not (tmp_path / str(number) / "results.json").exists()
        else:
            assert "patience" in choices  # stopped before it could be interrupted
        resumed = Simulation(to_disk, resume=True)
        assert without_times(resumed.run()) == expected
        assert_equal_weights(whole, resumed)
        for one, two in zip(whole._clients, resumed._clients, strict=True):
            assert_same_tensors(dict(one.memory.residual), dict(two.memory.residual))
            assert_same_tensors(dict(one.memory.buffers), dict(two.memory.buffers))


LEFTOVER = f".quancrypt-{'0' * 16}-{'f' * 16}.tmp"


class _Killed(BaseException):
    """The process ends here."""


class _Killer:
    """Stands in for ``write_atomically``: the n-th file is half written, and that is the end."""

    def __init__(self, survives: int) -> None:
        self.left = survives

    def __call__(self, path: Path, data: bytes, **options: Any) -> None:
        if self.left == 0:
            path.with_name(LEFTOVER).write_bytes(data[: len(data) // 2])
            raise _Killed
        self.left -= 1
        write_atomically(path, data, **options)


def made(round_: int) -> Checkpoint:
    """Weights, a best model, and two clients with something of their own."""

    def tensor(seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((round_, seed))
        return {"b": np.empty(0, np.float32), "a.w": rng.standard_normal((3, 4)).astype(np.float32)}

    return Checkpoint(
        GlobalState(round_, tensor(0), {"a.w": 0.1 * round_, "b": 2.0**-32}),
        [{"round": t + 1} for t in range(round_)],
        [{"fingerprint": "ab", "from_round": 1}],
        Best(round_, 0.25 * round_, 1.5, tensor(1)),
        {0: ClientMemory(tensor(2), {}), 3: ClientMemory(tensor(3), tensor(4))},
    )


def assert_same_checkpoint(one: Checkpoint, two: Checkpoint) -> None:
    assert one.state.round == two.state.round
    assert one.state.bounds == two.state.bounds
    assert (one.records, one.keys) == (two.records, two.keys)
    assert_same_tensors(dict(one.state.weights), dict(two.state.weights))
    assert list(one.state.weights) == list(two.state.weights)  # positions decide rounding
    assert (one.best is None) == (two.best is None)
    if one.best and two.best:
        assert (one.best.round, one.best.accuracy) == (two.best.round, two.best.accuracy)
        assert_same_tensors(dict(one.best.weights), dict(two.best.weights))
    assert one.memories.keys() == two.memories.keys()
    for client, memory in one.memories.items():
        assert_same_tensors(dict(memory.residual), dict(two.memories[client].residual))
        assert_same_tensors(dict(memory.buffers), dict(two.memories[client].buffers))


IDENTITY = {"seed": 1, "bits": 8}
FILES = 5  # weights, best, two clients, state.json


@pytest.mark.parametrize("fresh", [True, False], ids=["new process", "same process"])
@pytest.mark.parametrize("survives", range(FILES + 1))
def test_a_run_killed_while_it_saves_leaves_one_checkpoint_or_the_other(
    tmp_path: Path, survives: int, fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Checkpoints(tmp_path, IDENTITY)
    first.save(made(1))
    before = {path.name for path in tmp_path.iterdir()}
    assert len(before) == FILES
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomically", _Killer(survives))
        if survives < FILES:
            with pytest.raises(_Killed):
                first.save(made(2))
        else:
            first.save(made(2))
    held = Checkpoints(tmp_path, IDENTITY).load()
    assert_same_checkpoint(held, made(1 if survives < FILES else 2))
    # What the killed run left behind goes when the next one saves.
    (Checkpoints(tmp_path, IDENTITY) if fresh else first).save(made(2))
    assert_same_checkpoint(Checkpoints(tmp_path, IDENTITY).load(), made(2))
    after = {path.name for path in tmp_path.iterdir()}
    assert after == {name.replace("00001", "00002") for name in before}


@pytest.mark.parametrize("survives", range(4))
def test_a_run_killed_while_it_saves_is_resumed(
    tiny: TinyConfig, tmp_path: Path, survives: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = {"clients": 2, "error_feedback": True, **FEW}
    whole = Simulation(tiny(**choices))
    expected = without_times(whole.run())
    config = tiny(out=tmp_path, **choices)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomically", _Killer(4 + survives))  # in round 2
        with pytest.raises(_Killed):
            Simulation(config).run()
    assert (
        Checkpoints(tmp_path / "checkpoints", Simulation(config).identity()).load().state.round == 1
    )
    resumed = Simulation(config, resume=True)
    assert without_times(resumed.run()) == expected
    assert_equal_weights(whole, resumed)
    assert not list((tmp_path / "checkpoints").glob("*.tmp"))


def test_what_has_not_changed_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def noting(path: Path, data: bytes, **options: Any) -> None:
        written.append(path.name)
        write_atomically(path, data, **options)

    monkeypatch.setattr(checkpoint, "write_atomically", noting)
    checkpoints, one, two = Checkpoints(tmp_path, IDENTITY), made(1), made(2)
    checkpoints.save(one)
    written.clear()
    memories = {0: one.memories[0], 3: two.memories[3]}
    mixed = Checkpoint(two.state, two.records, two.keys, one.best, memories)
    checkpoints.save(mixed)
    assert written == [
        "weights-round-00002.safetensors", "client-3-round-00002.safetensors", "state.json",
    ]  # fmt: skip
    assert_same_checkpoint(Checkpoints(tmp_path, IDENTITY).load(), mixed)


def test_clients_that_keep_nothing_have_no_file(tmp_path: Path) -> None:
    memories = {0: ClientMemory({}, {}), 1: ClientMemory({}, {"m": np.ones(2, np.float32)})}
    Checkpoints(tmp_path, IDENTITY).save(Checkpoint(made(1).state, [], [], None, memories))
    loaded = Checkpoints(tmp_path, IDENTITY).load()
    assert list(loaded.memories) == [1]
    assert loaded.best is None


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    Checkpoints(folder, IDENTITY).save(made(1))
    return folder


@pytest.mark.parametrize(
    "name",
    [f"{role}-round-00001.safetensors" for role in ("weights", "best", "client-0", "client-3")],
)
@pytest.mark.parametrize("damage", ["shorter", "flipped", "empty", "missing", "folder"])
def test_a_damaged_file_is_named(saved: Path, tmp_path: Path, name: str, damage: str) -> None:
    folder = shutil.copytree(saved, tmp_path / "copy")
    path = folder / name
    data = path.read_bytes()
    if damage in ("missing", "folder"):
        path.unlink()
        if damage == "folder":
            path.mkdir()
    else:
        changed = {"shorter": data[:-1], "empty": b"", "flipped": data[:-1] + b"\xff"}[damage]
        assert changed != data
        path.write_bytes(changed)
    reason = "cannot be read" if damage in ("missing", "folder") else "damaged"
    with pytest.raises(CheckpointError, match=reason) as caught:
        Checkpoints(folder, IDENTITY).load()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def _without(*path: str) -> Callable[[dict[str, Any]], object]:
    def change(document: dict[str, Any]) -> None:
        place = document
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return change


@pytest.mark.parametrize(
    "change",
    [
        *(
            _without(key)
            for key in ("version", "identity", "round", "weights", "bounds", "records")
        ),
        *(_without(key) for key in ("keys", "best", "clients")),
        _without("weights", "sha256"),
        _without("best", "round"),
        lambda document: document["best"]["weights"]["names"].append("c"),
        lambda document: document.update(round="many"),
        lambda document: document.update(clients=[1]),
        lambda document: document.update(weights="weights-round-00001.safetensors"),
        lambda document: document.update(version=1),
        lambda document: document.update(identity=3),
    ],
)
def test_a_damaged_state_is_named(
    saved: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    folder = shutil.copytree(saved, tmp_path / "copy")
    path = folder / "state.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError) as caught:
        Checkpoints(folder, IDENTITY).load()
    assert str(path) in str(caught.value)


def test_a_file_elsewhere_is_not_read(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "copy")
    path = folder / "state.json"
    text = path.read_text().replace("weights-round", "../weights-round")
    shutil.move(folder / "weights-round-00001.safetensors", tmp_path)
    path.write_text(text)
    with pytest.raises(CheckpointError, match="cannot be read"):
        Checkpoints(folder, IDENTITY).load()
