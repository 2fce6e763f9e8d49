"""``python -m quancrypt_fl.flower.programs NAME ...``: Flower's programs, as they are deployed.

``superlink``
    ``flower-superlink`` behind :mod:`quancrypt_fl.flower.door`.
``supernode``, ``superexec``
    Flower's own.
``serverapp``, ``clientapp``
    One task of an app, watched: see :mod:`quancrypt_fl.flower.tasks`. SuperExec starts them by
    their names, ``flwr-serverapp`` and ``flwr-clientapp``, from the folder of :func:`write_fronts`.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from quancrypt_fl.atomic_files import write_atomically
from quancrypt_fl.flower.confinement import close_if_asked

__all__ = ["MODULE", "PASSPHRASE", "command", "environment", "main", "write_fronts"]

MODULE = "quancrypt_fl.flower.programs"

PASSPHRASE = "QUANCRYPT_PASSPHRASE"
"""Environment variable with the passphrase of the key file: for ClientApps, and nothing else."""

_NAMES = {
    "superlink": "flower-superlink",
    "supernode": "flower-supernode",
    "superexec": "flower-superexec",
    "serverapp": "flwr-serverapp",
    "clientapp": "flwr-clientapp",
}

_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",  # seconds; Flower's default is 1
}
"""Nothing reaches for the Internet, unless the user has set these variables otherwise."""

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_LOCAL = "localhost,127.0.0.1,::1"


def command(name: str, *arguments: str) -> list[str]:
    """The command line of one of the programs above."""
    return [sys.executable, "-m", MODULE, name, *arguments]


def environment(
    base: Mapping[str, str], home: Path, *, fronts: Path | None = None
) -> dict[str, str]:
    """The environment of a Flower program: quiet, and with a folder of its own.

    Parameters
    ----------
    base
        What the program inherits; without the passphrase, which is given to those alone who need
        it.
    home
        For ``FLWR_HOME``: where Flower unpacks apps.
    fronts
        Folder of :func:`write_fronts`, to be searched first.
    """
    made = {**_QUIET, **base, "FLWR_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    made.pop(PASSPHRASE, None)
    if any(made.get(name) or made.get(name.upper()) for name in _PROXIES):
        given = made.get("no_proxy") or made.get("NO_PROXY")
        made["no_proxy"] = made["NO_PROXY"] = f"{given},{_LOCAL}" if given else _LOCAL
    if fronts is not None:
        made["PATH"] = os.pathsep.join([str(fronts), made.get("PATH", os.defpath)])
    return made


def write_fronts(folder: Path) -> Path:
    """Write the scripts by which SuperExec starts tasks; returns the folder."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("serverapp", "clientapp"):
        start = " ".join(shlex.quote(word) for word in command(name))
        script = folder / _NAMES[name]
        write_atomically(script, f'#!/bin/sh\nexec {start} "$@"\n'.encode(), mode=0o700)
    return folder


def main(arguments: Sequence[str]) -> None:
    """Run a program; does not return before it ends."""
    if not arguments or arguments[0] not in _NAMES:
        sys.exit(f"{MODULE}: {arguments[:1]}; allowed: {', '.join(_NAMES)}")
    close_if_asked()
    name, *rest = arguments
    sys.argv = [_NAMES[name], *rest]
    if name in ("serverapp", "clientapp"):
        from quancrypt_fl.flower.tasks import watch

        sys.exit(watch(name, rest))
    if name == "superlink":
        _superlink()
    elif name == "supernode":
        from flwr.supernode.cli import flower_supernode

        flower_supernode()
    else:
        from flwr.supercore.cli import flower_superexec

        flower_superexec()


def _superlink() -> None:
    from flwr.superlink import extensions
    from flwr.superlink.cli import flower_superlink
    from starlette.middleware import Middleware

    from quancrypt_fl.flower.door import LocalControl

    others = extensions.get_middleware
    extensions.get_middleware = lambda: (Middleware(LocalControl), *others())
    flower_superlink()


if __name__ == "__main__":
    main(sys.argv[1:])
