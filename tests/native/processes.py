"""Processes that hold secrets, and what an attacker reads of them: memory, mappings, core dumps."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CHUNK = 1 << 24


@contextmanager
def holder(
    code: str, *arguments: str, cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs ``code``, which talks over its standard input and output."""
    # By the file descriptor: no text layer of the interpreter keeps a copy of what is said.
    start = "import os, sys\nimport numpy as np\nimport quancrypt_native as qn\n" + code
    process = subprocess.Popen(
        [sys.executable, "-c", start, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=cwd,
        bufsize=0,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[bytes], size: int) -> bytes:
    """The next ``size`` bytes of its output."""
    assert process.stdout is not None
    data = b""
    while len(data) < size:
        piece = process.stdout.read(size - len(data))
        assert piece, f"it ended with status {process.wait()}"
        data += piece
    return data


def tell(process: subprocess.Popen[bytes]) -> None:
    """Let it go on: it reads a byte where it waits."""
    assert process.stdin is not None
    process.stdin.write(b".")


def found_in_memory(pid: int, needles: dict[str, bytes]) -> set[str]:
    """Which needles the process holds, in any mapping that it can read."""
    found = set()
    longest = max(map(len, needles.values()))
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if match is None or "[v" in line:  # [vvar], [vsyscall]: the kernel's
                continue
            begin, end = int(match[1], 16), int(match[2], 16)
            for at in range(begin, end, _CHUNK):
                try:
                    memory.seek(at)
                    data = memory.read(min(_CHUNK + longest, end - at))
                except OSError:
                    continue
                found |= {name for name, needle in needles.items() if needle in data}
    return found


def crash(process: subprocess.Popen[bytes], folder: Path) -> bytes | None:
    """Its core dump in ``folder``; None where the system writes none there."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    os.kill(process.pid, signal.SIGABRT)
    process.wait()
    if pattern.startswith(("|", "/", "@")):
        return None
    files = [path for path in folder.iterdir() if path.name.startswith("core")]
    return files[0].read_bytes() if files else None


def flags(pid: int) -> dict[tuple[int, int], set[str]]:
    """``VmFlags`` of each mapping of a process."""
    mappings: dict[tuple[int, int], set[str]] = {}
    span = (0, 0)
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            span = int(match[1], 16), int(match[2], 16)
        elif line.startswith("VmFlags:"):
            mappings[span] = set(line.split()[1:])
    return mappings


def places(pid: int, needle: bytes) -> list[int]:
    """Addresses of a needle in a process."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if match is None or "[v" in line:
                continue
            begin, end = int(match[1], 16), int(match[2], 16)
            try:
                memory.seek(begin)
                data = memory.read(end - begin)
            except OSError:
                continue
            found += [begin + hit.start() for hit in re.finditer(re.escape(needle), data)]
    return found
