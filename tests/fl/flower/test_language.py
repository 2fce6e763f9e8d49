"""A fine-tuning through Flower's messages ends with the simulation's adapter, bit for bit."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read once, when its library is imported
pytest.importorskip("transformers", reason="needs the [lm] extra")
pytest.importorskip("peft", reason="needs the [lm] extra")

from flwr.common.logger import FLOWER_LOGGER
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tests.fl.flower.language_federation import NODES, LanguageFederation
from tests.fl.flower.local_grid import inflate
from tests.fl.lm import tiny

import quancrypt_native as qn
from quancrypt_fl.deployment import kits
from quancrypt_fl.errors import FederatedError
from quancrypt_fl.flower.app import client_app
from quancrypt_fl.flower.protocol import blobs_of
from quancrypt_fl.lm.beginning import known_initial, read_initial
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.run import Finetuning
from quancrypt_fl.method.statistics import STATISTICS
from quancrypt_fl.report.runs import parse_run

FILES = ("adapter_model.safetensors", "adapter_config.json")


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language")
    tiny.gpt2(folder / "gpt2")
    tiny.bert(folder / "bert")
    tiny.text(folder / "text.txt")
    tiny.sentences(folder / "sentences")
    return folder


def config(things: Path, **choices: Any) -> FinetuneConfig:
    causal = choices.get("task", "causal") == "causal"
    fields = {
        "model": str(things / ("gpt2" if causal else "bert")),
        "data": things / ("text.txt" if causal else "sentences"),
        "partition": "contiguous" if causal else "iid",
        "sequence_length": 32, "rank": 4, "clients": 3, "rounds": 2, "local_steps": 2,
        "threads": 1, "lr": 1e-2,
    }  # fmt: skip
    return FinetuneConfig(**{**fields, **choices})


@pytest.mark.parametrize(
    "choices",
    [
        {"mode": "ffa"},
        {"mode": "alternate", "rounds": 3, "rounding": "stochastic"},
        {"mode": "sb", "client_ranks": "4,2"},
        {"mode": "both", "weighting": "prescaled", "error_feedback": True},
        {"task": "classify", "mode": "alternate"},
    ],
    ids=lambda choices: "-".join(map(str, choices.values())),
)
def test_clients_end_with_the_adapter_of_the_simulation(
    things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choices: dict[str, Any]
) -> None:
    monkeypatch.setattr(client_app, "FEWEST_REPORTED", 10)  # of the sentences each has that many
    federation = LanguageFederation(tmp_path / "deployed", config(things, **choices))
    document = federation.train()
    simulation = Finetuning(config(things, **choices, out=tmp_path / "simulated"))
    expected = simulation.run()
    for adapter in federation.adapters():
        for name in FILES:
            assert (adapter / name).read_bytes() == (tmp_path / "simulated" / name).read_bytes()
    assert [record["failed"] for record in document["rounds"]] == [None] * simulation.config.rounds
    values = [record["value"] for record in document["rounds"]]
    assert values == pytest.approx([record["value"] for record in expected["rounds"]], rel=1e-5)
    for name in ("task", "mode", "metric", "dataset", "model"):
        assert document[name] == expected[name]
    for name in ("value", "best_value", "parameters", "float32_update_bytes"):
        assert document["totals"][name] == pytest.approx(expected["totals"][name], rel=1e-5)
    parse_run(document, "run-1")  # for `quancrypt report`
    # Nobody in a deployment sees one client's factors.
    assert not any("lora_error" in record for record in document["rounds"])


def test_a_client_sends_what_travels_in_the_round(things: Path, tmp_path: Path) -> None:
    federation = LanguageFederation(tmp_path, config(things, mode="alternate", rounds=3))
    federation.train()
    sent: dict[int | None, set[str]] = {}
    for exchange in federation.grid.exchanges:
        for root, contents in (exchange.replies or []) if "upload" in exchange.asks else []:
            data = blobs_of(inflate(root, contents))["upload"]
            update = qn.EncryptedUpdate.from_bytes(data, federation.params)
            names = {spec.name for spec in update.layout.tensors} - {STATISTICS}
            sent.setdefault(exchange.round, set()).update(names)
    assert sorted(sent) == [0, 1, 2]
    travelling = read_initial(tmp_path / "initial.safetensors").weights.keys()
    for t, names in sent.items():
        factor = (".lora_B.", ".lora_A.")[t % 2]
        assert names == {name for name in travelling if factor in name}


def test_a_base_model_never_reaches_the_server(things: Path, tmp_path: Path) -> None:
    """The server's file has what travels, and no message has anything of the base's size."""
    federation = LanguageFederation(tmp_path, config(things, mode="sb", rounds=1))
    initial = load_file(tmp_path / "initial.safetensors")
    assert initial
    assert all(".lora_R." in name and not tensor.any() for name, tensor in initial.items())
    federation.train()
    embedding = load_file(things / "gpt2" / "model.safetensors")["transformer.wte.weight"]
    start = np.ascontiguousarray(embedding).tobytes()[:64]
    for data in (*federation.grid.wire("down"), *federation.grid.wire("up")):
        assert start not in data


def test_texts_of_their_own(things: Path, tmp_path: Path) -> None:
    """Each trains on the whole of its own file, and is judged by the end of it."""
    texts = {}
    for index, node in enumerate(NODES):
        path = tiny.text(tmp_path / f"text-{index}.txt", words=300 + 60 * index)
        texts[node] = {"data": str(path), "quancrypt-data": "all"}
    federation = LanguageFederation(tmp_path / "deployed", config(things), node_settings=texts)
    document = federation.train()
    counts = [client["samples"] for client in document["rounds"][0]["clients"]]
    assert counts == sorted(counts)
    assert len(set(counts)) == 3
    adapters = [load_file(folder / FILES[0]) for folder in federation.adapters()]
    for other in adapters[1:]:
        assert all((other[name] == tensor).all() for name, tensor in adapters[0].items())


def test_a_client_that_lacks_a_label(things: Path, tmp_path: Path) -> None:
    """Its classes are those of all: the other labels' numbers stay what they are."""
    place = tiny.sentences(tmp_path / "own")
    for name in ("train.tsv", "dev.tsv"):
        lines = (place / name).read_text().splitlines()
        (place / name).write_text("\n".join(line for line in lines if line.endswith("\t1")))
    node = {"data": str(place), "quancrypt-data": "all"}
    federation = LanguageFederation(
        tmp_path / "deployed", config(things, task="classify"), node_settings={NODES[2]: node}
    )
    document = federation.train()
    assert document["config"]["labels"] == "0,1"
    assert [record["participants"] for record in document["rounds"]] == [3, 3]
    first, *others = (load_file(folder / FILES[0]) for folder in federation.adapters())
    for other in others:
        assert all((other[name] == tensor).all() for name, tensor in first.items())


@pytest.mark.parametrize("what", ["base", "labels", "frozen", "absent"])
def test_what_does_not_fit_is_refused(
    things: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """By the client, which trains nothing; its own log says why, the server's does not: what is
    wrong may be private. The others go on.
    """
    choices = {"task": "classify"} if what == "labels" else {}
    node: dict[str, Any] = {}
    if what == "base":
        node["model"] = str(tiny.gpt2(tmp_path / "other", vocabulary=65))
        reason = "the base model here is not the one for which the kits were made"
    elif what == "labels":
        node["data"] = str(tiny.sentences(tmp_path / "own"))
        lines = (tmp_path / "own" / "train.tsv").read_text() + "yes\t2\n"
        (tmp_path / "own" / "train.tsv").write_text(lines)
        reason = r"train\.tsv: the label '2' is not among the run's: 0, 1"
    elif what == "frozen":
        other = LanguageFederation(tmp_path / "other", config(things, rank=2))
        path = other.folder / kits.FROZEN
        known = known_initial(
            LanguageFederation(tmp_path / "same", config(things)).folder / path.name
        )
        change_facts(path, initial=known)
        node["quancrypt-frozen"] = str(path)
        reason = "holds the factors of another adapter"
    else:
        node["model"] = ""
        reason = "model is not in the node configuration; give quancrypt client --model and --data"
    federation = LanguageFederation(
        tmp_path / "deployed", config(things, rounds=1, **choices), node_settings={NODES[2]: node}
    )
    with logged(caplog):
        document = federation.train()
    assert [client["name"] for client in document["rounds"][0]["clients"]] == [
        "client-1", "client-2",
    ]  # fmt: skip
    said = server_log(federation)
    assert "this client could not train; its own log says why" in said
    assert not re.search(reason, said), said
    assert "/own/" not in said
    assert re.search(reason, caplog.text), caplog.text


def change_facts(path: Path, **changes: Any) -> None:
    """Of a file that goes with an adapter."""
    with safe_open(path, framework="np") as file:
        facts = json.loads(file.metadata()["quancrypt"])
    save_file(load_file(path), path, {"quancrypt": json.dumps({**facts, **changes})})


@contextmanager
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Flower's lines, which its logger passes to nobody."""
    FLOWER_LOGGER.addHandler(caplog.handler)
    try:
        yield
    finally:
        FLOWER_LOGGER.removeHandler(caplog.handler)


def server_log(federation: LanguageFederation) -> str:
    events = (federation.folder / "server/runs/run-1/events.jsonl").read_text()
    return "\n".join(str(json.loads(line)) for line in events.splitlines())


ONE_ROW = {"sequence_length": 2, "max_test_samples": 1}


@pytest.mark.parametrize(
    "says", [ONE_ROW, {"seed": 2}, {"partition": "iid"}, {"weighting": "prescaled"}], ids=str
)
def test_a_server_cannot_choose_the_run(things: Path, tmp_path: Path, says: dict[str, Any]) -> None:
    """One row and made-up adapters: the losses would tell what the row is."""
    federation = LanguageFederation(tmp_path, config(things), server_says=says)
    with pytest.raises(FederatedError, match="no round succeeded"):
        federation.train()
    said = server_log(federation)
    assert "the server's run is not that of this client's kit" in said
    for name, value in says.items():
        assert f"{name} = {value!r} (kit: " in said.replace("\\", "")
    assert not list(tmp_path.glob("client-*/*"))


def test_a_server_cannot_choose_the_first_adapter(things: Path, tmp_path: Path) -> None:
    federation = LanguageFederation(tmp_path, config(things))
    path = tmp_path / kits.INITIAL
    with safe_open(path, framework="np") as file:
        facts = file.metadata()
    weights = load_file(path)
    next(iter(weights.values()))[..., 0] += 0.5
    save_file(weights, path, facts)
    with pytest.raises(FederatedError, match="no round succeeded"):
        federation.train()
    assert "initial adapter is not the one for which this client's kit" in server_log(federation)
    assert not list(tmp_path.glob("client-*/*/held*"))


def test_a_kit_that_does_not_know_the_first_adapter(
    things: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    federation = LanguageFederation(tmp_path, config(things))
    change_facts(tmp_path / kits.FROZEN, initial=None)
    with logged(caplog), pytest.raises(FederatedError, match="no round succeeded"):
        federation.train()
    assert "make the kits anew (quancrypt provision)" in caplog.text


def test_a_server_may_run_more_rounds(things: Path, tmp_path: Path) -> None:
    federation = LanguageFederation(tmp_path, config(things, rounds=1), server_says={"rounds": 2})
    assert [record["participants"] for record in federation.train()["rounds"]] == [3, 3]


def test_the_server_needs_no_language_libraries() -> None:
    code = (
        "import sys, quancrypt_fl.flower.app.server_app, quancrypt_fl.flower.app.first_adapter; "
        "print(sorted({'transformers', 'peft', 'tokenizers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_servers_file_that_is_none(things: Path, tmp_path: Path) -> None:
    federation = LanguageFederation(tmp_path, config(things))
    (tmp_path / "initial.safetensors").write_bytes(b"")
    with pytest.raises(FederatedError, match=r"initial\.safetensors: is no adapter of quancrypt"):
        federation.train()
