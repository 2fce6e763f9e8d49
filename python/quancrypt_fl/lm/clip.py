"""Task ``clip``: images and class prompts in one space (Radford et al., arXiv 2103.00020).

The score of a class is the cosine of the image's features and those of the class's prompt, times
the model's logit scale, which stays as it is. Cross-entropy over classes trains adapters of both
towers; accuracy is that of a zero-shot classifier: the class whose prompt is nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPConfig

from quancrypt_fl.errors import DataError
from quancrypt_fl.lm.base import Base, pretrained
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.encoders import encoder_of
from quancrypt_fl.lm.loading import ModelError, load_config_of
from quancrypt_fl.lm.pictures import Pictures, in_words, read_labelled
from quancrypt_fl.lm.prepared import Prepared
from quancrypt_fl.lm.preprocessing import Preprocessing
from quancrypt_fl.lm.rows import digest_of

__all__ = ["ClipScores", "prepare_clip"]

_TARGETS = ("q_proj", "v_proj")
_HIGHEST_TOKEN = 2  # an eos_token_id that makes transformers pool at a prompt's highest token


class ClipScores:
    """Scores of every class for pictures.

    Parameters
    ----------
    prompts
        Tokens of each class's prompt, shape (classes, length), filled up at the end.
    mask
        1 for what is a token, 0 for what fills up.
    preprocessing
        What makes pixels what the model takes.
    """

    def __init__(
        self, prompts: NDArray[np.int64], mask: NDArray[np.int64], preprocessing: Preprocessing
    ) -> None:
        self._prompts, self._mask = torch.from_numpy(prompts), torch.from_numpy(mask)
        self._preprocessing = preprocessing

    def __call__(
        self, model: nn.Module, samples: Pictures, rows: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """Scores, shape (rows, classes), and labels, shape (rows,)."""
        device = next(model.parameters()).device
        found: Tensor = model(
            input_ids=self._prompts.to(device),
            attention_mask=self._mask.to(device),
            pixel_values=self._preprocessing(samples.pixels[rows], device),
        ).logits_per_image
        return found.float(), torch.from_numpy(samples.labels[rows]).to(device)


def prepare_clip(config: FinetuneConfig, folder: Path) -> Prepared:
    """Model and data of the task.

    Raises
    ------
    ModelError, DataError
        If one of them is absent or broken, or they do not fit each other.
    """
    assert config.sequence_length is not None
    known = load_config_of(folder, CLIPConfig, "clip")
    preprocessing = Preprocessing.of(folder, known.vision_config)
    data = read_labelled(
        config.data.expanduser(), config.seed, config.max_train_samples, config.max_test_samples
    )
    sentences = in_words(config.prompt, data.classes)
    prompts, mask = _tokens(folder, known.text_config, sentences, config.sequence_length)
    model = pretrained(folder, config.model, "clip", config.base_precision)
    arrays = [a for part in (data.train, data.test) for a in (part.pixels, part.labels)]
    return Prepared(
        Base(model, (), config.targets() or _TARGETS),
        data,
        ClipScores(prompts, mask, preprocessing),
        digest_of([*arrays, prompts, preprocessing.numbers()]),
    )


def _tokens(
    folder: Path, text: Any, sentences: Sequence[str], length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tokens of the prompts and their mask, both of shape (classes, longest)."""
    if length > text.max_position_embeddings:
        most = text.max_position_embeddings
        raise DataError(
            f"sequence_length = {length}: the model has {most} positions; allowed: up to {most}"
        )
    encoder = encoder_of(folder, text.vocab_size, "clip")
    encoded = encoder.encode_sentences(sentences, length)
    longest = max(map(len, encoded))
    prompts = np.full((len(encoded), longest), encoder.pad, np.int64)
    mask = np.zeros_like(prompts)
    for number, tokens in enumerate(encoded):
        prompts[number, : len(tokens)], mask[number, : len(tokens)] = tokens, 1
    if int(prompts.max()) >= text.vocab_size:
        raise ModelError(
            f"{folder}: its tokenizer gives the token {int(prompts.max())}; the model knows "
            f"{text.vocab_size}"
        )
    end = text.eos_token_id
    if end != _HIGHEST_TOKEN and not (prompts == end).any(axis=1).all():
        raise ModelError(
            f"{folder}: its tokenizer ends no prompt with the token {end}, where the model reads "
            "a prompt's features (eos_token_id)"
        )
    seen: dict[tuple[int, ...], str] = {}
    for sentence, tokens in zip(sentences, encoded, strict=True):
        if (other := seen.setdefault(tuple(tokens), sentence)) is not sentence:
            raise DataError(
                f"{sentence!r} and {other!r} are the same {len(tokens)} tokens: the model cannot "
                "tell these classes apart; use another prompt, or a larger sequence_length"
            )
    return prompts, mask
