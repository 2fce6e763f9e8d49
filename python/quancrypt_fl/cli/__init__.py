"""The ``quancrypt`` command.

Commands that are about encryption itself (plan, doctor, keygen and the rest on files) use
``quancrypt_native`` directly. Those that train go through :mod:`quancrypt_fl.protect`, which is the
only other module that may.
"""

from __future__ import annotations

import os
import sys

from quancrypt_fl.cli.interrupts import INTERRUPTED, MESSAGE, interruptible_imports

__all__ = ["main"]

NEEDS_EXTRA = "quancrypt needs the [fl] extra: pip install 'quancrypt-native[fl]'"


def main() -> None:
    """Entry point of the console script: runs a command and exits with its status."""
    # Idle threads of torch spin by default: where other work wants the CPUs (a second run, a shared
    # machine), training then takes several times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with interruptible_imports():
            from quancrypt_fl.cli.app import run

        status = run()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0].startswith("quancrypt"):
            raise
        print(NEEDS_EXTRA, file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print(f"quancrypt: {MESSAGE}", file=sys.stderr)
        status = INTERRUPTED
    sys.exit(status)
