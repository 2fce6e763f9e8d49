"""From a method's name to its parties. A method's arrangement is decided here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from quancrypt_fl.baselines.vanilla import PlainProtector, PlainSummer
from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.engines.parties import Parties, Server, Sides
from quancrypt_fl.method.fedavg import FedAvg
from quancrypt_fl.method.quancrypt import Layout
from quancrypt_fl.method.roles import Tensors
from quancrypt_fl.method.weighting import Share, shares
from quancrypt_fl.protect import SECRET_TYPES, Channel, PlainIntegerSummer
from quancrypt_fl.seeds import generator

__all__ = ["arrange"]


def arrange(config: QuanCryptConfig, weights: Tensors) -> Parties:
    """The parties of a run.

    Parameters
    ----------
    config
        The configuration, its defaults filled in.
    weights
        Initial global weights: names and shapes of what travels.
    """
    return _ARRANGEMENTS[config.method](config, weights)


def _quancrypt(config: QuanCryptConfig, weights: Tensors) -> Parties:
    """One secret key among the clients for updates, one for reports; public parameters alone for
    the server.
    """
    agreement = config.agreement()
    method = agreement.method(weights)
    shapes = {name: tensor.shape for name, tensor in weights.items()}

    def channel(layout: Layout) -> Channel:
        return Channel(
            bits=agreement.bits,
            max_weight=agreement.max_weight,
            security=config.security,
            values=sum(math.prod(shape) for shape, _ in layout.values()),
        )

    updates, reports = channel(method.upload_layout(shapes, t=0)), channel(method.report_layout())

    def sides(client: int) -> Sides:
        def dither(t: int) -> np.random.Generator:
            return generator(config.seed, "rounding", t, client)

        if config.encryption:
            return Sides(updates.client(config.rounding, dither), reports.client())
        return Sides(updates.plain_client(config.rounding, dither), reports.plain_client())

    if not config.encryption:
        server = Server(PlainIntegerSummer(), PlainIntegerSummer())
        return Parties(method, server, sides, WITHOUT_ENCRYPTION)
    return Parties(
        method,
        Server(updates.server(), reports.server()),
        sides,
        {**updates.facts(), "reports": reports.parameters()},
        updates.key_id,
        reports.key_id,
        SECRET_TYPES,
    )


def _vanilla(config: QuanCryptConfig, weights: Tensors) -> Parties:
    """Plain FedAvg: nothing is pruned, clipped, quantized or encrypted."""
    del weights
    method = FedAvg(update=config.update, smoothing=config.smoothing)
    side = PlainProtector()
    return Parties(method, Server(PlainSummer(), PlainSummer()), lambda _: Sides(side, side))


def _batchcrypt(config: QuanCryptConfig, weights: Tensors) -> Parties:
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
        batchcrypt.BatchCryptMethod(shares=_prescaled(config), smoothing=config.smoothing),
        Server(protection.server(), batchcrypt.RangeSummer(sizes, config.bits, parties)),
        sides,
        {**protection.facts(), "server_sees": RANGES_TOO}
        if config.encryption
        else WITHOUT_ENCRYPTION,
        protection.key_id,
        secret_types=batchcrypt.SECRET_TYPES,
        close=protection.close,
    )


def _tenseal(config: QuanCryptConfig, weights: Tensors) -> Parties:
    """FedAvg of floats, one CKKS slot per value; a context without secret key for the server."""
    del weights
    from quancrypt_fl.baselines import tenseal_ckks

    protection = tenseal_ckks.TensealCkks(config.tenseal_parameters, config.threads or 1)
    method = FedAvg(shares=_prescaled(config), update=config.update, smoothing=config.smoothing)
    side = protection.client()
    return Parties(
        method,
        Server(protection.server(), PlainSummer()),
        lambda _: Sides(side, PlainProtector()),
        protection.facts(),
        protection.key_id,
        secret_types=tenseal_ckks.SECRET_TYPES,
    )


def _private(config: QuanCryptConfig, weights: Tensors) -> Parties:
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
            shares=lambda counts: shares("uniform", counts, parties), smoothing=config.smoothing
        ),
        Server(PlainSummer(), PlainSummer()),
        sides,
        {
            "scheme": f"none: updates travelled in the clear, with {mechanism} noise",
            "privacy": privacy,
        },
    )


def _prescaled(config: QuanCryptConfig) -> Callable[[Sequence[int]], list[Share]]:
    """Shares where every upload counts once: clients scale, or all are alike."""
    weighting = "uniform" if config.weighting == "uniform" else "prescaled"
    return lambda counts: shares(weighting, counts, config.participants)


RANGES_TOO = (
    "which client uploads, its sample count, tensor names and shapes, ciphertext sizes, and of "
    "every layer of every update the smallest and the largest value"
)
WITHOUT_ENCRYPTION = {"scheme": "none: quantized integers travelled in the clear, for comparison"}

_ARRANGEMENTS: dict[str, Callable[[QuanCryptConfig, Tensors], Parties]] = {
    "quancrypt": _quancrypt,
    "vanilla": _vanilla,
    "batchcrypt": _batchcrypt,
    "tenseal": _tenseal,
    "dp-gaussian": _private,
    "dp-laplace": _private,
}
