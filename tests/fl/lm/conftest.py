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


@pytest.fixture(scope="session")
def causal(things: Path) -> Make:
    """Three clients with different parts of a text, two rounds of three batches."""

    def make(**choices: Any) -> FinetuneConfig:
        return FinetuneConfig(
            **{
                "task": "causal", "model": str(things / "gpt2"), "data": things / "text.txt",
                "partition": "contiguous", "sequence_length": 32, "rank": 4, "clients": 3,
                "rounds": 2, "local_steps": 3, "threads": 1, "lr": 1e-2, **choices,
            }
        )  # fmt: skip

    return make


@pytest.fixture(scope="session")
def classify(things: Path) -> Make:
    """Three clients with some sentences each, two rounds."""

    def make(**choices: Any) -> FinetuneConfig:
        return FinetuneConfig(
            **{
                "task": "classify", "model": str(things / "bert"), "data": things / "sentences",
                "sequence_length": 32, "rank": 4, "clients": 3, "rounds": 2, "local_steps": 3,
                "threads": 1, "lr": 1e-2, **choices,
            }
        )  # fmt: skip

    return make


@pytest.fixture(scope="session")
def clip(things: Path) -> Make:
    """Three clients with some pictures each, two rounds."""

    def make(**choices: Any) -> FinetuneConfig:
        return FinetuneConfig(
            **{
                "task": "clip", "model": str(things / "clip"), "data": things / "pictures",
                "rank": 4, "clients": 3, "rounds": 2, "local_steps": 3, "batch_size": 8,
                "threads": 1, "lr": 1e-2, **choices,
            }
        )  # fmt: skip

    return make


@pytest.fixture(scope="session")
def multimodal(things: Path) -> Make:
    """Three clients with some captioned pictures each, two rounds."""

    def make(**choices: Any) -> FinetuneConfig:
        return FinetuneConfig(
            **{
                "task": "multimodal", "model": str(things / "llava"), "data": things / "pictures",
                "rank": 4, "clients": 3, "rounds": 2, "local_steps": 3, "batch_size": 8,
                "threads": 1, "lr": 1e-2, **choices,
            }
        )  # fmt: skip

    return make
