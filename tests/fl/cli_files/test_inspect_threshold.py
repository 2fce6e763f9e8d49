"""``quancrypt inspect`` on the messages and states of a threshold key."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.fl.cli_files.conftest import Invoke
from tests.native import oracle
from tests.native.threshold_parties import ceremony_of, meet, parameters

from quancrypt_native.channels import ChannelKey
from quancrypt_native.threshold import Party

PASSPHRASE = bytes(32)
SEALED = {"derivation": "scrypt", "scrypt_n": 2, "scrypt_r": 8, "scrypt_p": 1}


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A folder with one file of each kind, the ceremony's fingerprint, the channel key."""
    folder = tmp_path_factory.mktemp("threshold")
    party_group = meet(ceremony_of(parameters(3), 2))
    ceremony = party_group.ceremony
    state = party_group.parties[2].to_bytes(passphrase=PASSPHRASE, random_passphrase=True)
    party = Party.from_bytes(state, ceremony, passphrase=PASSPHRASE, memory=folder / "answered")
    part = party.partial_decryption(party_group.total(np.arange(5)), [0, 2])
    channel = ChannelKey()
    for name, data in {
        "share": party.public_share(),
        "deal": party.deal()[1],
        "part": part,
        "party": party.to_bytes(passphrase=PASSPHRASE, random_passphrase=True),
        "channel": channel.to_bytes(passphrase=PASSPHRASE, random_passphrase=True),
    }.items():
        (folder / name).write_bytes(data)
    return folder, ceremony.fingerprint, channel.public.hex()


def test_every_kind_says_what_it_is(frames: tuple[Path, str, str], succeed: Invoke) -> None:
    folder, ceremony, public = frames
    shown = {
        name: json.loads(succeed("inspect", folder / name, "--json"))
        for name in ("share", "deal", "part", "party", "answered", "channel")
    }
    assert {name: facts["kind"] for name, facts in shown.items()} == {
        "share": "public share",
        "deal": "deal",
        "part": "partial decryption",
        "party": "party",
        "answered": "answered",
        "channel": "channel key",
    }
    for name, facts in shown.items():
        assert facts["bytes"] == (folder / name).stat().st_size
        assert "parameters" not in facts
        if name != "channel":
            assert (facts["ceremony"], facts["party"]) == (ceremony, 2)
    assert shown["deal"]["recipient"] == 1
    assert shown["part"]["participants"] == [0, 2]
    assert len(shown["part"]["ciphertext"]) == 64
    party = shown["party"]
    assert (party["received"], party["answered"], party["memory"]) == ([0, 1], 1, True)
    assert shown["answered"]["answered"] == 1
    assert shown["channel"]["public"] == public
    for name in ("party", "channel"):
        assert SEALED.items() <= shown[name]["sealed"].items()


def test_the_same_for_the_eye(frames: tuple[Path, str, str], succeed: Invoke) -> None:
    folder, ceremony, public = frames
    text = succeed("inspect", folder / "part")
    assert "part: partial decryption, " in text
    assert ceremony in text
    assert "participants  0, 2\n" in text
    state = succeed("inspect", folder / "party")
    assert "has deals of         0, 1\n" in state
    assert "answered             1 ciphertexts\n" in state
    assert "remembers in a file  yes\n" in state
    assert "scrypt (n=2, r=8, p=1), aes-256-gcm" in state
    assert public in succeed("inspect", folder / "channel")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("share", {"sender": 128}, "'sender' is 128; allowed: 0 to 127"),
        ("deal", {"recipient": "1"}, "'recipient' is '1'"),
        ("part", {"participants": [200]}, "'participants'"),
        ("party", {"memory": 1}, "'memory' is 1; allowed: true or false"),
        ("channel", {"public": "00"}, "'public'"),
        ("answered", {"more": 1}, "unknown header field 'more'"),
    ],
)
def test_bad_headers_are_refused(
    frames: tuple[Path, str, str], fail: Invoke, name: str, changes: dict[str, object], message: str
) -> None:
    data = (frames[0] / name).read_bytes()
    header, body = oracle.unframe(data)
    del header["body_bytes"]
    kind = oracle.PREFIX.unpack_from(data)[2]
    Path("changed").write_bytes(oracle.frame(kind, {**header, **changes}, body))
    refused = fail("inspect", "changed")
    assert "changed: " in refused
    assert message in refused


def test_a_memory_of_broken_digests_is_refused(frames: tuple[Path, str, str], fail: Invoke) -> None:
    header, body = oracle.unframe((frames[0] / "answered").read_bytes())
    del header["body_bytes"]
    Path("changed").write_bytes(oracle.frame(9, header, body[:-1]))
    assert "the body has 31 bytes; expected whole digests" in fail("inspect", "changed")
