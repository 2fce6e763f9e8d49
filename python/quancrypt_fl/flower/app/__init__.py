"""The built-in app: our data, models and training on Flower, as the simulation has them.

What travels as an app bundle are two files that import it, so that every party runs its own copy.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["FILES", "SETTINGS_KEY"]

SETTINGS_KEY = "quancrypt-run"
"""Key of the run configuration that holds :class:`~quancrypt_fl.flower.app.settings.RunSettings`
as JSON.
"""

_PACKAGE = "quancrypt_app"
_PYPROJECT = f"""[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "quancrypt-app"
version = "1.0.0"
description = "Encrypted federated averaging of image classifiers"
license = "Apache-2.0"
dependencies = ["quancrypt-native[flower]"]

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "quancrypt"

[tool.flwr.app.components]
serverapp = "{_PACKAGE}.server:app"
clientapp = "{_PACKAGE}.client:app"

[tool.flwr.app.config]
{SETTINGS_KEY} = ""
"""

FILES: Mapping[str, bytes] = {
    "pyproject.toml": _PYPROJECT.encode(),
    f"{_PACKAGE}/__init__.py": b'"""Imports the built-in app of quancrypt_fl."""\n',
    f"{_PACKAGE}/client.py": b"from quancrypt_fl.flower.app.client_app import app as app\n",
    f"{_PACKAGE}/server.py": b"from quancrypt_fl.flower.app.server_app import app as app\n",
}
"""Files of the app by their paths. Any change makes another bundle, which older clients refuse."""
