"""The client: seconds in quancrypt_mod, in the training within it, and in importing the package."""

import json
import os
import time
from pathlib import Path

import numpy  # noqa: F401
import torch  # noqa: F401
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

_start = time.perf_counter()
from quancrypt_fl.flower import quancrypt_mod  # noqa: E402
from quancrypt_fl.flower.protocol import ProtocolError, read_reply  # noqa: E402

_IMPORTS = time.perf_counter() - _start
"""Seconds of what an app without encryption does not import (the training is imported later)."""

from quancrypt_fl.flower.app import client_app as built_in  # noqa: E402

FOLDER = "DEPLOYED_ROUND"  # environment variable: where the figures go

_app_seconds = 0.0


def outside(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Measure all of a message, and write it down after the reply is made."""
    kind = message.metadata.message_type.split(".")[0]
    rounds = [r.get("server-round") for r in message.content.config_records.values()]
    begin = time.perf_counter()
    reply = call_next(message, context)
    total = time.perf_counter() - begin
    line = {
        "client": context.node_config["partition-id"],
        "kind": kind,
        "round": next((number for number in rounds if number is not None), None),
        "total": total,
        "app": _app_seconds,
        "imports": 0.0 if context.run_config["plain"] else _IMPORTS,
    }
    try:
        line["phases"] = dict(read_reply(reply).seconds)
    except ProtocolError:  # plain
        line["phases"] = {}
    with (Path(os.environ[FOLDER]) / "clients.jsonl").open("a") as stream:
        stream.write(json.dumps(line) + "\n")
    return reply


def encrypted(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """quancrypt_mod, unless the run is plain."""
    if context.run_config["plain"]:
        return call_next(message, context)
    return quancrypt_mod(message, context, call_next)


def inside(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Measure the app."""
    global _app_seconds
    begin = time.perf_counter()
    reply = call_next(message, context)
    _app_seconds += time.perf_counter() - begin
    return reply


app = ClientApp(mods=[outside, encrypted, inside])
app.train()(built_in.train)
app.evaluate()(built_in.evaluate)
