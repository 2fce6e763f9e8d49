"""A deployment under a threshold key: no kit has the key of updates, and the model is the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fl.deployment.deployment import Deployment
from tests.fl.deployment.test_kills import CLIENTS, STOPS, Victims

pytest.importorskip("flwr", reason="needs the [flower] extra")

ROUNDS = 3
OPTIONS = ("--threshold", 2, "--rounds", ROUNDS, "--local-epochs", 1)


@pytest.mark.slow
def test_a_client_that_dies_between_its_upload_and_the_opening(
    deploy: Callable[..., Deployment], tmp_path: Path
) -> None:
    """Its update stays in the sum, which the two others open; it catches up when it is back."""
    stops = tmp_path / "stops"
    stops.mkdir()
    environment = {"PYTHONPATH": str(STOPS), "QUANCRYPT_TEST_STOPS": str(stops)}
    deployment = deploy(CLIENTS, *OPTIONS, environment=environment)
    made = Victims(deployment, stops)
    with deployment.training():
        deployment.wait_for(made.finished, "the first round")
        (stops / "any").write_text("opening")
        (held,) = deployment.wait_for(lambda: list(stops.glob("*.opening")), "a client to open")
        name = held.stem
        deployment.kill(name)
        said = f"no part of it came from {name}"
        deployment.wait_for(
            lambda: any(said in event["text"] for event in made.events("note")), "another attempt"
        )
        deployment.start(name)
    records = made.check(ROUNDS)  # models, accounts: those of a simulation with the same clients
    assert [r["opening"]["attempts"] for r in records].count(2) == 1
    for record in records:
        opening = record["opening"]
        assert len(opening["participants"]) == 2
        assert opening["lost"] == ([] if opening["attempts"] == 1 else [name])
        assert record["envelopes"]["refused"] == {}
    assert records[0]["participants"] == CLIENTS
    receipt = deployment.results()["receipt"]
    assert receipt["threshold"] == {"needed": 2, "clients": CLIENTS}
    assert [sorted(key) for key in receipt["keys"]] == [["ceremony", "fingerprint", "from_round"]]
