"""What the tests of provisioning, of kits and of deployments share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import typer
from tests.fl.deployment.deployment import PASSPHRASE, Deployment

import quancrypt_native as qn
from quancrypt_fl.cli import app as commands
from quancrypt_fl.cli import provision as command
from quancrypt_native import sealing

Run = Callable[..., str]
Below = Callable[[Path], dict[str, bytes]]


@pytest.fixture(scope="module")
def provision_command() -> Iterator[None]:
    """``quancrypt provision`` with a passphrase, and sealing that costs next to nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealing, "_SCRYPT_N", 16)
        patch.setenv("QUANCRYPT_PASSPHRASE", PASSPHRASE)
        # The command as `quancrypt` has it, with that program's error messages.
        program = typer.Typer()
        program.command()(command.provision)
        program.callback()(lambda: None)
        patch.setattr(commands, "app", program)
        yield


@pytest.fixture
def run(provision_command: None, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command and return its output; with ``fails`` the one line of its error."""

    def invoke(*arguments: object, fails: bool = False) -> str:
        status = commands.run(["provision", *map(str, arguments)])
        printed = capsys.readouterr()
        assert status == (2 if fails else 0), printed.err
        if not fails:
            assert printed.err == ""
            return printed.out
        assert printed.out == ""
        assert printed.err.count("\n") == 1
        return printed.err

    return invoke


@pytest.fixture(scope="module")
def made(
    provision_command: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, qn.KeyPair]:
    """Kits of three clients, and the key that was made for them. Tests do not write here."""
    folder, pairs = tmp_path_factory.mktemp("provision") / "kits", []

    def keygen(params: qn.Parameters) -> qn.KeyPair:
        pairs.append(real(params))
        return pairs[-1]

    real = qn.keygen
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qn, "keygen", keygen)
        arguments = ["--out", str(folder), "--clients", "3", "--server-address", "192.0.2.7:9000"]
        assert commands.run(["provision", *arguments, "--json"]) == 0
    (pair,) = pairs
    return folder, pair


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    """Make a deployment and start its server and clients; all ends with the test."""
    with ExitStack() as stack:

        def make(
            clients: int,
            *options: object,
            data: Path | None = None,
            environment: dict[str, str] | None = None,
        ) -> Deployment:
            deployment = Deployment(
                tmp_path, clients, [str(o) for o in options], data, environment or {}
            )
            stack.callback(deployment.end)
            deployment.start_all()
            return deployment

        yield make


@pytest.fixture(scope="session")
def files_below() -> Below:
    """From a folder to the content of all files in it, by their paths in it."""

    def read(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    return read
