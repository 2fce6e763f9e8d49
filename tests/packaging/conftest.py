"""What the tests of the packaging share: a wheel built once, commands, virtual environments.

This folder is no package: as `packaging` it would hide the distribution of that name. With pytest's
import mode `importlib` its files are known as tests.packaging.*, after their place in the tree.
"""

import fcntl
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def execute(
    *command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Runs a command; both its outputs come back as one text."""
    return subprocess.run(
        [str(part) for part in command],
        env=env,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def clean_environment(**changes: str) -> dict[str, str]:
    """The environment without what would steer a build, and with the tools beside this Python."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("QUANCRYPT_", "SKBUILD_"))}
    for name in ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "PYTHONPATH"):
        env.pop(name, None)
    if "QUANCRYPT_CACHE_DIR" in os.environ:
        env["QUANCRYPT_CACHE_DIR"] = os.environ["QUANCRYPT_CACHE_DIR"]
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    return env | changes


def cache_folder() -> Path:
    """Where the build keeps SEAL, as cmake/seal_build.cmake finds it."""
    if folder := os.environ.get("QUANCRYPT_CACHE_DIR"):
        return Path(folder)
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder, "quancrypt")
    return Path.home() / ".cache" / "quancrypt"


def build_wheel(source: Path, destination: Path, *options: str) -> Path:
    """The wheel that pip builds from a source tree or an sdist."""
    done = execute(
        sys.executable, "-m", "pip", "wheel", "--no-deps", *options, "-w", destination, source,
        env=clean_environment(), cwd=destination,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    (wheel,) = destination.glob("quancrypt_native-*.whl")
    return wheel


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the tree, built once for all processes of pytest-xdist."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "quancrypt-wheel"
    with (shared / "quancrypt-wheel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if built := list(folder.glob("*.whl")):
            return built[0]
        folder.mkdir(exist_ok=True)
        return build_wheel(ROOT, folder, "--no-build-isolation")


@pytest.fixture(scope="session")
def members(wheel: Path) -> dict[str, bytes]:
    """Name and content of each file of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def empty_venv(tmp_path: Path) -> Path:
    """The Python of a new virtual environment with pip and nothing else."""
    venv.create(tmp_path / "venv", with_pip=True)
    return tmp_path / "venv" / "bin" / "python"
