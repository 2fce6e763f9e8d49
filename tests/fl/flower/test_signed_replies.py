"""Signed replies: members' count, and everything else is refused before anything is parsed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.message import make_message
from tests.fl.flower import hostile
from tests.fl.flower.faults import Replace, ReplyOf
from tests.fl.flower.federation import (
    NO_EVALUATION,
    NODES,
    Federation,
    Reference,
    assert_equal,
    final,
)

import quancrypt_native as qn
from quancrypt_fl.envelopes import Members, Purpose
from quancrypt_fl.envelopes.signer import Signer
from quancrypt_fl.errors import ConfigError
from quancrypt_fl.flower import QuanCryptStrategy, exchanges
from quancrypt_fl.flower.protocol import DATA, RECORD, read_reply
from quancrypt_fl.flower.reply_gate import ReplyGate
from quancrypt_fl.flower.run_status import RunStatus
from quancrypt_fl.flower.signed_reply import SEAL, seal_of, signed_parts, with_seal
from quancrypt_native import sealing

VILLAIN = 13
PHRASE = b"correct horse"


@dataclass
class Signed:
    """A federation whose clients sign, each with a key file of its own."""

    federation: Federation
    signers: dict[int, Signer]
    members: Members
    key_id: str
    parsed: list[int]

    def train(self, **options: Any) -> Any:
        options = {"key_id": self.key_id, "members": self.members, **options}
        return self.federation.train(**options)

    def refused(self) -> list[dict[str, int]]:
        """Refusals of each round, by reason."""
        return [record["envelopes"]["refused"] for record in self.federation.last.records]


@pytest.fixture
def signed(
    federation: Federation,
    keys: qn.KeyPair,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Signed:
    monkeypatch.setattr(sealing, "_SCRYPT_N", 16)
    signers = {node: Signer.generate(f"site-{node}") for node in NODES}
    for node, signer in signers.items():
        path = tmp_path / f"{node}.key"
        path.write_bytes(signer.to_bytes(passphrase=PHRASE))
        context = federation.grid._nodes[node].context
        context.node_config["quancrypt-signing-key"] = str(path)
    parsed: list[int] = []
    real = exchanges.read_reply

    def reading(message: Message) -> Any:
        parsed.append(message.metadata.src_node_id)
        return real(message)

    monkeypatch.setattr(exchanges, "read_reply", reading)
    return Signed(
        federation, signers, Members(s.member for s in signers.values()), keys.secret.key_id, parsed
    )


def test_members_train_as_anybody(signed: Signed, keys: qn.KeyPair) -> None:
    result = signed.train()
    assert_equal(final(result, keys), Reference(signed.federation.params).train())
    assert signed.federation.watcher.refusals == []
    assert signed.refused() == [{}, {}, {}]
    (fingerprint,) = {r["envelopes"]["members"] for r in signed.federation.last.records}
    assert fingerprint == signed.members.fingerprint
    # They are called what the list calls them, whatever they call themselves.
    assert set(signed.federation.watcher.names.values()) == {f"site-{node}" for node in NODES}


def test_unsigned_where_there_is_no_list(signed: Signed, keys: qn.KeyPair) -> None:
    """A client that signs works with a server that does not ask for it."""
    result = signed.federation.train(**NO_EVALUATION)
    assert_equal(final(result, keys), Reference(signed.federation.params).train())
    assert all("envelopes" not in record for record in signed.federation.last.records)
    assert set(signed.federation.watcher.names.values()) == {f"client-{n}" for n in range(1, 6)}


def resealed(
    signer: Signer, change: Callable[[RecordDict], None] = lambda content: None, **other: Any
) -> hostile.MessageEdit:
    """A reply that is changed, then signed by somebody, for something else where that is said."""

    def edit(reply: Message) -> Message:
        header = read_reply(reply)
        change(reply.content)
        bound = {
            "purpose": Purpose.UPLOAD,
            "run": header.training,
            "round": header.round,
            "params": header.params,
            "key": header.key,
            "sender": VILLAIN,
            **other,
        }
        with_seal(reply.content, signer.seal(signed_parts(reply.content), **bound))
        return make_message(reply.metadata, reply.content)

    return edit


def changed(change: Callable[[RecordDict], None]) -> hostile.MessageEdit:
    """A reply that is changed on the way, under the seal of the one before."""

    def edit(reply: Message) -> Message:
        change(reply.content)
        return make_message(reply.metadata, reply.content)

    return edit


def unsealed(content: RecordDict) -> None:
    arrays = {k: a for k, a in content.array_records[DATA].items() if k != SEAL}
    content[DATA] = ArrayRecord(arrays)


def flipped(name: str, place: int) -> Callable[[RecordDict], None]:
    def change(content: RecordDict) -> None:
        arrays = dict(content.array_records[DATA].items())
        data = bytearray(arrays[name].data)
        data[place] ^= 1
        arrays[name] = Array("uint8", (len(data),), RECORD, bytes(data))
        content[DATA] = ArrayRecord(arrays)

    return change


def more_samples(content: RecordDict) -> None:
    header = json.loads(str(content.config_records[RECORD]["header"]))
    header["samples"] += 1
    content[RECORD] = ConfigRecord({"header": json.dumps(header, separators=(",", ":"))})


def more_bytes(content: RecordDict) -> None:
    extra = {"extra": Array("uint8", (1,), RECORD, b"x")}
    content[DATA] = ArrayRecord({**content.array_records[DATA], **extra})


def better_metrics(content: RecordDict) -> None:
    metrics = content.metric_records["metrics"]
    name = next(n for n, value in metrics.items() if isinstance(value, float))
    content["metrics"] = MetricRecord({**metrics, name: 0.5})


STRANGER = Signer.generate("site-13")
UPLOAD_BEFORE_PARSING: dict[str, tuple[Callable[[Signed], hostile.MessageEdit], str]] = {
    "no envelope": (lambda s: changed(unsealed), "missing"),
    "short envelope": (lambda s: changed(_cut), "malformed"),
    "magic": (lambda s: changed(flipped(SEAL, 0)), "malformed"),
    "signature": (lambda s: changed(flipped(SEAL, 130)), "signature"),
    "upload": (lambda s: changed(flipped("upload", -1)), "body"),
    "upload's length": (lambda s: changed(_longer), "length"),
    "sample count": (lambda s: changed(more_samples), "length|body"),
    "metrics": (lambda s: changed(better_metrics), "length|body"),
    "bytes beside": (lambda s: changed(more_bytes), "length"),
    "stranger": (lambda s: resealed(STRANGER), "stranger"),
    "another round": (lambda s: resealed(s.signers[VILLAIN], round=0), "round"),
    "next round": (lambda s: resealed(s.signers[VILLAIN], round=2), "round"),
    "another run": (lambda s: resealed(s.signers[VILLAIN], run="ab" * 16), "run"),
    "parameters": (lambda s: resealed(s.signers[VILLAIN], params="ab" * 16), "parameters"),
    "key": (lambda s: resealed(s.signers[VILLAIN], key="ab" * 16), "key"),
    "another node": (lambda s: resealed(s.signers[VILLAIN], sender=11), "sender"),
    "another's name": (lambda s: resealed(s.signers[11]), "duplicate"),
}


def _cut(content: RecordDict) -> None:
    seal = seal_of(content)
    assert seal is not None
    with_seal(content, seal[:-1])


def _longer(content: RecordDict) -> None:
    arrays = dict(content.array_records[DATA].items())
    data = arrays["upload"].data + b"\0"
    content[DATA] = ArrayRecord({**arrays, "upload": Array("uint8", (len(data),), RECORD, data)})


def the_others_are_exact(
    signed: Signed, keys: qn.KeyPair, result: Any, reason: str, number: int = 2
) -> None:
    """Refused in one round with that reason, counted and named; nobody else is touched by it."""
    watcher = signed.federation.watcher
    (refusal,) = watcher.refusals
    assert refusal[:3] == (number, "train+upload", VILLAIN)
    (counted,) = signed.refused()[number - 1]
    assert counted in reason.split("|")
    assert refusal[3].startswith(f"envelope refused ({counted}): ")
    assert signed.refused() == [{counted: 1} if n == number else {} for n in (1, 2, 3)]
    assert watcher.names[VILLAIN] == "site-13"
    model = Reference(signed.federation.params).train(lost={number - 1: {2}})
    assert_equal(final(result, keys), model)


@pytest.mark.parametrize("case", UPLOAD_BEFORE_PARSING)
def test_refused_before_anything_is_parsed(signed: Signed, keys: qn.KeyPair, case: str) -> None:
    make, reason = UPLOAD_BEFORE_PARSING[case]
    stopped: list[int] = []

    def edit(reply: Message) -> Message:
        stopped.append(len(signed.parsed))
        return make(signed)(reply)

    signed.federation.grid.inject(Replace(edit), node=VILLAIN, round=1, asks="upload")
    result = signed.train(**NO_EVALUATION)
    the_others_are_exact(signed, keys, result, reason)
    # Node 12 was asked as often.
    assert signed.parsed.count(VILLAIN) == signed.parsed.count(12) - 1
    assert len(stopped) == 1


def test_a_reply_under_the_seal_of_another_step(signed: Signed, keys: qn.KeyPair) -> None:
    """A member that signs an upload as something that may come more than once."""
    edit = resealed(signed.signers[VILLAIN], purpose=Purpose.CATCH_UP)
    signed.federation.grid.inject(Replace(edit), node=VILLAIN, round=1, asks="upload")
    the_others_are_exact(signed, keys, signed.train(**NO_EVALUATION), "purpose")


@pytest.mark.parametrize(
    ("of", "reason"),
    [(ReplyOf(node=11), "sender"), (ReplyOf(round=1), "round"), (ReplyOf(11, 1), "round")],
    ids=["another's", "an earlier one", "another's earlier one"],
)
def test_replayed_replies(signed: Signed, keys: qn.KeyPair, of: ReplyOf, reason: str) -> None:
    signed.federation.grid.inject(of, node=VILLAIN, round=2, asks="upload")
    result = signed.train(**NO_EVALUATION)
    the_others_are_exact(signed, keys, result, reason, number=3)


def test_a_member_on_two_machines_counts_once(signed: Signed, keys: qn.KeyPair) -> None:
    """The same kit at another node: its second reply of each step is refused."""
    contexts = signed.federation.grid._nodes
    contexts[12].context.node_config["quancrypt-signing-key"] = contexts[11].context.node_config[
        "quancrypt-signing-key"
    ]
    result = signed.train(**NO_EVALUATION)
    assert {entry[2] for entry in signed.federation.watcher.refusals} == {12}
    assert all(set(refused) == {"duplicate"} for refused in signed.refused())
    lost = [set(signed.federation.counted(r)) for r in signed.federation.last.records]
    assert lost == [set(NODES) - {12}] * 3
    assert_equal(final(result, keys), signed.federation.expected())


def test_a_client_without_a_signing_key(signed: Signed, keys: qn.KeyPair) -> None:
    context = signed.federation.grid._nodes[VILLAIN].context
    del context.node_config["quancrypt-signing-key"]
    result = signed.train(**NO_EVALUATION)
    reasons = signed.federation.watcher.reasons(VILLAIN)
    assert reasons[0].startswith("envelope refused (missing): the reply is not signed")
    assert signed.refused() == [{"missing": 1}] * 3
    assert_equal(final(result, keys), signed.federation.expected())


def test_a_server_that_starts_again(signed: Signed, keys: qn.KeyPair) -> None:
    """Its gate begins anew, and what counts once does so in the rounds that follow."""
    signed.train(rounds=1, state=signed.federation.folder, **NO_EVALUATION)
    options = {"key_id": signed.key_id, "members": signed.members, **NO_EVALUATION}
    result = signed.federation.go_on(state=signed.federation.folder, **options)
    assert signed.federation.watcher.refusals == []
    assert_equal(final(result, keys), Reference(signed.federation.params).train())


def test_refusals_reach_the_status(signed: Signed) -> None:
    status = RunStatus()
    signed.federation.grid.inject(Replace(changed(unsealed)), node=VILLAIN, round=1, asks="upload")
    signed.train(observer=status, **NO_EVALUATION)
    document = status.document()
    assert document["totals"]["envelopes"] == {"missing": 1}
    assert document["totals"]["refused"] == 1
    assert any("envelope refused (missing)" in event["text"] for event in document["events"])


def test_refusals_are_counted_for_prometheus(signed: Signed) -> None:
    pytest.importorskip("prometheus_client", reason="needs the [prometheus] extra")
    from quancrypt_fl.flower.prometheus import PrometheusMetrics

    metrics = PrometheusMetrics()
    edit = resealed(STRANGER)
    signed.federation.grid.inject(Replace(edit), node=VILLAIN, round=1, asks="upload")
    signed.train(observer=metrics, **NO_EVALUATION)
    name = "quancrypt_envelopes_refused_total"
    assert metrics.registry.get_sample_value(name, {"reason": "stranger"}) == 1
    assert metrics.registry.get_sample_value(name, {"reason": "replay"}) is None


def test_what_a_strategy_takes(
    params: qn.Parameters, signed: Signed, tmp_path: Path, keys: qn.KeyPair
) -> None:
    path = tmp_path / "members.toml"
    path.write_text(signed.members.to_toml())
    made = QuanCryptStrategy(params, key_id=keys.secret.key_id, members=path)
    assert made.members is not None
    assert made.members.fingerprint == signed.members.fingerprint
    with pytest.raises(ConfigError, match="members without key_id"):
        QuanCryptStrategy(params, members=path)
    with pytest.raises(ConfigError, match="members with regions"):
        QuanCryptStrategy(
            params, key_id=keys.secret.key_id, members=path, regions={1: 2}, weighting="uniform"
        )


def test_a_list_that_was_replaced_before_the_training(tmp_path: Path) -> None:
    """Between the strategy's reading of it and the first round."""
    path = tmp_path / "members.toml"
    both, one = (
        Members(Signer.generate(f"site-{number}").member for number in range(count))
        for count in (2, 1)
    )
    path.write_text(both.to_toml())
    loaded = Members.load(path)
    path.write_text(one.to_toml())
    bound = {"training": "01" * 16, "params": "02" * 16, "key_id": "03" * 16}
    gate = ReplyGate(loaded, source=path, **bound)
    assert gate.refresh() == f"a new list of 1 members, {one.fingerprint}"
    assert gate.members.fingerprint == one.fingerprint
    assert gate.refresh() is None
    assert ReplyGate(one, source=path, **bound).refresh() is None  # read, and no news


def test_the_list_may_change_during_a_training(
    signed: Signed, keys: qn.KeyPair, tmp_path: Path
) -> None:
    """Who is taken off is a stranger from the next exchange on; a damaged list changes nothing."""
    path = tmp_path / "members.toml"
    path.write_text(signed.members.to_toml())
    rest = Members(signed.members[f"site-{node}"] for node in NODES if node != VILLAIN)

    def replaced(text: str) -> Callable[[Message], Message]:
        def edit(reply: Message) -> Message:
            new = path.with_name("new.toml")
            new.write_text(text)
            new.replace(path)
            return reply

        return edit

    grid = signed.federation.grid
    grid.inject(Replace(replaced("schema = 7")), node=11, round=0, asks="upload")
    grid.inject(Replace(replaced(rest.to_toml())), node=11, round=1, asks="upload")
    result = signed.train(members=path, **NO_EVALUATION)
    number, _, node, _ = signed.federation.watcher.refusals[0]
    assert (number, node) == (3, VILLAIN)
    assert signed.refused()[:2] == [{}, {}]
    assert signed.refused()[2]["stranger"] == 1
    notes = " ".join(signed.federation.watcher.notes)
    assert "the new list of members is not in use" in notes
    assert f"a new list of 4 members, {rest.fingerprint}" in notes
    lists = [record["envelopes"]["members"] for record in signed.federation.last.records]
    assert lists == [signed.members.fingerprint] * 2 + [rest.fingerprint]
    assert_equal(final(result, keys), signed.federation.expected())
