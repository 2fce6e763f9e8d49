"""The configuration of a run on images: every choice that decides its result, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict

from quancrypt_fl.federation_config import (
    DP_METHODS,
    FEDERATION_CHOICES,
    FederationConfig,
    choice,
    describe_errors,
)

__all__ = ["CHOICES", "DP_METHODS", "GROUPS", "QuanCryptConfig", "describe_errors"]

CHOICES: Mapping[str, tuple[str, ...]] = {
    "dataset": ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "ham10000"),
    "model": ("mlp", "cnn", "alexnet", "resnet18"),
    "partition": ("iid", "shards", "dirichlet"),
    "batch_norm": ("average", "local"),
    **FEDERATION_CHOICES,
}
"""What is available for each field that names something."""

_LARGE_FEDERATION = 40  # clients from which the paper doubles the batch


class _Images(BaseModel):
    """The fields of a run that only images have; they come first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str = choice("digits", "Data set.")
    data_dir: Path | None = choice(None, "Folder of the data set's files (digits need none).")
    partition: str = choice("iid", "How samples are divided over clients.")
    shards_per_client: int = choice(2, "Label runs per client of the shards partition.", ge=1)
    dirichlet_alpha: float = choice(
        0.5, "Evenness of the dirichlet partition: small is uneven.", gt=0, allow_inf_nan=False
    )
    max_train_samples: int | None = choice(None, "Use only so many training samples.", ge=1)
    max_test_samples: int | None = choice(None, "Use only so many test samples.", ge=1)

    model: str = choice("mlp", "Model.")
    batch_norm: str = choice(
        "average", "Batch-norm statistics: averaged like weights, or kept local by each client."
    )


class QuanCryptConfig(FederationConfig, _Images):
    """One federated run. Fields left at None get a default that fits the others (:meth:`resolved`).

    Every field is an option of ``quancrypt simulate``; ``quancrypt simulate --help`` and the
    fields' descriptions say what each does. Fields that a method has no use for (``bits`` for
    ``vanilla``, say) are allowed, so that methods can be compared under one configuration.
    """

    choices: ClassVar[Mapping[str, tuple[str, ...]]] = CHOICES
    places: ClassVar[frozenset[str]] = FederationConfig.places | {"data_dir"}

    def resolved(self) -> Self:
        """The same configuration with defaults of None filled in (folders and limits aside)."""
        small = self.dataset == "digits"
        batch = 16 if small else 128 if self.clients >= _LARGE_FEDERATION else 64
        return self.model_copy(
            update={
                "batch_size": self.batch_size or batch,
                "local_epochs": self.local_epochs or (5 if small else 1),
                "max_weight": self.resolved_max_weight(uneven=self.partition == "dirichlet"),
                "threads": self.threads or (1 if self.model == "mlp" else 2),
            }
        )


GROUPS: Mapping[str, tuple[str, str]] = {
    "Data": ("dataset", "max_test_samples"),
    "Training": ("model", "device"),
    "Method": ("method", "security"),
    "Baselines": ("paillier_bits", "tenseal_parameters"),
    "Differential privacy": ("dp", "dp_clip"),
    "Output": ("out", "tensorboard"),
}
"""Fields by what they are about: the first and the last of each group, in order."""
