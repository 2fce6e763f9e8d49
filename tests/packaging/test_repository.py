"""What holds for every file of the repository."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from tests.packaging.conftest import ROOT


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """Every file that is, or could be, committed."""
    done = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in done.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_no_registry_is_named(files: list[Path]) -> None:
    # Mirrors and private registries are a matter of pip's settings.
    hosts = re.compile(rb"py" rb"pi\.org|python" rb"hosted\.org|download\.py" rb"torch")
    assert [path for path in files if hosts.search(path.read_bytes())] == []


def test_no_path_of_this_machine(files: list[Path]) -> None:
    folders = {f"{folder}/".encode() for folder in (ROOT, Path.home()) if folder != Path("/")}
    found = [path for path in files if any(folder in path.read_bytes() for folder in folders)]
    assert found == []


def test_nothing_is_compiled_for_this_machine_only(files: list[Path]) -> None:
    # The kernels are chosen at run time, so that a wheel runs on every CPU of its architecture.
    build_files = [p for p in files if p.name == "CMakeLists.txt" or p.suffix == ".cmake"]
    build_files += [ROOT / "Makefile", ROOT / "pyproject.toml"]
    assert [path for path in build_files if "=native" in path.read_text()] == []


def test_cmake_reads_the_version_of_pyproject() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    lines = re.findall(r'^version *= *"([0-9.]+)"', text, re.MULTILINE)
    assert lines == [tomllib.loads(text)["project"]["version"]]
