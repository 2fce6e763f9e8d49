"""Parties whose clients add noise to their integers before encryption."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from quancrypt_fl.engines.parties import Parties, Sides
from quancrypt_fl.federation_config import FederationConfig
from quancrypt_fl.method.groups import LEAST_IN_A_GROUP
from quancrypt_fl.method.private import PrivateQuanCrypt
from quancrypt_fl.method.quancrypt import QuanCrypt
from quancrypt_fl.method.roles import Tensors
from quancrypt_fl.method.weighting import shares
from quancrypt_fl.private.accounting import Mechanism, design, least_shares
from quancrypt_fl.private.noise import discrete_gaussian, sampler_name
from quancrypt_fl.private.side import NoisySide

__all__ = ["mechanism_of", "private_method", "with_noise"]


def mechanism_of(config: FederationConfig, method: QuanCrypt, weights: Tensors) -> Mechanism:
    """The noise of a run; its configuration is resolved.

    Raises
    ------
    MethodError
        If the configuration leaves no room for noise, or a library is not installed.
    """
    summed, opened = config.participants, config.min_arrivals
    if config.aggregation != "mean":
        summed //= config.groups  # the smallest group
        opened = max(opened, LEAST_IN_A_GROUP)
    return design(
        epsilon=config.dp_epsilon,
        delta=config.dp_delta,
        rounds=config.rounds,
        parties=config.participants,
        shares=max(opened, least_shares(summed, config.dp_missing)),  # fewer are not opened
        values=_most_values(config, method, weights),
        bits=config.bits,
        clip=config.dp_clip,
    )


def private_method(method: QuanCrypt, mechanism: Mechanism) -> PrivateQuanCrypt:
    """``method`` for integers with noise: no statistics, all clients count 1."""
    most = method.statistics.max_weight
    own = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    return PrivateQuanCrypt(
        **{**own, "shares": lambda counts: shares("uniform", counts, most)},
        step=mechanism.step,
        q_max=mechanism.q_max,
    )


def with_noise(
    parties: Parties,
    mechanism: Mechanism,
    rounding: Callable[[int], Callable[[int], np.random.Generator]],
) -> Parties:
    """``parties``, whose sides encrypt integers, with noise added to these.

    Parameters
    ----------
    rounding
        From a client to its generators of stochastic rounding.
    """
    noise = discrete_gaussian(mechanism.scale)

    def sides(client: int) -> Sides:
        own = parties.sides(client)
        return Sides(
            NoisySide(own.updates, mechanism, rounding(client), noise),
            own.reports,
        )

    facts = {name: fact for name, fact in parties.facts.items() if name != "reports"}
    return dataclasses.replace(
        parties,
        sides=sides,
        facts={**facts, "privacy": mechanism.facts(sampler_name())},
        report_key_id=None,
        report_ceremony=None,
        least_arrivals=mechanism.shares,
        spent=mechanism.spent,
    )


def _most_values(config: FederationConfig, method: QuanCrypt, weights: Tensors) -> int:
    """Most values of an update in any round of the run."""
    if method.mask == "client" or method.pruning is None:
        return sum(tensor.size for tensor in weights.values())
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    return max(_sent(method, shapes, t) for t in range(config.rounds))


def _sent(method: QuanCrypt, shapes: Mapping[str, tuple[int, ...]], t: int) -> int:
    layout = method.upload_layout(shapes, t)
    statistics = math.prod(method.at(t).statistics.shape)  # which nobody sends with noise
    return sum(math.prod(shape) for shape, _ in layout.values()) - statistics
