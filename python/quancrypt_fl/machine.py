"""What this machine and installation are."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path

__all__ = ["DISTRIBUTION", "cpu_model", "cpus", "extra_with", "installed"]

DISTRIBUTION = "quancrypt-native"

_EXTRAS_OF_DEVELOPERS = {"build", "dev"}


def installed(distribution: str) -> str | None:
    """Version of a distribution, without importing it; None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def extra_with(distribution: str) -> str | None:
    """The extra of this package that gives users a distribution; None if none does."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return None
    for requirement in requirements:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        extra = re.search(r"extra == ['\"]([^'\"]+)['\"]", requirement)
        if name is None or extra is None or extra[1] in _EXTRAS_OF_DEVELOPERS:
            continue
        if _canonical(name[0]) == _canonical(distribution):
            return extra[1]
    return None


def cpu_model() -> str:
    """The CPU's name, as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
