"""The server's memory: what it keeps, how clients are led on, and what damage does to it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.fl.flower.histories import (
    FACTS,
    INITIAL,
    START,
    assert_leads_on,
    begun,
    files,
    following,
    grown,
    kept,
    sealed,
    sealed_of,
    sum_of,
    view,
    way,
)

from quancrypt_fl.flower.history import (
    History,
    HistoryDamageError,
    HistoryError,
    HistoryGapError,
)
from quancrypt_fl.flower.history_files import Folder


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Durability is tested in test_history_interrupted.py."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


# --- what goes in comes out ---


@pytest.mark.parametrize("on_disk", [True, False])
def test_round_trip(tmp_path: Path, on_disk: bool) -> None:
    history = begun(tmp_path / "a" / "b" if on_disk else None)
    assert (history.finished, history.chain, history.rounds, history.records) == (0, START, [], [])
    arguments = []
    for size in (100, 0, 150):
        arguments.append(following(history, size))
        history.append(*arguments[-1])
    history.amend(1, {"round": 2, "test_accuracy": 0.25})
    history.note("open-round", {"asked": {"7": "site A"}, "t": 3})
    history.note("evaluated", 3)
    before = view(history)
    if on_disk:
        history.close()
        history = History.resume(tmp_path / "a" / "b")
    assert view(history) == before
    assert history.training == "ab" * 16
    assert history.facts == FACTS
    assert history.initial == INITIAL
    assert history.rounds == [link for link, _, _ in arguments]
    assert history.records[0] == arguments[0][2]
    assert history.records[1] == {"round": 2, "test_accuracy": 0.25}
    assert history.read("open-round") == {"asked": {"7": "site A"}, "t": 3}
    assert history.read("evaluated") == 3
    assert history.read("absent") is None
    assert [history.chain_at(n) for n in range(-1, 5)] == [
        None, START, *(link.chain for link in history.rounds), None
    ]  # fmt: skip
    history.note("evaluated", None)
    assert history.read("evaluated") is None
    history.close()


def test_a_record_is_the_same_before_and_after_a_restart(tmp_path: Path) -> None:
    with begun(tmp_path) as history:
        link, data, _ = following(history)
        history.append(link, data, {"by": {1: (2, 3)}})
        assert history.records == [{"by": {"1": [2, 3]}}]
        history.amend(0, {"by": {2: (4,)}})
        size = (tmp_path / "rounds.jsonl").stat().st_size
        history.amend(0, {"by": {2: (4,)}})
        assert (tmp_path / "rounds.jsonl").stat().st_size == size
        assert history.records == [{"by": {"2": [4]}}]
    with History.resume(tmp_path) as resumed:
        assert resumed.records == [{"by": {"2": [4]}}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"round": 3}, "round 4; the next is 3"),
        ({"round": 0}, "round 1; the next is 3"),
        ({"round": 1}, "round 2; the next is 3"),  # finished, with another chain id
        ({"size": 99}, "size or digest"),
        ({"digest": "ab" * 32}, "size or digest"),
        ({"weight": 0}, "a positive weight or a reason"),
        ({"weight": -1, "failed": "x"}, "a positive weight or a reason"),
        ({"failed": "x"}, "a positive weight or a reason"),
        ({"weight": 0, "failed": "x"}, "a failed round has no sum"),
    ],
)
def test_append_refuses_what_does_not_fit(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with grown(begun(tmp_path), 100, 100) as history:
        before, there = view(history), files(tmp_path)
        link, data, record = following(history)
        with pytest.raises(HistoryError, match=message):
            history.append(replace(link, **change), data, record)
        with pytest.raises(TypeError):
            history.append(link, data, {"not JSON": object()})
        assert view(history) == before
        assert files(tmp_path) == there


def test_the_last_round_may_be_appended_again(tmp_path: Path) -> None:
    with grown(begun(tmp_path), 100) as history:
        arguments = following(history)
        history.append(*arguments)
        before = view(history)
        history.append(*arguments)
        assert view(history) == before


def test_arguments_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="limit_bytes -1; allowed: 0 or more"):
        begun(tmp_path, limit_bytes=-1)
    with grown(begun(tmp_path), 100) as history:
        for name in ("", "../x", "A", "a/b", "x" * 50):
            with pytest.raises(HistoryError, match="allowed"):
                history.note(name, {})
            with pytest.raises(HistoryError, match="allowed"):
                history.read(name)
        with pytest.raises(HistoryError, match="bytes; allowed: 16777216"):
            history.note("large", "x" * (16 << 20))
        with pytest.raises(HistoryError, match="round 2 is not among the 1 finished"):
            history.amend(1, {})
        with pytest.raises(HistoryError, match="snapshot after 2 rounds; allowed: 0 to 1"):
            history.keep_snapshot(2, START, b"")
        with pytest.raises(HistoryError, match="another model's"):
            history.keep_snapshot(1, START, b"")


def test_a_resumed_training_has_the_same_facts_and_initial_model(tmp_path: Path) -> None:
    with begun(tmp_path) as history:
        history.require(facts=FACTS, initial=INITIAL)
        history.require(facts=FACTS)
        with pytest.raises(HistoryError, match="the initial model"):
            history.require(facts=FACTS, initial=b"other")
        other = {"agreement": {"bits": 6, "clip": 0.1}, "new": None}
        with pytest.raises(HistoryError) as caught:
            history.require(facts=other)
        for phrase in ("agreement.bits: 8 then, 6 now", "params: 'abcd' then, None now", "new: "):
            assert phrase in str(caught.value)
        assert "clip" not in str(caught.value)


# --- the way to the current state ---


def test_catch_up_takes_the_cheapest_way() -> None:
    history = grown(begun(None), 100, 100, 0, 100)
    assert way(history.catch_up(4)) == (None, False, [])
    assert [link.round for link, _ in history.catch_up(1).sums] == [1, 2, 3]
    assert history.catch_up(2).sums[0] == (history.rounds[2], None)
    new = history.catch_up(None)
    assert (new.snapshot, new.initial, new.nbytes) == (None, True, 300 + len(INITIAL))
    assert sealed(history, 3, size=150)
    assert history.catch_up(2).nbytes == 100
    new = history.catch_up(None)
    assert (new.nbytes, new.initial) == (250, False)
    assert way(new)[0] == (3, history.chain_at(3), sealed_of(3, 150))
    assert history.catch_up(1).snapshot is None  # 200 bytes of sums
    assert history.catch_up(0).snapshot  # 250 bytes rather than 300
    assert sealed(history, 4, size=10)
    assert [history.catch_up(have).snapshot is None for have in (None, 0, 1, 3, 4)] == [
        False, False, False, False, True,
    ]  # fmt: skip


def test_small_initial_model_is_cheaper_than_a_large_snapshot() -> None:
    history = grown(begun(None), 10, 10)
    assert sealed(history, 2, size=1000)
    assert history.catch_up(None).initial
    assert history.catch_up(0).nbytes == 20


def test_a_gap_is_an_error_and_asks_for_a_snapshot() -> None:
    history = grown(begun(None), 100, 100, 100)
    for have in (-1, 4):
        with pytest.raises(HistoryGapError, match=f"finished {have} rounds"):
            history.catch_up(have)
    assert not history.wants_snapshot(4)
    history.drop_sum(1)
    assert history.wants_snapshot(0)
    assert history.catch_up(2).nbytes == 100
    for have in (None, 0, 1):
        with pytest.raises(HistoryGapError, match="kept from round 3 on"):
            history.catch_up(have)
    assert not sealed(history, 1)
    assert sealed(history, 3)
    assert not history.wants_snapshot(4)
    assert_leads_on(history, None)


def test_bytes_are_read_when_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with grown(begun(tmp_path), 100, 100) as history:
        read: list[str] = []
        real = Folder.read
        monkeypatch.setattr(Folder, "read", lambda f, name: (read.append(name), real(f, name))[1])
        path = history.catch_up(0)
        assert read == []
        first = path.sums[0][1]
        assert first
        assert first.load() == sum_of(0)
        assert read == ["sum-00000.bin"]


# --- how much is kept ---


def test_a_snapshot_is_due_by_rounds_or_by_bytes() -> None:
    history = begun(None, limit_bytes=250)
    assert not history.wants_snapshot(1)
    grown(history, 100, 100)
    assert [history.wants_snapshot(every) for every in (0, 1, 2, 3)] == [False, True, True, False]
    grown(history, 100)
    assert history.wants_snapshot(0)
    assert_leads_on(history, None)  # over the limit, but needed
    assert sealed(history, 3)
    assert not history.wants_snapshot(1)
    grown(history, 0)
    assert history.wants_snapshot(1)
    assert not history.wants_snapshot(2)


def test_the_way_round_a_snapshot_stays_until_a_client_has_opened_it(tmp_path: Path) -> None:
    with grown(begun(tmp_path), 100, 100, 0, 100) as history:
        assert sealed(history, 3)
        assert kept(tmp_path) == {0, 1, 3}
        history.drop_snapshot(3)
        assert_leads_on(history, None)
        assert sealed(history, 3)
        history.snapshot_used(2)
        assert kept(tmp_path) == {0, 1, 3}
        history.snapshot_used(3)
        assert kept(tmp_path) == {1, 3}  # one before it, which is not the failed round
        grown(history, 100, 100, 100)
        assert sealed(history, 6)
        assert files(tmp_path, "snapshot-*") == {"snapshot-00003.bin", "snapshot-00006.bin"}
        assert kept(tmp_path) == {3, 4, 5, 6}
        assert not sealed(history, 6)
        assert not sealed(history, 5)
        assert not history.keep_snapshot(0, START, b"x")
        assert sealed(history, 7)
        assert files(tmp_path, "snapshot-*") == {"snapshot-00006.bin", "snapshot-00007.bin"}
        assert kept(tmp_path) == {6}
        history.snapshot_used(6)  # no longer the newest
        history.snapshot_used(7)
        assert files(tmp_path, "snapshot-*") == {"snapshot-00007.bin"}
        history.drop_snapshot(7)
        assert history.wants_snapshot(0)


def test_the_limit_takes_what_is_not_needed(tmp_path: Path) -> None:
    with grown(begun(tmp_path, limit_bytes=400), 100, 100, 100) as history:
        assert sealed(history, 2)
        grown(history, 100)
        assert kept(tmp_path) == {0, 1, 2, 3}
        grown(history, 100)
        assert kept(tmp_path) == {1, 2, 3, 4}
        grown(history, 100)
        assert kept(tmp_path) == {1, 2, 3, 4, 5}  # since the snapshot, and the one before it
        assert not history.wants_snapshot(0)
        grown(history, 100)
        assert history.wants_snapshot(0)
    with History.resume(tmp_path, limit_bytes=1000) as resumed:
        assert not resumed.wants_snapshot(0)


# --- damage ---


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def read_initial(folder: Path) -> bytes:
    with History.resume(folder) as history:
        return history.initial


DAMAGES: list[Callable[[Path], None]] = [flip, cut, Path.unlink]


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    with grown(begun(tmp_path), 100, 100) as history:
        assert sealed(history, 1, size=150)
        history.note("nodes", {"1": "a"})
    return tmp_path


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["history.json", "rounds.jsonl", "initial.safetensors"])
def test_damage_is_named(closed: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(closed / name)
    assert History.exists(closed)
    with pytest.raises(HistoryDamageError, match=re.escape(str(closed / name))):
        read_initial(closed)
    if name == "history.json":
        with pytest.raises(HistoryError, match="a training is there already"):
            begun(closed)
    assert "sum-00001.bin" in files(closed)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["sum-00000.bin", "sum-00001.bin", "snapshot-00001.bin"])
def test_the_training_goes_on_without_a_sum_or_snapshot(
    closed: Path, name: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    damage(closed / name)
    with History.resume(closed) as history:
        number = int(name[-9:-4])
        if damage is flip:
            path = history.catch_up(0 if name.startswith("sum") else None)
            stored = path.sums[number][1] if name.startswith("sum") else None
            if path.snapshot:
                stored = path.snapshot[2]
            assert stored
            with pytest.raises(HistoryDamageError, match=f"{name}: damaged"):
                stored.load()
            drop = history.drop_sum if name.startswith("sum") else history.drop_snapshot
            drop(number)
        else:
            assert f"{name}: lost or damaged" in caplog.text
        assert name not in files(closed)
        if name == "sum-00001.bin":
            assert history.wants_snapshot(0)
            with pytest.raises(HistoryGapError):
                history.catch_up(None)
        else:
            assert_leads_on(history, None)
        assert_leads_on(history, 2)
        grown(history, 100)
        assert_leads_on(history, 2)
        before = view(history)
    with History.resume(closed) as history:
        assert view(history) == before


def test_a_file_that_cannot_be_read_is_not_called_damaged(
    closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    with History.resume(closed) as history, monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(HistoryError, match="cannot be read: Permission denied") as caught:
            _ = history.initial
        assert not isinstance(caught.value, HistoryDamageError)


@pytest.mark.parametrize("damage", [flip, cut])
def test_a_damaged_note_is_named(closed: Path, damage: Callable[[Path], None]) -> None:
    damage(closed / "note-nodes.json")
    with (
        History.resume(closed) as history,
        pytest.raises(HistoryDamageError, match=r"note-nodes\.json: damaged"),
    ):
        history.read("nodes")


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b"\xff", b"null", b"[" * 100_000, b'{"sha256": 1, "document": 2}']
)
def test_other_content_is_damage(closed: Path, text: bytes) -> None:
    (closed / "history.json").write_bytes(text)
    with pytest.raises(HistoryDamageError, match=r"history\.json: damaged"):
        History.resume(closed)


def test_another_version_is_refused(closed: Path) -> None:
    from quancrypt_fl.flower.history_files import checked_json

    document = json.loads((closed / "history.json").read_bytes())["document"]
    (closed / "history.json").write_bytes(checked_json({**document, "version": 9}))
    with pytest.raises(HistoryError, match="version 9; known: 1"):
        History.resume(closed)
    (closed / "history.json").write_bytes(checked_json({"version": 1}))
    with pytest.raises(HistoryDamageError, match=r"history\.json: damaged"):
        History.resume(closed)


# --- the folder ---


def test_begin_and_resume_do_not_mix(tmp_path: Path) -> None:
    assert not History.exists(tmp_path)
    with pytest.raises(HistoryError, match="no history to resume"):
        History.resume(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HistoryError, match="cannot be used"):
        begun(tmp_path / "file")
    begun(tmp_path / "new").close()
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0
    with pytest.raises(HistoryError, match="a training is there already; resume it"):
        begun(tmp_path / "new")


def test_files_of_others_stay_and_leftovers_go(tmp_path: Path) -> None:
    others = {"status.json", "events.jsonl", "status.json.tmp", "sum-1.bin", "results.json"}
    leftovers = {"sum-00007.bin", "snapshot-00003.bin", f".quancrypt-{'0' * 16}-{'f' * 16}.tmp"}
    for name in others | leftovers:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "note-nodes.json").write_bytes(b"of an earlier training")
    with grown(begun(tmp_path), 100) as history:
        assert history.read("nodes") is None
    whole = others | {
        "history.json",
        "rounds.jsonl",
        "initial.safetensors",
        "sum-00000.bin",
        "lock",
    }
    assert files(tmp_path) == whole
    for name in leftovers:
        (tmp_path / name).write_bytes(b"x")
    with History.resume(tmp_path):
        assert files(tmp_path) == whole


def test_one_server_at_a_time(tmp_path: Path) -> None:
    with begun(tmp_path):
        for open_again in (lambda: History.resume(tmp_path), lambda: begun(tmp_path)):
            with pytest.raises(HistoryError, match="another server is using this folder"):
                open_again()
    History.resume(tmp_path).close()


def test_a_killed_server_leaves_the_folder_free(tmp_path: Path) -> None:
    source = (
        "import sys, time\nfrom pathlib import Path\n"
        "from quancrypt_fl.flower.history import History\n"
        "history = History.resume(Path(sys.argv[1]))\nprint('open', flush=True)\ntime.sleep(60)\n"
    )
    grown(begun(tmp_path), 100).close()
    command = [sys.executable, "-c", source, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        with pytest.raises(HistoryError, match="another server"):
            History.resume(tmp_path)
        process.send_signal(signal.SIGKILL)
    with History.resume(tmp_path) as history:
        assert history.finished == 1
