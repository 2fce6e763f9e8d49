"""The choices of any federated run: who takes part, how updates are protected, what is written.

What is learned is a subclass's: images (:mod:`quancrypt_fl.config`) or language models
(:mod:`quancrypt_fl.lm.config`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.agreement import Agreement
from quancrypt_fl.method.clipping import MIN_BOUND
from quancrypt_fl.method.groups import LEAST_IN_A_GROUP
from quancrypt_fl.method.outer import Average, OuterOptimizer
from quancrypt_fl.method.participation import MOST_PARTIES
from quancrypt_fl.method.pruning import PruningSchedule

__all__ = ["DP_METHODS", "FEDERATION_CHOICES", "FederationConfig", "choice", "describe_errors"]

FEDERATION_CHOICES: Mapping[str, tuple[str, ...]] = {
    "method": ("quancrypt", "vanilla", "batchcrypt", "tenseal", "dp-gaussian", "dp-laplace"),
    "weighting": ("integer", "prescaled", "uniform"),
    "rounding": ("nearest", "stochastic"),
    "update": ("delta", "weights"),
    "mask": ("shared", "client"),
    "aggregation": ("mean", "median-of-groups"),
    "dp": ("none", "discrete-gaussian"),
    "tenseal_parameters": ("paper", "code"),
    "device": ("cpu", "cuda"),
}
"""What is available for each field that names something."""

DP_METHODS = ("dp-gaussian", "dp-laplace")
"""Methods whose noise is calibrated to a number of rounds."""


def choice(default: Any, description: str, **limits: Any) -> Any:
    """A field of a configuration: its default, what it does, and its limits."""
    return Field(default=default, description=description, **limits)


class FederationConfig(BaseModel):
    """A federated run, whatever is learned. Fields left at None get a default that fits the others.

    Fields that a method has no use for (``bits`` for ``vanilla``, say) are allowed, so that methods
    can be compared under one configuration. A subclass adds what it learns, its :attr:`choices` and
    :attr:`places`, and :meth:`resolved`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    choices: ClassVar[Mapping[str, tuple[str, ...]]] = FEDERATION_CHOICES
    """What is available for each field that names something, the subclass's own among them."""

    places: ClassVar[frozenset[str]] = frozenset({"out", "rounds", "processes", "tensorboard"})
    """Fields that decide no result: where files are, and how long or how fast a run goes on."""

    clients: int = choice(10, "Number of clients.", ge=1, le=65_536)
    rounds: int = choice(10, "Number of rounds.", ge=1)
    participation: float = choice(
        1.0, "Share of the clients that take part in a round, drawn anew for each.", gt=0, le=1
    )
    dropout: float = choice(
        0.0, "Probability that a participant is lost in mid-round, before its upload.", ge=0, lt=1
    )
    min_arrivals: int = choice(
        1, "A round in which fewer updates arrive opens no sum, and changes nothing.", ge=1
    )
    patience: int | None = choice(
        None,
        "Stop after so many rounds without better validation accuracy, and return to the best.",
        ge=1,
    )
    lr: float = choice(1e-3, "Learning rate of Adam.", gt=0, le=1e3, allow_inf_nan=False)
    weight_decay: float = choice(1e-4, "Weight decay of Adam.", ge=0, allow_inf_nan=False)
    batch_size: int | None = choice(None, "Samples per batch.", ge=1)
    local_epochs: int | None = choice(None, "Epochs of a client per round.", ge=1)
    seed: int = choice(1, "Decides every random choice but those of encryption.", ge=0, lt=2**63)
    threads: int | None = choice(None, "Threads of torch.", ge=1)
    device: str = choice("cpu", "Where torch computes.")

    method: str = choice(
        "quancrypt",
        "quancrypt: pruned, clipped, quantized, encrypted. vanilla: FedAvg in the clear. "
        "batchcrypt, tenseal, dp-*: baselines.",
    )
    encryption: bool = choice(
        True, "Off: the same quantized method with plain integers; results are equal bit by bit."
    )
    threshold: int | None = choice(
        None, "Clients that open a sum together; None: all clients share one key.", ge=2
    )
    open_dropout: float = choice(
        0.0,
        "With threshold: probability that a client that is to open a sum falls silent.",
        ge=0,
        lt=1,
    )
    bits: int = choice(8, "Bits of a quantized value, 2 to 16.", ge=2, le=16)
    rounding: str = choice("nearest", "Rounding of quantization.")
    update: str = choice("delta", "What is sent: differences, or whole weights as in the paper.")
    clip_factor: float = choice(
        3.0, "Clip bound in mean magnitudes of a tensor.", gt=0, le=1e6, allow_inf_nan=False
    )
    max_bound: float | None = choice(
        None,
        "Largest clip bound, whatever clients report of their updates.",
        ge=MIN_BOUND,
        allow_inf_nan=False,
    )
    pruning: bool = choice(True, "Leave small weights' updates out.")
    mask: str = choice(
        "shared",
        "Who chooses what is left out. shared: all the same, and it is not sent. client: each by "
        "itself, as in the paper, and zeros are sent.",
    )
    p_0: float = choice(0.2, "Pruning rate up to round t-eff.", allow_inf_nan=False)
    p_target: float = choice(0.5, "Pruning rate from round t-target on.", allow_inf_nan=False)
    t_eff: int = choice(40, "Round in which the rate begins to rise.", ge=0)
    t_target: int = choice(300, "Round in which the rate stops rising.", ge=0)
    prune_global: bool = choice(False, "Set the smallest global weights to zero after each round.")
    error_feedback: bool = choice(
        False, "Carry what pruning, clipping and rounding left out over to the next round."
    )
    smoothing: float = choice(
        1.0, "Share of the new weights, in (0, 1].", gt=0, le=1, allow_inf_nan=False
    )
    weighting: str = choice("integer", "How clients count.")
    max_weight: int | None = choice(None, "Largest total of integer weights.", ge=1, le=65_536)
    aggregation: str = choice(
        "mean",
        "Of all updates, or the median of the means of groups: robust against a minority of "
        "groups; clients then see every group's mean.",
    )
    groups: int = choice(3, "Groups of aggregation median-of-groups; odd is best.", ge=2, le=32_768)
    security: int = choice(128, "Security level: 128, 192 or 256 bits.")

    paillier_bits: int = choice(2048, "Bits of BatchCrypt's Paillier modulus.", ge=512, le=8192)
    processes: int | None = choice(None, "Processes that compute Paillier.", ge=1)
    tenseal_parameters: str = choice("paper", "TenSEAL: parameters of the paper or of its code.")

    dp: str = choice(
        "none",
        "Noise that clients add to their integers before encryption (method quancrypt).",
    )
    dp_missing: float = choice(
        0.0,
        "With dp: share of a round's clients whose noise may be missing. A sum with less noise is "
        "not opened.",
        ge=0,
        lt=1,
    )
    dp_epsilon: float = choice(
        8.0, "Privacy loss of all rounds together, of one client.", gt=0, allow_inf_nan=False
    )
    dp_delta: float = choice(1e-5, "Its delta.", gt=0, lt=1)
    dp_clip: float = choice(
        1.0,
        "Largest norm of an update: L2, or L1 with dp-laplace.",
        gt=0,
        allow_inf_nan=False,
    )

    out: Path | None = choice(None, "Folder for results.json, plot.png and checkpoints.")
    tensorboard: bool = choice(False, "Write TensorBoard event files too.")

    @field_validator("*")
    @classmethod
    def _known(cls, value: Any, info: Any) -> Any:
        allowed = cls.choices.get(info.field_name)
        if allowed is not None and value is not None and value not in allowed:
            raise ValueError(f"not available; available: {', '.join(allowed)}")
        return value

    @field_validator("security")
    @classmethod
    def _security_level(cls, value: int) -> int:
        if value not in (128, 192, 256):
            raise ValueError("a security level is 128, 192 or 256")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
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
        agreed = Agreement.model_fields.keys() - {"pruning", "max_weight", "turns"}
        return Agreement(
            pruning=self.schedule() if self.pruning else None,
            max_weight=self.max_weight,
            **{name: getattr(self, name) for name in agreed},
        )

    def outer(self) -> OuterOptimizer:
        """What clients do with the mean of a round."""
        return Average(self.smoothing)

    def resolved(self) -> Self:
        """The same configuration with defaults of None filled in (folders and limits aside)."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it learns")

    def resolved_max_weight(self, *, uneven: bool) -> int:
        """``max_weight``, or its default: more where clients' sample counts are ``uneven``."""
        weight = 1 << (self.participants - 1).bit_length()
        if self.weighting == "integer" and uneven:
            weight = min(8 * weight, 65_536)
        return self.max_weight or weight

    def identity(self) -> dict[str, Any]:
        """What must be equal for one run to go on from another's checkpoint."""
        places = self.places - ({"rounds"} if self.is_private else set())
        return self.resolved().model_dump(mode="json", exclude=set(places))


def describe_errors(error: ValidationError) -> str:
    """One line for all that is wrong with a configuration: field, value, and what is allowed."""
    parts = []
    for item in error.errors(include_url=False):
        reason = item["msg"].removeprefix("Value error, ")
        place = ".".join(str(part) for part in item["loc"])
        parts.append(f"{place} = {item['input']!r}: {reason}" if place else reason)
    return "; ".join(parts)
