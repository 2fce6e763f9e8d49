"""``quancrypt doctor`` on a sound installation, and on others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quancrypt_native as qn
from quancrypt_fl import machine
from quancrypt_fl.cli import doctor
from quancrypt_fl.cli.app import run
from quancrypt_native import selftest


def report(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run(["doctor", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    document: dict[str, Any] = json.loads(captured.out)
    return document


def test_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUANCRYPT_NUM_THREADS", raising=False)
    found = report(capsys)
    assert found["versions"]["quancrypt-native"] == qn.__version__
    assert found["versions"]["numpy"] == np.__version__
    assert found["versions"]["python"] == sys.version.split()[0]
    assert found["cpu"]["features"] == list(qn.cpu_features())
    assert found["cpu"]["model"]
    assert found["kernels"]["in_use"] == qn.backend()
    assert found["kernels"]["available"] == list(qn.backends())
    assert found["kernels"]["in_use"] in found["kernels"]["available"]
    assert found["threads"] == {"in_use": qn.num_threads(), "forced": None}
    assert found["seal"]["version"] == qn.seal.version()
    assert found["selftest"]["passed"] is True
    assert len(found["selftest"]["checks"]) == len(list(selftest.checks()))
    parts = {part["package"]: part for part in found["optional"]}
    assert parts["torch"]["version"] == metadata.version("torch")
    assert {"cryptography", "flwr", "tenseal", "seal-python"} <= parts.keys()
    assert {"dp-accounting", "tensorboard", "phe", "gmpy2"} <= parts.keys()


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 0
    text = capsys.readouterr().out
    for part in (qn.__version__, f"kernels           {qn.backend()}, ", "Self-test\n  ok    CRC"):
        assert part in text
    assert "FAIL" not in text


def test_a_failed_self_test_is_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [("sums", True, ""), ("slots", False, "ValueError: no")]
    monkeypatch.setattr(selftest, "run", lambda: results)
    assert run(["doctor"]) == 1
    assert "  FAIL  slots: ValueError: no\n" in capsys.readouterr().out
    assert run(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["selftest"]
    assert found["passed"] is False
    assert found["checks"][1] == {"name": "slots", "passed": False, "reason": "ValueError: no"}


def test_missing_parts_come_with_the_command_that_adds_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "installed", lambda package: None)
    parts = {part["package"]: part for part in report(capsys)["optional"]}
    assert parts["torch"]["install"] == "pip install 'quancrypt-native[fl]'"
    assert parts["cryptography"]["install"] == "pip install 'quancrypt-native[keys]'"
    assert parts["tenseal"]["install"] == "pip install 'quancrypt-native[baselines]'"
    assert parts["seal-python"]["install"] == "pip install seal-python"
    assert parts["torch"]["version"] is None
    assert run(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "missing (training: quancrypt simulate): pip install 'quancrypt-native[fl]'" in text


@pytest.mark.parametrize(
    ("version", "note"),
    [("4.1.2", "trusted only"), ("4.3.9", "trusted only"), ("4.4.0", "hardened")],
)
def test_what_seal_may_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, version: str, note: str
) -> None:
    monkeypatch.setattr(qn.seal, "version", lambda: version)
    assert note in report(capsys)["seal"]["streams"]


def test_every_optional_part_of_a_method_is_in_an_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pyproject.toml says; the metadata of an editable installation may be older."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    requirements = [
        f"{requirement}; extra == '{extra}'"
        for extra, required in project["optional-dependencies"].items()
        for requirement in required
    ]
    monkeypatch.setattr(machine.metadata, "requires", lambda _: requirements)
    parts = {part["package"]: part["install"] for part in report(capsys)["optional"]}
    for extra, packages in {
        "fl": ("torch", "scipy", "jinja2", "pillow", "safetensors"),
        "baselines": ("dp-accounting", "gmpy2", "phe", "tenseal"),
        "privacy": ("opendp",),
        "tensorboard": ("tensorboard",),
    }.items():
        for package in packages:
            assert parts[package] == f"pip install 'quancrypt-native[{extra}]'"


def test_extras_are_found_by_any_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = [
        "numpy>=1",
        "scikit-learn>=1.4; extra == 'dev'",
        'Scikit_Learn>=1.4 ; extra == "fl"',
    ]
    monkeypatch.setattr(machine.metadata, "requires", lambda _: requirements)
    assert machine.extra_with("scikit-learn") == "fl"
    assert machine.extra_with("numpy") is None


def doctor_in_a_process(code: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    program = (
        "import sys\n" + code + "\nsys.argv = ['quancrypt', 'doctor', '--json']\n"
        "from quancrypt_fl.cli import main; main()"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("QUANCRYPT_")}
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_works_without_torch_and_says_what_is_forced() -> None:
    block = "\n".join(f"sys.modules[{name!r}] = None" for name in ("torch", "sklearn", "tenseal"))
    done = doctor_in_a_process(block, QUANCRYPT_BACKEND="portable", QUANCRYPT_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kernels"]["in_use"] == found["kernels"]["forced"] == "portable"
    assert found["threads"] == {"in_use": 1, "forced": "1"}


def test_an_unknown_backend_is_one_line() -> None:
    done = doctor_in_a_process(QUANCRYPT_BACKEND="abacus")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "QUANCRYPT_BACKEND is 'abacus'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_typer_it_says_what_to_install() -> None:
    done = doctor_in_a_process("sys.modules['typer'] = None")
    assert done.returncode == 2
    assert done.stderr == "quancrypt needs the [fl] extra: pip install 'quancrypt-native[fl]'\n"
