"""Task ``multimodal``: captions that a language model writes of pictures (LLaVA, arXiv 2304.08485).

A vision tower makes features of a picture, a connector makes token embeddings of them, and these
stand before the caption that a causal language model predicts. The tower is frozen, the connector
is trained whole, and the language model gets an adapter. The loss is over captions alone.

A client without pictures trains the adapter on captions that nothing stands before, and sends
zeros for the connector.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as USUAL
from torch import Tensor, nn
from transformers import LlavaConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from quancrypt_fl.errors import DataError
from quancrypt_fl.lm.base import Base, pretrained
from quancrypt_fl.lm.captions import Captions, Encode, read_captions
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.loading import ModelError, load_config_of, load_tokenizer
from quancrypt_fl.lm.prepared import Prepared
from quancrypt_fl.lm.preprocessing import Preprocessing
from quancrypt_fl.lm.rows import digest_of
from quancrypt_fl.lm.texts import IGNORED

__all__ = ["CONNECTOR", "CaptionScores", "prepare_multimodal"]

CONNECTOR = "multi_modal_projector"
_LANGUAGE_MODEL = "language_model"
_TARGETS = ("q_proj", "v_proj")


class CaptionScores:
    """Scores of every token of captions.

    Parameters
    ----------
    start
        Tokens that every row begins with: the tokenizer's first one, or none.
    pictures
        Tokens that stand for a picture's features, before the caption.
    preprocessing
        What makes pixels what the vision tower takes.
    """

    def __init__(
        self, start: Sequence[int], pictures: Sequence[int], preprocessing: Preprocessing
    ) -> None:
        self._start, self._pictures = list(start), list(pictures)
        self._preprocessing = preprocessing

    def __call__(
        self, model: nn.Module, samples: Captions, rows: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """Scores, shape (rows, longest, tokens), and labels, shape (rows, longest)."""
        device = next(model.parameters()).device
        pixels, lengths = samples.pictures(rows), samples.lengths[rows]
        longest = int(lengths.max())
        head = self._start if pixels is None else [*self._start, *self._pictures]
        heads = np.tile(np.array(head, np.int64), (len(rows), 1))
        tokens = np.concatenate([heads, samples.tokens[rows, :longest]], axis=1)
        known = np.arange(tokens.shape[1]) < len(head) + lengths[:, None]
        labels = np.where(known & (np.arange(tokens.shape[1]) >= len(head)), tokens, IGNORED)
        predicted = min(longest, tokens.shape[1] - 1)  # nothing predicts a row's first token
        found: Tensor = model(
            input_ids=torch.from_numpy(tokens[:, :-1]).to(device),
            attention_mask=torch.from_numpy(known[:, :-1].astype(np.int64)).to(device),
            pixel_values=None if pixels is None else self._preprocessing(pixels, device),
            logits_to_keep=predicted,
        ).logits
        return found.float(), torch.from_numpy(labels[:, -predicted:]).to(device)


def prepare_multimodal(config: FinetuneConfig, folder: Path) -> Prepared:
    """Model and data of the task.

    Raises
    ------
    ModelError, DataError
        If one of them is absent or broken, or they do not fit each other.
    """
    assert config.sequence_length is not None
    known = load_config_of(folder, LlavaConfig, "multimodal")
    preprocessing = Preprocessing.of(folder, known.vision_config)
    picture = _picture_token(folder, known)
    start, encode = _tokenizer(folder, picture, known, config.sequence_length)
    data = read_captions(config.data.expanduser(), encode, preprocessing.size, config)
    model = pretrained(folder, config.model, "multimodal", config.base_precision)
    pictures = [picture] * _features(folder, model, preprocessing)
    _check_length(known, len(start) + len(pictures), data.train, data.test)
    return Prepared(
        Base(model, (CONNECTOR,), _targets(model, config.targets())),
        data,
        CaptionScores(start, pictures, preprocessing),
        digest_of([*data.arrays(), np.array(start, np.int64), preprocessing.numbers()]),
    )


def _picture_token(folder: Path, known: LlavaConfig) -> int:
    token, most = known.image_token_id, known.get_text_config().vocab_size
    if not isinstance(token, int) or not 0 <= token < most:
        raise ModelError(
            f"{folder}: has no token for images among the {most} of its language model: "
            f"image_token_index = {token}"
        )
    return token


def _tokenizer(
    folder: Path, picture: int, known: LlavaConfig, length: int
) -> tuple[list[int], Encode]:
    """Tokens before every row, and what makes tokens of captions, with an end if there is one."""
    tokenizer = load_tokenizer(folder)
    vocabulary = known.get_text_config().vocab_size
    begins: list[int] = tokenizer("")["input_ids"]
    start = begins[:1] if begins[:1] == [tokenizer.bos_token_id] else []
    end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    fewest = 1 if start else 2

    def encode(captions: Sequence[str]) -> list[list[int]]:
        found = tokenizer(list(captions), add_special_tokens=False, verbose=False)["input_ids"]
        rows = [[*tokens, *end][:length] for tokens in found]
        for caption, tokens in zip(captions, rows, strict=True):
            wrong = [token for token in tokens if token == picture or token >= vocabulary]
            if wrong or len(tokens) < fewest:
                what = f"the token {wrong[0]}" if wrong else f"{len(tokens)} tokens"
                raise DataError(
                    f"the caption {caption!r:.80} gives {what}; allowed: {fewest} or more, below "
                    f"{vocabulary}, other than the images' own {picture}"
                )
        return rows

    return start, encode


def _features(folder: Path, model: PreTrainedModel, preprocessing: Preprocessing) -> int:
    """Token embeddings that a picture becomes."""
    blank = np.zeros((1, 3, preprocessing.size, preprocessing.size), np.uint8)
    with torch.inference_mode():
        found = model.get_image_features(  # type: ignore[operator]
            pixel_values=preprocessing(blank, model.device)
        )
    return len(found.pooler_output[0])


def _check_length(known: LlavaConfig, head: int, *parts: Captions) -> None:
    most = getattr(known.get_text_config(), "max_position_embeddings", None)
    longest = max(int(part.lengths.max()) for part in parts)
    if most is not None and head + longest - 1 > most:
        raise DataError(
            f"a picture takes {head} tokens and the longest caption {longest}; the model has "
            f"{most} positions; a smaller sequence_length cuts captions"
        )


def _targets(model: PreTrainedModel, wanted: Sequence[str] | str | None) -> str:
    """The adapted modules, all in the language model, as a pattern of their names for peft."""
    text = model.config.get_text_config().model_type
    if isinstance(wanted, str):  # all-linear
        inner = model.get_submodule(f"model.{_LANGUAGE_MODEL}")
        linear = (n for n, m in inner.named_modules() if isinstance(m, nn.Linear | Conv1D))
        wanted = sorted({name.rpartition(".")[2] for name in linear})
    names = "|".join(map(re.escape, wanted or USUAL.get(text, _TARGETS)))
    return rf"(.*\.)?{_LANGUAGE_MODEL}\.(.*\.)?({names})"
