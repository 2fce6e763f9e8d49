"""SIGKILL, for real: clients in each phase, the server in mid-round, and at random moments.

A killed process takes all that it started with it, as if its machine had lost its power. In memory,
and at many more places, the same is in tests/fl/flower/test_random_kills.py.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tests.fl.deployment.deployment import Deployment, assert_same_model

from quancrypt_fl import QuanCryptConfig, Simulation
from quancrypt_fl.method.meter import RoundMeter
from quancrypt_fl.method.roles import GlobalState
from quancrypt_fl.method.rounds import federated_round
from quancrypt_fl.method.variances import possible
from quancrypt_fl.training import torch_threads

pytest.importorskip("flwr", reason="needs the [flower] extra")

from quancrypt_fl.flower.history import History

CLIENTS = 3
PHASES = ("training", "keeping", "encrypting", "sending")
SEED = 20
KILLS = 20
STOPS = Path(__file__).parent / "stops"


@dataclass
class Victims:
    """A deployment whose processes are killed, and what it had finished before each kill."""

    deployment: Deployment
    stops: Path
    noted: dict[int, tuple[str, Any]] = field(default_factory=dict)

    # --- who dies ---

    def kill_client_in(self, name: str, phase: str) -> None:
        """Kill a client that has come to a phase, and start it again."""
        reached = self.hold_client_in(name, phase)
        self.kill_client(name)
        reached.unlink()

    def hold_client_in(self, name: str, phase: str) -> Path:
        """Wait until a client has come to a phase, where it stays; the file that says so."""
        order = self.stops / name
        order.write_text(phase)
        reached = order.with_name(f"{name}.{phase}")
        self.deployment.wait_for(reached.exists, f"{name} to be {phase}")
        return reached

    def kill_client(self, name: str) -> None:
        self.note_finished()
        self.deployment.kill(name)
        self.deployment.start(name)

    def kill_server(self, *clients: str, with_run: bool) -> None:
        """Kill the server's processes; ``with_run``: and ``quancrypt run``, as its machine does.

        Clients that are named die with it, and are started again as well.
        """
        self.note_finished()
        self.deployment.kill("server", *clients, *(["run"] if with_run else []))
        self.deployment.start("server")
        self.deployment.wait_for_port()
        for name in clients:
            self.deployment.start(name)
        if with_run:
            self.deployment.start_run("--resume")

    # --- what was finished ---

    @property
    def history(self) -> Path:
        return self.deployment.run_folder / "history"

    def events(self, kind: str) -> list[dict[str, Any]]:
        found = lines_of(self.deployment.run_folder / "events.jsonl")
        return [event for event in found if event["kind"] == kind]

    def finished(self) -> int:
        """Rounds that the server has said to be finished."""
        return max((event["round"] for event in self.events("finished")), default=0)

    def note_finished(self) -> None:
        """Remember the rounds that the server has said to be finished; none may have changed."""
        chains: dict[int, str] = {}
        records: dict[int, Any] = {}
        for line in lines_of(self.history / "rounds.jsonl"):
            index = line.get("amends", line.get("round"))
            chains.setdefault(index, line.get("chain"))
            records[index] = line["record"]
        for index in range(self.finished()):
            found = chains[index], records[index]
            assert self.noted.setdefault(index, found) == found

    def wait_for_reports(self) -> None:
        """Until all clients have trained in the first round: they upload in another exchange."""

        def trained() -> int:
            answers = [(e["round"], e["phase"]) for e in self.events("answered")]
            return answers.count((1, "train"))

        self.deployment.wait_for(lambda: trained() == CLIENTS, "the first reports")

    def wait_for_mid_round(self) -> None:
        """Until a round that is not over has the upload of a client, and not of all."""

        def uploads() -> int:
            number = self.finished() + 1
            phases = [e["phase"] for e in self.events("answered") if e["round"] == number]
            return phases.count("upload") + phases.count("train+upload")

        self.deployment.wait_for(lambda: 0 < uploads() < CLIENTS, "the middle of a round")

    # --- the end ---

    def check(self, rounds: int) -> list[dict[str, Any]]:
        """Nothing finished is lost, accounts are right, all clients hold what they say."""
        self.note_finished()
        records: list[dict[str, Any]] = self.deployment.results()["rounds"]
        assert [record["round"] for record in records] == list(range(1, rounds + 1))
        with History.resume(self.history) as history:
            links = history.rounds
        assert [(link.chain, record) for link, record in zip(links, records, strict=True)] == [
            self.noted[index] for index in range(rounds)
        ]
        for link, record in zip(links, records, strict=True):
            assert sum(counted(record).values()) == record["weight"] == link.weight
            assert len(counted(record)) == record["participants"]
        models = self.deployment.models()
        assert len(models) == CLIENTS
        expected = replayed(rounds, records)
        for model in models:
            assert_same_model(model, expected)
        return records


def lines_of(path: Path) -> list[dict[str, Any]]:
    """A file of JSON lines; one that is being written, or whose writer was killed, is left out."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


def counted(record: Mapping[str, Any]) -> dict[int, int]:
    """Weight of each client in the sum of a round, by its number from 0."""
    return {
        int(each["name"].removeprefix("client-")) - 1: each["weight"]
        for each in record["clients"]
        if each["weight"]
    }


def replayed(rounds: int, records: list[dict[str, Any]]) -> dict[str, Any]:
    """The model of a simulation in which each round had the same clients in its sum."""
    simulation = Simulation(config(rounds))
    with torch_threads(1):
        for record in records:
            simulation.state = _after(simulation, record)
    simulation._parties.close()
    return dict(simulation.state.weights)


def _after(simulation: Simulation, record: dict[str, Any]) -> GlobalState:
    """The global state after a round of the deployment."""
    state = simulation.state
    if record["failed"]:
        return replace(state, round=state.round + 1)
    # Clients have like numbers of samples: their shares do not depend on who else was asked.
    assert set(counted(record).values()) == {1}
    present = [simulation._clients[index] for index in sorted(counted(record))]
    method = simulation._parties.method
    state = federated_round(state, present, simulation.server, method, RoundMeter())
    return replace(state, weights=possible(state.weights))


def config(rounds: int) -> QuanCryptConfig:
    return QuanCryptConfig(clients=CLIENTS, rounds=rounds, local_epochs=1)


@pytest.fixture
def victims(deploy: Callable[..., Deployment], tmp_path: Path) -> Callable[[int], Victims]:
    def make(rounds: int) -> Victims:
        stops = tmp_path / "stops"
        stops.mkdir()
        environment = {"PYTHONPATH": str(STOPS), "QUANCRYPT_TEST_STOPS": str(stops)}
        options = ["--rounds", rounds, "--local-epochs", 1]
        return Victims(deploy(CLIENTS, *options, environment=environment), stops)

    return make


def test_a_client_in_each_phase_and_the_server(victims: Callable[[int], Victims]) -> None:
    """All of them come back in time: the model is that of a training without a kill."""
    rounds = 4
    made = victims(rounds)
    with made.deployment.training():
        made.kill_client_in("client-1", "training")
        made.kill_client_in("client-2", "keeping")
        made.kill_client_in("client-3", "sending")
        made.wait_for_reports()  # they are encrypted, too: no upload comes while one is held
        reached = made.hold_client_in("client-1", "encrypting")
        made.wait_for_mid_round()  # the others' uploads are there, and that one is not
        made.kill_server("client-1", with_run=True)
        reached.unlink()
    records = made.check(rounds)
    assert [record["participants"] for record in records] == [CLIENTS] * rounds


@pytest.mark.slow
def test_a_client_amid_its_upload(victims: Callable[[int], Victims]) -> None:
    """The rest of it never comes: the client is asked again once its SuperNode is back."""
    made = victims(1)
    with made.deployment.training():
        made.kill_client_in("client-2", "uploading")
    (record,) = made.check(1)
    assert record["participants"] == CLIENTS


@pytest.mark.slow
def test_twenty_kills_at_random_moments(victims: Callable[[int], Victims]) -> None:
    """A round goes on without who is away; whoever is in a sum is in it once and whole."""
    made, rng = victims(1_000), random.Random(SEED)
    deployment = made.deployment
    deployment.start_run()
    deployment.wait_for(made.finished, "the first round")
    for _ in range(KILLS):
        time.sleep(rng.uniform(0, 15))
        victim = rng.choice([*deployment.names, "server"])
        if victim == "server":
            made.kill_server(with_run=rng.random() < 0.5)
        elif rng.random() < 0.5:
            made.kill_client_in(victim, rng.choice(PHASES))
        else:
            made.kill_client(victim)
    deployment.interrupt_run()
    rounds = made.finished() + 2
    with deployment.training("--resume", "--rounds", rounds):
        pass
    made.check(rounds)
