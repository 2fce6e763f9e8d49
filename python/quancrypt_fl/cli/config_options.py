"""The fields of a configuration as options of a command, made from the configuration itself."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from quancrypt_fl.config import CHOICES, GROUPS, QuanCryptConfig, describe_errors
from quancrypt_fl.errors import ConfigError

__all__ = ["config_from", "with_config_options", "with_config_options_except"]

_COMPUTED_DEFAULTS = {
    "batch_size": "64; 128 from 40 clients; digits 16",
    "local_epochs": "1; digits 5",
    "threads": "2; mlp 1",
    "max_weight": "from the number of clients",
    "processes": "one per CPU",
    "out": "runs/DATASET-MODEL-METHOD",
}

Command = TypeVar("Command", bound=Callable[..., None])


def with_config_options(command: Command) -> Command:
    """Give a command an option for each field of :class:`QuanCryptConfig`.

    ``command`` takes a :class:`typer.Context`, in whose ``params`` the values are
    (:func:`config_from`), and its own options, which follow.
    """
    return _with_options(command, frozenset())


def with_config_options_except(*names: str) -> Callable[[Command], Command]:
    """:func:`with_config_options` without the fields ``names``, which keep their defaults.

    A command may have an option of its own by such a name; :func:`config_from` must then be told
    what the field is.
    """
    return lambda command: _with_options(command, frozenset(names))


def _with_options(command: Command, left_out: frozenset[str]) -> Command:
    signature = inspect.signature(command, eval_str=True)
    context, *own = signature.parameters.values()
    parameters = [
        context.replace(kind=inspect.Parameter.KEYWORD_ONLY),
        *(option for option in _options() if option.name not in left_out),
        *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own),
    ]
    names = signature.parameters.keys()

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        command(**{name: values[name] for name in names})

    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper  # type: ignore[return-value]


def config_from(context: typer.Context, **changes: Any) -> QuanCryptConfig:
    """The configuration that a command line asks for.

    Raises
    ------
    ConfigError
        Naming every wrong value, and what is allowed.
    """
    fields = QuanCryptConfig.model_fields
    values = {name: context.params[name] for name in fields if name in context.params}
    try:
        return QuanCryptConfig(**{**values, **changes})
    except ValidationError as error:
        raise ConfigError(describe_errors(error)) from error


def _options() -> Iterator[inspect.Parameter]:
    fields = QuanCryptConfig.model_fields
    names = list(fields)
    for group, (first, last) in GROUPS.items():
        for name in names[names.index(first) : names.index(last) + 1]:
            field = fields[name]
            option = typer.Option(
                help=field.description,
                metavar="|".join(CHOICES[name]) if name in CHOICES else None,
                show_default=_COMPUTED_DEFAULTS.get(name, True),
                rich_help_panel=group,
            )
            yield inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=Annotated[field.annotation, option],
            )
