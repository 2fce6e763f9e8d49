"""What a server can ask a client's party of a joint key for, beside sums of the round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fl.flower.joint_federation import JointKit, make_kit

import quancrypt_native as qn
from quancrypt_fl.errors import MethodError
from quancrypt_fl.flower import openings
from quancrypt_fl.flower.chain import agreed_facts, first_link, next_link
from quancrypt_fl.flower.client import ClientRound
from quancrypt_fl.flower.openings import MOST_OPENINGS, Asking
from quancrypt_fl.flower.parties import JointParty
from quancrypt_fl.flower.protocol import Link, Request
from quancrypt_fl.flower.stores import FolderStore
from quancrypt_fl.joint.opened import OpenedSum
from quancrypt_fl.joint.protector import JointProtector
from quancrypt_fl.method.agreement import Agreement
from quancrypt_native import wire
from quancrypt_native.layout import Layout, TensorSpec
from quancrypt_native.update import update_header

PARTIES = 3
OPENERS = (0, 1)
ROUND = Asking("0" * 32, 3, "a" * 64, ({"w": ((50,), 1.0)},))


class Clients:
    """Parties that have joined, as far as attacks need them."""

    def __init__(self, folder: Path) -> None:
        self.kit: JointKit = make_kit(folder, b"x", parties=PARTIES, threshold=2)
        self.group = self.kit.group.secret
        self.parties = [self.kit.party(folder / str(i), i) for i in range(PARTIES)]
        deals = [party.deals() for party in self.parties]
        shares = {
            i: party.share({j: deals[j][i] for j in range(PARTIES) if j != i})
            for i, party in enumerate(self.parties)
        }
        for i, party in enumerate(self.parties):
            party.join({j: share for j, share in shares.items() if j != i})
        self.public = self.parties[0].require_public()
        self.protector = JointProtector(self.parties[0].ceremony, self.public, self.group)

    def upload(self, seed: int) -> qn.EncryptedUpdate:
        rng = np.random.default_rng(seed)
        tensors = {"w": rng.uniform(-1, 1, 50).astype(np.float32)}
        data = self.protector.protect(tensors, {"w": 1.0}, 0).data
        return qn.EncryptedUpdate.from_bytes(data, self.kit.params)

    def total(self, *seeds: int) -> bytes:
        return qn.aggregate(self.upload(seed) for seed in seeds or (1, 2)).to_bytes()

    def framed(self, uploads: Sequence[qn.EncryptedUpdate], weight: int, values: int) -> bytes:
        """Bodies of uploads, side by side, under a header of the server's making."""
        layout = Layout((TensorSpec("w", (values,), 1.0),), False, False)
        header = update_header(self.kit.params, self.public.key_id, layout, weight, None)
        return wire.frame(wire.Kind.UPDATE, header, b"".join(bytes(each._body) for each in uploads))

    def opened(self, total: bytes, asking: Asking) -> tuple[dict[str, Any], int]:
        parts = {i: self.parties[i].part(total, OPENERS, self.group, asking) for i in OPENERS}
        return self.protector.unprotect(OpenedSum(total, parts).to_bytes())


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    return Clients(tmp_path_factory.mktemp("clients"))


@pytest.fixture
def party(clients: Clients) -> JointParty:
    """A party that has opened nothing yet."""
    for path in clients.parties[0]._folder.glob("openings.json"):
        path.unlink()
    return clients.parties[0]


def test_uploads_side_by_side(clients: Clients, party: JointParty) -> None:
    """Idea: single uploads one after another in a frame that says it is one sum of weight 2.
    Refused by: `JointParty.part`: names, shapes and bounds are those of the round's sums."""
    uploads = [clients.upload(seed) for seed in range(3)]
    values = 3 * clients.kit.params.values_per_ciphertext
    with pytest.raises(MethodError, match=r"values in 1 tensors, which is none of round 4"):
        party.part(clients.framed(uploads, 2, values), OPENERS, clients.group, ROUND)


def test_a_single_upload_that_says_it_is_two(clients: Clients, party: JointParty) -> None:
    """Idea: one client's upload as a sum, under a header that says its weight is 2.
    Refused by: nothing, together with a client that reads the mean: who was summed is the server's
    word, and SECURITY.md says so. `least` refuses weights of 1, and counts no clients."""
    del party
    alone = clients.upload(7)
    mean, weight = clients.opened(clients.framed([alone], 2, 50), ROUND)
    assert weight == 2
    rng = np.random.default_rng(7)
    np.testing.assert_allclose(
        (mean["w"] * 2 + 1), rng.uniform(-1, 1, 50), atol=0.02
    )  # the other one's fields were never added: each value is too low by the clip bound


def test_an_older_round_again(clients: Clients, party: JointParty) -> None:
    """Idea: lead a client back to a round that is over, for more sums of the same updates.
    Refused by: `Openings`: no round of a training before the one that was opened last."""
    party.part(clients.total(), OPENERS, clients.group, ROUND)
    for number in (0, 2):
        with pytest.raises(MethodError, match="has opened a sum of round 4 of this training"):
            party.part(clients.total(), OPENERS, clients.group, replace(ROUND, round=number))


def test_another_model_of_the_same_round(clients: Clients, party: JointParty) -> None:
    """Idea: the same round once more, from another model, for six more sums of it.
    Refused by: `Openings`: one state of a round, of a training."""
    party.part(clients.total(), OPENERS, clients.group, ROUND)
    with pytest.raises(MethodError, match="another model's round 4"):
        party.part(clients.total(), OPENERS, clients.group, replace(ROUND, chain="b" * 64))


def test_a_seventh_sum_of_a_round(clients: Clients, party: JointParty) -> None:
    """Idea: as many sums of a round as a server likes, each of other clients.
    Refused by: `Openings`: six of a round; the record outlives the process."""
    for _ in range(MOST_OPENINGS):
        party.part(clients.total(), OPENERS, clients.group, ROUND)
    again = clients.kit.party(party._folder.parents[1], 0)
    with pytest.raises(MethodError, match="has answered for 6 sums of this round; allowed: 6"):
        again.part(clients.total(), OPENERS, clients.group, ROUND)


def test_rounds_and_trainings_without_end(
    clients: Clients, party: JointParty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Idea: rounds without training, or ever new trainings, each with six more sums.
    Refused by: `Openings`: a number of sums, and of trainings, over the life of a joint key."""
    monkeypatch.setattr(openings, "MOST_SUMS", 9)
    monkeypatch.setattr(openings, "MOST_TRAININGS", 5)
    chain = ROUND.chain
    for number in range(9):
        asking = replace(ROUND, round=3 + number, chain=chain)
        party.part(clients.total(), OPENERS, clients.group, asking)
        chain = next_link(chain, round=3 + number, weight=0, scale=1.0, sum_digest="")
    with pytest.raises(MethodError, match="answered for 9 sums under this joint key; allowed: 9"):
        party.part(clients.total(), OPENERS, clients.group, replace(ROUND, round=99, chain=chain))
    monkeypatch.setattr(openings, "MOST_SUMS", 99)
    for number in range(1, 5):
        asking = replace(ROUND, training=f"{number:032}", round=0)
        party.part(clients.total(), OPENERS, clients.group, asking)
    with pytest.raises(MethodError, match="sums of 5 trainings under this joint key; allowed: 5"):
        party.part(clients.total(), OPENERS, clients.group, replace(ROUND, training="f" * 32))


def test_a_client_that_follows_back_opens_nothing_there(
    clients: Clients, party: JointParty, tmp_path: Path
) -> None:
    """Idea: a request with the initial model, which brings a client at round 4 back to round 0.
    Refused by: `Openings`: the client follows, since a server's backup may, but opens no sum."""

    class Keys:
        params, secret, party = clients.kit.params, clients.group, None

    agreement = Agreement(bits=8, max_weight=64)
    model = {"w": np.zeros(4, np.float32)}
    facts = agreed_facts(agreement, clients.kit.params.fingerprint)
    first = chain = first_link("0" * 32, facts, model)

    def asked(number: int, chain: str, *links: Link) -> Asking:
        request = Request(
            training="0" * 32, round=number, chain=chain, asks=("open",), agreement=agreement,
            names=("w",), floats={"w": "float32"}, links=links, initial=number == 0,
        )  # fmt: skip
        with FolderStore(tmp_path, "0" * 32) as store:
            work = ClientRound(request, {}, store, Keys())  # type: ignore[arg-type]
            held = work.catch_up(model if number == 0 else None)
        assert held is not None
        return replace(ROUND, round=held.state.round, chain=held.chain)

    asked(0, first)
    for number in range(3):
        link = Link(round=number, weight=0, digest="")
        chain = next_link(chain, round=number, weight=0, scale=1.0, sum_digest="")
        latest = asked(number + 1, chain, link)
    party.part(clients.total(), OPENERS, clients.group, latest)
    back = asked(0, first)
    assert back.round == 0
    with pytest.raises(MethodError, match="has opened a sum of round 4 of this training"):
        party.part(clients.total(), OPENERS, clients.group, back)
