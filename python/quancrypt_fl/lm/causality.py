"""Whether a model predicts a token from those before it alone."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from quancrypt_fl.lm.loading import ModelError

__all__ = ["check_causal"]

_SMALL = 1e-4  # of the largest score: more than another order of additions makes


def check_causal(folder: Path, model: nn.Module) -> None:
    """Refuse a model that sees what it is asked to predict: its perplexity would mean nothing.

    Parameters
    ----------
    folder
        For the error's message.
    model
        A causal language model of transformers.

    Raises
    ------
    ModelError
        If another second token changes what is said of the first position.
    """
    training = model.training
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        scores = model(input_ids=torch.tensor([[0, 0], [0, 1]], device=device)).logits[:, 0].float()
    model.train(training)
    if float((scores[0] - scores[1]).abs().max()) > _SMALL * float(scores.abs().max()):
        raise ModelError(
            f"{folder}: sees the tokens that it should predict, as encoders do; allowed: a model "
            'that reads from left to right ("is_decoder": true in the config.json of an encoder)'
        )
