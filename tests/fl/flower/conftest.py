"""Keys that the tests of the Flower side share, and the passphrase of their file."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fl.flower.federation import Federation
from tests.fl.flower.joint_federation import JointFederation, JointKit, make_kit

import quancrypt_native as qn

SECRET_PHRASE = "correct horse"


@pytest.fixture(scope="session")
def params() -> qn.Parameters:
    return qn.Parameters.for_aggregation(bits=8, max_weight=64, key_mode="symmetric", values=700)


@pytest.fixture(scope="session")
def keys(params: qn.Parameters) -> qn.KeyPair:
    return qn.keygen(params)


@pytest.fixture(scope="session")
def key_file(keys: qn.KeyPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "secret.key"
    path.write_bytes(keys.secret.to_bytes(passphrase=SECRET_PHRASE.encode()))
    return path


@pytest.fixture(scope="session")
def other_keys(params: qn.Parameters) -> qn.KeyPair:
    """Keys under the same parameters that nobody else has."""
    return qn.keygen(params)


@pytest.fixture(scope="session")
def other_key_file(other_keys: qn.KeyPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("other-key") / "secret.key"
    path.write_bytes(other_keys.secret.to_bytes(passphrase=SECRET_PHRASE.encode()))
    return path


@pytest.fixture(autouse=True)
def passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANCRYPT_PASSPHRASE", SECRET_PHRASE)


@pytest.fixture
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written need not outlive the machine."""
    monkeypatch.setattr("os.fsync", lambda fd: None)


@pytest.fixture
def federation(
    params: qn.Parameters, key_file: Path, tmp_path: Path, fast_disk: None
) -> Federation:
    """Five clients with state folders of their own."""
    return Federation(params, key_file, tmp_path / "clients")


@pytest.fixture(scope="session")
def joint_kit(tmp_path_factory: pytest.TempPathFactory) -> JointKit:
    """A joint key's facts and channel keys; each test's clients make a key of their own with it."""
    return make_kit(tmp_path_factory.mktemp("joint-kit"), SECRET_PHRASE.encode())


@pytest.fixture
def joint_federation(joint_kit: JointKit, tmp_path: Path, fast_disk: None) -> JointFederation:
    """Five clients, any three of whom open a sum."""
    return JointFederation.of(joint_kit, tmp_path / "joint-clients")
