"""From a method's name to its parties. A method's arrangement is decided here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from quancrypt_fl.baselines.vanilla import PlainProtector, PlainSummer
from quancrypt_fl.engines.parties import Parties, Server, Sides
from quancrypt_fl.federation_config import FederationConfig
from quancrypt_fl.method.fedavg import FedAvg
from quancrypt_fl.method.groups import breakdown
from quancrypt_fl.method.quancrypt import Layout, QuanCrypt
from quancrypt_fl.method.roles import Tensors
from quancrypt_fl.method.weighting import Share, shares
from quancrypt_fl.protect import SECRET_TYPES, Channel, Dither, PlainIntegerSummer
from quancrypt_fl.seeds import generator

if TYPE_CHECKING:
    from quancrypt_fl.private.accounting import Mechanism

__all__ = ["arrange"]


Turns = tuple[frozenset[str], ...]
"""See :attr:`quancrypt_fl.method.fedavg.FedAvg.turns`."""


def arrange(config: FederationConfig, weights: Tensors, turns: Turns = ()) -> Parties:
    """The parties of a run.

    Parameters
    ----------
    config
        The configuration, its defaults filled in.
    weights
        Initial global weights: names and shapes of what travels.
    turns
        Which of them travel in which round; by default all do in every round.
    """
    parties = _ARRANGEMENTS[config.method](config, weights, turns)
    if config.aggregation == "mean":
        return parties
    return replace(parties, facts={**parties.facts, "aggregation": _groups(config)})


def _groups(config: FederationConfig) -> dict[str, Any]:
    smallest = config.participants // config.groups
    return {
        "rule": config.aggregation,
        "groups": config.groups,
        "smallest_group": smallest,
        "tolerated_groups": breakdown(config.groups),
        "clients_see": f"the mean of every group of a round, of as few as {smallest} clients",
    }


def _quancrypt(config: FederationConfig, weights: Tensors, turns: Turns) -> Parties:
    """One key among the clients for updates, one for reports; public parameters alone for the
    server.
    """
    if config.threshold is not None:
        return _joint(config, config.threshold, weights, turns)
    method, mechanism = _method(config, weights, turns)
    updates, reports = (Channel(**size) for size in _sizes(config, method, weights))

    def sides(client: int) -> Sides:
        dither = _dither(config, client)
        if config.encryption:
            return Sides(updates.client(rounding, dither), reports.client())
        return Sides(updates.plain_client(rounding, dither), reports.plain_client())

    rounding = _rounding(config)
    if not config.encryption:
        server = Server(PlainIntegerSummer(), PlainIntegerSummer())
        return _noisy(config, mechanism, Parties(method, server, sides, WITHOUT_ENCRYPTION))
    parties = Parties(
        method,
        Server(updates.server(), reports.server()),
        sides,
        {**updates.facts(), "reports": reports.parameters()},
        updates.key_id,
        reports.key_id,
        SECRET_TYPES,
    )
    return _noisy(config, mechanism, parties)


def _method(
    config: FederationConfig, weights: Tensors, turns: Turns
) -> tuple[QuanCrypt, Mechanism | None]:
    """The method, and the noise that clients add, if they do."""
    method = replace(config.agreement().method(weights), outer=config.outer(), turns=turns)
    if config.dp == "none":
        return method, None
    from quancrypt_fl.engines.privacy import mechanism_of, private_method

    mechanism = mechanism_of(config, method, weights)
    return private_method(method, mechanism), mechanism


def _noisy(config: FederationConfig, mechanism: Mechanism | None, parties: Parties) -> Parties:
    if mechanism is None:
        return parties
    from quancrypt_fl.engines.privacy import with_noise

    return with_noise(parties, mechanism, lambda client: _dither(config, client))


def _rounding(config: FederationConfig) -> str:
    """What has noise is integers before it is encrypted: nothing is left to round."""
    return config.rounding if config.dp == "none" else "nearest"


def _joint(config: FederationConfig, needed: int, weights: Tensors, turns: Turns) -> Parties:
    """As :func:`_quancrypt`, under keys that no client holds: ``needed`` of them open a sum."""
    from quancrypt_fl.joint.channel import JointChannel
    from quancrypt_fl.joint.quorum import Quorum

    method, mechanism = _method(config, weights, turns)
    updates, reports = (
        JointChannel(**size, clients=config.clients, needed=needed)
        for size in _sizes(config, method, weights)
    )
    parties = Parties(
        method,
        Server(updates.server(), reports.server()),
        lambda client: Sides(
            updates.client(_rounding(config), _dither(config, client)), reports.client()
        ),
        {**updates.facts(), "reports": reports.parameters()},
        updates.key_id,
        reports.key_id,
        SECRET_TYPES,
        updates.ceremony,
        reports.ceremony,
        Quorum(
            needed,
            {"updates": updates.answer, "reports": reports.answer},
            config.open_dropout,
            config.seed,
        ),
    )
    return _noisy(config, mechanism, parties)


def _sizes(
    config: FederationConfig, method: QuanCrypt, weights: Tensors
) -> tuple[dict[str, int], dict[str, int]]:
    """Arguments of a channel for updates, and of one for reports, each for the largest turn."""
    agreement = config.agreement()
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    turns = range(max(1, len(method.turns)))

    def size(layouts: Iterable[Layout]) -> dict[str, int]:
        return {
            "bits": agreement.bits,
            "max_weight": agreement.max_weight,
            "security": config.security,
            "values": max(
                sum(math.prod(shape) for shape, _ in layout.values()) for layout in layouts
            ),
        }

    return (
        size(method.upload_layout(shapes, t) for t in turns),
        size(method.at(t).report_layout() for t in turns),
    )


def _dither(config: FederationConfig, client: int) -> Dither:
    return lambda t: generator(config.seed, "rounding", t, client)


def _vanilla(config: FederationConfig, weights: Tensors, turns: Turns) -> Parties:
    """Plain FedAvg: nothing is pruned, clipped, quantized or encrypted."""
    del weights
    method = FedAvg(update=config.update, outer=config.outer(), turns=turns)
    side = PlainProtector()
    return Parties(method, Server(PlainSummer(), PlainSummer()), lambda _: Sides(side, side))


def _batchcrypt(config: FederationConfig, weights: Tensors, turns: Turns) -> Parties:
    """Paillier keys among the clients, the public key for the server, ranges in the clear."""
    from quancrypt_fl.baselines import batchcrypt

    parties = config.participants
    protection = batchcrypt.BatchCrypt(
        bits=config.bits,
        parties=parties,
        key_bits=config.paillier_bits,
        processes=config.processes,
        encryption=config.encryption,
    )
    sizes = {name: tensor.size for name, tensor in weights.items()}
    reports = batchcrypt.RangeReporter()

    def sides(client: int) -> Sides:
        return Sides(
            protection.client(lambda t: generator(config.seed, "rounding", t, client)), reports
        )

    return Parties(
        batchcrypt.BatchCryptMethod(shares=_prescaled(config), outer=config.outer(), turns=turns),
        Server(protection.server(), batchcrypt.RangeSummer(sizes, config.bits, parties)),
        sides,
        {**protection.facts(), "server_sees": RANGES_TOO}
        if config.encryption
        else WITHOUT_ENCRYPTION,
        protection.key_id,
        secret_types=batchcrypt.SECRET_TYPES,
        close=protection.close,
    )


def _tenseal(config: FederationConfig, weights: Tensors, turns: Turns) -> Parties:
    """FedAvg of floats, one CKKS slot per value; a context without secret key for the server."""
    del weights
    from quancrypt_fl.baselines import tenseal_ckks

    protection = tenseal_ckks.TensealCkks(config.tenseal_parameters, config.threads or 1)
    method = FedAvg(
        shares=_prescaled(config), update=config.update, outer=config.outer(), turns=turns
    )
    side = protection.client()
    return Parties(
        method,
        Server(protection.server(), PlainSummer()),
        lambda _: Sides(side, PlainProtector()),
        protection.facts(),
        protection.key_id,
        secret_types=tenseal_ckks.SECRET_TYPES,
    )


def _private(config: FederationConfig, weights: Tensors, turns: Turns) -> Parties:
    """FedAvg of differences in the clear, clipped as a whole and noised; all clients count 1."""
    del weights
    from quancrypt_fl.baselines import differential_privacy as dp

    mechanism = config.method.removeprefix("dp-")
    parties = config.participants
    multiplier = dp.calibrate(
        mechanism, config.dp_epsilon, config.dp_delta, config.rounds, config.participation
    )
    privacy = dp.guarantee(
        mechanism,
        multiplier,
        config.dp_delta,
        config.rounds,
        parties,
        clip=config.dp_clip,
        participants=1 if config.dropout else None,  # as few as may be left of a round
    )

    def sides(client: int) -> Sides:
        def noise(t: int) -> np.random.Generator:
            return generator(config.seed, "dp-noise", t, client)

        side = dp.PrivateProtector(mechanism, config.dp_clip, multiplier, parties, noise)
        return Sides(side, PlainProtector())

    return Parties(
        FedAvg(
            shares=lambda counts: shares("uniform", counts, parties),
            outer=config.outer(),
            turns=turns,
        ),
        Server(PlainSummer(), PlainSummer()),
        sides,
        {
            "scheme": f"none: updates travelled in the clear, with {mechanism} noise",
            "privacy": privacy,
        },
    )


def _prescaled(config: FederationConfig) -> Callable[[Sequence[int]], list[Share]]:
    """Shares where every upload counts once: clients scale, or all are alike."""
    weighting = "uniform" if config.weighting == "uniform" else "prescaled"
    return lambda counts: shares(weighting, counts, config.participants)


RANGES_TOO = (
    "which client uploads, its sample count, tensor names and shapes, ciphertext sizes, and of "
    "every layer of every update the smallest and the largest value"
)
WITHOUT_ENCRYPTION = {"scheme": "none: quantized integers travelled in the clear, for comparison"}

_ARRANGEMENTS: dict[str, Callable[[FederationConfig, Tensors, Turns], Parties]] = {
    "quancrypt": _quancrypt,
    "vanilla": _vanilla,
    "batchcrypt": _batchcrypt,
    "tenseal": _tenseal,
    "dp-gaussian": _private,
    "dp-laplace": _private,
}
