"""``python -m quancrypt_fl.bench.child CONFIG``: the operations alone, for another kernel set."""

from __future__ import annotations

import json
import sys

import quancrypt_native as qn
from quancrypt_fl.bench.operations import Subjects, compare
from quancrypt_fl.bench.rivals import missing_rivals
from quancrypt_fl.bench.run import BenchConfig
from quancrypt_fl.bench.timing import quiet

__all__ = ["main"]


def main(text: str) -> None:
    """Measure as ``text``, a :class:`BenchConfig` as JSON, says, and print the rows as JSON."""
    config = BenchConfig(**json.loads(text))
    qn.set_num_threads(config.threads)
    subjects = Subjects(config.values, config.threads, missing_rivals(), config.seed)
    with quiet():
        rows = compare(subjects, config.repeat, lambda _: None)
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
