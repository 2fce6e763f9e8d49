"""How many values a client's update of a run has, which decides the size of ciphertexts."""

from __future__ import annotations

import math

from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.data.shapes import IMAGES

__all__ = ["values_of"]


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
    layout = config.agreement().method(shapes).upload_layout(shapes, t=0)
    return sum(math.prod(sent) for sent, _ in layout.values())
