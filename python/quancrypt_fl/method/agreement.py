"""The choices that all parties of a training share, in a form that can be sent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.clipping import MIN_BOUND
from quancrypt_fl.method.outer import Average
from quancrypt_fl.method.pruning import PruningSchedule
from quancrypt_fl.method.quancrypt import QuanCrypt
from quancrypt_fl.method.statistics import StatisticsCode
from quancrypt_fl.method.weighting import Share, shares

__all__ = ["Agreement"]

_Names = Annotated[tuple[str, ...], Field(min_length=1)]


class Agreement(BaseModel):
    """What QuanCrypt-FL's clients and server agree on before they begin.

    Field by field as in ``QuanCryptConfig``; ``pruning`` is the schedule, or None to send every
    coordinate. ``turns``: see :attr:`.FedAvg.turns`, names in order. JSON of it may come from a
    stranger: ``model_validate_json`` checks every field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    bits: int = Field(ge=2, le=16)
    max_weight: int = Field(ge=1, le=65_536)
    clip_factor: float = Field(default=3.0, gt=0, le=1e6, allow_inf_nan=False)
    max_bound: float | None = Field(default=None, ge=MIN_BOUND, allow_inf_nan=False)
    pruning: PruningSchedule | None = PruningSchedule()
    mask: Literal["shared", "client"] = "shared"
    prune_global: bool = False
    smoothing: float = Field(default=1.0, gt=0, le=1, allow_inf_nan=False)
    weighting: Literal["integer", "prescaled", "uniform"] = "integer"
    rounding: Literal["nearest", "stochastic"] = "nearest"
    update: Literal["delta", "weights"] = "delta"
    error_feedback: bool = False
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    turns: tuple[_Names, ...] = Field(default=(), max_length=16)

    def method(self, names: Iterable[str]) -> QuanCrypt:
        """The method, for a model with these tensors.

        Raises
        ------
        MethodError
            If a turn names a tensor that the model does not have.
        """
        names = tuple(names)
        if unknown := {name for turn in self.turns for name in turn} - set(names):
            raise MethodError(
                f"turns name {min(unknown)!r:.80}, which is none of the model's {len(names)} "
                "tensors of floats"
            )
        return QuanCrypt(
            shares=self.shares,
            update=self.update,
            outer=Average(self.smoothing),
            error_feedback=self.error_feedback,
            statistics=StatisticsCode(names, self.bits, self.max_weight),
            pruning=self.pruning,
            mask=self.mask,
            clip_factor=self.clip_factor,
            max_bound=math.inf if self.max_bound is None else self.max_bound,
            prune_global=self.prune_global,
            turns=tuple(map(frozenset, self.turns)),
        )

    def shares(self, counts: Sequence[int]) -> list[Share]:
        """Each client's share, from the sample counts; see :mod:`.weighting`."""
        return shares(self.weighting, counts, self.max_weight)
