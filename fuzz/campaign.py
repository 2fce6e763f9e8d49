"""Runs the C++ fuzzers with libFuzzer, round after round, and keeps count of what was executed.

    python fuzz/campaign.py build/fuzz/fuzz fuzz/corpus/cpp build/fuzz/work --millions 100 --jobs 2
    python fuzz/campaign.py --count build/fuzz/work

A round runs every target once, each with its share of a million executions, so that an interrupted
campaign has reached all of them. Counts and CPU seconds are appended to ``counts.tsv`` after each
run: started again with the same working folder, a campaign goes on from there. A target that fails
ends the campaign, and the input that made it fail stays in the working folder.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SHARES = {  # thousandths of a round: many of what is fast, some of what builds tables or decrypts
    "residues": 500,
    "secret_key": 240,
    "update": 80,
    "checksum": 45,
    "public_key": 35,
    "party": 35,
    "deal": 15,
    "parts": 15,
    "public_shares": 12,
    "seal_import": 10,
    "decrypt": 6,
    "parameters": 5,
    "sum": 2,
}
LONGEST = 512
"""Bytes of an input: bodies are filled by repetition."""


def run(program: Path, executions: int, seed: int, work: Path, seeds: Path) -> tuple[int, float]:
    """Run one target; the executions that libFuzzer counted, and the CPU seconds they took."""
    corpus = work / "corpus" / program.name.removeprefix("fuzz_")
    corpus.mkdir(parents=True, exist_ok=True)
    command = [
        str(program),
        f"-runs={executions}",
        f"-seed={seed}",
        f"-max_len={LONGEST}",
        "-print_final_stats=1",
        "-verbosity=0",
        f"-artifact_prefix={work / program.name}-",
        str(corpus),
        *([str(seeds / corpus.name)] if (seeds / corpus.name).is_dir() else []),
    ]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read().decode(errors="replace")
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{said[-8000:]}\n{program.name} failed")
    found = re.search(r"stat::number_of_executed_units: +(\d+)", said)
    if found is None:
        sys.exit(f"{program.name} said nothing of its executions:\n{said[-2000:]}")
    return int(found[1]), used.ru_utime + used.ru_stime


def records(work: Path) -> Iterator[tuple[str, int, float]]:
    """Target, executions and CPU seconds of each run; 0 seconds where they were not noted."""
    file = work / "counts.tsv"
    for line in file.read_text().splitlines() if file.exists() else []:
        target, number, _, *seconds = line.split("\t")
        yield target, int(number), float(seconds[0]) if seconds else 0.0


def counts(work: Path) -> Counter[str]:
    """Executions of each target so far."""
    total: Counter[str] = Counter()
    for target, number, _ in records(work):
        total[target] += number
    return total


def rates(work: Path) -> dict[str, float]:
    """Executions of each target in a CPU second, of the runs whose seconds were noted."""
    executed: Counter[str] = Counter()
    spent: dict[str, float] = {}
    for target, number, seconds in records(work):
        if seconds > 0:
            executed[target] += number
            spent[target] = spent.get(target, 0.0) + seconds
    return {target: executed[target] / spent[target] for target in executed}


def show(work: Path) -> None:
    """A table of them."""
    total, rate = counts(work), rates(work)
    print(f"{'':14} {'executions':>12} {'in a CPU second':>16}")
    for target, number in total.most_common():
        speed = f"{rate[target]:,.0f}" if target in rate else ""
        print(f"{target:14} {number:>12,} {speed:>16}")
    print(f"{'all':14} {total.total():>12,}", flush=True)


def main() -> None:
    """Run rounds until so many executions are counted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=Path, metavar="WORK", help="only print what was reached")
    parser.add_argument("--millions", type=int, default=100, help="executions in all")
    parser.add_argument("--targets", nargs="+", choices=SHARES, default=list(SHARES))
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("folders", nargs="*", type=Path, metavar="BUILD SEEDS WORK")
    options = parser.parse_args()
    if options.count:
        show(options.count)
        return
    if len(options.folders) != 3:
        parser.error("three folders: BUILD SEEDS WORK")
    build, seeds, work = options.folders
    work.mkdir(parents=True, exist_ok=True)
    noting = threading.Lock()

    def one(target: str, seed: int) -> None:
        program, executions = build / f"fuzz_{target}", 1000 * SHARES[target]
        executed, seconds = run(program, executions, seed, work, seeds)
        with noting, (work / "counts.tsv").open("a") as file:
            file.write(f"{target}\t{executed}\tseed {seed}\t{seconds:.1f}\n")

    seed = int(time.time()) % 2**31
    while counts(work).total() < options.millions * 1_000_000:
        with ThreadPoolExecutor(options.jobs) as pool:
            numbers = range(seed, seed + len(options.targets))
            list(pool.map(one, options.targets, numbers))
        seed += len(options.targets)
        show(work)


if __name__ == "__main__":
    main()
