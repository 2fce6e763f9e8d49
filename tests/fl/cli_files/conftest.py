"""A site with keys, three clients' updates and their sum, and commands run on its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from quancrypt_fl.cli.app import run
from quancrypt_native import sealing

PASSPHRASE = "correct horse battery"
CLIP = 0.05
WEIGHTS = (3, 1, 2)
MAX_WEIGHT = 6

Invoke = Callable[..., str]


def model(seed: int) -> dict[str, np.ndarray]:
    """An update whose tails the clip bound cuts; a tensor is float64, another has no dimensions."""
    rng = np.random.default_rng(seed)
    return {
        "conv.weight": rng.normal(0, 0.03, (4, 3, 3, 3)).astype(np.float32),
        "fc.weight": rng.normal(0, 0.03, (10, 50)),
        "scale": np.array(rng.normal(0, 0.03), dtype=np.float32),
    }


@pytest.fixture(scope="package", autouse=True)
def _quick_key_files() -> Iterator[None]:
    """Sealing for the tests costs next to nothing; one test below makes a real key file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealing, "_SCRYPT_N", 16)
        patch.setenv("QUANCRYPT_PASSPHRASE", PASSPHRASE)
        yield


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys, three clients' models and updates, and their sum. Tests do not write here."""
    folder = tmp_path_factory.mktemp("site")
    keys, params = folder / "keys", str(folder / "keys" / "params.qcp")
    make = ["keygen", "--out", str(keys), "--max-weight", str(MAX_WEIGHT), "--values", "609"]
    assert run(make) == 0
    for client in range(3):
        source, target = folder / f"{client}.safetensors", folder / f"{client}.qcu"
        save_file(model(client), source, metadata={"format": "pt"})
        key = str(keys / "secret.qck")
        assert run(["encrypt", str(source), str(target), "--key", key, "--clip", str(CLIP)]) == 0
    updates = [str(folder / f"{client}.qcu") for client in range(3)]
    total = ["--weights", ",".join(map(str, WEIGHTS)), "--out", str(folder / "sum.qcu")]
    assert run(["aggregate", *updates, "--params", params, *total]) == 0
    return folder


@pytest.fixture
def succeed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Invoke:
    """Run a command in an empty folder; it must end well, silently on stderr."""
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()

    def invoke(*arguments: object) -> str:
        assert run([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
        captured = capsys.readouterr()
        assert captured.err == ""
        assert PASSPHRASE not in captured.out
        return captured.out

    return invoke


@pytest.fixture
def fail(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Invoke:
    """Run a command in an empty folder; it must end with status 2 and one line."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: object) -> str:
        capsys.readouterr()
        before = sorted(tmp_path.rglob("*"))
        assert run([str(argument) for argument in arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert captured.err.startswith("quancrypt: ")
        assert PASSPHRASE not in captured.err
        assert sorted(tmp_path.rglob("*")) == before
        return captured.err

    return invoke


def key_of(site: Path) -> Path:
    return site / "keys" / "secret.qck"
