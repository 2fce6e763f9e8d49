"""What a client keeps comes back bit by bit, from a folder and from Flower's context."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.fl.flower.states import OTHER, TRAINING, bits, held, memory, pending

pytest.importorskip("flwr", reason="needs the [flower] extra")

from flwr.app import ArrayRecord, ConfigRecord
from tests.fl.flower.places import EMPTY, OLD, ContextPlace, FolderPlace, Place, filled, seen

from quancrypt_fl.flower.context_store import MODEL
from quancrypt_fl.flower.stores import ClientStore, StoreError, finished_model
from quancrypt_fl.flower.tensors_file import pack

pytestmark = pytest.mark.usefixtures("fast_disk")


@pytest.fixture(params=["folder", "context"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return FolderPlace(tmp_path / "state") if request.param == "folder" else ContextPlace()


def test_empty_at_first(place: Place) -> None:
    assert seen(place) == EMPTY
    with place.open() as store:
        store.drop_pending()
    assert seen(place) == EMPTY


@pytest.mark.parametrize("bounds", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_round_trip(place: Place, bounds: bool, residual: bool) -> None:
    state, training, kept = held(bounds=bounds), pending(residual=residual), memory()
    with place.open() as store:
        client_store: ClientStore = store
        client_store.hold(state)
        client_store.keep_pending(training)
        client_store.remember(kept)
        inside = bits(store.held()), bits(store.pending()), bits(store.memory())
    assert seen(place) == inside == (bits(state), bits(training), bits(kept))
    with place.open() as store:
        for tensor in (
            *store.held().state.weights.values(),  # type: ignore[union-attr]
            *store.pending().weights.values(),  # type: ignore[union-attr]
            *store.memory().residual.values(),
        ):
            assert tensor.flags.writeable  # torch warns of others
            assert tensor.flags.aligned


def test_replaced_and_dropped(place: Place) -> None:
    for number in (1, 2):
        with place.open() as store:
            store.hold(held(number))
            store.keep_pending(pending(number))
            store.remember(memory(number))
        assert seen(place) == (bits(held(number)), bits(pending(number)), bits(memory(number)))
    with place.open() as store:
        store.drop_pending()
        assert store.pending() is None
    assert seen(place) == (bits(held(2)), None, bits(memory(2)))


def test_an_empty_residual_is_not_none(place: Place) -> None:
    base = pending()
    for residual in (None, {}):
        kept = type(base)(**{**vars(base), "residual": residual})
        with place.open() as store:
            store.keep_pending(kept)
        with place.open() as store:
            found = store.pending()
            assert found is not None
            assert found.residual == residual


def test_numbers_of_metrics_keep_their_type(place: Place) -> None:
    metrics = {"i": 2**62, "f": 1.0, "third": 1 / 3, "is": [1, -2], "fs": [1.0, 1e-300], "e": []}
    kept = type(pending())(**{**vars(pending()), "metrics": metrics})
    with place.open() as store:
        store.keep_pending(kept)
    with place.open() as store:
        found = store.pending()
        assert found is not None
        assert repr(found.metrics) == repr(metrics)


def test_what_the_caller_does_to_its_memory_is_not_remembered(place: Place) -> None:
    with place.open() as store:
        own = memory()
        store.remember(own)
        own.residual = {}
        store.memory().buffers = {}
        assert bits(store.memory()) == bits(memory())


def test_trainings_are_apart(place: Place) -> None:
    with place.open() as store:
        store.hold(held(1))
    with place.open(OTHER) as store:
        assert store.held() is None
        store.hold(held(2))
    assert seen(place, OTHER)[0] == bits(held(2))


@pytest.mark.parametrize("name", ["held", "pending", "memory"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: bytes(len(data)),
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data.replace(TRAINING.encode(), OTHER.encode()),
        lambda data: bytes(pack({"kind": "another", "version": 1, "training": TRAINING}, {})),
    ],
    ids=["empty", "half", "cut", "longer", "zeros", "flipped", "changed", "another"],
)
def test_what_is_damaged_counts_as_absent(
    place: Place, name: str, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    whole = (bits(held()), bits(pending()), bits(memory()))
    with place.open() as store:
        store.hold(held())
        store.keep_pending(pending())
        store.remember(memory())
    place.set(name, damage(place.get(name)))
    with caplog.at_level(logging.WARNING, "quancrypt_fl"):
        found = seen(place)
    absent = ("held", "pending", "memory").index(name)
    assert found == (*whole[:absent], EMPTY[absent], *whole[absent + 1 :])
    assert len(caplog.records) == 1
    assert name in caplog.text
    assert "counts as absent" in caplog.text
    with place.open() as store:  # and is replaced by the next
        store.hold(held())
        store.keep_pending(pending())
        store.remember(memory())
    assert seen(place) == whole


def test_state_of_another_training_counts_as_absent(place: Place) -> None:
    with place.open() as store:
        store.hold(held())
    data = place.get("held")
    with place.open() as store:
        store.hold(held(4))
    assert data.count(TRAINING.encode()) == 1
    with place.open(OTHER) as store:
        store.hold(held(5))
        other = store._read("held")
    assert other is not None
    with place.open() as store:
        store.hold(held())
    place.set("held", bytes(other))
    assert seen(place)[0] is None


@pytest.mark.parametrize("training", ["", "../" * 10 + "x" * 2, "A" * 32, "0" * 31, "0" * 33])
def test_only_ids_name_trainings(place: Place, training: str) -> None:
    with pytest.raises(StoreError, match="allowed: 32 hexadecimal digits"):
        place.open(training)


def test_finished_models(place: Place) -> None:
    model = {
        "z": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "half": np.ones(2, dtype=np.float16),
        "count": np.array(7, dtype=np.int64),
    }
    with place.open() as store:
        store.hold(held())
        store.finish(model)
        store.finish(model)
    if isinstance(place, FolderPlace):
        found = load_file(finished_model(place.folder, TRAINING))
    else:
        assert isinstance(place, ContextPlace)
        record = place.records[MODEL]
        assert isinstance(record, ArrayRecord)
        found = {name: array.numpy() for name, array in record.items()}
    assert found.keys() == model.keys()
    for name, tensor in model.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        np.testing.assert_array_equal(found[name], tensor)
    assert seen(place)[0] == bits(held())


# --- the context ---


def test_the_context_survives_flowers_serialization() -> None:
    from flwr.common.serde import recorddict_from_proto, recorddict_to_proto

    place = ContextPlace()
    filled(place)
    place.records = recorddict_from_proto(recorddict_to_proto(place.records))
    assert seen(place) == OLD
    assert place.records["the app's own"] == ConfigRecord({"a": 1})


def test_the_context_keeps_one_training() -> None:
    place = ContextPlace()
    filled(place)
    with place.open(OTHER) as store:
        store.hold(held(1))
    assert set(place.records) == {"the app's own", f"quancrypt-state-{OTHER}"}
    assert seen(place) == EMPTY
