"""The simulation's first adapter, where there is neither a base model nor data: from the kit."""

from __future__ import annotations

import os
from pathlib import Path

from quancrypt_fl.errors import ConfigError
from quancrypt_fl.flower.app.learning import Start
from quancrypt_fl.flower.app.settings import RunSettings
from quancrypt_fl.lm.beginning import read_initial
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.turns import turns_of

__all__ = ["INITIAL", "start"]

INITIAL = "QUANCRYPT_INITIAL"
"""Environment variable: file of what travels of an adapter, as it begins."""


def start(settings: RunSettings) -> Start:
    """What a training begins with."""
    config = settings.configuration()
    assert isinstance(config, FinetuneConfig)
    place = os.environ.get(INITIAL)
    if not place:
        raise ConfigError(f"{INITIAL} is not in the environment; quancrypt server sets it")
    initial = read_initial(Path(place))
    return Start(
        initial.weights,
        initial.parameters,
        initial.exchanged,
        initial.about,
        turns_of(config.mode, initial.weights.keys()),
    )
