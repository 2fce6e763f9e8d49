"""The fields of a configuration as options of a command, made from the configuration itself."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from quancrypt_fl.config import GROUPS, QuanCryptConfig, describe_errors
from quancrypt_fl.errors import ConfigError
from quancrypt_fl.federation_config import FederationConfig

__all__ = [
    "Fields",
    "config_from",
    "fields_from",
    "with_config_options",
    "with_config_options_except",
    "with_options_of",
]

Command = TypeVar("Command", bound=Callable[..., None])
Config = TypeVar("Config", bound=FederationConfig)


@dataclass(frozen=True)
class Fields:
    """A configuration's fields, as a command shows them.

    Attributes
    ----------
    config
        The configuration's class.
    groups
        The first and the last field of each panel of ``--help``, in order.
    defaults
        What to show as the default of fields whose default is computed.
    left_out
        Fields that are no options, and keep their defaults.
    """

    config: type[FederationConfig]
    groups: Mapping[str, tuple[str, str]]
    defaults: Mapping[str, str] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()


_IMAGES = Fields(
    QuanCryptConfig,
    GROUPS,
    {
        "batch_size": "64; 128 from 40 clients; digits 16",
        "local_epochs": "1; digits 5",
        "threads": "2; mlp 1",
        "max_weight": "from the number of clients",
        "processes": "one per CPU",
        "out": "runs/DATASET-MODEL-METHOD",
    },
)


def with_config_options(command: Command) -> Command:
    """Give a command an option for each field of :class:`QuanCryptConfig`.

    ``command`` takes a :class:`typer.Context`, in whose ``params`` the values are
    (:func:`config_from`), and its own options, which follow.
    """
    return with_options_of(_IMAGES)(command)


def with_config_options_except(*names: str) -> Callable[[Command], Command]:
    """:func:`with_config_options` without the fields ``names``, which keep their defaults.

    A command may have an option of its own by such a name; :func:`config_from` must then be told
    what the field is.
    """
    left_out = frozenset(names)
    return with_options_of(Fields(_IMAGES.config, _IMAGES.groups, _IMAGES.defaults, left_out))


def with_options_of(fields: Fields) -> Callable[[Command], Command]:
    """:func:`with_config_options` for any configuration; the values are for :func:`fields_from`."""

    def add(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        context, *own = signature.parameters.values()
        parameters = [
            context.replace(kind=inspect.Parameter.KEYWORD_ONLY),
            *_options(fields),
            *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own),
        ]
        names = signature.parameters.keys()

        @functools.wraps(command)
        def wrapper(**values: Any) -> None:
            command(**{name: values[name] for name in names})

        wrapper.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=parameters
        )
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapper  # type: ignore[return-value]

    return add


def config_from(context: typer.Context, **changes: Any) -> QuanCryptConfig:
    """The configuration that a command line asks for.

    Raises
    ------
    ConfigError
        Naming every wrong value, and what is allowed.
    """
    return fields_from(context, QuanCryptConfig, **changes)


def fields_from(context: typer.Context, config: type[Config], **changes: Any) -> Config:
    """:func:`config_from` for any configuration."""
    names = config.model_fields
    values = {name: context.params[name] for name in names if name in context.params}
    try:
        return config(**{**values, **changes})
    except ValidationError as error:
        raise ConfigError(describe_errors(error)) from error


def _options(fields: Fields) -> Iterator[inspect.Parameter]:
    known, choices = fields.config.model_fields, fields.config.choices
    names = list(known)
    for group, (first, last) in fields.groups.items():
        for name in names[names.index(first) : names.index(last) + 1]:
            if name in fields.left_out:
                continue
            option = typer.Option(
                help=known[name].description,
                metavar="|".join(choices[name]) if name in choices else None,
                show_default=fields.defaults.get(name, True),
                rich_help_panel=group,
            )
            yield inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty
                if known[name].is_required()
                else known[name].default,
                annotation=Annotated[known[name].annotation, option],
            )
