"""Client-level differential privacy: updates clipped as a whole, noise that sums to its target.

Neighbouring runs differ in one client, whose updates are replaced by zeros. Each round a client
takes part in changes the sum by at most the clip bound ``C`` (L2 norm for Gaussian noise, L1 for
Laplace), and the sum of all clients' noise is

* Gaussian of standard deviation ``z * C``: each client adds ``z * C / sqrt(N)`` of its own;
* Laplace of scale ``z * C``: each client adds the difference of two gamma variables of shape
  ``1 / N`` and scale ``z * C``. ``N`` of them add up to a Laplace variable.

Accounting is by Google's ``dp-accounting``: the analytic Gaussian mechanism, which is exact for any
number of rounds, and privacy loss distributions for Laplace. Whom it concerns: those who see only
models. The server sees single updates, each with its small part of the noise, and has a weaker
guarantee or none; a client knows its own part of the noise.

A study, not a deployment. The caller's generator is seeded for repeatable experiments, and whoever
knows the seed takes the noise off; floating-point noise has known attacks of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.baselines.envelope import required
from quancrypt_fl.baselines.vanilla import PlainProtector
from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.roles import Sealed, Tensors

__all__ = [
    "MECHANISMS",
    "PrivateProtector",
    "calibrate",
    "epsilon_of",
    "guarantee",
    "privatize",
    "update_norm",
]

MECHANISMS = ("gaussian", "laplace")

_LARGEST_LOSS = 500.0  # epsilon of one round, above which composition gains nothing
_TOLERANCE = 1e-6  # relative, of a calibrated multiplier


def calibrate(
    mechanism: str, epsilon: float, delta: float, rounds: int, participation: float = 1.0
) -> float:
    """The smallest noise multiplier ``z`` that gives ``(epsilon, delta)`` after all rounds.

    Parameters
    ----------
    mechanism
        ``"gaussian"`` or ``"laplace"``.
    epsilon
        Target, positive.
    delta
        Target, in (0, 1); for Laplace noise 0 is allowed.
    rounds
        Rounds of the run.
    participation
        Share of the clients that take part in a round. It lowers nothing: rounds draw a fixed
        number of clients, whom the server knows, and the library has no amplification for that. A
        client counts as taking part in every round.

    Raises
    ------
    MethodError
        If an argument is out of range or ``dp-accounting`` is not installed.
    """
    _check(mechanism, delta, rounds)
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise MethodError(f"epsilon is {epsilon}; allowed: finite and positive")
    if not 0 < participation <= 1:
        raise MethodError(f"participation is {participation}; allowed: above 0, at most 1")
    if mechanism == "gaussian":
        (library,) = required("dp_accounting")
        sigma: float = library.get_sigma_gaussian(epsilon, delta)
        return sigma * math.sqrt(rounds)
    low, high = 0.0, rounds / epsilon  # enough for any delta
    if delta == 0:
        return high
    while high - low > _TOLERANCE * high:
        middle = (low + high) / 2
        if epsilon_of(mechanism, middle, delta, rounds) <= epsilon:
            high = middle
        else:
            low = middle
    return high


def epsilon_of(mechanism: str, multiplier: float, delta: float, rounds: int) -> float:
    """``epsilon`` at ``delta`` of ``rounds`` rounds with noise multiplier ``multiplier``.

    For Laplace noise the better of ``rounds / z`` and the optimal composition of ``rounds``
    mechanisms of loss at most ``1 / z``: that holds for updates of any number of values, where the
    library's own Laplace event speaks of one.
    """
    _check(mechanism, delta, rounds)
    if not (math.isfinite(multiplier) and multiplier > 0):
        raise MethodError(f"the noise multiplier is {multiplier}; allowed: finite and positive")
    if mechanism == "gaussian":
        (library,) = required("dp_accounting")
        return float(library.get_epsilon_gaussian(multiplier / math.sqrt(rounds), delta))
    pure = rounds / multiplier
    if delta == 0 or 1 / multiplier > _LARGEST_LOSS:
        return pure
    common, losses = required(
        "dp_accounting.pld.common", "dp_accounting.pld.privacy_loss_distribution"
    )
    loss = 1 / multiplier
    # With the loss itself as the step of its grid the distribution is on the grid: nothing rounded.
    one = losses.from_privacy_parameters(common.DifferentialPrivacyParameters(loss, 0), loss)
    return min(pure, float(one.self_compose(rounds).get_epsilon_for_delta(delta)))


def guarantee(
    mechanism: str,
    multiplier: float,
    delta: float,
    rounds: int,
    parties: int,
    *,
    clip: float,
    participants: int | None = None,
) -> dict[str, Any]:
    """What a run may claim, for its receipt.

    Parameters
    ----------
    mechanism, multiplier, delta, rounds
        As calibrated.
    parties
        ``N`` of :func:`privatize`: among how many clients the noise was divided.
    clip
        ``C``, in the units of an update.
    participants
        Fewest clients whose noise reached a sum; fewer than ``parties`` if clients dropped out.

    Returns
    -------
    dict
        ``epsilon`` is against those who see only models, ``epsilon_against_server`` against the
        server that sees single updates. None means that there is no guarantee.
    """
    present = parties if participants is None else participants
    if not 1 <= present <= parties:
        raise MethodError(f"{present} participants; allowed: 1 to {parties}, the parties")
    epsilon, alone = _epsilons(mechanism, multiplier, delta, rounds, (present, parties))
    (metadata,) = required("importlib.metadata")
    return {
        "mechanism": mechanism,
        "unit": "one client, its updates replaced by zeros",
        "clip_norm": "l2" if mechanism == "gaussian" else "l1",
        "clip": clip,
        "noise_multiplier": multiplier,
        "rounds": rounds,
        "delta": delta,
        "epsilon": epsilon,
        "epsilon_against_server": alone,
        "amplification_by_sampling": False,
        "accountant": f"dp-accounting {metadata.version('dp-accounting')}",
        "randomness": "seeded NumPy generator: a study, not a deployment",
    }


def _epsilons(
    mechanism: str, multiplier: float, delta: float, rounds: int, shares: tuple[int, int]
) -> tuple[float | None, float | None]:
    """Against those who see models, and against the server."""
    present, parties = shares
    if mechanism == "gaussian":
        part = multiplier / math.sqrt(parties)
        whole = part * math.sqrt(present)
        return (
            epsilon_of(mechanism, whole, delta, rounds),
            epsilon_of(mechanism, part, delta, rounds),
        )
    # Fewer than N gamma differences are not Laplace: their density has no bounded ratio, and the
    # library no accountant for them.
    whole_laplace = epsilon_of(mechanism, multiplier, delta, rounds)
    return (
        whole_laplace if present == parties else None,
        whole_laplace if parties == 1 else None,
    )


def update_norm(tensors: Tensors, mechanism: str) -> float:
    """Norm of a whole update, in float64: L2 for ``"gaussian"``, L1 for ``"laplace"``.

    Raises
    ------
    MethodError
        If it is not finite: local training diverged.
    """
    order = 2 if mechanism == "gaussian" else 1
    norms = [
        float(np.linalg.norm(tensor.reshape(-1).astype(np.float64), order))
        for tensor in tensors.values()
    ]
    norm = math.hypot(*norms) if mechanism == "gaussian" else math.fsum(norms)
    if not math.isfinite(norm):
        raise MethodError("an update holds NaN or infinity: local training diverged")
    return norm


def privatize(
    tensors: Tensors,
    mechanism: str,
    clip: float,
    multiplier: float,
    parties: int,
    rng: np.random.Generator,
) -> dict[str, NDArray[np.float32]]:
    """Scale an update to a norm of at most ``clip`` and add one client's part of the noise.

    Parameters
    ----------
    tensors
        The update of one client, as it counts in the sum: weight 1, no scaling afterwards.
    mechanism
        ``"gaussian"`` or ``"laplace"``.
    clip
        ``C``, positive.
    multiplier
        ``z``; 0 adds no noise.
    parties
        ``N``, the clients whose updates are summed.
    rng
        Gives the noise; a stream of its own for each client and round.
    """
    _check(mechanism, 0.5, 1)
    for name, value in (("clip", clip), ("parties", parties)):
        if not (math.isfinite(value) and value > 0):
            raise MethodError(f"{name} is {value}; allowed: finite and positive")
    if not (math.isfinite(multiplier) and multiplier >= 0):
        raise MethodError(f"the noise multiplier is {multiplier}; allowed: finite, at least 0")
    norm = update_norm(tensors, mechanism)
    scale = min(1.0, clip / norm) if norm > 0 else 1.0
    noise = _noise(mechanism, clip * multiplier, parties, rng)
    return {
        name: (tensor * np.float64(scale) + noise(tensor.shape)).astype(np.float32)
        for name, tensor in tensors.items()
    }


def _noise(
    mechanism: str, scale: float, parties: int, rng: np.random.Generator
) -> Callable[[tuple[int, ...]], NDArray[np.float64]]:
    if mechanism == "gaussian":
        return lambda shape: rng.normal(0.0, scale / math.sqrt(parties), shape)
    return lambda shape: rng.gamma(1 / parties, scale, shape) - rng.gamma(1 / parties, scale, shape)


class PrivateProtector(PlainProtector):
    """A client's side: FedAvg in the clear, of updates that were clipped and noised.

    Its summing side is :class:`~quancrypt_fl.baselines.vanilla.PlainSummer`, with weights of 1.

    Parameters
    ----------
    mechanism, clip, multiplier, parties
        See :func:`privatize`.
    noise
        Generator of round ``t``, of this client alone.
    """

    def __init__(
        self,
        mechanism: str,
        clip: float,
        multiplier: float,
        parties: int,
        noise: Callable[[int], np.random.Generator],
    ) -> None:
        self._choices = mechanism, clip, multiplier, parties
        self._noise = noise

    def protect(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Sealed:
        """Clip, add noise, serialize; ``clips`` is empty."""
        return super().protect(privatize(tensors, *self._choices, self._noise(t)), clips, t)


def _check(mechanism: str, delta: float, rounds: int) -> None:
    if mechanism not in MECHANISMS:
        raise MethodError(f"mechanism is {mechanism!r}; allowed: {', '.join(MECHANISMS)}")
    least = "above 0" if mechanism == "gaussian" else "0 or more"
    if not (0 < delta < 1 or (delta == 0 and mechanism == "laplace")):
        raise MethodError(f"delta is {delta} with {mechanism} noise; allowed: {least}, below 1")
    if rounds < 1:
        raise MethodError(f"rounds is {rounds}; allowed: 1 or more")
