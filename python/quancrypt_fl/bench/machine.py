"""What a measurement ran on: CPU, kernel set, threads, commit and versions; no names of people."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

import quancrypt_native as qn
from quancrypt_fl.machine import cpu_model, cpus, installed

__all__ = ["describe_machine"]

_LIBRARIES = ("tenseal", "phe", "gmpy2")
_THIS_FILE = Path("python", "quancrypt_fl", "bench", "machine.py")


def describe_machine() -> dict[str, Any]:
    """Facts that a figure needs beside it."""
    return {
        "cpu": cpu_model(),
        "cpus": cpus(),
        "system": f"{platform.system()} {platform.machine()}",
        "kernel_set": qn.backend(),
        "kernel_sets": qn.backends(),
        "threads": qn.num_threads(),
        "load": _load(),
        **_commit(),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "quancrypt_native": qn.__version__,
            "seal": qn.seal.version(),
            **{name: installed(name) for name in _LIBRARIES},
        },
    }


def _load() -> float | None:
    """Running processes, averaged over a minute: how quiet the machine was."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _commit() -> dict[str, Any]:
    """Commit of the checkout that this file belongs to, and whether its files differ from it."""
    here = Path(__file__).resolve()
    root = _git(here.parent, "rev-parse", "--show-toplevel")
    if root is None or Path(root) / _THIS_FILE != here:
        return {"commit": None, "modified": None}
    changes = _git(here.parent, "status", "--porcelain", "--untracked-files=no")
    return {"commit": _git(here.parent, "rev-parse", "HEAD"), "modified": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
