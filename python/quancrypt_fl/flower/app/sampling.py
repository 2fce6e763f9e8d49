"""Who takes part in a round: drawn as the simulation draws, so that both choose alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

import quancrypt_native as qn
from quancrypt_fl.federation_config import FederationConfig
from quancrypt_fl.flower import QuanCryptStrategy
from quancrypt_fl.method.participation import choose
from quancrypt_fl.seeds import generator

__all__ = ["SampledStrategy"]


class SampledStrategy(QuanCryptStrategy):
    """Draws participants by their partitions, where the SuperLink knows the nodes' names.

    Parameters
    ----------
    params, **strategy
        As of :class:`QuanCryptStrategy`.
    config
        The run: number of clients, participation, seed.
    names
        Names of the sites in the order of their partitions, ``""`` for one that was removed; or
        none: participants are then drawn by Flower.
    """

    def __init__(
        self,
        params: qn.Parameters,
        config: FederationConfig,
        names: Sequence[str],
        **strategy: Any,
    ) -> None:
        super().__init__(params, **strategy)
        self._config = config
        self._names = tuple(names)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Messages for this round's participants."""
        chosen = self._chosen(server_round - 1, grid)
        if len(chosen) < self.min_train_nodes:
            return super().configure_train(server_round, arrays, config, grid)
        config["server-round"] = server_round
        record = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: config})
        return self._construct_messages(record, chosen, MessageType.TRAIN)

    def _chosen(self, t: int, grid: Grid) -> list[int]:
        """Nodes of those drawn that are connected."""
        find = getattr(grid, "get_nodes", None)  # only a deployment's grid knows names
        drawn = choose(
            self._config.clients,
            self._config.participants,
            generator(self._config.seed, "participation", t),
        )
        if find is None or len(self._names) != self._config.clients:
            return []
        nodes = {info.name: int(info.node_id) for info in find()}
        return [nodes[name] for i in drawn if (name := self._names[i]) and name in nodes]
