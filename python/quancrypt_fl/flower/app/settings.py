"""What the built-in app is told about a run: public, set by the server, checked by each side."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from quancrypt_fl.errors import ConfigError
from quancrypt_fl.federation_config import FederationConfig, describe_errors
from quancrypt_fl.flower.app import SETTINGS_KEY
from quancrypt_fl.flower.app.learning import LEARNING

__all__ = ["RunSettings"]

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


class RunSettings(BaseModel):
    """One run of the built-in app."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    app: str = "builtin"
    """What is learned, see :data:`.LEARNING`."""
    config: dict[str, Any]
    """Fields of its configuration that decide the result."""
    image_shape: tuple[int, int, int] | None = None
    """Channels, height and width: the server has no data to read them from. None without images.
    """
    classes: int | None = Field(default=None, ge=2, le=100_000)
    """Of the images."""
    name: str = "run-1"
    """Names the run's folder in the server's state."""
    resume: bool = False
    """Go on with what is in that folder, if anything is."""
    timeout: float = Field(default=3600.0, gt=0, le=1e7)
    """Seconds for an exchange of messages with the clients."""
    wait: float = Field(default=600.0, ge=0, le=1e7)
    """Seconds to wait at the start for clients that are not connected yet."""
    snapshot_every: int = Field(default=10, ge=1)
    """Rounds between two snapshots for clients that have lost their state."""
    names: tuple[str, ...] = ()
    """Names of the sites in the order of their partitions, where participants are drawn; empty for
    a site that was removed.
    """
    key_id: str | None = Field(default=None, pattern=r"[0-9a-f]{32}")
    """Fingerprint of the clients' key."""

    @field_validator("name")
    @classmethod
    def _is_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("allowed: up to 64 of a-z, 0-9 and '-'")
        return value

    @field_validator("app")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in LEARNING:
            raise ValueError(f"allowed: {', '.join(LEARNING)}")
        return value

    @model_validator(mode="after")
    def _knows_images(self) -> Self:
        known = (self.image_shape is not None, self.classes is not None)
        if known != (self.app == "builtin",) * 2:
            raise ValueError("image_shape and classes go with images, and only with them")
        return self

    @classmethod
    def of(cls, run_config: Mapping[str, Any]) -> RunSettings:
        """From Flower's run configuration.

        Raises
        ------
        ConfigError
            Naming what is wrong.
        """
        text = run_config.get(SETTINGS_KEY)
        if not isinstance(text, str) or not text:
            raise ConfigError(
                f"the run configuration has no {SETTINGS_KEY}; start the run with quancrypt run"
            )
        try:
            settings = cls.model_validate_json(text)
            reason = settings.configuration().only_simulated()
        except ValidationError as error:
            raise ConfigError(f"{SETTINGS_KEY}: {describe_errors(error)}") from None
        if reason:
            raise ConfigError(f"{SETTINGS_KEY}: {reason}")
        return settings

    def configuration(self, **changes: Any) -> FederationConfig:
        """The configuration, its defaults filled in, with a site's own fields."""
        return LEARNING[self.app].config(**{**self.config, **changes}).resolved()
