"""The configuration of a run: every choice that decides its result, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.agreement import Agreement
from quancrypt_fl.method.clipping import MIN_BOUND
from quancrypt_fl.method.groups import LEAST_IN_A_GROUP
from quancrypt_fl.method.participation import MOST_PARTIES
from quancrypt_fl.method.pruning import PruningSchedule

__all__ = ["CHOICES", "DP_METHODS", "GROUPS", "QuanCryptConfig", "describe_errors"]

CHOICES: Mapping[str, tuple[str, ...]] = {
    "dataset": ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "ham10000"),
    "model": ("mlp", "cnn", "alexnet", "resnet18"),
    "method": ("quancrypt", "vanilla", "batchcrypt", "tenseal", "dp-gaussian", "dp-laplace"),
    "partition": ("iid", "shards", "dirichlet"),
    "weighting": ("integer", "prescaled", "uniform"),
    "rounding": ("nearest", "stochastic"),
    "update": ("delta", "weights"),
    "mask": ("shared", "client"),
    "batch_norm": ("average", "local"),
    "aggregation": ("mean", "median-of-groups"),
    "dp": ("none", "discrete-gaussian"),
    "tenseal_parameters": ("paper", "code"),
    "device": ("cpu", "cuda"),
}
"""What is available for each field that names something."""

DP_METHODS = ("dp-gaussian", "dp-laplace")
"""Methods whose noise is calibrated to a number of rounds."""

_LARGE_FEDERATION = 40  # clients from which the paper doubles the batch
_PLACE_FIELDS = frozenset({"data_dir", "out", "rounds", "processes", "tensorboard"})


def _field(default: Any, description: str, **limits: Any) -> Any:
    return Field(default=default, description=description, **limits)


class QuanCryptConfig(BaseModel):
    """One federated run. Fields left at None get a default that fits the others (:meth:`resolved`).

    Every field is an option of ``quancrypt simulate``; ``quancrypt simulate --help`` and the
    fields' descriptions say what each does. Fields that a method has no use for (``bits`` for
    ``vanilla``, say) are allowed, so that methods can be compared under one configuration.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str = _field("digits", "Data set.")
    data_dir: Path | None = _field(None, "Folder of the data set's files (digits need none).")
    partition: str = _field("iid", "How samples are divided over clients.")
    shards_per_client: int = _field(2, "Label runs per client of the shards partition.", ge=1)
    dirichlet_alpha: float = _field(
        0.5, "Evenness of the dirichlet partition: small is uneven.", gt=0, allow_inf_nan=False
    )
    max_train_samples: int | None = _field(None, "Use only so many training samples.", ge=1)
    max_test_samples: int | None = _field(None, "Use only so many test samples.", ge=1)

    model: str = _field("mlp", "Model.")
    clients: int = _field(10, "Number of clients.", ge=1, le=65_536)
    rounds: int = _field(10, "Number of rounds.", ge=1)
    participation: float = _field(
        1.0, "Share of the clients that take part in a round, drawn anew for each.", gt=0, le=1
    )
    dropout: float = _field(
        0.0, "Probability that a participant is lost in mid-round, before its upload.", ge=0, lt=1
    )
    min_arrivals: int = _field(
        1, "A round in which fewer updates arrive opens no sum, and changes nothing.", ge=1
    )
    patience: int | None = _field(
        None,
        "Stop after so many rounds without better validation accuracy, and return to the best.",
        ge=1,
    )
    lr: float = _field(1e-3, "Learning rate of Adam.", gt=0, le=1e3, allow_inf_nan=False)
    weight_decay: float = _field(1e-4, "Weight decay of Adam.", ge=0, allow_inf_nan=False)
    batch_size: int | None = _field(None, "Samples per batch.", ge=1)
    local_epochs: int | None = _field(None, "Epochs of a client per round.", ge=1)
    batch_norm: str = _field(
        "average", "Batch-norm statistics: averaged like weights, or kept local by each client."
    )
    seed: int = _field(1, "Decides every random choice but those of encryption.", ge=0, lt=2**63)
    threads: int | None = _field(None, "Threads of torch.", ge=1)
    device: str = _field("cpu", "Where torch computes.")

    method: str = _field(
        "quancrypt",
        "quancrypt: pruned, clipped, quantized, encrypted. vanilla: FedAvg in the clear. "
        "batchcrypt, tenseal, dp-*: baselines.",
    )
    encryption: bool = _field(
        True, "Off: the same quantized method with plain integers; results are equal bit by bit."
    )
    threshold: int | None = _field(
        None, "Clients that open a sum together; None: all clients share one key.", ge=2
    )
    open_dropout: float = _field(
        0.0,
        "With threshold: probability that a client that is to open a sum falls silent.",
        ge=0,
        lt=1,
    )
    bits: int = _field(8, "Bits of a quantized value, 2 to 16.", ge=2, le=16)
    rounding: str = _field("nearest", "Rounding of quantization.")
    update: str = _field("delta", "What is sent: differences, or whole weights as in the paper.")
    clip_factor: float = _field(
        3.0, "Clip bound in mean magnitudes of a tensor.", gt=0, le=1e6, allow_inf_nan=False
    )
    max_bound: float | None = _field(
        None,
        "Largest clip bound, whatever clients report of their updates.",
        ge=MIN_BOUND,
        allow_inf_nan=False,
    )
    pruning: bool = _field(True, "Leave small weights' updates out.")
    mask: str = _field(
        "shared",
        "Who chooses what is left out. shared: all the same, and it is not sent. client: each by "
        "itself, as in the paper, and zeros are sent.",
    )
    p_0: float = _field(0.2, "Pruning rate up to round t-eff.", allow_inf_nan=False)
    p_target: float = _field(0.5, "Pruning rate from round t-target on.", allow_inf_nan=False)
    t_eff: int = _field(40, "Round in which the rate begins to rise.", ge=0)
    t_target: int = _field(300, "Round in which the rate stops rising.", ge=0)
    prune_global: bool = _field(False, "Set the smallest global weights to zero after each round.")
    error_feedback: bool = _field(
        False, "Carry what pruning, clipping and rounding left out over to the next round."
    )
    smoothing: float = _field(
        1.0, "Share of the new weights, in (0, 1].", gt=0, le=1, allow_inf_nan=False
    )
    weighting: str = _field("integer", "How clients count.")
    max_weight: int | None = _field(None, "Largest total of integer weights.", ge=1, le=65_536)
    aggregation: str = _field(
        "mean",
        "Of all updates, or the median of the means of groups: robust against a minority of "
        "groups; clients then see every group's mean.",
    )
    groups: int = _field(3, "Groups of aggregation median-of-groups; odd is best.", ge=2, le=32_768)
    security: int = _field(128, "Security level: 128, 192 or 256 bits.")

    paillier_bits: int = _field(2048, "Bits of BatchCrypt's Paillier modulus.", ge=512, le=8192)
    processes: int | None = _field(None, "Processes that compute Paillier.", ge=1)
    tenseal_parameters: str = _field("paper", "TenSEAL: parameters of the paper or of its code.")

    dp: str = _field(
        "none",
        "Noise that clients add to their integers before encryption (method quancrypt).",
    )
    dp_missing: float = _field(
        0.0,
        "With dp: share of a round's clients whose noise may be missing. A sum with less noise is "
        "not opened.",
        ge=0,
        lt=1,
    )
    dp_epsilon: float = _field(
        8.0, "Privacy loss of all rounds together, of one client.", gt=0, allow_inf_nan=False
    )
    dp_delta: float = _field(1e-5, "Its delta.", gt=0, lt=1)
    dp_clip: float = _field(
        1.0,
        "Largest norm of an update: L2, or L1 with dp-laplace.",
        gt=0,
        allow_inf_nan=False,
    )

    out: Path | None = _field(None, "Folder for results.json, plot.png and checkpoints.")
    tensorboard: bool = _field(False, "Write TensorBoard event files too.")

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
        if self.max_weight is not None and self.max_weight < self.participants:
            raise ValueError(
                f"max_weight = {self.max_weight} is below the {self.participants} clients of a "
                "round, each of which counts at least 1"
            )
        if self.min_arrivals > self.participants:
            raise ValueError(
                f"min_arrivals = {self.min_arrivals} is above the {self.participants} clients of a "
                "round"
            )
        self._check_threshold()
        self._check_groups()
        self._check_noise()
        if self.error_feedback and self.update == "weights":
            raise ValueError(
                "error_feedback = True carries over what was left out of a difference; with "
                "update = 'weights' left-out weights would be sent again and again. Allowed: "
                "update = 'delta'"
            )
        if self.tensorboard and self.out is None:
            raise ValueError("tensorboard = True needs out: a folder for the event files")
        return self

    def _check_threshold(self) -> None:
        if self.threshold is None:
            return
        said = f"threshold = {self.threshold}"
        if self.method != "quancrypt" or not self.encryption:
            raise ValueError(
                f"{said} makes a joint key; allowed only with method = 'quancrypt' and "
                "encryption = True"
            )
        if self.clients > MOST_PARTIES:
            raise ValueError(
                f"{said} makes a joint key of all {self.clients} clients; allowed: up to "
                f"{MOST_PARTIES}"
            )
        if self.threshold > self.participants:
            raise ValueError(f"{said} is above the {self.participants} clients of a round")

    def _check_groups(self) -> None:
        if self.aggregation == "mean":
            return
        said = f"aggregation = {self.aggregation!r}"
        if self.method not in ("quancrypt", "vanilla") or self.threshold is not None:
            raise ValueError(
                f"{said} is for method = 'quancrypt' and 'vanilla', without threshold keys"
            )
        least = max(LEAST_IN_A_GROUP, self.min_arrivals)
        if self.participants < least * self.groups:
            raise ValueError(
                f"{said} with groups = {self.groups}: the {self.participants} clients of a round "
                f"do not make groups of {least} or more; allowed: up to "
                f"{self.participants // least} groups"
            )

    def _check_noise(self) -> None:
        if self.dp == "none":
            return
        said = f"dp = {self.dp!r}"
        if self.method != "quancrypt":
            raise ValueError(
                f"{said} adds noise to encrypted integers: allowed with method = 'quancrypt', not "
                f"{self.method!r}"
            )
        if self.error_feedback or self.update != "delta":
            raise ValueError(
                f"{said} bounds the norm of a difference; allowed: update = 'delta', and no "
                "error_feedback, which would carry over what the bound cuts off"
            )

    @property
    def participants(self) -> int:
        """Clients that take part in a round, at least 1."""
        return max(1, round(self.participation * self.clients))

    @property
    def is_private(self) -> bool:
        """Whether noise is calibrated to the number of rounds."""
        return self.method in DP_METHODS or self.dp != "none"

    @property
    def least_arrivals(self) -> int:
        """Updates of which a deployment's sums consist: the sum of one would be that one."""
        return max(self.min_arrivals, min(2, self.participants))

    def only_simulated(self) -> str:
        """Why a deployment cannot run this; empty if it can, as far as groups and noise go."""
        fields = {"aggregation": "mean", "dp": "none"}
        given = [name for name, usual in fields.items() if getattr(self, name) != usual]
        if not given:
            return ""
        said = " and ".join(f"{name} = {getattr(self, name)!r}" for name in given)
        return f"{said}: for simulations; allowed in a deployment: " + ", ".join(
            f"{name} = {fields[name]!r}" for name in given
        )

    def schedule(self) -> PruningSchedule:
        """The pruning schedule, checked even where pruning is off."""
        return PruningSchedule(self.p_0, self.p_target, self.t_eff, self.t_target)

    def agreement(self) -> Agreement:
        """What QuanCrypt-FL's clients and server have to agree on, of a resolved configuration."""
        assert self.max_weight is not None
        agreed = Agreement.model_fields.keys() - {"pruning", "max_weight"}
        return Agreement(
            pruning=self.schedule() if self.pruning else None,
            max_weight=self.max_weight,
            **{name: getattr(self, name) for name in agreed},
        )

    def resolved(self) -> QuanCryptConfig:
        """The same configuration with defaults of None filled in (folders and limits aside)."""
        small = self.dataset == "digits"
        batch = 16 if small else 128 if self.clients >= _LARGE_FEDERATION else 64
        weight = 1 << (self.participants - 1).bit_length()
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
        places = _PLACE_FIELDS - ({"rounds"} if self.is_private else set())
        return self.resolved().model_dump(mode="json", exclude=set(places))


GROUPS: Mapping[str, tuple[str, str]] = {
    "Data": ("dataset", "max_test_samples"),
    "Training": ("model", "device"),
    "Method": ("method", "security"),
    "Baselines": ("paillier_bits", "tenseal_parameters"),
    "Differential privacy": ("dp", "dp_clip"),
    "Output": ("out", "tensorboard"),
}
"""Fields by what they are about: the first and the last of each group, in order."""


def describe_errors(error: ValidationError) -> str:
    """One line for all that is wrong with a configuration: field, value, and what is allowed."""
    parts = []
    for item in error.errors(include_url=False):
        reason = item["msg"].removeprefix("Value error, ")
        place = ".".join(str(part) for part in item["loc"])
        parts.append(f"{place} = {item['input']!r}: {reason}" if place else reason)
    return "; ".join(parts)
