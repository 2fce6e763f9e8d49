"""The other ways to install: an isolated build, the sdist by itself, an editable install."""

import os
import shutil
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from tests.packaging.conftest import ROOT, build_wheel, clean_environment, execute

pytestmark = pytest.mark.slow


def check_installed(python: Path, folder: Path) -> None:
    done = execute(python, "-m", "quancrypt_native.selftest", env=clean_environment(), cwd=folder)
    assert done.returncode == 0, done.stdout


def copy_tree(destination: Path) -> Path:
    """The source tree without what was built in it."""
    unwanted = ("build", "dist", "runs", "*.so", ".git", ".venv*", ".*_cache", "__pycache__")
    shutil.copytree(ROOT, destination, ignore=shutil.ignore_patterns(*unwanted))
    return destination


def test_pip_install_of_the_tree(tmp_path: Path, empty_venv: Path) -> None:
    done = execute(empty_venv, "-m", "pip", "install", ROOT, env=clean_environment(), cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    check_installed(empty_venv, tmp_path)


def test_sdist_builds_by_itself(tmp_path: Path, empty_venv: Path) -> None:
    env = clean_environment()
    command = (sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", tmp_path, ROOT)
    done = execute(*command, env=env)
    assert done.returncode == 0, done.stdout
    (sdist,) = tmp_path.glob("quancrypt_native-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert {"CMakeLists.txt", "LICENSE", "NOTICE", "README.md", "cmake/seal.cmake"} <= set(names)
    assert [name for name in names if name.endswith((".so", ".pyc"))] == []

    (tmp_path / "wheel").mkdir()
    wheel = build_wheel(sdist, tmp_path / "wheel")
    done = execute(empty_venv, "-m", "pip", "install", wheel, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    check_installed(empty_venv, tmp_path)


def test_isolated_editable_install(tmp_path: Path, empty_venv: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    done = execute(
        empty_venv, "-m", "pip", "install", "-e", tree, env=clean_environment(), cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout
    check_installed(empty_venv, tmp_path)


def test_editable_install_compiles_what_changed(tmp_path: Path, empty_venv: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    env = clean_environment(PATH=os.pathsep.join([str(empty_venv.parent), os.environ["PATH"]]))
    project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
    for arguments in (
        project["optional-dependencies"]["build"],
        ["--no-build-isolation", "-e", str(tree)],
    ):
        done = execute(empty_venv, "-m", "pip", "install", *arguments, env=env, cwd=tmp_path)
        assert done.returncode == 0, done.stdout
    check_installed(empty_venv, tmp_path)

    module = tree / "cpp" / "bindings" / "module.cpp"
    text = module.read_text()
    changed = text.replace(
        "PYBIND11_MODULE(_core, m) {", 'PYBIND11_MODULE(_core, m) {\n  m.attr("probe") = 41 + 1;', 1
    )
    assert changed != text
    module.write_text(changed)
    code = "from quancrypt_native import _core; print(_core.probe)"
    done = execute(empty_venv, "-c", code, env=env, cwd=tmp_path)
    assert done.stdout == "42\n"
