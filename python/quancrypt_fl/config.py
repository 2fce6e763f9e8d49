"""The configuration of a run: every choice that decides its result, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.pruning import PruningSchedule

__all__ = ["CHOICES", "QuanCryptConfig", "describe_errors"]

CHOICES: Mapping[str, tuple[str, ...]] = {
    "dataset": ("digits", "mnist", "fashion-mnist"),
    "model": ("mlp", "cnn"),
    "method": ("quancrypt", "vanilla"),
    "partition": ("iid", "shards", "dirichlet"),
    "weighting": ("integer", "prescaled", "uniform"),
    "rounding": ("nearest", "stochastic"),
    "device": ("cpu",),
}
"""What is available for each field that names something."""

_LARGE_FEDERATION = 40  # clients from which the paper doubles the batch
_PLACE_FIELDS = frozenset({"data_dir", "out", "rounds"})


class QuanCryptConfig(BaseModel):
    """One federated run. Fields left at None get a default that fits the others (:meth:`resolved`).

    Attributes
    ----------
    dataset, model, method, partition, weighting, rounding, device
        Names; see :data:`CHOICES`.
    clients, rounds
        Clients, all of which take part in every round, and rounds.
    bits
        Bits of a quantized value.
    dirichlet_alpha, shards_per_client
        How uneven the ``dirichlet`` and ``shards`` partitions are.
    data_dir, out
        Folder of the data set's files; folder for results (None writes nothing).
    seed
        Decides every random choice but those of encryption, which change no result.
    lr, weight_decay, batch_size, local_epochs
        Local training with Adam. Batches default to 64 samples (128 from 40 clients up) and one
        epoch a round; for digits, whose clients hold about a hundred images, to 16 samples and 5.
    clip_factor
        The clip bound of a tensor is this many times its mean magnitude.
    smoothing
        ``lambda`` of ``w_{t+1} = (1 - lambda) * w_t + lambda * aggregate``; 1 is no smoothing.
    pruning, p_0, p_target, t_eff, t_target
        Whether and how much of an update is left out; see
        :class:`~quancrypt_fl.method.pruning.PruningSchedule`. On by default, as in the paper: a run
        of fewer than ``t_eff`` rounds prunes at ``p_0``, a fifth.
    max_weight
        Largest total of integer weights. Defaults to the next power of two from the number of
        clients up; with unequal clients (``dirichlet`` and ``integer``) eight times that, which
        costs three bits per value.
    security
        Security level in bits.
    max_train_samples, max_test_samples
        Use only the first so many samples.
    threads
        Threads of torch. Sums in torch depend on it in the last bit, so it is part of what must be
        equal for a run to be reproduced. Defaults to 2, and to 1 for ``mlp``, which is too small to
        divide.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str = "digits"
    model: str = "mlp"
    method: str = "quancrypt"
    clients: int = Field(default=10, ge=1, le=65_536)
    rounds: int = Field(default=10, ge=1)
    bits: int = Field(default=8, ge=2, le=16)
    partition: str = "iid"
    dirichlet_alpha: float = Field(default=0.5, gt=0, allow_inf_nan=False)
    shards_per_client: int = Field(default=2, ge=1)
    data_dir: Path | None = None
    out: Path | None = None
    seed: int = Field(default=1, ge=0, lt=2**63)
    lr: float = Field(default=1e-3, gt=0, le=1e3, allow_inf_nan=False)
    weight_decay: float = Field(default=1e-4, ge=0, allow_inf_nan=False)
    batch_size: int | None = Field(default=None, ge=1)
    local_epochs: int | None = Field(default=None, ge=1)
    clip_factor: float = Field(default=3.0, gt=0, allow_inf_nan=False)
    smoothing: float = Field(default=1.0, gt=0, le=1, allow_inf_nan=False)
    pruning: bool = True
    p_0: float = Field(default=0.2, allow_inf_nan=False)
    p_target: float = Field(default=0.5, allow_inf_nan=False)
    t_eff: int = Field(default=40, ge=0)
    t_target: int = Field(default=300, ge=0)
    rounding: str = "nearest"
    weighting: str = "integer"
    max_weight: int | None = Field(default=None, ge=1, le=65_536)
    security: int = 128
    max_train_samples: int | None = Field(default=None, ge=1)
    max_test_samples: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)
    device: str = "cpu"

    @field_validator(*CHOICES)
    @classmethod
    def _known(cls, value: str, info: Any) -> str:
        allowed = CHOICES[info.field_name]
        if value not in allowed:
            raise ValueError(f"not available; available: {', '.join(allowed)}")
        return value

    @field_validator("security")
    @classmethod
    def _security_level(cls, value: int) -> int:
        if value not in (128, 192, 256):
            raise ValueError("a security level is 128, 192 or 256")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> QuanCryptConfig:
        try:
            self.schedule()
        except MethodError as error:
            raise ValueError(str(error)) from error
        if self.max_weight is not None and self.max_weight < self.clients:
            raise ValueError(
                f"max_weight = {self.max_weight} is below the {self.clients} clients, "
                "each of which counts at least 1"
            )
        return self

    def schedule(self) -> PruningSchedule:
        """The pruning schedule, checked even where pruning is off."""
        return PruningSchedule(self.p_0, self.p_target, self.t_eff, self.t_target)

    def resolved(self) -> QuanCryptConfig:
        """The same configuration with defaults of None filled in (folders and limits aside)."""
        small = self.dataset == "digits"
        batch = 16 if small else 128 if self.clients >= _LARGE_FEDERATION else 64
        weight = 1 << (self.clients - 1).bit_length()
        if self.weighting == "integer" and self.partition == "dirichlet":
            weight = min(8 * weight, 65_536)
        return self.model_copy(
            update={
                "batch_size": self.batch_size or batch,
                "local_epochs": self.local_epochs or (5 if small else 1),
                "max_weight": self.max_weight or weight,
                "threads": self.threads or (1 if self.model == "mlp" else 2),
            }
        )

    def identity(self) -> dict[str, Any]:
        """What must be equal for one run to go on from another's checkpoint."""
        return self.resolved().model_dump(mode="json", exclude=set(_PLACE_FIELDS))


def describe_errors(error: ValidationError) -> str:
    """One line for all that is wrong with a configuration: field, value, and what is allowed."""
    parts = []
    for item in error.errors(include_url=False):
        reason = item["msg"].removeprefix("Value error, ")
        place = ".".join(str(part) for part in item["loc"])
        parts.append(f"{place} = {item['input']!r}: {reason}" if place else reason)
    return "; ".join(parts)
