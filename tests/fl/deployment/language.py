"""Files of a fine-tuning for ``quancrypt provision --finetune``, one for each task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.fl.lm import tiny

from quancrypt_fl.deployment import toml

SETTINGS: Mapping[str, Any] = {
    "task": "causal", "partition": "contiguous", "sequence_length": 32, "rank": 4, "clients": 2,
    "rounds": 2, "local_steps": 2, "threads": 1, "lr": 1e-2,
}  # fmt: skip

MODELS: Mapping[str, tuple[str, Callable[[Path], object]]] = {
    "causal": ("gpt2", tiny.gpt2),
    "classify": ("bert", tiny.bert),
    "clip": ("clip", tiny.clip),
    "multimodal": ("llava", tiny.llava),
}
DATA: Mapping[str, tuple[str, Callable[[Path], object]]] = {
    "causal": ("text.txt", tiny.text),
    "classify": ("sentences", tiny.sentences),
    "clip": ("pictures", tiny.pictures),
    "multimodal": ("captions", tiny.captions),
}
"""By task: the name in a folder, and what writes it there."""


def write_things(folder: Path, task: str) -> tuple[Path, Path]:
    """A base model and data for a task."""
    folder.mkdir(exist_ok=True)
    paths = []
    for name, write in (MODELS[task], DATA[task]):
        write(folder / name)
        paths.append(folder / name)
    return paths[0], paths[1]


def settings_for(task: str) -> dict[str, Any]:
    """:data:`SETTINGS`, as they fit a task."""
    return {**SETTINGS, "task": task, "partition": "contiguous" if task == "causal" else "iid"}


def tuning_file(things: Path, place: Path, task: str = "causal", **changes: Any) -> Path:
    """A file that names the model and the data in ``things``."""
    named = {"model": str(things / MODELS[task][0]), "data": str(things / DATA[task][0])}
    path = place / "tuning.toml"
    path.write_text(toml.table({**settings_for(task), **named, **changes}))
    return path
