"""Runs the C++ fuzzers with libFuzzer, round after round, and keeps count of what was executed.

    python fuzz/campaign.py build/fuzz/fuzz fuzz/corpus/cpp build/fuzz/work --millions 100
    python fuzz/campaign.py --count build/fuzz/work

A round runs every target once, each with its share of a million executions, so that an interrupted
campaign has reached all of them. Counts are appended to ``counts.tsv`` after each run; a target
that fails ends the campaign, and the input that made it fail stays in the working folder.
"""

import argparse
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

SHARES = {  # thousandths of a round: many of what is fast, some of what builds tables or decrypts
    "residues": 700,
    "secret_key": 160,
    "update": 60,
    "checksum": 40,
    "public_key": 25,
    "seal_import": 8,
    "decrypt": 4,
    "parameters": 2,
    "sum": 1,
}
LONGEST = 512
"""Bytes of an input: bodies are filled by repetition."""


def run(program: Path, executions: int, seed: int, work: Path, seeds: Path) -> int:
    """Run one target; the executions that libFuzzer counted."""
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
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-8000:]}\n{program.name} failed")
    found = re.search(r"stat::number_of_executed_units: +(\d+)", done.stderr)
    if found is None:
        sys.exit(f"{program.name} said nothing of its executions:\n{done.stderr[-2000:]}")
    return int(found[1])


def counts(work: Path) -> Counter[str]:
    """Executions of each target so far."""
    total: Counter[str] = Counter()
    file = work / "counts.tsv"
    if file.exists():
        for line in file.read_text().splitlines():
            target, number, _ = line.split("\t")
            total[target] += int(number)
    return total


def show(total: Counter[str]) -> None:
    """A table of them."""
    for target, number in total.most_common():
        print(f"{target:12} {number:>12,}")
    print(f"{'all':12} {total.total():>12,}", flush=True)


def main() -> None:
    """Run rounds until so many executions are counted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=Path, metavar="WORK", help="only print what was reached")
    parser.add_argument("--millions", type=int, default=100, help="executions in all")
    parser.add_argument("--targets", nargs="+", choices=SHARES, default=list(SHARES))
    parser.add_argument("folders", nargs="*", type=Path, metavar="BUILD SEEDS WORK")
    options = parser.parse_args()
    if options.count:
        show(counts(options.count))
        return
    if len(options.folders) != 3:
        parser.error("three folders: BUILD SEEDS WORK")
    build, seeds, work = options.folders
    work.mkdir(parents=True, exist_ok=True)
    seed = int(time.time()) % 2**31
    while counts(work).total() < options.millions * 1_000_000:
        for target in options.targets:
            seed += 1
            executed = run(build / f"fuzz_{target}", 1000 * SHARES[target], seed, work, seeds)
            with (work / "counts.tsv").open("a") as file:
                file.write(f"{target}\t{executed}\tseed {seed}\n")
        show(counts(work))


if __name__ == "__main__":
    main()
