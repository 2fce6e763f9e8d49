"""The configuration of a pre-training: every choice that decides its result, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from quancrypt_fl.federation_config import FEDERATION_CHOICES, FederationConfig, choice
from quancrypt_fl.method.outer import Nesterov

__all__ = ["LEFT_OUT", "PRETRAIN_CHOICES", "PRETRAIN_GROUPS", "PretrainConfig"]

PRETRAIN_CHOICES: Mapping[str, tuple[str, ...]] = {
    **FEDERATION_CHOICES,
    "partition": ("iid", "contiguous"),
    "vocabulary": ("bytes", "characters"),
    "method": ("quancrypt", "vanilla", "tenseal"),
    "baseline": ("none", "ddp"),
}
"""What is available for each field that names something."""

_ONLY = {"update": "delta", "smoothing": 1.0, "local_epochs": None}
"""Fields of any federation that have one value here: an outer gradient is a difference of weights,
its optimizer takes the place of smoothing, and clients count their steps."""

LEFT_OUT = frozenset({*_ONLY, "paillier_bits", "processes"})
"""Fields that are no options of ``quancrypt lm pretrain``."""

_SIZES: Mapping[str, Any] = {"layers": 4, "width": 128, "heads": 4, "vocabulary": "bytes"}


class _Pretraining(BaseModel):
    """The fields that only a pre-training has; they come first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path = Field(description="A text file in UTF-8.")
    partition: str = choice(
        "iid",
        "How blocks of the text are divided over clients. contiguous: parts in order, so that "
        "clients differ in topic.",
    )
    max_train_samples: int | None = choice(
        None, "Use only so many blocks of the text for training.", ge=1
    )
    max_test_samples: int | None = choice(None, "And so many for testing.", ge=1)
    sequence_length: int = choice(128, "Tokens of a block of text.", ge=2, le=1 << 20)

    model: Path | None = choice(
        None,
        "Folder with the config.json of a model that predicts text, and its tokenizer if it has "
        "one; its weights are not used. None: a GPT-2 of the sizes that follow.",
    )
    layers: int | None = choice(None, "Layers of the GPT-2.", ge=1, le=1024)
    width: int | None = choice(None, "Its width, a multiple of heads.", ge=1, le=65_536)
    heads: int | None = choice(None, "Attention heads of a layer.", ge=1, le=1024)
    vocabulary: str | None = choice(
        None, "Its tokens: the 256 bytes, or the characters of the text, which all clients learn."
    )

    local_steps: int = choice(
        100, "H: batches of a client per round. DiLoCo's paper has 500.", ge=1
    )
    warmup_steps: int = choice(0, "Steps in which a client's learning rate rises to lr.", ge=0)
    gradient_clip: float = choice(
        1.0, "Largest norm of a batch's gradient.", gt=0, allow_inf_nan=False
    )
    outer_lr: float = choice(
        0.7, "Learning rate of the outer optimizer.", gt=0, le=10, allow_inf_nan=False
    )
    outer_momentum: float = choice(0.9, "Its Nesterov momentum; 0: none.", ge=0, lt=1)
    baseline: str = choice(
        "none",
        "ddp: afterwards train another model by synchronous data parallelism on the same batches, "
        "in the clear, to compare; that takes as long again.",
    )


class PretrainConfig(FederationConfig, _Pretraining):
    """One federated pre-training by DiLoCo (arXiv 2311.08105).

    Fields left at None get a default that fits the others (:meth:`resolved`). Every field but
    :data:`LEFT_OUT` is an option of ``quancrypt lm pretrain``.
    """

    choices: ClassVar[Mapping[str, tuple[str, ...]]] = PRETRAIN_CHOICES
    places: ClassVar[frozenset[str]] = FederationConfig.places | {"data", "model", "baseline"}

    clients: int = choice(4, "Number of clients.", ge=1, le=65_536)
    method: str = choice(
        "quancrypt",
        "quancrypt: clipped, quantized, encrypted. vanilla: DiLoCo in the clear. tenseal: a "
        "baseline.",
    )
    patience: int | None = choice(
        None,
        "Stop after so many rounds without a lower validation loss, and return to the lowest.",
        ge=1,
    )
    weight_decay: float = choice(0.1, "Weight decay of AdamW.", ge=0, allow_inf_nan=False)
    lr: float = choice(1e-3, "Learning rate of AdamW.", gt=0, le=1e3, allow_inf_nan=False)
    clip_factor: float = choice(
        6.0, "Clip bound in mean magnitudes of a tensor.", gt=0, le=1e6, allow_inf_nan=False
    )
    pruning: bool = choice(False, "Leave small weights' updates out.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name, only in _ONLY.items():
            if (given := getattr(self, name)) != only:
                raise ValueError(
                    f"{name} = {given!r} has no meaning in a pre-training; allowed: {only!r}"
                )
        sizes = {name: getattr(self, name) for name in _SIZES}
        given_sizes = [f"{name} = {size!r}" for name, size in sizes.items() if size is not None]
        if self.model is not None and given_sizes:
            raise ValueError(
                f"{', '.join(given_sizes)}: the sizes are those of model = {str(self.model)!r}; "
                "allowed: one or the other"
            )
        width, heads = (sizes[name] or _SIZES[name] for name in ("width", "heads"))
        if width % heads:
            raise ValueError(f"width = {width} is no multiple of heads = {heads}")
        if self.baseline != "none" and (self.participation < 1 or self.dropout > 0):
            raise ValueError(
                f"baseline = {self.baseline!r} reads as many tokens as the clients do, all of "
                "them in all rounds; allowed: participation = 1 and dropout = 0"
            )
        return self

    def outer(self) -> Nesterov:
        """What clients do with the mean of a round."""
        return Nesterov(self.outer_lr, self.outer_momentum)

    def resolved(self) -> Self:
        """The same configuration with defaults of None filled in (folders and limits aside)."""
        sizes = {name: getattr(self, name) or size for name, size in _SIZES.items()}
        return self.model_copy(
            update={
                **(sizes if self.model is None else {}),
                "batch_size": self.batch_size or 8,
                "max_weight": self.resolved_max_weight(uneven=False),
                "threads": self.threads or 2,
            }
        )

    @property
    def model_name(self) -> str:
        """The folder's name, or the sizes of the GPT-2, of a resolved configuration."""
        if self.model is not None:
            return self.model.resolve().name
        return f"gpt2-{self.layers}x{self.width}"


PRETRAIN_GROUPS: Mapping[str, tuple[str, str]] = {
    "Data": ("data", "sequence_length"),
    "Model": ("model", "vocabulary"),
    "DiLoCo": ("local_steps", "baseline"),
    "Training": ("clients", "device"),
    "Method": ("method", "security"),
    "Baselines": ("paillier_bits", "tenseal_parameters"),
    "Differential privacy": ("dp", "dp_clip"),
    "Output": ("out", "tensorboard"),
}
"""Fields by what they are about: the first and the last of each group, in order."""
