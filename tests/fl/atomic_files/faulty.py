"""``python -m tests.fl.atomic_files.faulty FAULT FOLDER``: all scenarios, with faults at each step.

Each attempt is a process of its own, forked from this one, which has no threads. Prints for each
scenario what came of each attempt, as JSON.

``kill``
    SIGKILL at the n-th operation on files; a write is half done by then.
``full``
    From the n-th operation that takes room on there is none: ENOSPC.
``frozen``
    Every operation that changes something fails: EROFS.
``limit``
    The kernel lets no file grow beyond n bytes: EFBIG.
``small``
    A file system without a free page (a tmpfs that is mounted here, which takes root).
``read-only``
    A file system that is mounted so; where this user may not mount, folders without the right.
"""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.fl.atomic_files.scenarios import (
    NEW_PASSPHRASE,
    PASSPHRASE,
    SCENARIOS,
    Scenario,
    template,
)

from quancrypt_fl.atomic_files import is_temporary
from quancrypt_fl.errors import FederatedError
from quancrypt_native import sealing

REFUSED, BYPASSED = 3, 77  # exit statuses: an error was reported; a file was opened past the hooks
_OPERATIONS = (
    "open", "write", "fsync", "replace", "rename", "link", "unlink", "mkdir", "rmdir",
    "ftruncate", "truncate",
)  # fmt: skip
_TAKE_ROOM = ("open", "write", "fsync", "link", "mkdir")
_LIMITS = (0, 1, 50, 300)  # bytes
_MOST = 400


class Steps:
    """Counts the operations on files, and has a fault at one of them."""

    def __init__(self, fault: str, at: int) -> None:
        self.fault, self.at, self.count = fault, at, 0
        for name in _OPERATIONS:
            setattr(os, name, self._hooked(name, getattr(os, name)))
        real = io.open

        def checked(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
            if set(mode) & set("wax+"):
                os._exit(BYPASSED)
            return real(file, mode, *rest, **options)

        io.open = checked

    def _hooked(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*args: Any, **options: Any) -> Any:
            writes = name != "open" or args[1] & (os.O_WRONLY | os.O_RDWR)
            if writes and (self.fault != "full" or name in _TAKE_ROOM):
                self.count += 1
                if self.count >= self.at:
                    if name == "write" and self.count == self.at:
                        real(args[0], args[1][: len(args[1]) // 2])
                    if self.fault == "kill":
                        os.kill(os.getpid(), signal.SIGKILL)
                    number = errno.ENOSPC if self.fault == "full" else errno.EROFS
                    raise OSError(number, os.strerror(number))
            return real(*args, **options)

        return operation


def attempt(act: Callable[[], None], before: Callable[[], object] = lambda: None) -> str:
    """Act in a process of its own: ``killed``, ``refused`` or ``done``."""
    child = os.fork()
    if child == 0:
        silence = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(silence, stream)
        try:
            before()
            act()
        except (FederatedError, OSError):
            os._exit(REFUSED)
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {0: "done", REFUSED: "refused", -signal.SIGKILL: "killed", BYPASSED: "bypassed"}.get(
        status, f"status {status}"
    )


def state(read: Callable[[Path], str], folder: Path) -> str:
    try:
        return read(folder)
    except BaseException as error:
        return f"broken: {error!r:.200}"


def leftovers(folder: Path) -> int:
    return sum(is_temporary(path.name) for path in folder.rglob("*"))


def attempts(fault: str, scenario: Scenario, root: Path) -> Iterator[dict[str, Any]]:
    for n in {"limit": _LIMITS, "frozen": (1,)}.get(fault, range(1, _MOST)):
        folder = root / str(n)
        folder.mkdir()
        scenario.prepare(folder)

        def before(n: int = n) -> None:
            if fault == "limit":
                resource.setrlimit(resource.RLIMIT_FSIZE, (n, n))
            else:
                Steps(fault, n)

        came = attempt(lambda folder=folder: scenario.act(folder), before)  # type: ignore[misc]
        yield {"at": n, "came": came, **afterwards(scenario, folder)}
        if came == "done":
            return


def on_a_bad_disk(fault: str, scenario: Scenario, root: Path) -> Iterator[dict[str, Any]]:
    """One attempt where the file system itself has no room, or may not be written."""
    folder = root / "disk"
    folder.mkdir()
    with spoilable(folder) as (spoil, mend):
        scenario.prepare(folder)
        spoil(fault)
        came = attempt(lambda: scenario.act(folder))
        mend(fault)
        yield {"at": 0, "came": came, **afterwards(scenario, folder)}


Change = Callable[[str], None]


@contextmanager
def spoilable(folder: Path) -> Iterator[tuple[Change, Change]]:
    """What spoils the file system of a folder, and what mends it."""
    mounted = os.geteuid() == 0
    if mounted:
        mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", folder)

    def remount(how: str) -> None:
        if mounted:
            mount("-o", f"remount,{how}", folder)
            return
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                path.chmod(0o500 if how == "ro" else 0o700)

    def spoil(fault: str) -> None:
        if fault == "read-only":
            remount("ro")
            return
        with suppress(OSError), (folder / "filler").open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))

    def mend(fault: str) -> None:
        if fault == "read-only":
            remount("rw")
        else:
            (folder / "filler").unlink()

    try:
        yield spoil, mend
    finally:
        if mounted:
            subprocess.run(["umount", folder], check=True)


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True, stdout=subprocess.DEVNULL)


def afterwards(scenario: Scenario, folder: Path) -> dict[str, Any]:
    """What is there, and after one more attempt without a fault."""
    left = leftovers(folder)
    found = state(scenario.read, folder)
    again = attempt(lambda: scenario.act(folder))
    return {
        "found": found,
        "leftovers": left,
        "again": again,
        "then": state(scenario.read, folder),
        "leftovers_then": leftovers(folder),
    }


def main(fault: str, root: Path) -> None:
    warnings.simplefilter("ignore", DeprecationWarning)  # of fork: NumPy may have threads, idle
    sealing._SCRYPT_N = 16
    os.environ["QUANCRYPT_PASSPHRASE"] = PASSPHRASE
    os.environ["QUANCRYPT_NEW_PASSPHRASE"] = NEW_PASSPHRASE
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    found: dict[str, Any] = {}
    template(root / "template")
    for number, (name, scenario) in enumerate(SCENARIOS.items()):
        folder = root / str(number)
        folder.mkdir()
        make = on_a_bad_disk if fault in ("small", "read-only") else attempts
        found[name] = list(make(fault, scenario, folder))
    with os.fdopen(out, "w") as stream:
        json.dump(found, stream)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
