"""Files of a fine-tuning for ``quancrypt provision --finetune``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quancrypt_fl.deployment import toml

SETTINGS: Mapping[str, Any] = {
    "task": "causal", "partition": "contiguous", "sequence_length": 32, "rank": 4, "clients": 2,
    "rounds": 2, "local_steps": 2, "threads": 1, "lr": 1e-2,
}  # fmt: skip


def tuning_file(things: Path, place: Path, **changes: Any) -> Path:
    """A file that names the model and the text in ``things``."""
    settings = {"model": str(things / "gpt2"), "data": str(things / "text.txt"), **SETTINGS}
    path = place / "tuning.toml"
    path.write_text(toml.table({**settings, **changes}))
    return path
