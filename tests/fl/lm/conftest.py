"""Tiny models and data of the language-model tests, made once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read once, when its library is imported
pytest.importorskip("transformers", reason="needs the [lm] extra")
pytest.importorskip("peft", reason="needs the [lm] extra")

from tests.fl.lm import tiny

from quancrypt_fl.lm.config import FinetuneConfig

Make = Callable[..., FinetuneConfig]


@pytest.fixture(scope="session")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of each class, and what it learns from."""
    folder = tmp_path_factory.mktemp("lm")
    tiny.gpt2(folder / "gpt2")
    tiny.bert(folder / "bert")
    tiny.text(folder / "text.txt")
    tiny.sentences(folder / "sentences")
    tiny.clip(folder / "clip")
    tiny.llava(folder / "llava")
    tiny.pictures(folder / "pictures")
    tiny.captions(folder / "captions")
    return folder


def _maker(things: Path, task: str, model: str, data: str, **own: Any) -> Make:
    """Three clients, two rounds of three batches."""

    def make(**choices: Any) -> FinetuneConfig:
        return FinetuneConfig(
            **{
                "task": task, "model": str(things / model), "data": things / data, "rank": 4,
                "clients": 3, "rounds": 2, "local_steps": 3, "threads": 1, "lr": 1e-2,
                **own, **choices,
            }
        )  # fmt: skip

    return make


@pytest.fixture(scope="session")
def causal(things: Path) -> Make:
    """Clients with different parts of a text."""
    own = {"partition": "contiguous", "sequence_length": 32}
    return _maker(things, "causal", "gpt2", "text.txt", **own)


@pytest.fixture(scope="session")
def classify(things: Path) -> Make:
    """Clients with some sentences each."""
    return _maker(things, "classify", "bert", "sentences", sequence_length=32)


@pytest.fixture(scope="session")
def clip(things: Path) -> Make:
    """Clients with some pictures each."""
    return _maker(things, "clip", "clip", "pictures", batch_size=8)


@pytest.fixture(scope="session")
def multimodal(things: Path) -> Make:
    """Clients with some captioned pictures each."""
    return _maker(things, "multimodal", "llava", "pictures", batch_size=8)
