"""Simulated runs under a joint key: equal, bit by bit, to those under one key and to those in the
clear, whoever falls silent on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fl.reference import Recorder, assert_same_tensors, recorded
from tests.fl.test_simulation import assert_equal_weights, without_times

import quancrypt_native as qn
from quancrypt_fl import QuanCryptConfig, Simulation
from quancrypt_fl.cli.app import run
from quancrypt_fl.errors import CheckpointError, FederatedError
from quancrypt_fl.joint.channel import JointChannel
from quancrypt_fl.method.meter import ALL_PHASES
from quancrypt_fl.receipts import receipt_lines
from quancrypt_fl.report.receipts import parse_receipt

TinyConfig = Callable[..., QuanCryptConfig]
Record = dict[str, Any]
FEW = {"clients": 5, "max_train_samples": 200, "max_test_samples": 40}
NEEDED = 3


def openings(records: list[Record]) -> list[Record]:
    """How sums were opened: of updates and of reports."""
    found = []
    for record in records:
        opening = record.get("opening", {})
        found += [one for one in (opening, opening.get("reports", {})) if "attempts" in one]
    return found


def assert_same_runs(one: Recorder, two: Recorder) -> None:
    assert len(one.states) == len(two.states)
    for before, after in zip(one.states, two.states, strict=True):
        assert before.bounds == after.bounds
        assert_same_tensors(dict(before.weights), dict(after.weights))
    for before, after in zip(one.residuals, two.residuals, strict=True):
        for client, residual in before.items():
            assert_same_tensors(dict(residual), dict(after[client]))


CHOICES: list[dict[str, Any]] = [
    {},
    {"dropout": 0.3, "weighting": "prescaled", "partition": "dirichlet", "min_arrivals": 3},
    {"error_feedback": True, "rounding": "stochastic", "bits": 3},
    {"participation": 0.8, "mask": "client", "error_feedback": True},
]


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_the_same_run_as_under_one_key_and_in_the_clear(
    tiny: TinyConfig, choices: dict[str, Any]
) -> None:
    config = tiny(**FEW, **choices)
    _, results, joint = recorded(config.model_copy(update={"threshold": NEEDED}))
    for other in ({}, {"encryption": False}):
        _, others, recorder = recorded(config.model_copy(update=other))
        assert_same_runs(joint, recorder)
        for record, beside in zip(results["rounds"], others["rounds"], strict=True):
            for name in ("test_accuracy", "test_loss", "train_loss", "participants", "lost"):
                assert record[name] == beside[name]
            assert not {"opening", "failed"} & beside.keys()
            assert "open" not in beside["seconds"]
    opened = [record for record in results["rounds"] if record["participants"] >= NEEDED]
    assert opened
    for record in opened:
        assert len(record["opening"]["participants"]) == NEEDED
        assert "failed" not in record


def run_with(
    tiny: TinyConfig, wanted: Callable[[list[Record]], bool], **choices: Any
) -> tuple[Simulation, dict[str, Any], Recorder]:
    """A run with a seed that gives it what is wanted."""
    for seed in range(60):
        made = recorded(tiny(**FEW, threshold=NEEDED, seed=seed, **choices))
        if wanted(made[1]["rounds"]):
            return made
    raise AssertionError("no seed")


RETRIED: list[dict[str, Any]] = [
    {},
    {"error_feedback": True, "rounding": "stochastic", "bits": 3},
    {"dropout": 0.1, "weighting": "prescaled", "partition": "dirichlet"},
]


@pytest.mark.parametrize("choices", RETRIED, ids=str)
def test_clients_that_fall_silent_change_nothing(tiny: TinyConfig, choices: dict[str, Any]) -> None:
    """Sums are made again, of reports and of updates, and the run is that of clients that stay."""

    def retried(records: list[Record]) -> bool:
        again = [one for one in openings(records) if one["attempts"] > 1]
        reports = records[0]["opening"].get("reports", {})
        return (
            not any("failed" in record for record in records)
            and reports.get("attempts", 0) > 1
            and len(again) > 1
        )

    simulation, results, retries = run_with(tiny, retried, open_dropout=0.15, **choices)
    config = simulation.config
    for other in (
        {"open_dropout": 0.0},
        {"open_dropout": 0.0, "threshold": None},
        {"open_dropout": 0.0, "threshold": None, "encryption": False},
    ):
        _, others, recorder = recorded(config.model_copy(update=other))
        assert_same_runs(retries, recorder)
        if other.get("threshold", NEEDED):
            sizes = [
                (r["bytes"]["upload"], s["bytes"]["upload"], r["opening"]["attempts"])
                for r, s in zip(results["rounds"][1:], others["rounds"][1:], strict=True)
            ]
            assert all((more > less) == (attempts > 1) for more, less, attempts in sizes)
    for opening in openings(results["rounds"]):
        assert not set(opening["lost"]) & set(opening["participants"])
        assert (opening["attempts"] > 1) == bool(opening["lost"])


def test_each_upload_is_encrypted_afresh_and_each_sum_answered_once(
    tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered: list[tuple[bytes, int, tuple[int, ...]]] = []
    original = JointChannel.answer

    def noting(self: JointChannel, client: int, total: bytes, chosen: list[int]) -> bytes:
        answered.append((total, client, tuple(chosen)))
        part = original(self, client, total, chosen)
        with pytest.raises(qn.threshold.AnsweredError):
            original(self, client, total, chosen)
        return part

    monkeypatch.setattr(JointChannel, "answer", noting)
    run_with(
        tiny,
        lambda records: any(one["attempts"] == 3 for one in openings(records)),
        open_dropout=0.3,
        rounds=1,
    )
    assert len({(total, client) for total, client, _ in answered}) == len(answered)
    for total in {total for total, _, _ in answered}:
        assert len({chosen for sum_, _, chosen in answered if sum_ == total}) == 1


def test_a_round_that_is_not_opened_changes_nothing(tiny: TinyConfig) -> None:
    choices: dict[str, Any] = {"open_dropout": 0.3, "error_feedback": True, "bits": 3, "rounds": 4}

    def failed(records: list[Record]) -> bool:
        fates = ["failed" in record for record in records]
        return fates[0] is False and True in fates[1:-1] and fates[-1] is False

    simulation, results, recorder = run_with(tiny, failed, **choices)
    for t, record in enumerate(results["rounds"][1:], start=1):
        before, after = recorder.states[t - 1], recorder.states[t]
        if "failed" not in record:
            assert any((after.weights[n] != w).any() for n, w in before.weights.items())
            continue
        assert record["failed"].endswith(("are left; 3 open it together", "a client fell silent"))
        assert record["opening"]["participants"] == []
        assert record["participants"] == 5
        assert_same_tensors(dict(before.weights), dict(after.weights))
        assert before.bounds == after.bounds
        for client, residual in recorder.residuals[t - 1].items():
            assert_same_tensors(dict(residual), dict(recorder.residuals[t][client]))
        assert record["test_loss"] == results["rounds"][t - 1]["test_loss"]
    assert simulation.state.round == 4
    assert [record["round"] for record in results["rounds"]] == [1, 2, 3, 4]


def test_bounds_that_are_not_opened_are_agreed_on_later(tiny: TinyConfig) -> None:
    def failed(records: list[Record]) -> bool:
        return "reports" in records[0].get("failed", "") and "failed" not in records[1]

    simulation, results, recorder = run_with(tiny, failed, open_dropout=0.3)
    start = Simulation(simulation.config).state
    first, second = results["rounds"][:2]
    assert recorder.states[0].bounds is None
    assert_same_tensors(dict(start.weights), dict(recorder.states[0].weights))
    assert first["participants"] == 0
    assert set(first["opening"]) == {"reports"}
    assert set(second["opening"]) == {"participants", "attempts", "lost", "reports"}
    assert recorder.states[1].bounds is not None


def test_too_few_arrivals_open_nothing(tiny: TinyConfig) -> None:
    def few(records: list[Record]) -> bool:
        return [record["participants"] < NEEDED for record in records] == [False, True, False]

    _, results, recorder = run_with(tiny, few, dropout=0.4)
    arrived = results["rounds"][1]["participants"]
    said = f"{arrived} of the {arrived} clients in the sum of updates are left; 3 open it together"
    assert results["rounds"][1].get("failed", said) == said
    assert ("failed" in results["rounds"][1]) == (arrived > 0)
    assert_same_tensors(dict(recorder.states[0].weights), dict(recorder.states[1].weights))


def test_bytes_are_those_that_travel(tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[int] = []
    original = JointChannel.answer

    def noting(self: JointChannel, client: int, total: bytes, chosen: list[int]) -> bytes:
        part = original(self, client, total, chosen)
        parts.append(len(part))
        return part

    monkeypatch.setattr(JointChannel, "answer", noting)
    simulation = Simulation(tiny(**FEW, threshold=NEEDED, rounds=2))
    results = simulation.run()
    upload = qn.EncryptedUpdate.from_bytes(
        simulation._clients[0].updates.protect({"w": np.ones(3, np.float32)}, {"w": 1.0}, 0).data,
        simulation._parties.server.updates._params,  # type: ignore[attr-defined]
    )
    record = results["rounds"][1]
    assert len(parts) == 3 * NEEDED  # of reports, then of two rounds' updates
    spent, size = sum(parts[-NEEDED:]) / 5, parts[-1]
    assert abs(record["bytes"]["upload"] - spent - upload.nbytes) < 500  # header of real tensors
    assert record["bytes"]["download"] == pytest.approx(
        (1 + NEEDED / 5) * upload.nbytes + NEEDED * size, abs=1500
    )
    assert tuple(record["seconds"]) == ALL_PHASES
    assert all(seconds > 0 for seconds in record["seconds"].values())
    assert tuple(results["totals"]["seconds"]) == ALL_PHASES


def test_the_receipt_says_who_opens_and_which_ceremony(tiny: TinyConfig) -> None:
    simulation = Simulation(tiny(**FEW, threshold=NEEDED))
    receipt = simulation.run()["receipt"]
    assert receipt["protected"] is True
    assert receipt["aggregator_held_secret_key"] is False
    assert receipt["threshold"] == {"needed": 3, "clients": 5}
    (key,) = receipt["keys"]
    assert set(key) == {"fingerprint", "from_round", "ceremony", "reports", "reports_ceremony"}
    assert key["fingerprint"] == simulation._parties.key_id
    assert key["reports"] == simulation._parties.report_key_id
    assert key["ceremony"] != key["reports_ceremony"]
    assert receipt["parameters"]["parties"] == 5
    assert receipt["reports"]["key_mode"] == "threshold"
    lines = dict(receipt_lines(receipt))
    assert lines["Joint key"] == f"3 of 5 clients open a sum; ceremony {key['ceremony'][:16]}"
    assert "nobody as a whole" in lines["Secret key"]
    page = parse_receipt(receipt)
    assert page.level == "good"
    facts = dict(page.facts)
    assert facts["Joint key"] == f"3 of 5 clients open a sum; ceremony {key['ceremony']}"
    assert "nobody as a whole" in facts["Key holders"]
    assert "Joint key" not in dict(parse_receipt({**receipt, "threshold": "3 of 5"}).facts)


def test_a_server_that_holds_a_party_stops_the_run(tiny: TinyConfig) -> None:
    simulation = Simulation(tiny(**FEW, threshold=NEEDED, rounds=1))
    quorum: Any = simulation._parties.opening
    simulation.server.updates.hidden = quorum._answers  # type: ignore[attr-defined]
    with pytest.raises(FederatedError, match=r"can reach secrets: .*Party"):
        simulation.run()


def test_resuming_equals_an_uninterrupted_run(tiny: TinyConfig, tmp_path: Path) -> None:
    config = tiny(**FEW, threshold=NEEDED, open_dropout=0.2, error_feedback=True, rounds=4)
    whole = Simulation(config)
    expected = without_times(whole.run())
    assert any(one["attempts"] > 1 for one in openings(expected["rounds"]))
    half = config.model_copy(update={"out": tmp_path, "rounds": 2})
    Simulation(half).run()
    resumed = Simulation(config.model_copy(update={"out": tmp_path}), resume=True)
    results = resumed.run()
    assert without_times(results) == expected
    assert_equal_weights(whole, resumed)
    first, second = results["receipt"]["keys"]
    assert second["from_round"] == 3
    assert first["fingerprint"] != second["fingerprint"]
    assert first["ceremony"] != second["ceremony"]
    assert "reports" in first
    assert not {"reports", "reports_ceremony"} & second.keys()
    for other, said in (
        ({"threshold": 4}, "threshold: 3 then, 4 now"),
        ({"open_dropout": 0.1}, "open_dropout: 0.2 then, 0.1 now"),
    ):
        changed = config.model_copy(update={"out": tmp_path, "rounds": 5, **other})
        with pytest.raises(CheckpointError, match=said):
            Simulation(changed, resume=True).run()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["simulate", "--clients", "3", "--rounds", "1", "--local-epochs", "1"]
    assert run([*small, "--threshold", "2", "--out", str(tmp_path / "a"), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["config"]["threshold"] == 2
    assert len(results["rounds"][0]["opening"]["participants"]) == 2
    assert run([*small, "--threshold", "2", "--out", str(tmp_path / "a")]) == 0
    shown = capsys.readouterr().out
    assert "Joint key" in shown
    assert "open " in shown
    assert run([*small, "--threshold", "4", "--out", str(tmp_path / "b")]) == 2
    assert "threshold = 4 is above the 3 clients of a round" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
    assert run(["report", str(tmp_path / "a")]) == 0
    page = next(tmp_path.rglob("*.html")).read_text()
    assert "2 of 3 clients open a sum" in page
    assert 'class="open"' in page
