"""Branches of the parsing functions alone that a run under coverage.py reached.

    python -m coverage run --branch --source=quancrypt_native,quancrypt_fl -m fuzz.python.run \
        --runs 9000 --targets update_packed update_slots parameters public_key secret_key reply \
        request tensors stored snapshot sums public_share deal part party answered channel_key \
        channel_message envelope opened_sum
    python -m coverage json && python -m fuzz.python.parser_coverage coverage.json

The files of these functions also write, and say things in words: that is no matter here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PARSERS = {
    "src/quancrypt_native/wire.py": ("parse", "_parse_header", "_is_int", "HeaderReader"),
    "src/quancrypt_native/layout.py": ("Layout.from_header", "_is_shape", "is_utf8"),
    "src/quancrypt_native/update.py": ("EncryptedUpdate.from_bytes", "EncryptedUpdate.parse"),
    "src/quancrypt_native/keys.py": (
        "SecretKey.from_bytes",
        "PublicKey.from_bytes",
        "_require_params",
    ),
    "src/quancrypt_native/sealing.py": ("open_sealed",),
    "src/quancrypt_native/parameters.py": ("Parameters.from_bytes", "_check_exactness"),
    "src/quancrypt_native/_ceremony.py": (
        "Ceremony.public_key",
        "Ceremony._parse",
        "Ceremony._part_bodies",
        "Ceremony._require_participants",
    ),
    "src/quancrypt_native/_party.py": ("Party.receive", "Party.from_bytes"),
    "src/quancrypt_native/_answered.py": ("Answered._read",),
    "src/quancrypt_native/channels.py": ("ChannelKey.open", "ChannelKey.from_bytes"),
    "python/quancrypt_fl/envelopes/format.py": ("Head.from_bytes",),
    "python/quancrypt_fl/envelopes/gate.py": (
        "Gate.open",
        "Gate.check",
        "Gate._check_bindings",
        "Gate._check_first",
        "Gate._check_length",
    ),
    "python/quancrypt_fl/joint/opened.py": ("OpenedSum.from_bytes", "_check_number"),
    "python/quancrypt_fl/flower/protocol.py": ("_read", "read_reply", "read_request"),
    "python/quancrypt_fl/flower/tensors_file.py": ("unpack", "_header", "_shape", "_json"),
    "python/quancrypt_fl/flower/snapshot.py": ("open_snapshot",),
    "python/quancrypt_fl/flower/snapshot_prefix.py": ("said_by", "chunks"),
    "python/quancrypt_fl/flower/held.py": ("read_held", "read_pending", "read_memory", "_unpack"),
    "python/quancrypt_fl/flower/sums.py": ("Sums.from_bytes",),
}


def branches(functions: dict[str, Any], names: tuple[str, ...]) -> tuple[int, int, list[list[int]]]:
    """Branches of these functions, those reached, and those missed as pairs of lines."""
    total = reached = 0
    missed: list[list[int]] = []
    for name, found in functions.items():
        if any(name == parser or name.startswith(f"{parser}.") for parser in names):
            total += found["summary"]["num_branches"]
            reached += found["summary"]["covered_branches"]
            missed += found["missing_branches"]
    return total, reached, missed


def main() -> None:
    """Print a line for each file, and the whole."""
    files = json.loads(Path(sys.argv[1]).read_text())["files"]
    total = reached = 0
    for file, names in PARSERS.items():
        here, got, missed = branches(files[file]["functions"], names)
        total, reached = total + here, reached + got
        print(f"{file:46} {got:3} of {here:3}  {missed or ''}")
    print(f"{'together':46} {reached:3} of {total:3}  {reached / total:.1%}")


if __name__ == "__main__":
    main()
