"""App bundles (Flower calls them FABs): the same files give the same bytes, and the same digest."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quancrypt_fl.errors import ConfigError

__all__ = ["AppBundle", "built_in_bundle", "bundle_of"]


class AppBundle:
    """An app, packed.

    Attributes
    ----------
    content
        The bundle.
    digest
        Its SHA-256 in hexadecimal digits, by which clients know it.
    config
        Keys of its run configuration with their defaults.
    """

    def __init__(self, files: Mapping[str, bytes | Path], place: str) -> None:
        from flwr.cli.build import build_fab_from_files
        from flwr.common.config import flatten_dict, get_fab_config

        try:
            with _quiet():
                self.content: bytes = build_fab_from_files(files)[0]
            app = get_fab_config(self.content)["tool"]["flwr"]["app"]
        except Exception as error:  # Flower and its TOML reader raise what they like
            raise ConfigError(f"{place}: is no Flower app: {error!s:.500}") from error
        self.digest = hashlib.sha256(self.content).hexdigest()
        self.config: dict[str, Any] = dict(flatten_dict(app.get("config")))


def built_in_bundle() -> AppBundle:
    """Our own app: two short files that import it, so that a client runs its own copy of it."""
    from quancrypt_fl.flower.app import FILES

    return AppBundle(FILES, "the built-in app")


def bundle_of(app: Path) -> AppBundle:
    """The app in a folder.

    Raises
    ------
    ConfigError
        If it is none, or is too large.
    """
    from flwr.cli.utils import collect_files

    if not (app / "pyproject.toml").is_file():
        raise ConfigError(f"{app}: has no pyproject.toml; --app names the folder of a Flower app")
    try:
        with _quiet():
            files = collect_files(app.resolve())
    except Exception as error:
        raise ConfigError(f"{app}: is no Flower app: {error!s:.500}") from error
    return AppBundle(files, str(app))


@contextmanager
def _quiet() -> Iterator[None]:
    """Flower's way of reading ``.gitignore`` is deprecated by the library that it uses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
