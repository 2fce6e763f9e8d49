"""What lies under the commands on files: atomic outputs and passphrases."""

from __future__ import annotations

import errno
import getpass
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from quancrypt_fl.cli import storage
from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.cli.passphrase import VARIABLE, read_passphrase
from quancrypt_fl.cli.storage import read, write

KEY = Path("secret.qck")


def refuse(code: int) -> Any:
    def stand_in(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    return stand_in


def test_a_private_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        write(tmp_path / "private", b"x", private=True)
        write(tmp_path / "public", b"x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "public").stat().st_mode) == 0o666


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("call", "code"), [("fsync", errno.ENOSPC), ("open", errno.EACCES), ("open", errno.EROFS)]
)
def test_a_failed_write_leaves_things_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, force: bool
) -> None:
    path = tmp_path / "out"
    if force:
        path.write_text("old")
    monkeypatch.setattr(storage.os, call, refuse(code))
    with pytest.raises(CommandError, match="out: cannot be written: " + os.strerror(code)):
        write(path, b"new", force=force)
    monkeypatch.undo()
    assert [entry.read_text() for entry in tmp_path.iterdir()] == (["old"] if force else [])


def test_a_file_that_appears_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    path.write_text("theirs")
    monkeypatch.setattr(storage, "check_output", lambda *_, **__: None)
    with pytest.raises(CommandError, match="out: exists already"):
        write(path, b"ours")
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["theirs"]


def test_file_systems_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "hardlink_to", refuse(errno.EOPNOTSUPP))
    write(tmp_path / "out", b"new")
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"new"]
    with pytest.raises(CommandError, match="exists already"):
        write(tmp_path / "out", b"newer")
    assert (tmp_path / "out").read_bytes() == b"new"


def test_links_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    with pytest.raises(CommandError, match="link: cannot be written: it is not a regular file"):
        write(tmp_path / "link", b"new", force=True)
    assert (tmp_path / "target").read_text() == "old"


def piped(data: bytes) -> int:
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    return reading


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"secret", b"secret"),
        (b"secret\n", b"secret"),
        (b"secret\r\n", b"secret"),
        (b" with spaces \nsecond line\n", b" with spaces "),
        ("pässwörd\n".encode(), "pässwörd".encode()),
    ],
)
def test_a_descriptor_gives_its_first_line(
    data: bytes, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "the descriptor goes first")
    descriptor = piped(data)
    try:
        assert read_passphrase(KEY, descriptor) == expected
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("data", [b"", b"\n", b"\nsecret"])
def test_an_empty_line_is_no_passphrase(data: bytes) -> None:
    descriptor = piped(data)
    try:
        with pytest.raises(CommandError, match=f"--passphrase-fd {descriptor} is empty"):
            read_passphrase(KEY, descriptor)
    finally:
        os.close(descriptor)


def test_descriptors_that_give_nothing(tmp_path: Path) -> None:
    closed = piped(b"x")
    os.close(closed)
    with pytest.raises(CommandError, match=f"--passphrase-fd {closed}: Bad file descriptor"):
        read_passphrase(KEY, closed)
    with (
        Path("/dev/zero").open("rb") as endless,
        pytest.raises(CommandError, match="more than 65536 bytes"),
    ):
        read_passphrase(KEY, endless.fileno())


def test_the_environment_gives_bytes_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, os.fsdecode(b"p\xff\xc3\xa4"))
    assert read_passphrase(KEY, None, new=True) == b"p\xff\xc3\xa4"
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(CommandError, match="QUANCRYPT_PASSPHRASE is empty"):
        read_passphrase(KEY, None)


@pytest.mark.parametrize(
    ("answers", "new", "outcome"),
    [
        (["a"], False, b"a"),
        (["a", "a"], True, b"a"),
        (["a", "b"], True, "the two passphrases differ"),
        ([""], True, "the passphrase is empty"),
        ([EOFError()], True, "no passphrase was given"),
        ([getpass.GetPassWarning("echo")], False, "there is no terminal"),
    ],
)
def test_prompts(
    answers: list[Any], new: bool, outcome: bytes | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = iter(answers)

    def ask(prompt: str) -> str:
        assert prompt in ("Passphrase for secret.qck: ", "The same again: ")
        answer = next(given)
        if isinstance(answer, BaseException):
            raise answer
        return str(answer)

    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(getpass, "getpass", ask)
    if isinstance(outcome, bytes):
        assert read_passphrase(KEY, None, new=new) == outcome
        assert next(given, None) is None  # asked as often as it should be
    else:
        with pytest.raises(CommandError, match=outcome):
            read_passphrase(KEY, None, new=new)


# Plays a user at a terminal: answers each prompt only when it is there, and prints all that the
# terminal showed. A process of its own, since a fork must not meet the threads of this one.
TERMINAL = r"""
import os, pty, sys
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.executable, [sys.executable, "-m", "quancrypt_fl", *sys.argv[1:]])
shown, prompts = b"", [b"Passphrase for ", b"The same again"]
while True:
    try:
        block = os.read(terminal, 1024)
    except OSError:
        break
    if not block:
        break
    shown += block
    if prompts and prompts[0] in shown and shown.endswith(b": "):
        del prompts[0]
        os.write(terminal, b"hidden words\n")
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(shown.decode())
sys.exit(status)
"""


def test_a_terminal_is_asked_twice_and_shows_nothing(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != VARIABLE}
    arguments = ["keygen", "--out", "keys", "--max-weight", "2"]
    done = subprocess.run(
        [sys.executable, "-c", TERMINAL, *arguments],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Passphrase for keys/secret.qck: " in done.stdout
    assert "The same again: " in done.stdout
    assert "hidden words" not in done.stdout
    assert (tmp_path / "keys" / "secret.qck").exists()


def test_a_pipe_is_read_to_its_end_and_no_further_than_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "MOST_FROM_A_PIPE", 5)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for given, allowed in ((b"", True), (b"12345", True), (b"123456", False)):
        with subprocess.Popen([sys.executable, "-c", WRITES, str(pipe), given.decode()]) as writer:
            if allowed:
                assert read(pipe) == given
            else:
                with pytest.raises(CommandError, match=r"a pipe that gives more than 5 bytes"):
                    read(pipe)
        assert writer.returncode == 0


WRITES = "import sys; open(sys.argv[1], 'wb').write(sys.argv[2].encode())"


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_devices_are_refused(path: str) -> None:
    with pytest.raises(CommandError, match=f"{path}: cannot be read: it is neither a file nor a"):
        read(Path(path))


def test_a_folder_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read: Is a directory"):
        read(tmp_path)
