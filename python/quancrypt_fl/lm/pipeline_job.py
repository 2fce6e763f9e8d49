"""What a pipeline is asked to do: the same for every stage, as text between processes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from quancrypt_fl.errors import ConfigError
from quancrypt_fl.lm.generation import Sampling

__all__ = ["ACTIVATION_BITS", "PipelineJob"]

ACTIVATION_BITS = (8, 32)


@dataclass(frozen=True)
class PipelineJob:
    """A generation by a model that is split over stages.

    Attributes
    ----------
    folder
        The model, on every machine.
    prompts
        Token numbers of each prompt.
    sampling
        How each is continued.
    activation_bits
        8: activations between stages are rounded, with a scale for each token. 32: they travel as
        the model computes them.
    timeout
        Seconds that a stage waits for another one.
    threads
        Threads of torch in each stage.
    logits
        Folder into which the last stage writes what every token was chosen by; None: nowhere.
    """

    folder: Path
    prompts: tuple[tuple[int, ...], ...]
    sampling: Sampling = field(default_factory=Sampling)
    activation_bits: int = 32
    timeout: float = 300.0
    threads: int = 1
    logits: Path | None = None

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ConfigError("there is no prompt; give at least one")
        if self.activation_bits not in ACTIVATION_BITS:
            raise ConfigError(
                f"activation-bits = {self.activation_bits}; allowed: 8, and 32 (not rounded)"
            )
        if not 1 <= self.timeout <= 86_400:
            raise ConfigError(f"timeout = {self.timeout:g}; allowed: 1 to 86,400 seconds")
        if self.threads < 1:
            raise ConfigError(f"threads = {self.threads}; allowed: 1 or more")

    def to_json(self) -> str:
        """One line of text."""
        document = asdict(self)
        document["folder"] = str(self.folder)
        document["logits"] = None if self.logits is None else str(self.logits)
        return json.dumps(document)

    @classmethod
    def from_json(cls, text: str) -> PipelineJob:
        """What :meth:`to_json` wrote."""
        document: Mapping[str, Any] = json.loads(text)
        logits = document["logits"]
        return cls(
            **{
                **document,
                "folder": Path(document["folder"]),
                "prompts": tuple(map(tuple, document["prompts"])),
                "sampling": Sampling(**document["sampling"]),
                "logits": None if logits is None else Path(logits),
            }
        )
