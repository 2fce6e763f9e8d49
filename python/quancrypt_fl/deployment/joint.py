"""Kits with a threshold key: its facts agree with the run, and what such kits cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from quancrypt_fl.deployment.tables import KitError
from quancrypt_fl.errors import ConfigError
from quancrypt_fl.federation_config import FederationConfig
from quancrypt_fl.joint.facts import JointFacts

if TYPE_CHECKING:
    from quancrypt_fl.deployment.kits import ClientKit, ServerKit

__all__ = ["checked_facts", "refuse_joint"]


def checked_facts(path: Path, config: FederationConfig) -> Path:
    """The file of the threshold key's facts, if they are those of the run."""
    try:
        facts = JointFacts.load(path)
    except ConfigError as error:
        raise KitError(str(error)) from error
    said, run = (facts.threshold, len(facts.parties)), (config.threshold, config.clients)
    if said != run:
        raise KitError(
            f"{path}: {said[0]} of {said[1]} clients open a sum; the run says {run[0]} of {run[1]}"
        )
    return path


def refuse_joint(kit: ServerKit | ClientKit, what: str) -> None:
    """Raise :class:`KitError` for a kit with a threshold key, which takes new kits for ``what``."""
    if kit.joint is not None:
        raise KitError(
            f"{kit.folder}: has a threshold key, which its {kit.config.clients} clients made "
            f"together; {what} takes a new one, of all of them: make new kits (quancrypt provision "
            "--threshold) and start anew"
        )
