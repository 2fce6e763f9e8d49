"""``python benchmarks/soak.py --minutes 60``: does a deployment that runs for long grow?

Deploys a server and clients on this machine (TLS, SuperNode authentication, the built-in app) and
trains, one training after the other, for so many minutes. Twice a minute it reads of every process
that lives on from message to message (supervisors, SuperLink, SuperNodes, the training's process)
its own memory (RssAnon), its open files and its threads; processes of one message live for seconds
and are left out. At the end it prints them as a table and draws them, and exits with 1 if one grew:
between the second quarter of its life and the last by more than 5 % and 2 MiB of memory, or by more
than 2 open files. Linux.

What follows ``--`` goes to ``quancrypt provision``, as ``-- --threshold 2``.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the deployment of the tests

from tests.fl.deployment.deployment import Deployment  # noqa: E402

from quancrypt_fl.bench.machine import describe_machine  # noqa: E402
from quancrypt_fl.bench.tables import machine_line  # noqa: E402
from quancrypt_fl.deployment.trees import Member, descendants  # noqa: E402

EVERY = 30.0  # seconds
LIVES_ON = 300.0  # seconds that a process must have been seen for, to be judged
GROWTH, SLACK_BYTES, SLACK_FILES = 1.05, 2 * 2**20, 2
PROC = Path("/proc")

Sample = dict[str, float]  # seconds, bytes, files, threads


def sample(member: Member, now: float) -> Sample | None:
    """What a process holds; None if it has ended."""
    folder = PROC / str(member.pid)
    try:
        lines = (folder / "status").read_text().splitlines()
        files = len(list((folder / "fd").iterdir()))
    except OSError:
        return None
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    if "RssAnon" not in status:  # a zombie
        return None
    held = int(status["RssAnon"].split()[0]) * 1024
    return {"seconds": now, "bytes": held, "files": files, "threads": int(status["Threads"])}


def role(member: Member) -> str:
    """What a process is: its program, or the module that Python runs."""
    try:
        words = (PROC / str(member.pid) / "cmdline").read_bytes().decode().split("\0")
    except OSError:
        return "?"
    if "-m" in words:
        at = words.index("-m")
        return " ".join(words[at + 1 : at + 3])
    names = [Path(word).name for word in words[:2] if word]
    return names[-1] if names else "?"


class Watch:
    """Samples of all processes of a deployment, by who started them and what they are."""

    def __init__(self) -> None:
        self.roles: dict[Member, str] = {}
        self.samples: dict[Member, list[Sample]] = defaultdict(list)

    def look(self, roots: Mapping[str, int], now: float) -> None:
        """Sample the processes with these numbers and all that they have started."""
        for name, pid in roots.items():
            for member in (Member(pid, 0), *descendants(pid)):
                if (found := sample(member, now)) is None:
                    continue
                if member not in self.roles:
                    self.roles[member] = f"{name}: {role(member)}"
                self.samples[member].append(found)

    def lasting(self) -> list[tuple[str, list[Sample]]]:
        """Those that lived on for long enough, by name."""
        found = [
            (self.roles[member], samples)
            for member, samples in self.samples.items()
            if samples[-1]["seconds"] - samples[0]["seconds"] >= LIVES_ON
        ]
        return sorted(found, key=lambda pair: pair[0])


def quarter(samples: Sequence[Sample], number: int, what: str) -> float:
    """Median of a quarter of a life, counted from 0."""
    size = len(samples) / 4
    part = samples[int(number * size) : max(int((number + 1) * size), int(number * size) + 1)]
    return statistics.median(one[what] for one in part)


def grew(samples: Sequence[Sample]) -> bool:
    """Whether a process held more at the end of its life than after its beginning."""
    early, late = (quarter(samples, n, "bytes") for n in (1, 3))
    files = quarter(samples, 3, "files") - quarter(samples, 1, "files")
    return late > max(early * GROWTH, early + SLACK_BYTES) or files > SLACK_FILES


def table(lasting: Iterable[tuple[str, list[Sample]]]) -> str:
    rows = [
        "| process | minutes | MiB: 2nd quarter | last | open files | last | threads | grew |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, samples in lasting:
        minutes = (samples[-1]["seconds"] - samples[0]["seconds"]) / 60
        memory = [quarter(samples, n, "bytes") / 2**20 for n in (1, 3)]
        files = [quarter(samples, n, "files") for n in (1, 3)]
        threads = quarter(samples, 3, "threads")
        rows.append(
            f"| {name} | {minutes:.0f} | {memory[0]:.1f} | {memory[1]:.1f} | {files[0]:.0f} | "
            f"{files[1]:.0f} | {threads:.0f} | {'**yes**' if grew(samples) else 'no'} |"
        )
    return "\n".join(rows)


def draw(lasting: Sequence[tuple[str, list[Sample]]], path: Path) -> None:
    """Memory and open files over time, a line for each process."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), dpi=150, layout="constrained")
    for axes, what, label, unit in zip(
        figure.subplots(2, 1, sharex=True),
        ("bytes", "files"),
        ("own memory, MiB", "open files"),
        (2**20, 1),
        strict=True,
    ):
        for number, (name, samples) in enumerate(lasting):
            at = [one["seconds"] / 60 for one in samples]
            values = [one[what] / unit for one in samples]
            style = {"color": f"C{number % 10}", "linestyle": "--" if number // 10 else "-"}
            axes.plot(at, values, label=name, linewidth=1, **style)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    axes.set_xlabel("minutes")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=7, frameon=False)
    figure.savefig(path)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below; what is removed meanwhile does not count."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def soak(deployment: Deployment, minutes: float, watch: Watch, runs: list[dict[str, Any]]) -> None:
    """Train until the time is over; ``runs`` gets the bytes of the server's folder after each."""
    start = time.monotonic()
    end = start + 60 * minutes
    while (now := time.monotonic()) < end:
        deployment.start_run()
        run = deployment.running["run"]
        while run.poll() is None and (now := time.monotonic()) < end:
            watch.look({name: p.pid for name, p in deployment.running.items()}, now - start)
            try:
                run.wait(EVERY)
            except subprocess.TimeoutExpired:
                continue
        if run.poll() is None:
            deployment.interrupt_run()
        else:
            deployment.finish_run()
        done = len(list((deployment.kits / "server/state/runs").glob("*")))
        kept = folder_bytes(deployment.kits / "server")
        rounds = len(re.findall(r"round \d+: evaluate asked", deployment.log("run")))
        minute = round((now - start) / 60, 1)
        runs.append({"minute": minute, "trainings": done, "rounds": rounds, "server_bytes": kept})
        print(
            f"minute {minute}: {rounds} rounds in {done} trainings, server's folder {kept:,} bytes"
        )
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=100, help="of a training")
    parser.add_argument("--out", type=Path, help="folder for soak.json and soak.png")
    parser.add_argument("options", nargs="*", help="of quancrypt provision, after --")
    wanted = parser.parse_args()
    options = ["--rounds", str(wanted.rounds), "--min-arrivals", "2", *wanted.options]
    watch = Watch()
    runs: list[dict[str, Any]] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        deployment = Deployment(Path(name), wanted.clients, options)
        try:
            deployment.start_all()
            soak(deployment, wanted.minutes, watch, runs)
        except KeyboardInterrupt:
            print("interrupted; what was seen until then:")
        finally:
            deployment.end()
    lasting = watch.lasting()
    if wanted.out:
        wanted.out.mkdir(parents=True, exist_ok=True)
        found = {
            "machine": describe_machine(), "time": time.strftime("%Y-%m-%d"), "options": options,
            "clients": wanted.clients, "minutes": wanted.minutes, "runs": runs,
            "processes": [{"name": name, "samples": samples} for name, samples in lasting],
        }  # fmt: skip
        (wanted.out / "soak.json").write_text(json.dumps(found, indent=1))
        draw(lasting, wanted.out / "soak.png")
    print(machine_line(describe_machine()))
    print(table(lasting))
    if not lasting:
        raise SystemExit(f"no process was seen for {LIVES_ON:.0f} s: nothing is judged")
    if any(grew(samples) for _, samples in lasting):
        raise SystemExit("a process grew")


if __name__ == "__main__":
    main()
