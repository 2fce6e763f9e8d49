"""The wheel: what is in it, what is not, and that it works where there is no compiler."""

import io
import re
import shutil
import sys
import tempfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from tests.packaging.conftest import ROOT, cache_folder, clean_environment, execute


def test_holds_both_packages_and_their_types(members: dict[str, bytes]) -> None:
    for name in (
        "quancrypt_native/__init__.py",
        "quancrypt_native/_core.pyi",
        "quancrypt_native/py.typed",
        "quancrypt_fl/__init__.py",
        "quancrypt_fl/report/templates/page.html",
        "quancrypt_fl/py.typed",
    ):
        assert name in members
    modules = [name for name in members if name.endswith(".so")]
    assert len(modules) == 1
    assert re.fullmatch(r"quancrypt_native/_core\..+\.so", modules[0])


def test_holds_nothing_else(members: dict[str, bytes]) -> None:
    roots = {name.split("/")[0] for name in members}
    assert {root for root in roots if not root.endswith(".dist-info")} == {
        "quancrypt_native",
        "quancrypt_fl",
    }
    unwanted = re.compile(r"(^|/)(\.|tests?/|cpp/|__pycache__)|\.(cpp|h|pyc|a|cmake)$")
    assert [name for name in members if unwanted.search(name)] == []


def test_licences_travel(members: dict[str, bytes]) -> None:
    texts = {
        name.split(".dist-info/licenses/")[1]: content.decode()
        for name, content in members.items()
        if ".dist-info/licenses/" in name
    }
    assert "Apache License" in texts["LICENSE"]
    assert "Copyright (c) Microsoft Corporation" in texts["licenses/SEAL-LICENSE.txt"]
    assert "MIT License" in texts["licenses/SEAL-LICENSE.txt"]
    assert "Wenzel Jakob" in texts["licenses/pybind11-LICENSE.txt"]
    assert "Microsoft SEAL" in texts["NOTICE"]


def test_numpy_is_the_only_dependency(members: dict[str, bytes]) -> None:
    (name,) = (name for name in members if name.endswith(".dist-info/METADATA"))
    metadata = HeaderParser().parsestr(members[name].decode())
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert [re.split(r"[^a-z]", line)[0] for line in required] == ["numpy"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    (name,) = (name for name in members if name.endswith(".dist-info/entry_points.txt"))
    assert "quancrypt = quancrypt_fl.cli:main" in members[name].decode().replace("=q", "= q")


def test_no_path_of_the_build_machine(members: dict[str, bytes]) -> None:
    folders = {ROOT, Path.home(), cache_folder(), Path(sys.prefix), Path(sys.base_prefix)}
    folders.add(Path(tempfile.gettempdir()))
    folders -= {Path("/"), Path("/usr"), Path("/usr/local")}
    for name, content in members.items():
        for folder in folders:
            assert f"{folder}/".encode() not in content, f"{folder} is in {name}"


def test_module_exports_its_entry_only(members: dict[str, bytes]) -> None:
    elffile = pytest.importorskip("elftools.elf.elffile")
    (content,) = (content for name, content in members.items() if name.endswith(".so"))
    symbols = elffile.ELFFile(io.BytesIO(content)).get_section_by_name(".dynsym").iter_symbols()
    defined = [s.name for s in symbols if s.entry.st_shndx != "SHN_UNDEF"]
    assert "PyInit__core" in defined
    # SEAL in another module of the process, perhaps of another version, must not meet ours.
    assert [name for name in defined if re.search(r"N[KVrSt]*4seal|9quancrypt", name)] == []


def test_auditwheel_accepts_it(wheel: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("auditwheel is for Linux")
    done = execute(sys.executable, "-m", "auditwheel", "show", wheel, env=clean_environment())
    assert done.returncode == 0, done.stdout
    text = " ".join(done.stdout.split())
    assert re.search(r'consistent with the following platform tag: "manylinux_\d+_\d+_', text), text
    assert "external shared libraries" not in text or "requires no external" in text


def test_works_without_a_compiler(wheel: Path, empty_venv: Path, tmp_path: Path) -> None:
    path = str(empty_venv.parent)
    for tool in ("cc", "c++", "gcc", "g++", "clang", "cmake", "ninja", "make"):
        assert shutil.which(tool, path=path) is None
    env = clean_environment(PATH=path)
    done = execute(empty_venv, "-m", "pip", "install", wheel, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    done = execute(empty_venv, "-m", "quancrypt_native.selftest", env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
