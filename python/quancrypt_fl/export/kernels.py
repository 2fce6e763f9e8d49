"""Inference in int8: torch's own integer convolutions and linear layers.

Weights alone in int8 make a smaller file, not a faster pass: the arithmetic stays in float32. For
integer arithmetic activations are quantized too, each to the range that it takes on some sample
images (calibration). torch does this in ``torch.ao.quantization`` (FX graph mode), which is marked
as deprecated in favour of torchao; torchao's successor needs a C++ compiler at run time
(``torch.compile``), so the older way is taken for as long as torch has it.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import GraphModule

from quancrypt_fl.data import Samples
from quancrypt_fl.errors import MethodError

__all__ = ["CALIBRATION_IMAGES", "activation_ranges", "int8_model"]

CALIBRATION_IMAGES = 512
_BATCH = 128
_ENGINES = ("x86", "qnnpack")  # the second for ARM
_OBSERVER = re.compile(r"activation_post_process_\d+")


class _ChannelsLast(nn.Module):
    """Hands images on in the order of memory that integer convolutions want."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]


def activation_ranges(model: nn.Module, samples: Samples) -> NDArray[np.float32]:
    """Smallest and largest value of each activation over the first 512 of ``samples``.

    Returns
    -------
    array
        float32, shape (activations, 2), in the order in which they are computed.
    """
    images = torch.from_numpy(samples.images[:CALIBRATION_IMAGES])
    prepared = _prepared(model, images[:1])
    with torch.no_grad():
        for start in range(0, len(images), _BATCH):
            prepared(images[start : start + _BATCH])
    pairs = [[float(o.min_val), float(o.max_val)] for o in _observers(prepared)]
    return np.array(pairs, dtype=np.float32)


def int8_model(model: nn.Module, image_shape: tuple[int, int, int], ranges: Any) -> nn.Module:
    """A model that computes in int8, for the CPU.

    Parameters
    ----------
    model
        Its float32 original: weights that come from int8 with a scale for each output return to
        the same integers.
    image_shape
        (channels, height, width).
    ranges
        Of :func:`activation_ranges`, for a model of the same structure.

    Raises
    ------
    MethodError
        If torch has no integer kernels here, or ``ranges`` are another model's.
    """
    ranges = np.asarray(ranges, dtype=np.float32)
    prepared = _prepared(model, torch.zeros(1, *image_shape))
    observers = _observers(prepared)
    wanted = (len(observers), 2)
    if ranges.shape != wanted or not (ranges[:, 0] <= ranges[:, 1]).all():
        raise MethodError(
            f"ranges of activations have shape {ranges.shape}; the model's go up, and have shape "
            f"{wanted}"
        )
    if not np.isfinite(ranges).all():
        raise MethodError("ranges of activations hold infinity")
    for observer, (low, high) in zip(observers, ranges.tolist(), strict=True):
        observer.min_val, observer.max_val = torch.tensor(low), torch.tensor(high)
    with _torch_ao():
        from torch.ao.quantization.quantize_fx import convert_fx

        return _ChannelsLast(convert_fx(prepared)).eval()


def _prepared(model: nn.Module, example: Tensor) -> GraphModule:
    """A copy with an observer behind each activation."""
    with _torch_ao():
        from torch.ao.quantization import (
            MinMaxObserver,
            PerChannelMinMaxObserver,
            QConfig,
            QConfigMapping,
        )
        from torch.ao.quantization.quantize_fx import prepare_fx

        engines = [e for e in _ENGINES if e in torch.backends.quantized.supported_engines]
        if not engines:
            raise MethodError(f"this torch has no int8 kernels; wanted: {' or '.join(_ENGINES)}")
        torch.backends.quantized.engine = engines[0]
        configuration = QConfig(  # type: ignore[no-untyped-call]
            # 7 bits: without VNNI instructions, sums of two 8-bit products could overflow.
            activation=MinMaxObserver.with_args(dtype=torch.quint8, reduce_range=True),
            # The scales of `integers.quantize_weights` at 8 bits.
            weight=PerChannelMinMaxObserver.with_args(
                dtype=torch.qint8,
                qscheme=torch.per_channel_symmetric,
                quant_min=-127,
                quant_max=127,
            ),
        )
        mapping = QConfigMapping().set_global(configuration)
        plain = copy.deepcopy(model).eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return prepare_fx(plain, mapping, (example,))


def _observers(prepared: nn.Module) -> list[Any]:
    found = {name: m for name, m in prepared.named_modules() if _OBSERVER.fullmatch(name)}
    return [found[name] for name in sorted(found, key=lambda name: int(name.rpartition("_")[2]))]


@contextmanager
def _torch_ao() -> Iterator[None]:
    """Use ``torch.ao.quantization`` without its notes that it will be removed some day."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except ImportError as error:
            raise MethodError(
                "int8 kernels need torch.ao.quantization, which torch "
                f"{torch.__version__} does not have: load without int8_kernels"
            ) from error
