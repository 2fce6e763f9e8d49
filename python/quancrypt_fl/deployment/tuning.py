"""A fine-tuning to be deployed: from a file of its choices to what kits hold of it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from quancrypt_fl.deployment import kits
from quancrypt_fl.deployment.folders import ProvisionError
from quancrypt_fl.deployment.sizing import values_sent
from quancrypt_fl.federation_config import describe_errors
from quancrypt_fl.lm.config import FinetuneConfig

__all__ = ["APP", "Tuning", "read_tuning"]

APP = "finetune"
"""What kits call it."""


def read_tuning(path: Path, clients: int | None) -> FinetuneConfig:
    """The choices in a TOML file, named as the fields of :class:`.FinetuneConfig`.

    Parameters
    ----------
    path
        The file.
    clients
        Number of clients, where the command line says it.

    Raises
    ------
    ProvisionError, KitError
        Naming the file, what is wrong, and what is allowed.
    """
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProvisionError(f"{path}: cannot be read as TOML: {error}") from None
    kits.check_fields(str(path), values)
    if clients is not None:
        if values.get("clients", clients) != clients:
            raise ProvisionError(
                f"{path}: clients = {values['clients']}, and the command line says {clients}"
            )
        values["clients"] = clients
    try:
        config = FinetuneConfig(**values)
    except ValidationError as error:
        raise ProvisionError(f"{path}: {describe_errors(error)}") from error
    except TypeError as error:  # a key that is no name
        raise ProvisionError(f"{path}: {error}") from error
    if reason := config.only_simulated():
        raise ProvisionError(f"{path}: {reason}")
    return config


@dataclass(frozen=True)
class Tuning:
    """What kits hold of a fine-tuning.

    Attributes
    ----------
    config
        The run, its defaults filled in, with names for model and data: where they are is a site's
        own business.
    values
        In the largest upload.
    server_files, client_files
        The adapter as it begins; see :mod:`quancrypt_fl.lm.beginning`.
    """

    config: FinetuneConfig
    values: int
    server_files: Mapping[str, bytes]
    client_files: Mapping[str, bytes]

    @classmethod
    def of(cls, config: FinetuneConfig) -> Tuning:
        """With the base model and data that ``config`` names, which no kit will hold.

        The data need not be a client's: they show that model and data fit, and which labels there
        are.

        Raises
        ------
        ModelError, DataError
            If one of them is absent or broken, or they do not fit each other.
        """
        from quancrypt_fl.lm.base import row_length
        from quancrypt_fl.lm.beginning import frozen_bytes, initial_bytes
        from quancrypt_fl.lm.loading import model_folder
        from quancrypt_fl.lm.run import LanguageTask

        length = row_length(config.sequence_length, model_folder(config.model))
        config = config.model_copy(update={"sequence_length": length}).resolved()
        task = LanguageTask(config.model_copy(update={"clients": 1, "partition": "iid"}))
        shapes = {name: tensor.shape for name, tensor in task.weights.items()}
        method = replace(config.agreement().method(shapes), turns=task.turns)
        named: dict[str, Any] = {"model": Path(config.model).name, "data": Path(config.data.name)}
        classes = getattr(task.data, "classes", ())
        if config.task == "classify" and not any("," in name for name in classes):
            named["labels"] = ",".join(classes)  # a site need not have all of them
        return cls(
            config.model_copy(update=named),
            values_sent(method, shapes),
            {kits.INITIAL: initial_bytes(task)},
            {kits.FROZEN: frozen_bytes(task)},
        )
