"""Where SEAL comes from, and that each failure is one sentence that says what to do."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.packaging.conftest import ROOT, cache_folder, clean_environment, execute

ARCHIVE = "pyfhel-3.5.0.tar.gz"


def configure_command(build: Path, *options: str) -> list[str]:
    python = f"-DPython_EXECUTABLE={sys.executable}"
    return ["cmake", "-S", str(ROOT), "-B", str(build), python, *options]


def sentence(build: Path, *options: str, **env: str) -> str:
    """Our sentence in the output of a configuration that must fail."""
    done = execute(*configure_command(build, *options), env=clean_environment(**env))
    assert done.returncode != 0, done.stdout
    assert done.stdout.count("CMake Error") == 1, done.stdout
    found = re.findall(r"^ *QuanCrypt: (.+)$", done.stdout, re.MULTILINE)
    assert len(found) == 1, done.stdout
    assert found[0].endswith(".")
    return str(found[0])


@pytest.fixture
def archive() -> Path:
    """The sdist that carries SEAL, which an earlier build left in the cache."""
    path = cache_folder() / ARCHIVE
    if not path.exists():
        pytest.skip(f"{ARCHIVE} is not in the cache folder")
    return path


def fake_sources(folder: Path, version: str) -> Path:
    (folder / "native" / "src" / "seal").mkdir(parents=True)
    (folder / "native" / "src" / "seal" / "seal.h").touch()
    (folder / "CMakeLists.txt").write_text(f"project(SEAL VERSION {version} LANGUAGES CXX C)\n")
    return folder


def fake_install(prefix: Path, version: str) -> Path:
    folder = prefix / "lib" / "cmake" / "SEAL"
    folder.mkdir(parents=True)
    (folder / "SEALConfig.cmake").write_text("add_library(SEAL::seal INTERFACE IMPORTED)\n")
    (folder / "SEALConfigVersion.cmake").write_text(
        f'set(PACKAGE_VERSION "{version}")\n'
        "if(PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)\n"
        "  set(PACKAGE_VERSION_COMPATIBLE TRUE)\n  set(PACKAGE_VERSION_EXACT TRUE)\nendif()\n"
    )
    return prefix


@pytest.mark.parametrize("variable", ["CC", "CXX"])
def test_compiler_that_is_not_there(tmp_path: Path, variable: str) -> None:
    text = sentence(tmp_path, **{variable: "/nonexistent/compiler"})
    assert "no working C and C++ compiler was found" in text
    assert f"{variable} is '/nonexistent/compiler'" in text


def test_compiler_named_to_cmake_that_is_not_there(tmp_path: Path) -> None:
    text = sentence(tmp_path, "-DCMAKE_CXX_COMPILER=/nonexistent/compiler")
    assert "CMAKE_CXX_COMPILER is '/nonexistent/compiler'" in text


def test_no_compiler_through_pip(tmp_path: Path) -> None:
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation")
    env = clean_environment(CXX="/nonexistent/compiler")
    done = execute(*pip, "-w", tmp_path, ROOT, env=env)
    assert done.returncode != 0
    assert done.stdout.count("QuanCrypt: no working C and C++ compiler was found") == 1


@pytest.mark.parametrize(
    "env",
    [
        {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"},
        {"PIP_NO_INDEX": "1"},
    ],
    ids=["unreachable", "no-index"],
)
def test_no_network(tmp_path: Path, env: dict[str, str]) -> None:
    isolated = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
    cache = tmp_path / "cache"
    text = sentence(
        tmp_path / "build", "-DQUANCRYPT_SEAL=download",
        QUANCRYPT_CACHE_DIR=str(cache), **(isolated | env),
    )  # fmt: skip
    assert "could not be downloaded" in text
    assert "network" in text
    assert "QUANCRYPT_SEAL_DIR" in text
    assert [path.name for path in cache.iterdir() if path.suffix != ".lock"] == []


def test_wrong_hash_from_the_registry(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / ARCHIVE).write_bytes(b"something else")
    text = sentence(
        tmp_path / "build", QUANCRYPT_SEAL="download", QUANCRYPT_CACHE_DIR=str(tmp_path / "cache"),
        PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path / "index"),
    )  # fmt: skip
    assert "has the SHA-256" in text
    assert not (tmp_path / "cache" / ARCHIVE).exists()


def test_wrong_hash_in_the_cache(tmp_path: Path) -> None:
    (tmp_path / ARCHIVE).write_bytes(b"something else")
    text = sentence(
        tmp_path / "build", QUANCRYPT_SEAL="download", QUANCRYPT_CACHE_DIR=str(tmp_path)
    )
    assert "has the SHA-256" in text
    assert "delete it" in text


def test_unknown_way(tmp_path: Path) -> None:
    text = sentence(tmp_path, QUANCRYPT_SEAL="guess")
    assert "'guess'" in text
    assert "auto, installed, folder, download, upstream" in text


def test_installed_seal_asked_for_and_missing(tmp_path: Path) -> None:
    text = sentence(tmp_path, QUANCRYPT_SEAL="installed")
    assert "installed Microsoft SEAL was not found" in text


def test_installed_seal_too_old(tmp_path: Path) -> None:
    prefix = fake_install(tmp_path / "prefix", "3.7.2")
    text = sentence(tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}", QUANCRYPT_SEAL="installed")
    assert "is version 3.7.2" in text
    assert "4.1 or newer is needed" in text


def test_installed_seal_that_does_not_link(tmp_path: Path) -> None:
    prefix = fake_install(tmp_path / "prefix", "4.2.0")
    text = sentence(tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}", QUANCRYPT_SEAL="installed")
    assert "cannot be linked into a shared library" in text


def test_installed_seal_too_old_is_skipped_in_auto_mode(tmp_path: Path) -> None:
    prefix = fake_install(tmp_path / "prefix", "3.7.2")
    build = tmp_path / "build"
    command = configure_command(build, f"-DCMAKE_PREFIX_PATH={prefix}")
    done = execute(*command, env=clean_environment(QUANCRYPT_SEAL_DIR=str(tmp_path / "no")))
    assert "The installed SEAL is skipped: it is version 3.7.2" in done.stdout
    assert "which is no folder" in done.stdout


@pytest.mark.parametrize("folder", ["missing", "empty", "old", "old-prefix", ""])
def test_folder(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    fake_sources(tmp_path / "old", "3.7.2")
    fake_install(tmp_path / "old-prefix", "3.7.2")
    text = sentence(
        tmp_path / "build",
        "-DQUANCRYPT_SEAL=folder",
        QUANCRYPT_SEAL_DIR=str(tmp_path / folder) if folder else "",
    )
    assert {
        "missing": "which is no folder",
        "empty": "holds no Microsoft SEAL",
        "old": "is version 3.7.2",
        "old-prefix": "is version 3.7.2",
        "": "QUANCRYPT_SEAL_DIR is not set",
    }[folder] in text
    assert "4.1 or newer" in text


def test_upstream_unreachable(tmp_path: Path) -> None:
    text = sentence(
        tmp_path / "build",
        QUANCRYPT_SEAL="upstream",
        QUANCRYPT_CACHE_DIR=str(tmp_path / "cache"),
        https_proxy="http://127.0.0.1:9",
    )
    assert "could not be fetched" in text


@pytest.mark.slow
def test_folder_with_sources_then_with_the_installed_result(tmp_path: Path, archive: Path) -> None:
    shutil.unpack_archive(archive, tmp_path, filter="data")
    sources = tmp_path / "pyfhel-3.5.0" / "Pyfhel" / "backend" / "SEAL"
    cache = tmp_path / "cache"
    env = clean_environment(QUANCRYPT_SEAL_DIR=str(sources), QUANCRYPT_CACHE_DIR=str(cache))
    done = execute(*configure_command(tmp_path / "first", "-DQUANCRYPT_SEAL=folder"), env=env)
    assert done.returncode == 0, done.stdout
    (prefix,) = cache.glob("seal-4.1.2-*/")

    # The same as an installed SEAL: found, checked, and used.
    env = clean_environment(QUANCRYPT_CACHE_DIR=str(tmp_path / "unused"))
    command = configure_command(tmp_path / "second", f"-DCMAKE_PREFIX_PATH={prefix}")
    for _ in range(2):  # a second configuration in the same folder finds the same
        done = execute(*command, env=env)
        assert done.returncode == 0, done.stdout
        assert f"Installed SEAL 4.1.2 in {prefix}" in done.stdout
    assert not (tmp_path / "unused").exists()


@pytest.mark.slow
def test_parallel_and_interrupted_builds_leave_a_whole_cache(tmp_path: Path, archive: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    shutil.copy(archive, cache)
    env = clean_environment(
        QUANCRYPT_CACHE_DIR=str(cache), QUANCRYPT_SEAL="download", PIP_NO_INDEX="1"
    )

    def start(name: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            configure_command(tmp_path / name),
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    interrupted = start("interrupted")
    deadline = time.monotonic() + 300
    while not list(cache.glob("*.tmp/build")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(3)
    os.killpg(interrupted.pid, signal.SIGKILL)
    interrupted.wait()
    assert list(cache.glob("seal-*.tmp"))
    assert not list(cache.glob("seal-*/complete"))

    first, second = start("first"), start("second")
    assert (first.wait(), second.wait()) == (0, 0)
    assert len(list(cache.glob("seal-*/complete"))) == 1
    assert not list(cache.glob("*.tmp"))
