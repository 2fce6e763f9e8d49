"""A client goes on with what its training began with, whatever a server's later requests say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from tests.fl.flower import numpy_app
from tests.fl.flower.federation import NODES, Federation, assert_equal, final

import quancrypt_native as qn
from quancrypt_fl.errors import FederatedError
from quancrypt_fl.flower.protocol import CONSTANTS, RECORD, Request
from quancrypt_fl.flower.stores import FolderStore

WEIGHT, BIAS = "linear.weight", "linear.bias"
TURNS = ((WEIGHT,), (BIAS,))
DIFFERS = "differ from what this training began with"


def lie(federation: Federation, patch: pytest.MonkeyPatch, change: Callable[..., Request]) -> None:
    """Change the requests of all rounds after the first."""
    push = federation.grid.push_messages

    def changed(messages: Any) -> Any:
        messages = list(messages)
        for message in messages:
            record = message.content.config_records[RECORD]
            request = Request.model_validate_json(record["header"])
            if request.round:
                record["header"] = change(request, message).model_dump_json()
        return push(messages)

    patch.setattr(federation.grid, "push_messages", changed)


def agreeing(**changes: Any) -> Callable[..., Request]:
    def change(request: Request, _: Any) -> Request:
        scale = {"scale": 1e-6} if changes.get("weighting") == "prescaled" else {}
        agreement = request.agreement.model_copy(update=changes)
        return request.model_copy(update={"agreement": agreement, **scale})

    return change


def crafted_bias(request: Request, message: Any) -> Request:
    """A tensor of the model, said to be one that is not summed, with values of the server's own."""
    crafted = np.full_like(numpy_app.initial_arrays()[BIAS].numpy(), 7)
    message.content[CONSTANTS] = ArrayRecord({BIAS: Array(crafted)})
    floats = {name: kind for name, kind in request.floats.items() if name != BIAS}
    agreement = request.agreement.model_copy(update={"turns": ()})
    return request.model_copy(update={"floats": floats, "agreement": agreement})


@pytest.mark.parametrize(
    "change",
    [
        agreeing(weighting="prescaled"),
        agreeing(turns=TURNS[::-1]),
        agreeing(clip_factor=1e-3),
        agreeing(pruning=None),
        agreeing(seed=7),
        crafted_bias,
    ],
    ids=["prescaled", "turns", "clip_factor", "pruning", "seed", "constants"],
)
def test_a_request_with_another_agreement_is_refused(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    lie(federation, monkeypatch, change)
    federation.train(2, turns=TURNS)
    assert list(federation.failed) == [2]
    for node in NODES:
        assert DIFFERS in federation.watcher.reasons(node)[0]
        assert federation.trained[node, 2] == 0
        assert federation.held(node).state.round == 0  # it has taken nothing of what came


def test_a_finished_training_is_not_sent_in_another_way(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload of the first round is asked for once more, scaled to nothing."""
    push = federation.grid.push_messages

    def changed(messages: Any) -> Any:
        messages = list(messages)
        for message in messages:
            record = message.content.config_records[RECORD]
            request = Request.model_validate_json(record["header"])
            if request.asks == ("upload",):
                record["header"] = agreeing(weighting="prescaled")(request, None).model_dump_json()
        return push(messages)

    monkeypatch.setattr(federation.grid, "push_messages", changed)
    with pytest.raises(FederatedError, match="no round succeeded"):
        federation.train(1)
    assert all(DIFFERS in federation.watcher.reasons(node)[0] for node in NODES)


@pytest.mark.parametrize("snapshot_every", [1, 99], ids=["snapshots", "sums"])
def test_states_of_an_earlier_version_count_as_absent(
    federation: Federation, keys: qn.KeyPair, tmp_path: Path, snapshot_every: int
) -> None:
    """They do not say what was agreed on: clients catch up from the server, and none trains from
    what it held.
    """
    options = {"state": tmp_path / "server", "snapshot_every": snapshot_every}
    federation.train(2, **options)
    for node in NODES:
        held, folder = federation.held(node), federation.state_of(node)
        assert held.agreed is not None
        training = next(path.parent.name for path in folder.glob("*/held"))
        with FolderStore(folder, training) as store:
            store.hold(replace(held, agreed=None))
    result = federation.go_on(3, **options)
    assert federation.failed == {}
    assert_equal(final(result, keys), federation.expected())
    assert all(federation.held(node).agreed for node in NODES)
