"""LoRA adapters as shapes alone: what of a model's layers travels in each mode, without the model.

Modes are those of ``quancrypt lm finetune`` (docs/language-models.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from quancrypt_fl.errors import ConfigError

__all__ = ["LLAMA_2_7B", "AdaptedLayers", "value_count"]

_FACTORS: Mapping[str, tuple[str, ...]] = {"ffa": ("B",), "sb": ("R",), "both": ("A", "B")}


@dataclass(frozen=True)
class AdaptedLayers:
    """Equal layers with adapted square weights.

    Attributes
    ----------
    layers
        Number of layers.
    width
        Weights have the shape (width, width).
    modules
        Names of a layer's adapted weights.
    """

    layers: int
    width: int
    modules: tuple[str, ...]

    def shapes(self, mode: str, rank: int) -> dict[str, tuple[int, int]]:
        """Shape of every tensor that travels, by the names that peft gives them.

        Raises
        ------
        ConfigError
            If there is no such mode, or the rank does not fit.
        """
        if mode not in _FACTORS:
            raise ConfigError(f"mode = {mode!r}; allowed: {', '.join(_FACTORS)}")
        if not 1 <= rank <= self.width:
            raise ConfigError(f"rank = {rank}; allowed: 1 to {self.width}")
        of = {"A": (rank, self.width), "B": (self.width, rank), "R": (rank, rank)}
        return {
            f"base_model.model.model.layers.{layer}.self_attn.{module}.lora_{factor}.weight": of[
                factor
            ]
            for layer in range(self.layers)
            for module in self.modules
            for factor in _FACTORS[mode]
        }


LLAMA_2_7B = AdaptedLayers(layers=32, width=4096, modules=("q_proj", "v_proj"))
"""Query and value projections of Llama-2-7B (arXiv 2307.09288), as FedShield-LLM adapts them."""


def value_count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Values of all tensors together."""
    return sum(math.prod(shape) for shape in shapes.values())
