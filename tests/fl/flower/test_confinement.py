"""A client's processes: no core dumps, and closed to debuggers where that is asked for."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the [flower] extra")

from quancrypt_fl.cli import client as command
from quancrypt_fl.cli.app import run
from quancrypt_fl.flower import confinement

DUMPABLE = """
import ctypes, os, resource, subprocess, sys
def dumpable():
    return ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
"""


def python(code: str, *, cwd: Path | None = None, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", DUMPABLE + code],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env={**os.environ, **variables},
    )
    assert done.returncode in (0, -6), done.stderr
    return done.stdout.strip()


def test_a_process_is_closed_and_what_it_starts_is_not() -> None:
    code = """
from quancrypt_fl.flower.confinement import close_process
print(dumpable())
close_process()
print(dumpable())
child = os.fork()
if child == 0:
    os._exit(dumpable())
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
code = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
print(subprocess.check_output([sys.executable, "-c", code]).decode().strip())
"""
    assert python(code).split() == ["1", "0", "0", "1"]


@pytest.mark.parametrize("asked", ["", "1"])
def test_flowers_programs_close_themselves_if_asked(asked: str) -> None:
    code = """
import flwr.supernode.cli
flwr.supernode.cli.flower_supernode = lambda: print(dumpable())
from quancrypt_fl.flower.programs import main
main(["supernode"])
"""
    assert python(code, QUANCRYPT_CLOSED=asked) == ("0" if asked else "1")


@pytest.mark.parametrize(
    ("forbid", "dumped"),
    [
        ("", True),
        ("from quancrypt_native.memory import forbid_core_dumps; forbid_core_dumps()", False),
        ("from quancrypt_fl.flower.confinement import close_process; close_process()", False),
    ],
)
def test_a_crash_leaves_no_dump(tmp_path: Path, forbid: str, dumped: bool) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if pattern.startswith(("|", "/", "@")) or 0 <= hard < 2**28:
        pytest.skip("this system writes no core dumps into the working directory")
    raised = "resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(4)[1],) * 2)\n"
    python(f"{raised}{forbid}\nos.abort()", cwd=tmp_path)
    assert any(path.name.startswith("core") for path in tmp_path.iterdir()) == dumped


@pytest.mark.parametrize(
    ("options", "closed", "dumps"),
    [([], False, False), (["--closed"], True, False), (["--core-dumps"], False, True)],
)
def test_the_client_begins_with_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    closed: bool,
    dumps: bool,
) -> None:
    """Before it opens a kit: there is none here."""
    done: list[str] = []
    monkeypatch.setenv(confinement.CLOSED, "")
    monkeypatch.setattr(confinement, "close_process", lambda: done.append("closed"))
    monkeypatch.setattr(command, "forbid_core_dumps", lambda: done.append("no dumps"))
    assert run(["client", str(tmp_path), *options]) != 0
    assert str(tmp_path) in capsys.readouterr().err
    assert ("closed" in done) == closed
    assert (os.environ[confinement.CLOSED] == "1") == closed
    assert ("no dumps" not in done) == dumps


def test_a_system_that_cannot_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(OSError, match="processes cannot be closed to debuggers on darwin"):
        confinement.close_process()
