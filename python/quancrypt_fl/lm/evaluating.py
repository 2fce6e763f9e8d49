"""Several models and adapters on the same data, in one table."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from quancrypt_fl.errors import ConfigError, DataError
from quancrypt_fl.lm.base import check_fit, row_length
from quancrypt_fl.lm.classes import TASKS
from quancrypt_fl.lm.codecs import codec_of
from quancrypt_fl.lm.encoders import encoder_of
from quancrypt_fl.lm.evaluation import evaluate_texts
from quancrypt_fl.lm.generation import Sampling, generate
from quancrypt_fl.lm.loading import load_config, model_folder
from quancrypt_fl.lm.opening import Opened, open_model, plain_model
from quancrypt_fl.lm.run import metric_of, value_of
from quancrypt_fl.lm.splits import limited
from quancrypt_fl.lm.texts import IGNORED, LanguageData, read_sentences, read_text

__all__ = ["Comparison", "Entry", "evaluate_entries"]

_SPEED_TOKENS = 32
_SPEED_PROMPT = "The "


@dataclass(frozen=True)
class Entry:
    """A model, and what it is called. Entries of one name make one row."""

    name: str
    model: str

    @classmethod
    def parse(cls, text: str) -> Entry:
        """From ``NAME=FOLDER``."""
        name, equals, model = text.partition("=")
        if not (name and equals and model):
            raise ConfigError(f"{text!r}; allowed: NAME=FOLDER, such as base=models/gpt2")
        return cls(name, model)


@dataclass(frozen=True)
class Comparison:
    """How entries are judged.

    Attributes
    ----------
    task
        ``"causal"``: perplexity of the last tenth of a text. ``"classify"``: accuracy on dev.tsv.
    data
        See :class:`~quancrypt_fl.lm.config.FinetuneConfig`.
    base
        The model of adapters; None: there are none.
    sequence_length
        Tokens of a block; of a sentence at most. None: see :func:`.row_length`.
    max_test_samples, seed
        Judge by so many rows, drawn by the seed as a fine-tuning draws them; None: by all.
    speed
        Measure generation too.
    """

    task: str
    data: Path
    base: str | None = None
    sequence_length: int | None = None
    max_test_samples: int | None = None
    seed: int = 1
    speed: bool = False

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ConfigError(f"task = {self.task!r}; allowed: {', '.join(TASKS)}")
        if self.speed and self.task != "causal":
            raise ConfigError("speed is that of generation; allowed with task = 'causal'")


def evaluate_entries(
    entries: Sequence[Entry],
    comparison: Comparison,
    on_entry: Callable[[Entry], None] = lambda entry: None,
) -> dict[str, Any]:
    """Judge every entry; a row for each name, in the order of their first appearance.

    Parameters
    ----------
    on_entry
        Told of each one before it is loaded.

    Returns
    -------
    dict
        ``metric``, ``task``, ``data`` and ``rows``; ``value`` of a row is the mean of ``values``.

    Raises
    ------
    ModelError, DataError
        If one of them, or the data, cannot be used.
    """
    if not entries:
        raise ConfigError("there is no model; give at least one NAME=FOLDER")
    base = None if comparison.base is None else model_folder(comparison.base)
    judged: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        on_entry(entry)
        opened = open_model(model_folder(entry.model), comparison.task, base)
        judged.setdefault(entry.name, []).append(_judged(opened, comparison))
        del opened  # one model at a time in memory
    return {
        "schema": 1,
        "task": comparison.task,
        "metric": metric_of(comparison.task),
        "data": str(comparison.data),
        "rows": [_row(name, parts) for name, parts in judged.items()],
    }


def _judged(opened: Opened, comparison: Comparison) -> dict[str, Any]:
    length = row_length(comparison.sequence_length, opened.tokenizer_folder)
    data = _data(opened, comparison, length)
    test = limited(data.test, comparison.max_test_samples, comparison.seed, "test-limit")
    plain = plain_model(opened.model)
    check_fit(opened.tokenizer_folder, plain, data, length)
    classes = plain.config.num_labels
    if comparison.task == "classify" and classes != len(data.classes):
        raise DataError(
            f"{comparison.data}: has {len(data.classes)} classes; the model in "
            f"{opened.tokenizer_folder} tells {classes} apart"
        )
    started = time.perf_counter()
    evaluation = evaluate_texts(opened.model, test)
    return {
        "value": value_of(metric_of(comparison.task), evaluation),
        "loss": evaluation.loss,
        "sequence_length": length,
        "predictions": int((test.labels != IGNORED).sum()),
        "seconds": time.perf_counter() - started,
        "kind": opened.kind,
        "weight_bytes": opened.weight_bytes,
        "tokens_per_second": _speed(opened) if comparison.speed else None,
    }


def _data(opened: Opened, comparison: Comparison, length: int) -> LanguageData:
    folder = opened.tokenizer_folder
    vocabulary = int(load_config(folder).get_text_config().vocab_size)
    encoder = encoder_of(folder, vocabulary, comparison.task)
    read = read_text if comparison.task == "causal" else read_sentences
    return read(comparison.data.expanduser(), encoder, length)


def _speed(opened: Opened) -> float:
    """New tokens per second after a short prompt, its own pass left out."""
    plain = plain_model(opened.model)
    prompt = codec_of(opened.tokenizer_folder, plain.config).encode(_SPEED_PROMPT)
    tokens = generate(plain, prompt, Sampling(_SPEED_TOKENS + 1), ends=frozenset())
    next(tokens)
    started = time.perf_counter()
    made = sum(1 for _ in tokens)
    return made / (time.perf_counter() - started)


def _row(name: str, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    speeds = [part["tokens_per_second"] for part in parts if part["tokens_per_second"] is not None]
    return {
        "name": name,
        "value": fmean(part["value"] for part in parts),
        "values": [part["value"] for part in parts],
        "loss": fmean(part["loss"] for part in parts),
        "kind": parts[0]["kind"],
        "sequence_length": parts[0]["sequence_length"],
        "predictions": parts[0]["predictions"],
        "weight_bytes": parts[0]["weight_bytes"],
        "seconds": sum(part["seconds"] for part in parts),
        "tokens_per_second": fmean(speeds) if speeds else None,
    }
