"""Kits with a threshold key: what is in them, what they refuse, and who may leave."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fl.deployment.deployment import PASSPHRASE

import quancrypt_native as qn
from quancrypt_fl.cli.client import opened_key
from quancrypt_fl.cli.joint_kits import opened_channel
from quancrypt_fl.cli.signing_key import resealed_keys
from quancrypt_fl.deployment.kits import ClientKit, KitError, ServerKit
from quancrypt_fl.deployment.removal import RemovalError, remove
from quancrypt_fl.errors import ConfigError
from quancrypt_fl.joint.facts import JointFacts, PartyFacts
from quancrypt_native.channels import ChannelKey

Run = Callable[..., str]
Below = Callable[[Path], dict[str, bytes]]

pytestmark = pytest.mark.usefixtures("provision_command")
PHRASE = PASSPHRASE.encode()


@pytest.fixture
def kits(run: Run, tmp_path: Path) -> Path:
    run("--out", tmp_path / "kits", "--clients", 4, "--threshold", 3)
    return tmp_path / "kits"


def test_what_is_in_them(kits: Path, files_below: Below) -> None:
    server = ServerKit.load(kits / "server")
    assert server.config.threshold == 3
    assert server.joint is not None
    facts = JointFacts.load(server.joint)
    assert facts.names == tuple(server.names) == ("client-1", "client-2", "client-3", "client-4")
    assert (facts.threshold, facts.least, len(facts.common_seed)) == (3, 2, 32)
    params = qn.Parameters.from_bytes(server.params.read_bytes())
    assert (params.key_mode, params.parties) == ("threshold", 4)
    assert params.fingerprint == server.parameters_id
    texts = {(kits / name / "joint.toml").read_bytes() for name in ("server", *facts.names)}
    assert len(texts) == 1
    for index, name in enumerate(facts.names):
        kit = ClientKit.load(kits / name)
        assert opened_key(kit, PHRASE).key_id == server.key_id
        channel = opened_channel(kit, PHRASE)
        assert channel is not None
        assert facts.index_of(channel.public) == kit.partition == index
        assert kit.channel_key is not None
        assert stat.S_IMODE(kit.channel_key.stat().st_mode) == 0o600
        assert kit.channel_key in [*kit.exposed(), kit.channel_key]
        config = kit.node_config()
        assert config["quancrypt-joint"] == str(kit.joint)
        assert config["quancrypt-channel-key"] == str(kit.channel_key)
    assert not {p for p in files_below(kits / "server") if p.endswith((".qck", "secret.key"))}


def test_the_servers_kit_has_no_secret_of_the_clients(kits: Path, files_below: Below) -> None:
    kit = ClientKit.load(kits / "client-1")
    channel = opened_channel(kit, PHRASE)
    assert channel is not None
    needles = [bytes(channel._secret), bytes(opened_key(kit, PHRASE)._core.save())[:32]]
    for name, data in files_below(kits / "server").items():
        for needle in needles:
            assert needle not in data, name
            assert needle.hex().encode() not in data, name


def test_no_key_of_updates_exists(kits: Path) -> None:
    """The group key opens nothing that is encrypted for the parameters of updates."""
    kit = ClientKit.load(kits / "client-1")
    params = qn.Parameters.from_bytes(kit.params.read_bytes())
    with pytest.raises(qn.FingerprintError):
        qn.SecretKey.from_bytes(kit.secret_key.read_bytes(), params, passphrase=PHRASE)


@pytest.mark.parametrize(
    ("threshold", "says"),
    [
        (1, "threshold = 1 of 4 clients; allowed: 2 to 4"),
        (5, "threshold = 5 of 4 clients; allowed: 2 to 4"),
        (-3, "threshold = -3 of 4 clients; allowed: 2 to 4"),
    ],
)
def test_a_threshold_out_of_range(run: Run, tmp_path: Path, threshold: int, says: str) -> None:
    out = tmp_path / "kits"
    assert says in run("--out", out, "--clients", 4, "--threshold", threshold, fails=True)
    assert not out.exists()


def test_too_many_clients(run: Run, tmp_path: Path) -> None:
    options = ("--out", tmp_path / "kits", "--clients", 129, "--threshold", 3)
    assert "a threshold key of 129 clients; allowed: 2 to 128" in run(*options, fails=True)


def test_with_an_app_of_ones_own(run: Run, tmp_path: Path) -> None:
    options = ("--clients", 3, "--threshold", 2, "--no-model", "--values", 1000)
    document = json.loads(run("--out", tmp_path / "kits", *options, "--json"))
    assert document["threshold"] == document["config"]["threshold"] == 2
    assert ServerKit.load(tmp_path / "kits/server").joint is not None


def test_a_newcomer_is_refused(run: Run, kits: Path, tmp_path: Path) -> None:
    told = run("--add", 1, "--like", kits / "client-1", "--out", tmp_path / "more", fails=True)
    assert "has a threshold key" in told
    assert "make new kits (quancrypt provision --threshold)" in told
    assert not (tmp_path / "more").exists()


def test_as_many_may_leave_as_are_not_needed(kits: Path) -> None:
    assert remove(kits / "server", "client-2").names == ("client-1", "", "client-3", "client-4")
    with pytest.raises(RemovalError, match="2 of the 3 clients that a round needs"):
        remove(kits / "server", "client-1")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("threshold = 3", "threshold = 2", "2 of 4 clients open a sum; the run says 3 of 4"),
        ("threshold = 3", "threshold = 9", "allowed: 2 to 4"),
        ("threshold = 3", "threshold = true", "threshold of the file is True; allowed: int"),
        ("threshold = 3", "", "threshold of the file is None"),
        ("least = 2", "least = 1", "least = 1; allowed: 2 to 65536"),
        ("schema = 1", "schema = 2", "schema = 2; allowed: 1"),
        ("schema = 1", "schema = 1\ncolour = 1", "unknown fields: colour"),
        ('name = "client-2"', 'name = "client-1"', "more than one party has the name client-1"),
        ('name = "client-2"', 'name = "../x"', "allowed: a site's name"),
        ('common_seed = "', 'common_seed = "0', "allowed: 64 hexadecimal digits"),
        ("[[party]]", "[[parties]]", "party of the file is None"),
        ("schema = 1", "schema = ", "is no TOML"),
    ],
)
def test_a_damaged_list_of_parties(kits: Path, old: str, new: str, says: str) -> None:
    path = kits / "client-1" / "joint.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(KitError) as caught:
        ClientKit.load(kits / "client-1")
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("file", ["joint.toml", "group.qcp", "channel.key"])
def test_a_file_is_missing(kits: Path, file: str) -> None:
    (kits / "client-1" / file).unlink()
    with pytest.raises(KitError, match=rf"{file}: the file is missing"):
        ClientKit.load(kits / "client-1")


def test_another_sites_channel_key(kits: Path) -> None:
    (kits / "client-1/channel.key").write_bytes((kits / "client-2/channel.key").read_bytes())
    with pytest.raises(Exception, match="is the channel key of client-2, not of client-1"):
        opened_channel(ClientKit.load(kits / "client-1"), PHRASE)


def test_a_new_passphrase_is_that_of_the_channel_key_too(kits: Path) -> None:
    changed = dict(resealed_keys(kits / "client-1/secret.key", PHRASE, b"another"))
    assert {path.name for path in changed} == {"signing.key", "channel.key"}
    before = ChannelKey.from_bytes((kits / "client-1/channel.key").read_bytes(), passphrase=PHRASE)
    data = changed[kits / "client-1/channel.key"]
    assert ChannelKey.from_bytes(data, passphrase=b"another").public == before.public


def test_facts_refuse_what_is_no_list_of_parties(tmp_path: Path) -> None:
    key = ChannelKey().public
    two = [PartyFacts("a", key), PartyFacts("b", key)]
    with pytest.raises(ConfigError, match="more than one party has the channel key"):
        JointFacts(2, bytes(32), two)
    with pytest.raises(ConfigError, match="a channel key of 3 bytes; allowed: 32"):
        JointFacts(2, bytes(32), [two[0], PartyFacts("b", b"abc")])
    with pytest.raises(ConfigError, match="common_seed has 31 bytes"):
        JointFacts(2, bytes(31), [two[0], PartyFacts("b", ChannelKey().public)])
    with pytest.raises(ConfigError, match="is none of the 2 parties'"):
        JointFacts(2, bytes(32), [two[0], PartyFacts("b", ChannelKey().public)]).index_of(bytes(32))
    with pytest.raises(ConfigError, match="cannot be read"):
        JointFacts.load(tmp_path / "none")


def test_one_passphrase_for_all_is_warned_of(run: Run, tmp_path: Path) -> None:
    """Copies of the kits and what passed the server in the ceremony are the key."""
    options = ("--clients", 3, "--threshold", 2)
    said = run("--out", tmp_path / "one", *options)
    assert "Warning: the kits have one passphrase: whoever copies as many of them as open" in said
    readme = (tmp_path / "one" / "README.txt").read_text()
    assert (
        "records\n  what passes the server while the clients make their key, has that key" in readme
    )
    document = json.loads(run("--out", tmp_path / "json", "--json", *options))
    assert [text[:27] for text in document["warnings"]] == ["the kits have one passphras"]
    phrases = tmp_path / "phrases"
    phrases.mkdir(mode=0o700)
    for number in range(1, 4):
        path = phrases / f"client-{number}"
        path.write_text(f"correct horse {number}\n")
        path.chmod(0o600)
    each = ("--passphrase-dir", phrases)
    assert "Warning" not in run("--out", tmp_path / "each", *each, *options)
    assert "Warning" not in run("--out", tmp_path / "shared", "--clients", 2)
