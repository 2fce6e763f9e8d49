"""How many values a client's update of a run has, which decides the size of ciphertexts."""

from __future__ import annotations

import math
from collections.abc import Mapping

from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.data.shapes import IMAGES
from quancrypt_fl.method.quancrypt import QuanCrypt

__all__ = ["values_of", "values_sent"]


def values_of(config: QuanCryptConfig) -> int:
    """Values in an upload of the first round, when the least is pruned; needs torch.

    Parameters
    ----------
    config
        The configuration, its defaults filled in.
    """
    import torch

    from quancrypt_fl.models import build_model

    shape, classes = IMAGES[config.dataset]
    with torch.device("meta"):  # shapes alone: no memory, no random numbers
        model = build_model(config.model, shape, classes)
    left_out = {name for name, _ in model.named_buffers()} if config.batch_norm == "local" else ()
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point() and name not in left_out
    }
    return values_sent(config.agreement().method(shapes), shapes)


def values_sent(method: QuanCrypt, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Values in the largest upload of the first rounds, one for each turn."""
    layouts = (method.upload_layout(shapes, t) for t in range(max(1, len(method.turns))))
    return max(sum(math.prod(sent) for sent, _ in layout.values()) for layout in layouts)
