"""``write_atomically``: order of its steps, modes, names, other writers, and what it leaves."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quancrypt_fl import atomic_files
from quancrypt_fl.atomic_files import is_temporary, keep_as, remove_leftovers, write_atomically


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def failing(code: int) -> Callable[..., Any]:
    def stand_in(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    return stand_in


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Operations on files from here on, in order."""
    done: list[str] = []

    def noting(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def operation(*arguments: Any, **options: Any) -> Any:
            if name != "fsync":
                done.append(name)
            elif stat.S_ISDIR(os.fstat(arguments[0]).st_mode):
                done.append("fsync folder")
            else:
                done.append("fsync file")
            return real(*arguments, **options)

        return operation

    for name in ("write", "fsync", "replace", "link", "unlink"):
        monkeypatch.setattr(os, name, noting(name))
    return done


def test_contents_are_durable_before_their_name(tmp_path: Path, steps: list[str]) -> None:
    write_atomically(tmp_path / "a", b"one")
    assert steps == ["write", "fsync file", "replace", "fsync folder"]
    steps.clear()
    write_atomically(tmp_path / "a", b"two", durable_name=False)
    assert steps == ["write", "fsync file", "replace"]
    steps.clear()
    write_atomically(tmp_path / "b", b"new", replace=False)
    assert steps == ["write", "fsync file", "link", "unlink", "fsync folder"]


@pytest.mark.parametrize("data", [b"", b"x", bytearray(b"array"), memoryview(b"view"), b"y" * 9999])
@pytest.mark.parametrize("replace", [False, True])
def test_any_bytes(tmp_path: Path, data: bytes, replace: bool) -> None:
    if replace:
        (tmp_path / "a").write_bytes(b"before")
    write_atomically(tmp_path / "a", data, replace=replace)
    assert (tmp_path / "a").read_bytes() == data
    assert names(tmp_path) == {"a"}


def test_writes_that_take_less_than_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system does above 2 GiB."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    write_atomically(tmp_path / "a", bytes(range(100)))
    assert (tmp_path / "a").read_bytes() == bytes(range(100))


@pytest.mark.parametrize(("mode", "umask", "expected"), [
    (0o600, 0, 0o600), (0o666, 0o022, 0o644), (0o666, 0o077, 0o600), (0o700, 0o022, 0o700),
])  # fmt: skip
def test_the_mode_is_there_from_the_beginning(
    tmp_path: Path, mode: int, umask: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = os.write

    def looking(fd: int, data: bytes) -> int:
        seen.append(stat.S_IMODE(os.fstat(fd).st_mode))
        return real(fd, data)

    monkeypatch.setattr(os, "write", looking)
    (tmp_path / "a").touch(0o644)
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "a", b"x", mode=mode)
    finally:
        os.umask(before)
    assert seen == [expected]
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == expected


@pytest.mark.parametrize("length", [1, 100, 255])
def test_names_as_long_as_the_system_allows(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("ä" * (length // 2) + "a" * (length % 2))
    assert len(os.fsencode(path.name)) == length
    for data in (b"one", b"two"):
        write_atomically(path, data)
        assert path.read_bytes() == data


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"theirs")
    (tmp_path / "link").symlink_to("target")
    write_atomically(tmp_path / "link", b"ours")
    assert (tmp_path / "target").read_bytes() == b"theirs"
    assert not (tmp_path / "link").is_symlink()


def test_an_existing_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"theirs")
    for links in (True, False):
        if not links:
            monkeypatch.setattr(Path, "hardlink_to", failing(errno.EOPNOTSUPP))
        with pytest.raises(FileExistsError):
            write_atomically(tmp_path / "a", b"ours", replace=False)
        assert (tmp_path / "a").read_bytes() == b"theirs"
        assert names(tmp_path) == {"a"}
    write_atomically(tmp_path / "b", b"ours", replace=False)
    assert (tmp_path / "b").read_bytes() == b"ours"
    assert names(tmp_path) == {"a", "b"}


# --- errors ---


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_an_error_leaves_what_was_there(
    tmp_path: Path, call: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, call, failing(code))
    with pytest.raises(OSError, match=os.strerror(code)):
        write_atomically(tmp_path / "a", b"new")
    monkeypatch.undo()
    assert names(tmp_path) == {"a"}
    assert (tmp_path / "a").read_bytes() == b"old"


def test_an_interruption_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(fd: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a", b"new")
    assert names(tmp_path) == {"a"}
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize(("code", "raised"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_folders_that_cannot_be_made_durable(
    tmp_path: Path, code: int, raised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(code, os.strerror(code))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    if raised:
        with pytest.raises(OSError, match=os.strerror(code)):
            write_atomically(tmp_path / "a", b"new")
    else:
        write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"  # both times: the rename came first
    assert names(tmp_path) == {"a"}


def test_there_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "absent" / "a", b"x")


# --- other writers, and those that are gone ---

STUCK = """
import os, sys, time
from pathlib import Path
from quancrypt_fl.atomic_files import write_atomically

def fsync(fd):
    print("written", flush=True)
    time.sleep(600)

os.fsync = fsync
write_atomically(Path(sys.argv[1]), b"theirs")
"""


def test_leftovers_go_and_what_is_being_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "a"
    command = [sys.executable, "-c", STUCK, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "written\n"
            (temporary,) = names(tmp_path)
            assert is_temporary(temporary)
            write_atomically(path, b"ours")
            remove_leftovers(tmp_path)
            assert names(tmp_path) == {"a", temporary}
        finally:
            process.kill()
    write_atomically(tmp_path / "b", b"x")
    assert names(tmp_path) == {"a", "b", temporary}  # it may belong to another writer of "a"
    write_atomically(path, b"again")
    assert names(tmp_path) == {"a", "b"}


def test_only_our_leftovers_go(tmp_path: Path) -> None:
    ours = f".quancrypt-{'0' * 16}-{'f' * 16}.tmp"
    others = {".quancrypt-notes.tmp", f"{ours}.old", "a.tmp", f"x{ours}"}
    for name in {ours, *others}:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / f".quancrypt-{'1' * 16}-{'f' * 16}.tmp").symlink_to("a.tmp")
    (tmp_path / f".quancrypt-{'2' * 16}-{'f' * 16}.tmp").mkdir()
    remove_leftovers(tmp_path)
    assert ours not in names(tmp_path)
    assert len(names(tmp_path)) == len(others) + 2
    remove_leftovers(tmp_path / "absent")


def test_where_there_are_no_locks_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = f".quancrypt-{'0' * 16}-{'f' * 16}.tmp"
    (tmp_path / ours).write_bytes(b"x")
    monkeypatch.setattr(atomic_files.fcntl, "flock", failing(errno.ENOLCK))
    remove_leftovers(tmp_path)
    write_atomically(tmp_path / "a", b"new")
    assert names(tmp_path) == {"a", ours}
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_writer_whose_file_was_taken_for_a_leftover_makes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its creation and its lock another process may remove it."""
    real, made = os.open, []

    def open_and_lose(path: Path, *rest: Any, **options: Any) -> int:
        opened = real(path, *rest, **options)
        if is_temporary(Path(path).name):
            made.append(path)
            if len(made) < 3:
                Path(path).unlink()
        return opened

    monkeypatch.setattr(os, "open", open_and_lose)
    write_atomically(tmp_path / "a", b"new")
    assert len(made) == 3
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == {"a"}


MANY = """
import sys
from pathlib import Path
from quancrypt_fl.atomic_files import write_atomically

for n in range(40):
    write_atomically(Path(sys.argv[1]), bytes([int(sys.argv[2])]) * 5000)
"""


def test_writers_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"\0" * 5000)
    writers = [subprocess.Popen([sys.executable, "-c", MANY, str(path), str(n)]) for n in (1, 2, 3)]
    while any(writer.poll() is None for writer in writers):
        data = path.read_bytes()
        assert data == bytes([data[0]]) * 5000
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert names(tmp_path) == {"a"}


# --- a file kept under another name ---


@pytest.mark.parametrize("links", [True, False])
def test_what_is_kept_stays(tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    path, kept = tmp_path / "a", tmp_path / "a-old"
    write_atomically(path, b"old", mode=0o600)
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", failing(errno.EPERM))
    for _ in range(2):  # again changes nothing
        keep_as(path, kept)
    write_atomically(path, b"new", mode=0o600)
    assert (path.read_bytes(), kept.read_bytes()) == (b"new", b"old")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert names(tmp_path) == {"a", "a-old"}
    monkeypatch.undo()
    with pytest.raises(FileExistsError):
        keep_as(path, kept)
    assert kept.read_bytes() == b"old"
