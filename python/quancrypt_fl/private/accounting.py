"""Discrete Gaussian noise that clients add before encryption, and what it guarantees.

Each of ``N`` clients bounds its update to integers of Euclidean norm ``D``, adds discrete Gaussian
noise of parameter ``s`` to every integer, and encrypts. Sums of discrete Gaussians are not quite
discrete Gaussians. Theorem 1 of Kairouz, Liu and Steinke (arXiv 2102.06387) bounds the difference:
with ``m`` shares of noise in a sum of ``d`` values one round is ``rho``-concentrated differentially
private for::

    rho = min( D^2 / (2 m s^2) + tau d,   (D / (s sqrt(m)) + tau sqrt(d))^2 / 2 )
    tau = 10 * sum of exp(-2 pi^2 s^2 k / (k + 1)) for k = 1 .. m - 1

(The theorem has a quarter of our ``tau d``; at the noise admitted here both are next to nothing.)
Neighbouring runs differ in one client, whose updates are replaced by zeros. ``rho`` adds up over
rounds; ``dp-accounting`` turns the sum into ``epsilon`` at ``delta``.

**Integers that do not fit.** Encryption takes integers up to ``q_max``. They hold any bounded
update and noise up to a tail ``T``; an integer beyond is cut off. Cutting off before summing is not
a function of the noisy sum, so it is not free: ``T`` is such that in the whole run no integer of
any client is cut off but with probability ``beta``, and ``(1 + e^epsilon) beta`` is part of delta.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from quancrypt_fl.baselines.envelope import required
from quancrypt_fl.errors import MethodError

__all__ = ["Mechanism", "design", "epsilon_of", "least_shares"]

MECHANISM = "distributed discrete Gaussian (arXiv 2102.06387), added before encryption"
UNIT = "one client, its updates replaced by zeros"
MAX_INFLATION = 2.0
"""Most that rounding may multiply the norm by, and with it the noise."""

_TAIL_SHARE = 1e-3  # of delta, for integers that are cut off
_CONDITION = math.sqrt(2.0 * 0.5)  # sqrt(2 log(1/b)) at b = e^-0.5: a draw succeeds at 0.39 or more
_LEAST_SCALE = 1.0  # of one client's noise: far below, tau is no longer small
_TOLERANCE = 1e-9  # relative


@dataclass(frozen=True)
class Mechanism:
    """Noise for one run.

    Attributes
    ----------
    clip
        ``C``: largest Euclidean norm of an update, in the units of weights.
    step
        ``gamma``: what one unit of an integer stands for.
    norm
        ``D``: largest Euclidean norm of an update's integers, rounding included.
    scale
        ``s``: parameter of one client's noise, in integers; its standard deviation, nearly.
    tail
        ``T``: largest noise that fits beside any update.
    q_max
        Largest integer that encryption takes.
    values
        ``d``: most values in an update.
    rounds
        Rounds of the run.
    parties
        ``N``: clients whose updates are summed, at most.
    shares
        ``m``: fewest shares of noise in a sum that is opened.
    epsilon, delta
        What was asked for.
    """

    clip: float
    step: float
    norm: float
    scale: float
    tail: int
    q_max: int
    values: int
    rounds: int
    parties: int
    shares: int
    epsilon: float
    delta: float

    def rho(self, shares: int) -> float:
        """Concentrated privacy loss of one round with so many shares of noise."""
        return _rho(self.norm, self.scale, shares, self.values)

    def spent(self, rounds: int, shares: int | None = None) -> float:
        """``epsilon`` at ``delta`` after ``rounds`` rounds, with ``shares`` shares in each sum."""
        rho = rounds * self.rho(self.shares if shares is None else shares)
        return epsilon_of(rho, self.delta * (1 - _TAIL_SHARE))

    @cached_property
    def inflation(self) -> float:
        """What rounding multiplies the norm by."""
        return self.norm * self.step / self.clip

    def facts(self, sampler: str) -> dict[str, Any]:
        """What a run may claim, for its receipt; ``sampler`` says where the noise comes from."""
        (metadata,) = required("importlib.metadata", extra="privacy")
        others = self.shares - 1
        return {
            "mechanism": MECHANISM,
            "unit": UNIT,
            "epsilon": self.spent(self.rounds),
            "delta": self.delta,
            "rounds": self.rounds,
            "epsilon_against_participants": self.spent(self.rounds, others) if others else None,
            "epsilon_of_single_updates": self.spent(self.rounds, 1),
            "clip_norm": "l2",
            "clip": self.clip,
            "noise_multiplier": self.scale * math.sqrt(self.shares) * self.step / self.clip,
            "noise_per_client": self.scale,
            "step": self.step,
            "integer_norm": self.norm,
            "values": self.values,
            "parties": self.parties,
            "least_shares": self.shares,
            "largest_noise": self.tail,
            "delta_for_larger_noise": self.delta * _TAIL_SHARE,
            "amplification_by_sampling": False,
            "accountant": f"dp-accounting {metadata.version('dp-accounting')}",
            "randomness": sampler,
        }


def design(
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    parties: int,
    shares: int,
    values: int,
    bits: int,
    clip: float,
) -> Mechanism:
    """The mechanism with the finest steps that fits the bits: the least noise for the guarantee.

    Parameters
    ----------
    epsilon, delta
        Target after all rounds.
    rounds, parties, shares, values, clip
        See :class:`Mechanism`.
    bits
        Bits of an encrypted integer, 2 to 16.

    Raises
    ------
    MethodError
        If an argument is out of range, or the bits leave no room; it names the bits that would do.
    """
    _check(epsilon, delta, rounds, parties, shares, values, clip)
    target = _budget(epsilon, delta * (1 - _TAIL_SHARE)) / rounds
    deviations = _tail_deviations(epsilon, delta * _TAIL_SHARE, parties * rounds * values)
    for offered in range(bits, 17):
        q_max = 2 ** (offered - 1) - 1
        found = _fitted(target, shares, values, q_max, deviations)
        if found is None:
            continue
        if offered > bits:
            raise MethodError(
                f"bits = {bits} with dp-epsilon = {epsilon:g} over {rounds} rounds: {parties} "
                f"clients' noise and an update of {values:,} values do not fit integers up to "
                f"{2 ** (bits - 1) - 1}, or steps are so coarse that rounding would multiply the "
                f"noise by more than {MAX_INFLATION:g}; allowed here: bits = {offered} or more"
            )
        units, norm, scale = found
        return Mechanism(
            clip, clip / units, norm, scale, math.ceil(deviations * scale), q_max, values, rounds,
            parties, shares, epsilon, delta,
        )  # fmt: skip
    raise MethodError(
        f"dp-epsilon = {epsilon:g} over {rounds} rounds: the noise of {parties} clients for "
        f"{values:,} values fits no integers of up to 16 bits; allowed: a larger dp-epsilon, fewer "
        "rounds, more clients or a smaller model"
    )


def epsilon_of(rho: float, delta: float) -> float:
    """``epsilon`` at ``delta`` of a ``rho``-concentrated mechanism, by dp-accounting."""
    accounting, rdp = required("dp_accounting", "dp_accounting.rdp", extra="privacy")
    accountant = rdp.RdpAccountant(
        neighboring_relation=accounting.NeighboringRelation.REPLACE_SPECIAL
    )
    accountant.compose(accounting.ZCDpEvent(rho))
    return float(accountant.get_epsilon(delta))


def least_shares(parties: int, missing: float) -> int:
    """Shares of noise that are left of ``parties`` if the share ``missing`` is not there."""
    return max(1, math.ceil((1 - missing) * parties - 1e-9))


def _budget(epsilon: float, delta: float) -> float:
    """The largest ``rho`` that gives ``epsilon`` at ``delta``."""
    low, high = 0.0, epsilon + 1.0
    while epsilon_of(high, delta) <= epsilon:
        high *= 2
    while high - low > _TOLERANCE * high:
        middle = (low + high) / 2
        if epsilon_of(middle, delta) <= epsilon:
            low = middle
        else:
            high = middle
    if low == 0.0:
        raise MethodError(f"dp-epsilon = {epsilon:g} at dp-delta = {delta:g} is out of reach")
    return low


def _tail_deviations(epsilon: float, delta: float, draws: int) -> float:
    """``T / s`` such that none of ``draws`` exceeds ``T`` but with a probability that delta covers.

    A discrete Gaussian exceeds ``T`` in size with probability at most that of a normal variable,
    ``2 Q(T / s) <= exp(-T^2 / 2 s^2)`` (Canonne, Kamath and Steinke, arXiv 2004.00010, prop. 25).
    """
    log_beta = math.log(delta) - (epsilon + math.log1p(math.exp(-epsilon)))
    return math.sqrt(2 * (math.log(draws) - log_beta))


def _fitted(
    target: float, shares: int, values: int, q_max: int, deviations: float
) -> tuple[float, float, float] | None:
    """``C / gamma``, ``D`` and ``s`` of the finest step that fits, or None."""

    def room(units: float) -> float:
        scale = _scale(target, _rounded_norm(units, values), shares, values)
        return q_max - math.ceil(units) - math.ceil(deviations * scale)

    low, high = 0.0, float(q_max)
    for _ in range(60):
        middle = (low + high) / 2
        if room(middle) >= 0:
            low = middle
        else:
            high = middle
    if low == 0.0:
        return None
    norm = _rounded_norm(low, values)
    if norm / low > MAX_INFLATION:
        return None
    return low, norm, _scale(target, norm, shares, values)


def _rounded_norm(units: float, values: int) -> float:
    """``D``: norm of ``values`` integers, conditionally rounded from a norm of ``units``.

    Theorem 1 of arXiv 2102.06387, with draws that succeed with probability 0.39 or more.
    """
    root = math.sqrt(values)
    conditional = math.sqrt(units * units + values / 4 + _CONDITION * (units + root / 2))
    return min(conditional, units + root)


def _scale(target: float, norm: float, shares: int, values: int) -> float:
    """The least noise of one client that meets ``target`` in each round."""
    low, high = 0.0, max(_LEAST_SCALE, norm / math.sqrt(2 * shares * target))
    while _rho(norm, high, shares, values) > target:
        low, high = high, 2 * high
    low = max(low, _LEAST_SCALE)
    if _rho(norm, low, shares, values) <= target:
        return low
    while high - low > _TOLERANCE * high:
        middle = (low + high) / 2
        if _rho(norm, middle, shares, values) <= target:
            high = middle
        else:
            low = middle
    return high


def _rho(norm: float, scale: float, shares: int, values: int) -> float:
    terms = (
        math.exp(-2 * math.pi**2 * scale**2 * k / (k + 1)) for k in range(1, min(shares, 1000))
    )
    # From k = 1000 on all terms are at most exp(-2 pi^2 s^2 0.999).
    rest = max(0, shares - 1000) * math.exp(-2 * math.pi**2 * scale**2 * 0.999)
    tau = 10 * (sum(terms) + rest)
    ratio = norm / (scale * math.sqrt(shares))
    return min(ratio**2 / 2 + tau * values, (ratio + tau * math.sqrt(values)) ** 2 / 2)


def _check(
    epsilon: float, delta: float, rounds: int, parties: int, shares: int, values: int, clip: float
) -> None:
    for name, number in (("dp-epsilon", epsilon), ("dp-clip", clip)):
        if not (math.isfinite(number) and number > 0):
            raise MethodError(f"{name} is {number}; allowed: finite and positive")
    if not 0 < delta < 1:
        raise MethodError(f"dp-delta is {delta}; allowed: above 0, below 1")
    for name, count in (("rounds", rounds), ("values", values), ("parties", parties)):
        if count < 1:
            raise MethodError(f"{name} is {count}; allowed: 1 or more")
    if not 1 <= shares <= parties:
        raise MethodError(f"{shares} shares of noise; allowed: 1 to {parties}, the parties")
