"""A client takes part in the run of its kit, and in no other.

The server sends the run's settings with every message. If it could choose them, it could have a
client measure made-up models on one row of its data, and read the row from the losses.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable
from pydantic import ValidationError

from quancrypt_fl.errors import ConfigError
from quancrypt_fl.federation_config import FederationConfig, describe_errors
from quancrypt_fl.flower.app.learning import LEARNING
from quancrypt_fl.flower.app.node import path_of
from quancrypt_fl.flower.app.settings import RunSettings
from quancrypt_fl.flower.app.withheld import RunRefusedError, withheld
from quancrypt_fl.flower.protocol import Request, is_request, read_request
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.turns import turns_of
from quancrypt_fl.method.agreement import Agreement

__all__ = ["FREE", "KIT", "keep_to_kit", "settings_of"]

KIT = "quancrypt-kit"
"""Key of the node configuration: the kit's ``node.toml``, whose ``[run]`` binds the client."""

FREE = ("clients", "rounds")
"""What may differ from the kit. ``quancrypt run --rounds`` sets ``rounds``; ``clients`` changes
when some join. It divides a data set that all sites have, and nothing of a site's own.
"""


def settings_of(context: Context) -> RunSettings:
    """The run of a message, which is that of the client's kit.

    Raises
    ------
    RunRefusedError
        If it is another one, naming what differs.
    ConfigError
        If the settings or the kit's file cannot be read.
    """
    settings = RunSettings.of(context.run_config)
    table = _run_of(path_of(context.node_config, KIT, "quancrypt client gives it"))
    app = table.pop("app", None)
    if app != settings.app:
        raise RunRefusedError(
            f"the server runs {settings.app!r}; the kit of this client is for {app!r:.80}"
        )
    theirs = settings.configuration()
    ours = _with_free(table, settings.app, theirs)
    said, known = (config.model_dump(mode="json") for config in (theirs, ours))
    different = [
        f"{name} = {value!r:.80} (kit: {known[name]!r:.80})"
        for name, value in said.items()
        if value != known[name]
    ]
    if different:
        raise RunRefusedError(
            f"the server's run is not that of this client's kit: {'; '.join(different)}"[:1000]
            + f". Only {' and '.join(FREE)} may differ"
        )
    return settings


def keep_to_kit(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A mod around ``quancrypt_mod``: refuses another run than the kit's, other choices of the
    method than the run's, and another initial model.
    """
    if is_request(message):
        with withheld("take part in the run"):
            settings = settings_of(context)
            request = read_request(message)
            _check_agreement(settings, request)
            if request.initial:
                record = message.content.array_records[request.arrays_key]
                weights = {name: array.numpy() for name, array in record.items()}
                LEARNING[settings.app].check_initial(context, settings, weights)
    return call_next(message, context)


def _run_of(path: Path) -> dict[str, Any]:
    try:
        run = tomllib.loads(path.read_text(encoding="utf-8"))["run"]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError) as error:
        raise ConfigError(f"{path}: cannot be read, or has no table [run]: {error}") from None
    if not isinstance(run, dict):
        raise ConfigError(f"{path}: run is no table")
    return run


def _with_free(table: Mapping[str, Any], app: str, theirs: FederationConfig) -> FederationConfig:
    """The kit's run, with the server's values where it may choose."""
    values = {**table, **{name: getattr(theirs, name) for name in FREE}}
    try:
        return LEARNING[app].config(**values).resolved()
    except ValidationError as error:
        raise RunRefusedError(f"the kit of this client: {describe_errors(error):.500}") from None


def _check_agreement(settings: RunSettings, request: Request) -> None:
    config = settings.configuration()
    mode = config.mode if isinstance(config, FinetuneConfig) else ""
    turns = tuple(tuple(sorted(turn)) for turn in turns_of(mode, request.floats.keys()))
    expected = config.agreement().model_copy(update={"turns": turns})
    if request.agreement != expected:
        wrong = [
            name
            for name in Agreement.model_fields
            if getattr(request.agreement, name) != getattr(expected, name)
        ]
        raise RunRefusedError(
            f"the request's {', '.join(wrong)} are not those of the run of this client's kit"
        )
