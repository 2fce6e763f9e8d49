"""The configuration of a fine-tuning: every choice that decides its result, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from quancrypt_fl.federation_config import FEDERATION_CHOICES, FederationConfig, choice

__all__ = ["CHOICES", "GROUPS", "FinetuneConfig"]

CHOICES: Mapping[str, tuple[str, ...]] = {
    **FEDERATION_CHOICES,
    "task": ("causal", "classify", "clip", "multimodal"),
    "partition": ("iid", "contiguous", "shards", "dirichlet"),
    "mode": ("ffa", "sb", "alternate", "both"),
    "sb_init": ("svd", "random"),
    "method": ("quancrypt", "vanilla", "tenseal"),
}
"""What is available for each field that names something."""

_SERVED = ("causal", "classify")
_WITHOUT_LABELS = ("iid", "contiguous")
_BATCH = {"causal": 8, "classify": 16}


class _Language(BaseModel):
    """The fields of a run that only language models have; they come first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str = choice(
        "causal", "causal: predict the next token of a text. classify: label sentences."
    )
    data: Path = Field(
        description="causal: a text file. classify: a folder with train.tsv and dev.tsv "
        "(sentence, tab, label)."
    )
    partition: str = choice(
        "iid",
        "How samples are divided over clients. contiguous: parts of the text in order, so that "
        "clients differ in topic. shards, dirichlet: by label.",
    )
    shards_per_client: int = choice(2, "Label runs per client of the shards partition.", ge=1)
    dirichlet_alpha: float = choice(
        0.5, "Evenness of the dirichlet partition: small is uneven.", gt=0, allow_inf_nan=False
    )
    max_train_samples: int | None = choice(
        None, "Use only so many sentences, or blocks of text, for training.", ge=1
    )
    max_test_samples: int | None = choice(None, "And so many for testing.", ge=1)
    sequence_length: int | None = choice(
        None,
        "Tokens of a block of text; of a sentence at most. None: 128, or all positions of a model "
        "that has fewer.",
        ge=2,
        le=1 << 20,
    )

    model: str = Field(
        description="Folder of a model that save_pretrained wrote, or its name on a hub."
    )
    mode: str = choice(
        "ffa",
        "What of the adapter is trained and sent. ffa: B, with A frozen. sb: a small square "
        "between frozen B and A. alternate: B and A in turn. both: B and A, which averages "
        "inexactly.",
    )
    rank: int = choice(8, "Rank of the adapter.", ge=1, le=65_536)
    alpha: float | None = choice(
        None, "The adapter counts alpha / rank times.", gt=0, le=1e6, allow_inf_nan=False
    )
    target_modules: str | None = choice(
        None, "Names of the adapted modules, separated by commas, or all-linear."
    )
    sb_init: str = choice(
        "svd",
        "With mode sb, the frozen B and A: singular vectors of the weights, or random orthonormal "
        "ones.",
    )
    local_steps: int | None = choice(
        None, "Batches of a client per round, in place of local epochs.", ge=1
    )


class FinetuneConfig(FederationConfig, _Language):
    """One federated fine-tuning of a language model's adapter.

    Fields left at None get a default that fits the others (:meth:`resolved`). Every field is an
    option of ``quancrypt lm finetune``. Pruning is off by default: a LoRA factor that begins at
    zero has no small weights to leave out.
    """

    choices: ClassVar[Mapping[str, tuple[str, ...]]] = CHOICES
    places: ClassVar[frozenset[str]] = FederationConfig.places | {"data", "model"}

    method: str = choice(
        "quancrypt",
        "quancrypt: clipped, quantized, encrypted. vanilla: FedAvg in the clear. tenseal: a "
        "baseline.",
    )
    patience: int | None = choice(
        None,
        "Stop after so many rounds without better validation (a text's loss, accuracy of labels), "
        "and return to the best.",
        ge=1,
    )
    weight_decay: float = choice(0.0, "Weight decay of AdamW.", ge=0, allow_inf_nan=False)
    lr: float = choice(1e-3, "Learning rate of AdamW.", gt=0, le=1e3, allow_inf_nan=False)
    pruning: bool = choice(False, "Leave small weights' updates out.")

    @model_validator(mode="after")
    def _served(self) -> Self:
        if self.task not in _SERVED:
            raise ValueError(
                f"task = {self.task!r}: pictures are not served yet; allowed: {', '.join(_SERVED)}"
            )
        if self.task == "causal" and self.partition not in _WITHOUT_LABELS:
            raise ValueError(
                f"partition = {self.partition!r} divides by label, and a text has none; allowed "
                f"with task = 'causal': {', '.join(_WITHOUT_LABELS)}"
            )
        if not self.model.strip():
            raise ValueError("model = '': allowed: a folder, or a name on a hub")
        if self.target_modules is not None and not self.targets():
            raise ValueError(
                f"target_modules = {self.target_modules!r} names none; allowed: names separated "
                "by commas, or all-linear"
            )
        return self

    def targets(self) -> list[str] | str | None:
        """The adapted modules as peft takes them; None: those that are usual for the model."""
        if self.target_modules is None:
            return None
        if self.target_modules.strip() == "all-linear":
            return "all-linear"
        names = (name.strip() for name in self.target_modules.split(","))
        return [name for name in names if name]

    def resolved(self) -> Self:
        """The same configuration with defaults of None filled in (folders and limits aside)."""
        return self.model_copy(
            update={
                "alpha": self.alpha or 2.0 * self.rank,
                "batch_size": self.batch_size or _BATCH[self.task],
                "local_epochs": self.local_epochs or 1,
                "max_weight": self.resolved_max_weight(uneven=self.partition == "dirichlet"),
                "threads": self.threads or 2,
            }
        )


GROUPS: Mapping[str, tuple[str, str]] = {
    "Data": ("task", "sequence_length"),
    "Model": ("model", "local_steps"),
    "Training": ("clients", "device"),
    "Method": ("method", "security"),
    "Baselines": ("paillier_bits", "tenseal_parameters"),
    "Differential privacy": ("dp", "dp_clip"),
    "Output": ("out", "tensorboard"),
}
"""Fields by what they are about: the first and the last of each group, in order."""
