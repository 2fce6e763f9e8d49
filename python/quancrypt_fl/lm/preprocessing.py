"""From pixels to what a vision tower takes: three channels of its size, normalised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from quancrypt_fl.lm.loading import ModelError, read_json

__all__ = ["Preprocessing"]

_FILE = "preprocessor_config.json"
_CHANNELS = 3
_RESAMPLING = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the images that CLIP was trained on
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocessing:
    """Resizing and normalising, as the model was trained with.

    Attributes
    ----------
    size
        Pixels of a side.
    mean, std
        One of each per channel, for pixels scaled to [0, 1].
    resampling
        ``"bicubic"`` or ``"bilinear"``.
    """

    size: int
    mean: Sequence[float]
    std: Sequence[float]
    resampling: str

    @classmethod
    def of(cls, folder: Path, vision: Any) -> Preprocessing:
        """Of a model: its size, and the rest from its ``preprocessor_config.json``, else CLIP's.

        Parameters
        ----------
        folder
            The model's.
        vision
            Configuration of its vision tower.

        Raises
        ------
        ModelError
            If the model takes other than square RGB, or the file is broken.
        """
        size: Any = getattr(vision, "image_size", None)
        if isinstance(size, list | tuple) and len(set(size)) == 1:
            size = size[0]
        channels = getattr(vision, "num_channels", _CHANNELS)
        if not isinstance(size, int) or channels != _CHANNELS:
            raise ModelError(
                f"{folder}: takes images of size {size!r} with {channels} channels; allowed: "
                f"square ones with {_CHANNELS}"
            )
        found = read_json(folder / _FILE) if (folder / _FILE).is_file() else {}
        mean, std = found.get("image_mean", _CLIP_MEAN), found.get("image_std", _CLIP_STD)
        for name, values, least in (("image_mean", mean, -math.inf), ("image_std", std, 0.0)):
            if not _numbers(values, least):
                raise ModelError(
                    f"{folder / _FILE}: {name} = {str(values)[:80]}; allowed: {_CHANNELS} numbers"
                    f"{' above 0' if values is std else ''}"
                )
        resample = found.get("resample", 3)
        if not isinstance(resample, int):
            raise ModelError(
                f"{folder / _FILE}: resample = {str(resample)[:80]}; allowed: a number"
            )
        return cls(size, mean, std, _RESAMPLING.get(resample, "bicubic"))

    def numbers(self) -> NDArray[np.float64]:
        """All that decides what pixels become."""
        bicubic = self.resampling == _RESAMPLING[3]
        return np.array([self.size, *self.mean, *self.std, bicubic], np.float64)

    def __call__(self, pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
        """Float32 of shape (pictures, 3, size, size).

        Parameters
        ----------
        pixels
            Shape (pictures, 1 or 3, height, width), in [0, 255]; grey is taken three times.
        """
        scaled = torch.from_numpy(pixels).to(device).float()
        for size in ((scaled.shape[-2], self.size), (self.size, self.size)):
            if scaled.shape[-2:] != size:  # as Pillow: first widths, then heights, in bytes
                scaled = interpolate(scaled, size, mode=self.resampling, antialias=True)
                scaled = scaled.round().clamp(0, 255)
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=device).reshape(_CHANNELS, 1, 1)
            for values in (self.mean, self.std)
        )
        return (scaled / 255 - mean) / std


def _numbers(values: Any, least: float) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) == _CHANNELS
        and all(isinstance(value, int | float) and least < value < math.inf for value in values)
    )
