"""Bytes looked for where they must not be: in the memory of running processes, and in files.

Linux: a process's memory is what ``/proc/PID/maps`` lists, read through ``/proc/PID/mem``. All that
is readable is read (heap, stacks with the environment, libraries, shared memory), but for pages
that the process has never touched. Zeros at the ends of a needle are not sought.
"""

from __future__ import annotations

import base64
import ctypes
import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from quancrypt_fl.deployment.trees import descendants

PAGE = os.sysconf("SC_PAGE_SIZE")
CHUNK = 1 << 18  # bytes: stays in a processor's cache while one needle after the other is sought
_TOUCHED = 3 << 62  # of an entry in pagemap: the page is present, or swapped out
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+\s*(.*)")

_memmem = ctypes.CDLL(None).memmem  # two to four times as fast as bytes.find
_memmem.restype = ctypes.c_void_p
_memmem.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]

Needles = Mapping[str, bytes]
"""What is sought, by what it is called."""


@dataclass
class Search:
    """What a search went through, and what it found.

    Attributes
    ----------
    read
        Bytes read of each process or file, by its name.
    found
        From the name of a needle to the places where it is.
    """

    read: dict[str, int] = field(default_factory=dict)
    found: dict[str, list[str]] = field(default_factory=dict)

    def through(self, place: str, blocks: Iterable[tuple[str, bytes]], needles: Needles) -> None:
        """Search named blocks of bytes of one place."""
        self.read.setdefault(place, 0)
        sought = [(name, needle.strip(b"\0")) for name, needle in needles.items()]
        for where, block in blocks:
            self.read[place] += len(block)
            if block == bytes(len(block)):
                continue  # most of some processes, and slow to search
            for name, needle in sought:
                if _memmem(block, len(block), needle, len(needle)):
                    self.found.setdefault(name, []).append(f"{place}: {where}")


def why_not_readable() -> str | None:
    """Why the memory of a child process cannot be read here; None if it can."""
    if sys.platform != "linux":
        return f"reads /proc/PID/mem, which {sys.platform} does not have"
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)  # until the parent has looked
        os._exit(0)
    try:
        os.close(reading)
        held = sum(len(block) for _, block in _memory(child, 0))
    except OSError as error:
        return f"the system does not let a process read its child's memory: {error}"
    finally:
        os.close(writing)
        os.waitpid(child, 0)
    return None if held else "the system shows none of a child's memory"


def processes(*roots: int) -> dict[int, str]:
    """These processes and all below them, by number, with what they run."""
    found = {}
    for root in roots:
        for pid in (root, *(member.pid for member in descendants(root))):
            with suppress(FileNotFoundError, ProcessLookupError):
                found[pid] = _program(pid)
    return found


@contextmanager
def frozen(pids: Iterable[int]) -> Iterator[None]:
    """Stop processes, and let them go on at the end of the block."""
    stopped = []
    try:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                stopped.append(pid)
        yield
    finally:
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def search_processes(members: Mapping[int, str], needles: Needles) -> Search:
    """Search the memory of processes; one that ends meanwhile is left there."""
    search = Search()
    overlap = max(map(len, needles.values())) - 1
    for pid, program in members.items():
        with suppress(FileNotFoundError, ProcessLookupError):
            search.through(f"{program} ({pid})", _memory(pid, overlap), needles)
    return search


def search_files(folders: Iterable[Path], needles: Needles) -> Search:
    """Search all files in these folders, and below, and files given as such."""
    search = Search()
    overlap = max(map(len, needles.values())) - 1
    for folder in folders:
        for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
            if path.is_file():
                try:
                    search.through(str(path), _content(path, overlap), needles)
                except FileNotFoundError:  # replaced by another meanwhile
                    continue
    return search


def windows(data: bytes, count: int, size: int = 32) -> Iterator[bytes]:
    """``count`` pieces of ``size`` bytes from the beginning to the end of ``data``.

    None of them is common: in each, no byte makes more than three quarters of it (of those longer
    than 64 bytes 31 in 32).
    """
    last = len(data) - size
    for number in range(count):
        start = last * number // max(1, count - 1)
        piece = data[start : start + size]
        # In a long piece of wide numbers most bytes are zeros, and what is left is still much.
        most = 3 * size // 4 if size <= 64 else 31 * size // 32
        assert max(map(piece.count, set(piece))) <= most, f"{piece.hex()} is no evidence"
        yield piece


def spellings(data: bytes) -> dict[str, bytes]:
    """``data`` as it may stand in memory or in a text: as it is, and in hexadecimal and base64.

    Base64 is sought wherever in a longer text ``data`` begins; the characters at both ends, which
    other bytes have a part in, are left out.
    """
    found = {"bytes": data, "hex": data.hex().encode(), "HEX": data.hex().upper().encode()}
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + data)
        first, last = -(-8 * shift // 6), 8 * (shift + len(data)) // 6
        found[f"base64+{shift}"] = text[first:last]
    return found


def _memory(pid: int, overlap: int) -> Iterator[tuple[str, bytes]]:
    """Blocks of a process's memory, each with the ``overlap`` last bytes of the one before."""
    process = Path("/proc") / str(pid)
    maps = process.joinpath("maps").read_text(errors="replace")
    with (process / "mem").open("rb", 0) as memory, (process / "pagemap").open("rb", 0) as pages:
        for line in maps.splitlines():
            match = _MAPPING.match(line)
            assert match, line
            start, end = int(match[1], 16), int(match[2], 16)
            if "r" not in match[3] or match[4] in ("[vvar]", "[vvar_vclock]", "[vsyscall]"):
                continue
            name = match[4] or "anonymous"
            for first, beyond in _touched(pages.fileno(), start, end):
                tail = b""
                for at in range(first, beyond, CHUNK):
                    size = min(CHUNK, beyond - at)
                    try:
                        block = os.pread(memory.fileno(), size, at)
                    except ProcessLookupError:
                        raise
                    except OSError:  # unmapped since, or a device
                        break
                    yield f"{name} at {at:#x}", tail + block
                    tail = block[-overlap:] if overlap else b""


def _touched(pages: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Runs of addresses whose pages hold something."""
    entries = memoryview(os.pread(pages, 8 * ((end - start) // PAGE), 8 * (start // PAGE)))
    begin: int | None = None
    for number, entry in enumerate(entries.cast("Q")):
        if entry & _TOUCHED and begin is None:
            begin = number
        elif not entry & _TOUCHED and begin is not None:
            yield start + begin * PAGE, start + number * PAGE
            begin = None
    if begin is not None:
        yield start + begin * PAGE, end


def _content(path: Path, overlap: int) -> Iterator[tuple[str, bytes]]:
    with path.open("rb") as stream:
        tail = b""
        while block := stream.read(CHUNK):
            yield f"up to byte {stream.tell()}", tail + block
            tail = (tail + block)[-overlap:] if overlap else b""


def _program(pid: int) -> str:
    """What ``python -m`` runs, and its first argument: ``quancrypt_fl server``."""
    words = (Path("/proc") / str(pid) / "cmdline").read_text(errors="replace").split("\0")
    names = [word for word in words[1:] if word and not word.startswith("-")]
    return " ".join(names[:2]) or "ended"
