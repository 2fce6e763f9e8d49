"""``ClientApp(mods=[quancrypt_mod])``: encrypts what leaves a Flower client, opens what arrives."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from logging import ERROR
from pathlib import Path
from typing import Any

from flwr.app import (
    Array,
    ArrayRecord,
    Context,
    Error,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp.typing import ClientAppCallable
from flwr.common import log
from flwr.common.constant import ErrorCode
from numpy.typing import NDArray

from quancrypt_fl.envelopes.signer import Signer
from quancrypt_fl.errors import ConfigError, MethodError
from quancrypt_fl.flower.client import ClientRound, Finished
from quancrypt_fl.flower.client_keys import ClientKeys, check_joint, open_keys
from quancrypt_fl.flower.context_store import ContextStore
from quancrypt_fl.flower.protocol import (
    CEREMONY,
    CONSTANTS,
    ProtocolError,
    Reply,
    Request,
    blobs_of,
    floats_of,
    is_request,
    read_request,
    without_ours,
    write,
)
from quancrypt_fl.flower.signing import open_signer, sign
from quancrypt_fl.flower.stores import ClientStore, FolderStore, Held

__all__ = ["quancrypt_mod"]

_SETTINGS = {
    "quancrypt-key": "QUANCRYPT_KEY",
    "quancrypt-state": "QUANCRYPT_STATE",
    "quancrypt-signing-key": "QUANCRYPT_SIGNING_KEY",
    "quancrypt-joint": "QUANCRYPT_JOINT",
    "quancrypt-channel-key": "QUANCRYPT_CHANNEL_KEY",
}


def quancrypt_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Encrypt the model that a client app returns; decrypt sums and rebuild the global model.

    The app sees what it would see under plain FedAvg: the global model in ``arrays``, its
    configuration, and nothing of encryption. It must answer TRAIN messages with one ArrayRecord
    and one MetricRecord that holds ``num-examples``. Metrics travel in the clear.

    Node configuration
    ------------------
    ``quancrypt-key``
        Path of the key file; or ``QUANCRYPT_KEY`` in the environment, or in the run configuration
        (for simulations). Its passphrase is in the environment variable ``QUANCRYPT_PASSPHRASE``.
    ``quancrypt-signing-key``
        Path of the client's signing key, under the same passphrase; or ``QUANCRYPT_SIGNING_KEY``.
        Without it replies are not signed, and a strategy with ``members`` refuses them.
    ``quancrypt-state``
        Folder for what outlives the process; without it, it lies in Flower's context, and a client
        that restarts catches up from the server.
    ``quancrypt-joint``, ``quancrypt-channel-key``
        With a threshold key: files of its public facts (with ``group.qcp`` and ``params.qcp``
        beside it) and of the client's channel key, under the same passphrase. ``quancrypt-key`` is
        then the clients' group key, and ``quancrypt-state`` is needed.
    ``quancrypt-name``
        What the server's logs call the client.

    Raises
    ------
    ProtocolError
        If the server's strategy is not :class:`QuanCryptStrategy`: nothing is sent in the clear.
    """
    if message.metadata.message_type.split(".")[0] == MessageType.QUERY:
        return call_next(message, context)
    if not is_request(message):
        raise ProtocolError(
            "the server's message is not from QuanCryptStrategy, and quancrypt_mod sends nothing "
            "in the clear: use QuanCryptStrategy in the ServerApp, or take the mod away"
        )
    request = read_request(message)
    blobs = blobs_of(message)
    start = time.perf_counter()
    site = _Site.of(context)
    if "params" not in blobs:
        raise ProtocolError("the request lacks the encryption parameters")
    keys = open_keys(
        site.key,
        blobs["params"],
        joint=site.joint,
        channel_key=site.channel_key,
        state=site.state,
    )
    opened = time.perf_counter() - start
    if request.key not in (None, keys.secret.key_id):
        return _other_key(message, keys.secret.key_id)
    with site.store(context, request.training) as store:
        check_joint(keys, request)
        constants = _constants(message)
        work = ClientRound(
            request, blobs, store, keys, index=site.index, name=site.name, constants=constants
        )
        work.seconds["key"] = opened
        exchange = _Exchange(message, context, call_next, request, work, store, keys, constants)
        exchange.signer = None if site.signing_key is None else open_signer(site.signing_key)
        return exchange.answer()


def _constants(message: Message) -> dict[str, NDArray[Any]]:
    record = message.content.array_records.get(CONSTANTS)
    return {} if record is None else {name: array.numpy() for name, array in record.items()}


def _other_key(message: Message, ours: str) -> Message:
    """An error reply, and the same line in the client's log."""
    reason = (
        f"this kit has the old key {ours}, or one of other clients; install the new one: "
        "quancrypt rotate KIT --install FOLDER"
    )
    log(ERROR, "%s", reason)
    return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, reason), reply_to=message)


@dataclass(frozen=True)
class _Site:
    """What a node's configuration says."""

    key: Path
    signing_key: Path | None
    joint: Path | None
    channel_key: Path | None
    state: Path | None
    name: str
    index: int

    @classmethod
    def of(cls, context: Context) -> _Site:
        def setting(name: str) -> Any:
            for place in (context.node_config, os.environ, context.run_config):
                value = place.get(_SETTINGS[name] if place is os.environ else name)
                if value:
                    return value
            return None

        key, state = setting("quancrypt-key"), setting("quancrypt-state")
        if not key:
            raise ConfigError(
                'no key file: give the node configuration quancrypt-key="FILE" (flower-supernode '
                "--node-config), or QUANCRYPT_KEY in the environment"
            )
        index = context.node_config.get("partition-id", 0)
        folder = Path(str(state)) if state else None
        files = ("quancrypt-signing-key", "quancrypt-joint", "quancrypt-channel-key")
        signing_key, joint, channel_key = (
            Path(str(value)) if (value := setting(name)) else None for name in files
        )
        if folder is not None and "quancrypt-state" not in context.node_config:
            folder /= f"client-{index}"  # said for all nodes at once: a folder for each
        return cls(
            Path(str(key)),
            signing_key,
            joint,
            channel_key,
            folder,
            str(context.node_config.get("quancrypt-name", "")) or f"node-{context.node_id}",
            int(index),
        )

    def store(self, context: Context, training: str) -> ClientStore:
        if self.state is None:
            return ContextStore(context.state, training)
        return FolderStore(self.state, training)


class _Exchange:
    """One request, from the message to the reply."""

    def __init__(
        self,
        message: Message,
        context: Context,
        call_next: ClientAppCallable,
        request: Request,
        work: ClientRound,
        store: ClientStore,
        keys: ClientKeys,
        constants: dict[str, NDArray[Any]],
    ) -> None:
        self._message = message
        self._context = context
        self._call_next = call_next
        self._request = request
        self._work = work
        self._store = store
        self._keys = keys
        self.signer: Signer | None = None
        self._constants = constants

    def answer(self) -> Message:
        held = self._work.catch_up(self._initial())
        if held is None:
            return self._reply(self._work.behind(), {})
        if self._message.metadata.message_type.split(".")[0] == MessageType.EVALUATE:
            return self._evaluate(held)
        asks = self._request.asks
        blobs = self._of_party(asks, held)
        pending = None
        content = RecordDict()
        if {"train", "report", "upload"} & set(asks):
            try:
                pending = self._work.train(held, lambda: self._train(held))
            except _AppError as error:
                return error.reply
            content["metrics"] = MetricRecord(dict(pending.metrics))
        if pending is not None and "report" in asks:
            blobs["report"] = self._work.report(held, pending)
        if pending is not None and "upload" in asks:
            blobs["upload"] = self._work.upload(held, pending)
        if "snapshot" in asks:
            blobs["snapshot"] = self._work.snapshot(held)
        if "finish" in asks:
            self._store.finish(self._model(held))
        return self._reply(self._work.reply(held, asks, pending), blobs, content)

    def _of_party(self, asks: Collection[str], held: Held) -> dict[str, bytes]:
        """What this client's party of a joint key has to say."""
        if not {*CEREMONY, "open"} & set(asks):
            return {}
        party = self._keys.party
        if party is None:
            raise ProtocolError("the server asks for a part of a joint key; this client has none")
        from quancrypt_fl.flower.parties import party_steps

        with self._work.phase("open" if "open" in asks else "key"):
            return party_steps(
                party,
                self._request,
                blobs_of(self._message),
                self._keys.secret,
                self._work.layouts(held),
            )

    def _evaluate(self, held: Held) -> Message:
        reply = self._call_next(self._for_app(held), self._context)
        if reply.has_error():
            return reply
        return self._reply(
            self._work.reply(held, ()), {}, RecordDict({**reply.content.metric_records})
        )

    def _train(self, held: Held) -> Finished:
        self._check_turn(held)
        start = time.perf_counter()
        reply = self._call_next(self._for_app(held), self._context)
        seconds = time.perf_counter() - start
        if reply.has_error():
            raise _AppError(reply)
        arrays = list(reply.content.array_records.values())
        metrics = list(reply.content.metric_records.values())
        if len(arrays) != 1 or len(metrics) != 1:
            raise MethodError(
                f"the app's reply holds {len(arrays)} ArrayRecords and {len(metrics)} "
                "MetricRecords; allowed: one of each"
            )
        key = self._request.count_key
        samples = metrics[0].get(key)
        if (
            isinstance(samples, list)
            or not isinstance(samples, int | float)
            or not 1 <= samples < 2**53
        ):
            raise MethodError(
                f"{key!r} of the app's metrics is {samples!r}; allowed: the number of training "
                "samples, at least 1"
            )
        missing = [name for name in self._request.floats if name not in arrays[0]]
        if missing:
            raise MethodError(f"the app's reply lacks the tensors {missing[:5]}")
        weights = floats_of(arrays[0], self._request.floats)
        return Finished(weights, round(samples), dict(metrics[0]), seconds)

    def _check_turn(self, held: Held) -> None:
        """Where tensors take turns, the app must train those that will be sent: the round that it
        is told is that of the state held, on which all parties' chain ids agree.
        """
        if not self._request.agreement.turns:
            return
        for record in self._message.content.config_records.values():
            said = record.get("server-round", held.state.round + 1)
            if said != held.state.round + 1:
                raise ProtocolError(
                    f"server-round = {said!r:.20} after {held.state.round} rounds: tensors that "
                    "take turns would be trained out of turn"
                )

    def _for_app(self, held: Held) -> Message:
        """The message as plain FedAvg would have sent it."""
        content = without_ours(self._message.content)
        arrays = {name: Array(tensor) for name, tensor in self._model(held).items()}
        content[self._request.arrays_key] = ArrayRecord(arrays)
        self._message.content = content
        return self._message

    def _model(self, held: Held) -> dict[str, NDArray[Any]]:
        """The global model, every tensor in the place and of the type that the app knows."""
        return {
            name: held.state.weights[name].astype(self._request.floats[name], copy=False)
            if name in self._request.floats
            else self._constants[name]
            for name in self._request.names
        }

    def _initial(self) -> dict[str, NDArray[Any]] | None:
        if not self._request.initial:
            return None
        model = self._message.content.array_records[self._request.arrays_key]
        return {name: model[name].numpy() for name in self._request.names}

    def _reply(
        self, header: Reply, blobs: dict[str, bytes], content: RecordDict | None = None
    ) -> Message:
        written = write(header, blobs, content or RecordDict())
        if self.signer is not None:
            sign(written, header, self._message, self.signer)
        return Message(written, reply_to=self._message)


class _AppError(Exception):
    """The user's app answered with an error, which goes back as it is."""

    def __init__(self, reply: Message) -> None:
        self.reply = reply
