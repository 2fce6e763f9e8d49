"""Runs the Python targets: a fixed number of mutations each, or atheris, which coverage guides.

    python -m fuzz.python.run --runs 1000000 [--seed 1] [--targets reply update_packed] [--work DIR]
    python -m fuzz.python.run --atheris reply [libFuzzer's options]

The first kind depends on the seed alone: the same numbers make the same inputs. A finding is
written to ``found-TARGET-SHA`` in the working folder, one for each place that raises. With
``--work``, ``counts.tsv`` there keeps what was executed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from random import Random

from fuzz.python.target import Target

CORPUS = Path(__file__).resolve().parents[1] / "corpus" / "python"
MOST_MEMORY = 3 << 30
KEPT = 64
"""Mutated inputs that mutation goes on from, beside the seeds."""


def all_targets() -> dict[str, Target]:
    """Every target by name. Imports what they attack: atheris must come before."""
    from fuzz.python import (
        envelope_targets,
        federated_targets,
        native_targets,
        threshold_targets,
    )

    return {
        **native_targets.targets(),
        **threshold_targets.targets(),
        **federated_targets.targets(),
        **envelope_targets.targets(),
    }


def found_cases(name: str) -> list[bytes]:
    """Inputs in the tree that once were findings, or that were kept for another reason."""
    folder = CORPUS / name
    if not folder.is_dir():
        return []
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def inputs(target: Target, random: Random, runs: int) -> Iterator[bytes]:
    """``runs`` inputs, each one to three changes away from a seed or an earlier input."""
    pool = list(target.seeds)
    fixed = len(pool)
    for _ in range(runs):
        data = random.choice(pool)
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            data = target.mutate(random, data)
        yield data
        if len(data) < 1 << 16 and random.random() < 0.05:
            if len(pool) < fixed + KEPT:
                pool.append(data)
            else:
                pool[fixed + random.randrange(KEPT)] = data


def execute(name: str, target: Target, runs: int, seed: int, work: Path) -> int:
    """Replay what is kept in the tree, then run mutations; the number of different findings."""
    random = Random(f"{name} {seed}")
    places: set[str] = set()
    for data in (*target.seeds, *found_cases(name), *inputs(target, random, runs)):
        try:
            target.run(data)
        except Exception as error:
            place = f"{type(error).__name__} {traceback.extract_tb(error.__traceback__)[-1]}"
            if place in places:
                continue
            places.add(place)
            file = work / f"found-{name}-{hashlib.sha256(data).hexdigest()[:12]}"
            file.write_bytes(data)
            traceback.print_exc()
            print(f"{name}, seed {seed}: the input is in {file}", file=sys.stderr, flush=True)
    return len(places)


def with_atheris(name: str, arguments: list[str]) -> None:
    """One target under atheris, with the target's own mutations among libFuzzer's."""
    import atheris

    with atheris.instrument_imports(include=["quancrypt_native", "quancrypt_fl"]):
        target = all_targets()[name]

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.3:
            return bytes(atheris.Mutate(data, longest))
        return target.mutate(random, data)[:longest]

    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate((*target.seeds, *found_cases(name))):
            (Path(folder) / str(number)).write_bytes(data)
        atheris.Setup([sys.argv[0], *arguments, folder], target.run, custom_mutator=mutate)
        atheris.Fuzz()


def main() -> None:
    """Run."""
    if sys.argv[1:2] == ["--atheris"] and len(sys.argv) > 2:
        with_atheris(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000, help="mutations of each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="repetitions with the next seeds")
    parser.add_argument("--targets", nargs="+")
    parser.add_argument("--work", type=Path, help="folder for findings and counts")
    options = parser.parse_args()
    targets = all_targets()
    work = options.work or Path()
    work.mkdir(parents=True, exist_ok=True)
    # What a few bytes state must not decide what is allocated: beyond this it is a MemoryError.
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    findings = 0
    for seed in range(options.seed, options.seed + options.rounds):
        for name in options.targets or targets:
            began = time.monotonic()
            findings += execute(name, targets[name], options.runs, seed, work)
            seconds = time.monotonic() - began
            print(f"{name:14} {options.runs:>10,} runs, seed {seed}, {seconds:.0f} s", flush=True)
            if options.work:
                with contextlib.closing((work / "counts.tsv").open("a")) as file:
                    file.write(f"{name}\t{options.runs}\tseed {seed}\n")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
