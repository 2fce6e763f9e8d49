"""``quancrypt report`` of deployed runs: finished, going on, or with less than a simulation."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from tests.fl.flower.joint_federation import JointFederation
from tests.fl.flower.runs import FACTS, begin, middle, put, record
from tests.fl.test_report import EVIL, check, page_of, write_run
from tests.fl.test_report_command import command as report

from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.flower.app.document import deployed_document
from quancrypt_fl.flower.run_status import RunStatus
from quancrypt_fl.report.reading import ReportError, collect
from quancrypt_fl.watching.status import parse_status

Document = dict[str, Any]


@pytest.fixture(scope="module")
def deployed(tiny_run: tuple[Any, Document]) -> Document:
    """Results of a deployment: the same schema, and more."""
    document = copy.deepcopy(tiny_run[1])
    document["engine"] = "flower"
    document["rounds"] = [record(1), record(2, failed="too few", clients=[]), record(3)]
    document["rounds"][1] |= {"test_accuracy": None, "train_loss": None}
    return document


def text_of(folder: Path) -> str:
    return " ".join("".join(check(page_of(folder)).text).split())


def test_results_of_a_deployment(deployed: Document, tmp_path: Path) -> None:
    write_run(tmp_path, deployed)
    text = text_of(tmp_path)
    assert "deployed on Flower" in text
    assert "not finished" not in text
    assert "Clients of this run" in text
    assert "Uppsala" in text
    assert "failed: too few" in text
    (run,) = collect(tmp_path).runs
    assert run.best == (pytest.approx(1 - 0.5 / 3), 3)
    assert [len(item.clients) for item in run.rounds] == [3, 0, 3]


def test_a_deployment_without_any_accuracy(deployed: Document, tmp_path: Path) -> None:
    document = copy.deepcopy(deployed)
    for item in document["rounds"]:
        item |= {"test_accuracy": None, "test_loss": None}
    for name in ("dataset", "model", "seed", "config", "environment", "receipt"):
        del document[name]
    document["totals"] = {}
    write_run(tmp_path, document)
    text = text_of(tmp_path)
    assert "Training loss by round" in text
    assert "Test accuracy by round" not in text
    summary = collect(tmp_path).runs[0].summary()
    assert summary["test_accuracy"] is None
    assert summary["best_test_accuracy"] is None
    write_run(tmp_path / "with", deployed)  # beside one that has accuracies
    assert "Test accuracy by round" in text_of(tmp_path)
    del document["engine"]
    write_run(tmp_path / "simulated", document)
    problems = [p.reason for p in collect(tmp_path).problems]
    assert problems == ["rounds[0].test_accuracy is missing"]


def test_an_accuracy_in_per_cent_is_left_out(deployed: Document, tmp_path: Path) -> None:
    document = copy.deepcopy(deployed)
    document["rounds"][0]["test_accuracy"] = 97.5
    write_run(tmp_path, document)
    assert [item.test_accuracy for item in collect(tmp_path).runs[0].rounds][:2] == [None, None]


@pytest.mark.parametrize(
    ("clients", "reason"),
    [({}, "is not a list"), ([1], "is not an object"), ([{"weight": -1}], "weight is not"),
     ([{"seconds": {"train": -1}}], "seconds.train"), ([{"name": 3}], "name is not text")],
)  # fmt: skip
def test_clients_are_checked(deployed: Document, tmp_path: Path, clients: Any, reason: str) -> None:
    document = copy.deepcopy(deployed)
    document["rounds"][0]["clients"] = clients
    write_run(tmp_path, document)
    with pytest.raises(ReportError, match=f"clients.*{reason}|{reason}"):
        collect(tmp_path)


def test_names_of_clients_are_escaped(deployed: Document, tmp_path: Path) -> None:
    document = copy.deepcopy(deployed)
    document["rounds"][0]["clients"][0]["name"] = EVIL
    document["rounds"][1]["failed"] = EVIL
    write_run(tmp_path, document)
    assert "</script><img src=x onerror=" in text_of(tmp_path)


def test_a_status_stands_in_for_results(
    deployed: Document, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = middle()
    put(tmp_path / "state", run.document())
    (found,) = collect(tmp_path).runs
    assert (found.unfinished, found.deployed, len(found.rounds)) == (True, True, 1)
    assert found.config == {"method": "quancrypt", "bits": "8", "params": "qcp:1234"}
    write_run(tmp_path, deployed)  # of an earlier training
    assert len(collect(tmp_path).runs) == 2
    run.run_finished({}, None)
    put(tmp_path / "state", run.document())
    (found,) = collect(tmp_path).runs  # the results of this one
    assert not found.unfinished
    (tmp_path / "results.json").unlink()
    (found,) = collect(tmp_path).runs  # an app that writes none
    assert not found.unfinished
    begun = RunStatus()
    begin(begun)
    put(tmp_path / "state", begun.document())
    with pytest.raises(ReportError, match="no round is finished yet"):
        collect(tmp_path)


def test_a_report_never_replaces_a_status(tmp_path: Path) -> None:
    path = put(tmp_path, middle().document())
    before = path.read_bytes()
    with pytest.raises(CommandError, match="name another"):
        report(str(tmp_path), "--out", str(path), "--force")
    assert path.read_bytes() == before


def test_facts_may_be_anything(tmp_path: Path) -> None:
    document = middle().document()
    facts: Any = {"method": 3, "dataset": None, "parameters": "many", "receipt": "x", "seed": "y",
                  "nested": {"a": [1, {"b": EVIL}]}, "out": "/home/somebody"}  # fmt: skip
    put(tmp_path, document | {"facts": facts})
    assert "somebody" not in text_of(tmp_path)
    assert parse_status(document | {"facts": facts}).facts["method"] == "3"
    put(tmp_path, document | {"facts": {**FACTS, "receipt": {"protected": False}}})
    assert collect(tmp_path).runs[0].receipt.level == "plain"


def test_a_deployment_with_a_threshold_key(
    joint_federation: JointFederation, tmp_path: Path
) -> None:
    joint_federation.train(2)
    strategy, facts = joint_federation.last, joint_federation.kit.facts
    document = deployed_document(
        QuanCryptConfig(clients=5, rounds=2, threshold=3).resolved(),
        strategy.records,
        params=strategy.params,
        keys=strategy.keys,
        parameters=700,
        exchanged=700,
        about={"dataset": "digits", "model": "mlp"},
        joint=facts,
    )
    assert document["totals"]["seconds"]["open"] > 0
    write_run(tmp_path, document)
    assert collect(tmp_path).problems == []
    text = text_of(tmp_path)
    assert f"3 of 5 clients open a sum; ceremony {strategy.keys[0]['ceremony']}" in text
    assert "nobody as a whole: each of 5 clients holds a share" in text
