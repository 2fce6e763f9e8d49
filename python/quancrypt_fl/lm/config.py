"""The configuration of a fine-tuning: every choice that decides its result, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from quancrypt_fl.federation_config import FEDERATION_CHOICES, FederationConfig, choice
from quancrypt_fl.lm.rank_list import parse_ranks

__all__ = ["CHOICES", "GROUPS", "FinetuneConfig"]

CHOICES: Mapping[str, tuple[str, ...]] = {
    **FEDERATION_CHOICES,
    "task": ("causal", "classify", "clip", "multimodal"),
    "partition": ("iid", "contiguous", "shards", "dirichlet"),
    "mode": ("ffa", "sb", "alternate", "both"),
    "sb_init": ("svd", "random"),
    "base_precision": ("float32", "nf4"),
    "method": ("quancrypt", "vanilla", "tenseal"),
}
"""What is available for each field that names something."""

_WITH_TEXT_ONLY = {"update": "delta", "aggregation": "mean", "dp": "none"}
_WITHOUT_LABELS = ("iid", "contiguous")
_RANKED = ("ffa", "sb")
_BATCH = {"causal": 8, "classify": 16, "clip": 32, "multimodal": 8}


class _Language(BaseModel):
    """The fields of a run that only language models have; they come first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str = choice(
        "causal",
        "causal: predict the next token of a text. classify: label sentences. clip: tell pictures "
        "apart by the names of their classes. multimodal: predict captions of pictures.",
    )
    data: Path = Field(
        description="causal: a text file. classify: a folder with train.tsv and dev.tsv "
        "(sentence, tab, label). clip: a folder of a vision data set, or digits. multimodal: the "
        "same, or a folder with captions.tsv (file, tab, caption)."
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
    labels: str | None = choice(
        None,
        "classify: all labels in the order of their classes, with commas, where a client may lack "
        "some; None: those of train.tsv.",
    )
    prompt: str = choice(
        "a photo of a {name}",
        "With pictures: the sentence for a class. {name} stands for its name.",
    )
    text_only_clients: int = choice(
        0, "multimodal: so many clients, the last ones, have captions without pictures.", ge=0
    )
    max_train_samples: int | None = choice(
        None, "Use only so many sentences, blocks of text, or pictures for training.", ge=1
    )
    max_test_samples: int | None = choice(None, "And so many for testing.", ge=1)
    sequence_length: int | None = choice(
        None,
        "Tokens of a block of text; of a sentence or caption at most. None: 128, or all positions "
        "of a model that has fewer.",
        ge=2,
        le=1 << 20,
    )

    model: str = Field(
        description="Folder of a model that save_pretrained wrote, or its name on a hub."
    )
    base_precision: str = choice(
        "float32",
        "Of the frozen model. nf4: 4 bits a weight, as in QLoRA (needs the extra qlora).",
    )
    mode: str = choice(
        "ffa",
        "What of the adapter is trained and sent. ffa: B, with A frozen. sb: a small square "
        "between frozen B and A. alternate: B and A in turn. both: B and A, which averages "
        "inexactly.",
    )
    rank: int = choice(8, "Rank of the adapter.", ge=1, le=65_536)
    client_ranks: str | None = choice(
        None,
        "Smaller ranks of clients in order, with commas, and again from the first: 8,8,4. Modes "
        "ffa and sb.",
    )
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
        if self.task == "causal" and self.partition not in _WITHOUT_LABELS:
            raise ValueError(
                f"partition = {self.partition!r} divides by label, and a text has none; allowed "
                f"with task = 'causal': {', '.join(_WITHOUT_LABELS)}"
            )
        if not self.model.strip():
            raise ValueError("model = '': allowed: a folder, or a name on a hub")
        if self.out is not None and self.out.resolve() == Path(self.model).expanduser().resolve():
            raise ValueError(
                f"out = {str(self.out)!r} is the model's own folder; allowed: another one"
            )
        if self.local_steps is not None and self.local_epochs is not None:
            raise ValueError(
                f"local_steps = {self.local_steps} and local_epochs = {self.local_epochs}: both "
                "say how long a client trains; allowed: one or the other"
            )
        if self.sb_init != "svd" and self.mode != "sb":
            raise ValueError(
                f"sb_init = {self.sb_init!r} with mode = {self.mode!r}, which has no frozen B; "
                "allowed with mode = 'sb'"
            )
        if self.target_modules is not None and not self.targets():
            raise ValueError(
                f"target_modules = {self.target_modules!r} names none; allowed: names separated "
                "by commas, or all-linear"
            )
        return self

    @model_validator(mode="after")
    def _pictured(self) -> Self:
        if "{name}" not in self.prompt:
            raise ValueError(
                f"prompt = {self.prompt!r}; allowed: a sentence with {{name}} in the place of the "
                "class's name"
            )
        if self.text_only_clients == 0:
            return self
        if self.task != "multimodal":
            raise ValueError(
                f"text_only_clients with task = {self.task!r}, which has no part that captions "
                "alone train; allowed with task = 'multimodal'"
            )
        if (able := self.clients - self.text_only_clients) < self._fewest:
            raise ValueError(
                f"text_only_clients = {self.text_only_clients} of {self.clients} clients leaves "
                f"{able} with pictures, whose connector would be in the clear for all; allowed: up "
                f"to {max(0, self.clients - self._fewest)}"
            )
        if self.weighting == "prescaled":
            raise ValueError(
                "text_only_clients with weighting = 'prescaled', whose updates are clipped after "
                "they are scaled; allowed: integer, uniform"
            )
        for name, needed in _WITH_TEXT_ONLY.items():
            if getattr(self, name) != needed:
                raise ValueError(
                    f"text_only_clients with {name} = {getattr(self, name)!r}: their zeros would "
                    f"count in the connector; allowed: {needed}"
                )
        return self

    @model_validator(mode="after")
    def _ranked(self) -> Self:
        if self.client_ranks is None:
            return self
        ranks = parse_ranks(self.client_ranks)
        if max(ranks) > self.rank:
            raise ValueError(
                f"client_ranks = {self.client_ranks!r} is above rank = {self.rank}; allowed: 1 to "
                "the rank, which is that of what all share"
            )
        if self.mode not in _RANKED:
            raise ValueError(
                f"client_ranks with mode = {self.mode!r}, whose average would not be that of the "
                f"clients' products; allowed: {', '.join(_RANKED)}"
            )
        if self.participants < self.clients:
            raise ValueError(
                f"client_ranks with participation = {self.participation}: a round might have but "
                "one client of the largest rank, whose columns would be its own; allowed: 1"
            )
        given = [ranks[client % len(ranks)] for client in range(self.clients)]
        if given.count(max(given)) < min(self._fewest, self.clients):
            raise ValueError(
                f"client_ranks = {self.client_ranks!r} gives the largest rank, {max(given)}, to "
                f"{given.count(max(given))} of {self.clients} clients: what only they train would "
                f"be in the clear for all; allowed: {self._fewest} or more of it"
            )
        return self

    @model_validator(mode="after")
    def _labelled(self) -> Self:
        if self.labels is None:
            return self
        if self.task != "classify":
            raise ValueError(f"labels with task = {self.task!r}; allowed with task = 'classify'")
        names = self.label_names()
        if len(names) < 2 or "" in names or len(set(names)) < len(names):
            raise ValueError(
                f"labels = {self.labels!r}; allowed: two or more, with commas, each once"
            )
        return self

    def label_names(self) -> tuple[str, ...]:
        """Labels in the order of their classes; empty: those of the training file."""
        if self.labels is None:
            return ()
        return tuple(name.strip() for name in self.labels.split(","))

    @property
    def _fewest(self) -> int:
        """Clients below which a sum tells too much of one."""
        return max(2, self.min_arrivals)

    def ranks(self) -> tuple[int, ...]:
        """Ranks of clients in order, and again from the first; empty: all have ``rank``."""
        return () if self.client_ranks is None else parse_ranks(self.client_ranks)

    def targets(self) -> list[str] | str | None:
        """The adapted modules as peft takes them; None: those that are usual for the model."""
        if self.target_modules is None:
            return None
        if self.target_modules.strip() == "all-linear":
            return "all-linear"
        names = (name.strip() for name in self.target_modules.split(","))
        return [name for name in names if name]

    def only_simulated(self) -> str:
        """Why a deployment cannot run this; empty if it can."""
        if self.patience is not None:
            return (
                f"patience = {self.patience}: for simulations; the server of a deployment has no "
                "validation set. Allowed: none"
            )
        if self.text_only_clients:
            return (
                f"text_only_clients = {self.text_only_clients}: for simulations; in a deployment "
                "all clients have pictures. Allowed: 0"
            )
        return super().only_simulated()

    def resolved(self) -> Self:
        """The same configuration with defaults of None filled in (folders and limits aside)."""
        return self.model_copy(
            update={
                "alpha": self.alpha or 2.0 * self.rank,
                "batch_size": self.batch_size or _BATCH[self.task],
                "local_epochs": self.local_epochs or (1 if self.local_steps is None else None),
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
