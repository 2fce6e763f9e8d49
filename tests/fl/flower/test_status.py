"""``status.json`` and ``events.jsonl``: what they say, when they are written, what may go wrong."""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.fl.flower.runs import FACTS, NODES, TRAINING, answer, ask, begin, record, whole_round

from quancrypt_fl.flower import run_status, status
from quancrypt_fl.flower.status import StatusFile
from quancrypt_fl.watching.status import parse_status

BERLIN, UPPSALA, PORTO = NODES


def read(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "status.json").read_bytes())
    parse_status(document)  # whatever is written can be read
    return document


def events(folder: Path, name: str = "events.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.fixture
def file(tmp_path: Path) -> Any:
    made = StatusFile(tmp_path / "state")
    yield made
    made.close()


def test_a_run_from_start_to_end(file: StatusFile, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    begin(file)
    assert read(folder)["state"] == "waiting"
    file.waiting(connected=1, needed=3)
    ask(file, 1)
    now = read(folder)
    assert (now["state"], now["round"], now["finished"]) == ("training", 1, 0)
    assert now["facts"] == FACTS
    assert now["needed"] is None
    assert now["phase"] | {"since": 0} == {
        "name": "train+upload", "since": 0, "asked": 3, "answered": 0, "failed": 0,
    }  # fmt: skip
    assert [(c["node"], c["name"], c["state"]) for c in now["clients"]] == [
        (str(node), name, "asked") for node, name in NODES.items()
    ]
    answer(file, 1, BERLIN)
    about: dict[str, Any] = {"round": 1, "phase": "train+upload"}
    file.refused(**about, node=UPPSALA, name="Uppsala", reason="is for round 7")
    file.lost(**about, node=PORTO, name="Porto", reason="did not answer in 5 s")
    file.ignored(round=1, node=PORTO, name="Porto", reason="late")
    file.note("a remark")
    document = file.document()
    assert document["phase"]["answered"] == 1
    assert document["phase"]["failed"] == 2
    states = {c["name"]: (c["state"], c["reason"]) for c in document["clients"]}
    assert states == {
        "Berlin": ("answered", None),
        "Uppsala": ("refused", "is for round 7"),
        "Porto": ("lost", "did not answer in 5 s"),
    }
    file.round_finished(record(1, participants=1, lost=2))
    now = read(folder)
    assert (now["finished"], now["phase"]) == (1, None)
    (kept,) = now["records"]
    assert "clients" not in kept
    assert "wall" not in kept["seconds"]
    assert 0 <= kept["wall_seconds"] < 60
    assert now["totals"]["seconds"]["train"] == 3.0
    assert now["totals"] | {"seconds": {}} == {
        "seconds": {}, "bytes": {"upload": 1_000, "download": 2_000}, "received": 1_000,
        "answered": 1, "refused": 1, "lost": 1, "ignored": 1, "failed_rounds": 0,
        "envelopes": {},
    }  # fmt: skip
    whole_round(file, 2, failed="too few", test_accuracy=None)
    file.run_finished({"rounds": []}, None)
    now = read(folder)
    assert (now["state"], now["error"], now["round"]) == ("finished", None, 2)
    assert now["totals"]["failed_rounds"] == 1
    assert {c["state"] for c in now["clients"]} == {"idle"}
    kinds = [event["kind"] for event in events(folder)]
    assert kinds == [
        "run", "waiting", "round", "answered", "refused", "lost", "ignored", "note", "finished",
        "round", "answered", "answered", "answered", "failed", "run",
    ]  # fmt: skip
    assert now["events"] == events(folder)


def test_a_failed_run_says_why(file: StatusFile, tmp_path: Path) -> None:
    begin(file)
    file.run_finished(None, "no client answered")
    now = read(tmp_path / "state")
    assert (now["state"], now["error"]) == ("failed", "no client answered")


def test_a_server_that_restarts_goes_on(tmp_path: Path) -> None:
    first = StatusFile(tmp_path)
    begin(first)
    whole_round(first, 1)
    whole_round(first, 2)
    ask(first, 3)
    answer(first, 3, BERLIN)
    first.close()  # killed, as far as the file is concerned
    started = read(tmp_path)["started"]

    again = StatusFile(tmp_path)
    begin(again, finished=2)
    again.round_finished(record(2, test_accuracy=0.875))  # told again, with an evaluation
    now = read(tmp_path)
    assert now["started"] == started
    assert [r["test_accuracy"] for r in now["records"]] == [0.5, 0.875]
    assert now["totals"]["bytes"]["upload"] == 2_000
    assert [c["answered_all"] for c in now["clients"]] == [3, 2, 2]
    assert {c["state"] for c in now["clients"]} == {"idle"}
    again.close()

    other = StatusFile(tmp_path)
    other.run_started(training="f" * 32, rounds=1, finished=0, facts={})
    now = read(tmp_path)
    assert (now["records"], now["clients"], now["totals"]["answered"]) == ([], [], 0)
    other.close()


@pytest.mark.parametrize(
    "left",
    [b"", b"{", b"[]", b'{"schema": 1}', b"\xff", b'{"schema": 2, "training": "%s"}',
     b'{"schema": 1, "training": "%s", "totals": {}, "records": [], "clients": []}'],
)  # fmt: skip
def test_a_damaged_earlier_status_counts_as_none(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "status.json").write_bytes(left.replace(b"%s", TRAINING.encode()))
    file = StatusFile(tmp_path)
    begin(file)
    whole_round(file, 1)
    file.close()
    assert read(tmp_path)["finished"] == 1


def test_half_a_line_of_a_killed_server_costs_one_line(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b'{"at": 1}\n{"at": 2, "ki')
    file = StatusFile(tmp_path)
    begin(file)
    file.close()
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines()
    assert lines[:2] == [b'{"at": 1}', b'{"at": 2, "ki']
    assert json.loads(lines[2])["kind"] == "run"


def test_events_are_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "EVENT_BYTES", 1_000)
    file = StatusFile(tmp_path)
    for i in range(100):
        file.note(f"remark {i}")
    file.close()
    sizes = [path.stat().st_size for path in tmp_path.glob("events*")]
    assert len(sizes) == 2
    assert max(sizes) < 1_200
    last = (events(tmp_path, "events.1.jsonl") + events(tmp_path))[-1]
    assert last["text"] == "remark 99"


def test_the_document_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run_status, "MOST_RECORDS", 20)
    monkeypatch.setattr(run_status, "MOST_CLIENTS", 10)
    file = StatusFile(tmp_path)
    begin(file, rounds=200)
    for i in range(1, 101):
        file.round_started(round=i, asked={i: "x" * 5_000})
        file.refused(round=i, phase="train", node=i, name="x" * 5_000, reason="y" * 5_000)
        file.round_finished(record(i))
    file.close()
    now = read(tmp_path)
    rounds = [r["round"] for r in now["records"]]
    assert len(rounds) <= 20
    assert rounds == sorted(rounds)
    assert rounds[-5:] == [96, 97, 98, 99, 100]
    assert now["totals"]["bytes"]["upload"] == 100_000  # of all rounds, kept or not
    assert len(now["clients"]) <= 11
    assert len(now["events"]) == 50
    assert len(json.dumps(now)) < 100_000


def test_what_json_lacks_is_left_out(file: StatusFile, tmp_path: Path) -> None:
    import numpy as np

    begin(file)
    ask(file, 1)
    file.answered(
        round=1, phase="train", node=BERLIN, name="Berlin",
        seconds={"train": float("nan"), "protect": np.float32(0.5)}, nbytes=1,
    )  # fmt: skip
    file.round_finished(
        record(1, test_loss=float("inf"), metrics={"a": np.int64(3), "path": Path("x"), 3: {}})
    )
    now = read(tmp_path / "state")
    assert now["clients"][0]["seconds"] == {"train": None, "protect": 0.5}
    assert now["records"][0]["test_loss"] is None
    assert now["records"][0]["metrics"] == {"a": 3, "path": "x", "3": {}}


def test_writes_are_few_and_the_last_change_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "_INTERVAL", 0.2)
    written: list[float] = []
    replace = StatusFile._replace

    def counted(self: StatusFile, data: bytes) -> None:
        written.append(time.monotonic())
        replace(self, data)

    monkeypatch.setattr(StatusFile, "_replace", counted)
    file = StatusFile(tmp_path)
    begin(file)
    ask(file, 1)
    before = len(written)
    for i in range(300):
        file.ignored(round=1, node=i, name=f"n{i}", reason="late")
    assert len(written) - before < 50
    end = time.monotonic() + 20
    while read(tmp_path)["totals"]["ignored"] < 300:  # by the thread, without another call
        assert time.monotonic() < end
        time.sleep(0.02)
    file.close()


def test_a_heartbeat_while_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "_HEARTBEAT", 0.05)
    monkeypatch.setattr(status, "_INTERVAL", 0.01)
    file = StatusFile(tmp_path)
    begin(file)
    first, end = read(tmp_path)["updated"], time.monotonic() + 20
    while read(tmp_path)["updated"] == first:
        assert time.monotonic() < end
        time.sleep(0.02)
    file.run_finished({}, None)
    assert "quancrypt-status" not in [thread.name for thread in threading.enumerate()]


def test_readers_never_see_half_a_document(tmp_path: Path) -> None:
    file = StatusFile(tmp_path)
    begin(file, rounds=100)
    stop, seen = threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            seen.append(read(tmp_path)["finished"])

    reader = threading.Thread(target=look)
    reader.start()
    for i in range(1, 60):
        whole_round(file, i)
    stop.set()
    reader.join()
    file.close()
    assert seen == sorted(seen)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_full_disk_stops_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = StatusFile(tmp_path)
    begin(file)
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        write(self, data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(Path, "write_bytes", full)
        whole_round(file, 1)
        whole_round(file, 2)
    assert read(tmp_path)["finished"] == 0  # as it was, and whole
    assert len(caplog.records) <= 20
    assert "No space left on device" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "status.json"]
    whole_round(file, 3)
    file.close()
    assert read(tmp_path)["finished"] == 3
