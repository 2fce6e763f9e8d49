"""What a model can be tuned for, by name: each task makes a model and rows that fit each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from quancrypt_fl.lm.base import base_model
from quancrypt_fl.lm.clip import prepare_clip
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.encoders import encoder_of
from quancrypt_fl.lm.evaluation import scores
from quancrypt_fl.lm.loading import load_config
from quancrypt_fl.lm.multimodal import prepare_multimodal
from quancrypt_fl.lm.prepared import Prepared
from quancrypt_fl.lm.splits import limited
from quancrypt_fl.lm.texts import read_sentences, read_text, rows_digest

__all__ = ["prepare"]


def prepare(config: FinetuneConfig, folder: Path) -> Prepared:
    """Model and data of a fine-tuning.

    Parameters
    ----------
    config
        What to run, its defaults filled in.
    folder
        The model's.

    Raises
    ------
    ModelError, DataError
        If one of them is absent or broken, or they do not fit each other.
    """
    return _TASKS[config.task](config, folder)


def _prepare_texts(config: FinetuneConfig, folder: Path) -> Prepared:
    """Tasks ``causal`` and ``classify``."""
    length = config.sequence_length
    assert length is not None
    vocabulary = int(load_config(folder).get_text_config().vocab_size)
    encoder = encoder_of(folder, vocabulary, config.task)
    place = config.data.expanduser()
    if config.task == "causal":
        data = read_text(place, encoder, length)
    else:
        data = read_sentences(place, encoder, length, config.label_names())
    data = replace(
        data,
        train=limited(data.train, config.max_train_samples, config.seed, "train-limit"),
        test=limited(data.test, config.max_test_samples, config.seed, "test-limit"),
    )
    base = base_model(
        folder, config.model, config.task, data, length, config.seed, config.base_precision
    )
    return Prepared(replace(base, targets=config.targets()), data, scores, rows_digest(data))


_TASKS: Mapping[str, Callable[[FinetuneConfig, Path], Prepared]] = {
    "causal": _prepare_texts,
    "classify": _prepare_texts,
    "clip": prepare_clip,
    "multimodal": prepare_multimodal,
}
