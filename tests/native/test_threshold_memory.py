"""A party answers once, also after a restart; its state survives, sealed."""

import secrets
from pathlib import Path

import numpy as np
import pytest
from tests.native import oracle
from tests.native.threshold_parties import Group, ceremony_of, group, meet, parameters

import quancrypt_native as qn
from quancrypt_native import _answered
from quancrypt_native.threshold import AnsweredError, Ceremony, Party

Q = np.arange(-50, 50)
PASSPHRASE = secrets.token_bytes(32)


def sealed(party: Party) -> bytes:
    return party.to_bytes(passphrase=PASSPHRASE, random_passphrase=True)


def opened(data: bytes, ceremony: Ceremony, memory: Path | None = None) -> Party:
    return Party.from_bytes(data, ceremony, passphrase=PASSPHRASE, memory=memory)


@pytest.mark.parametrize("again", [[0, 1], [0, 2], [0, 1, 2]])
def test_a_second_answer_is_refused_for_any_set(again: list[int]) -> None:
    party_group = group(2, 3)
    total = party_group.total(Q)
    party = party_group.parties[0]
    assert party.partial_decryption(total, [0, 1])
    with pytest.raises(AnsweredError, match="party 0 has answered ciphertext 0 of this sum before"):
        party.partial_decryption(total, again)
    # Another object, another weight, another header, another c0: the same second polynomial.
    header, body = oracle.unframe(total.to_bytes())
    del header["body_bytes"]
    size = oracle.polynomial_bytes(party_group.params)
    relabelled = oracle.frame(1, {**header, "weight": 2}, bytes(size) + body[size:])
    same = qn.EncryptedUpdate.from_bytes(relabelled, party_group.params)
    with pytest.raises(AnsweredError):
        party.partial_decryption(same, again)
    fresh = qn.aggregate([total, party_group.encrypt(0 * Q)])
    assert party.partial_decryption(fresh, again)


def test_each_ciphertext_of_a_sum_counts() -> None:
    """A sum that shares one of its ciphertexts with an answered one is refused."""
    party_group = group(2, 3)
    params = party_group.params
    per = params.values_per_ciphertext
    total = party_group.total(np.zeros(2 * per, dtype=np.int64))
    header, body = oracle.unframe(total.to_bytes())
    del header["body_bytes"]
    half = len(body) // 2
    name, _, clip = header["tensors"][0]
    shape = [[name, [per], clip]]
    second = qn.EncryptedUpdate.from_bytes(
        oracle.frame(1, {**header, "tensors": shape}, body[half:]), params
    )
    twice = qn.EncryptedUpdate.from_bytes(
        oracle.frame(1, header, body[:half] + body[:half]), params
    )
    party = party_group.parties[1]
    with pytest.raises(AnsweredError, match="stands twice in this sum"):
        party.partial_decryption(twice, [0, 1])
    assert party.partial_decryption(second, [0, 1])
    with pytest.raises(AnsweredError, match="answered ciphertext 1 of this sum"):
        party.partial_decryption(total, [0, 1])


def test_the_memory_outlives_the_party(tmp_path: Path) -> None:
    party_group = meet(ceremony_of(parameters(3), 2))
    ceremony, memory = party_group.ceremony, tmp_path / "answered"
    before = sealed(party_group.parties[0])
    party = opened(before, ceremony, memory)
    total = party_group.total(Q)
    parts = {0: party.partial_decryption(total, [0, 2])}
    assert memory.stat().st_mode & 0o777 == 0o600
    again = opened(before, ceremony, memory)  # state from before the answer, and the memory
    for chosen in ([0, 1], [0, 2]):
        with pytest.raises(AnsweredError):
            again.partial_decryption(total, chosen)
    parts[2] = party_group.parties[2].partial_decryption(total, [0, 2])
    np.testing.assert_array_equal(ceremony.decrypt_integers(total, parts), Q)


def test_two_processes_share_one_memory(tmp_path: Path) -> None:
    """The file is read again under its lock before every answer."""
    party_group = meet(ceremony_of(parameters(3), 2))
    state, memory = sealed(party_group.parties[0]), tmp_path / "answered"
    one = opened(state, party_group.ceremony, memory)
    two = opened(state, party_group.ceremony, memory)
    total = party_group.total(Q)
    one.partial_decryption(total, [0, 1])
    with pytest.raises(AnsweredError):
        two.partial_decryption(total, [0, 2])
    other = party_group.total(Q)
    two.partial_decryption(other, [0, 1])
    with pytest.raises(AnsweredError):
        one.partial_decryption(other, [0, 2])


def test_the_memory_is_on_disk_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that fails gives no answer; files are synchronized before they are renamed."""
    party_group = meet(ceremony_of(parameters(3), 2))
    memory = tmp_path / "answered"
    party = opened(sealed(party_group.parties[0]), party_group.ceremony, memory)
    total = party_group.total(Q)
    events: list[str] = []
    fsync, replace = _answered.os.fsync, Path.replace

    def spy_fsync(file: int) -> None:
        events.append("fsync")
        fsync(file)

    def spy_replace(self: Path, target: Path) -> Path:
        events.append("replace")
        return replace(self, target)

    class Core:
        def partial_decryption(self, *_: object) -> bytes:
            events.append("answer")
            return b""

    monkeypatch.setattr(_answered.os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    real, party._core = party._core, Core()  # type: ignore[assignment]
    party.partial_decryption(total, [0, 1])
    assert events == ["fsync", "replace", "fsync", "answer"]
    party._core = real

    def full(file: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(_answered.os, "fsync", full)
    other = party_group.total(Q)
    with pytest.raises(OSError, match="no space left"):
        party.partial_decryption(other, [0, 1])
    monkeypatch.undo()
    assert party.partial_decryption(other, [0, 1])  # nothing had left


def test_a_lost_foreign_or_damaged_memory_is_an_error(tmp_path: Path) -> None:
    party_group = meet(ceremony_of(parameters(3), 2))
    ceremony, memory = party_group.ceremony, tmp_path / "answered"
    state = sealed(party_group.parties[0])
    state = sealed(opened(state, ceremony, memory))
    with pytest.raises(qn.ParameterError, match="memory is None; this party keeps"):
        opened(state, ceremony)
    content = memory.read_bytes()
    memory.unlink()
    with pytest.raises(qn.ParameterError, match="where there is no file"):
        opened(state, ceremony, memory)
    memory.write_bytes(content[:-1])
    with pytest.raises(qn.WireFormatError, match=r"the memory .*truncated"):
        opened(state, ceremony, memory)
    memory.write_bytes(content)
    assert opened(state, ceremony, memory).index == 0
    with pytest.raises(qn.KeyMismatchError, match="belongs to party 0 of ceremony"):
        Party(ceremony, 1, memory=memory)


def test_without_a_file_the_state_remembers() -> None:
    party_group = meet(ceremony_of(parameters(3), 2))
    total = party_group.total(Q)
    party = party_group.parties[1]
    part = party.partial_decryption(total, [1, 2])
    again = opened(sealed(party), party_group.ceremony)
    with pytest.raises(AnsweredError):
        again.partial_decryption(total, [0, 1])
    other = party_group.parties[2].partial_decryption(total, [1, 2])
    np.testing.assert_array_equal(
        party_group.ceremony.decrypt_integers(total, {1: part, 2: other}), Q
    )


@pytest.mark.parametrize("received", [[], [2], [0, 2]])
def test_a_restart_at_any_point_of_the_ceremony(received: list[int]) -> None:
    """What was sent before stays right; what is missing is still taken in."""
    ceremony = ceremony_of(parameters(3), 3)
    parties = [Party(ceremony, i) for i in range(3)]
    share, deals = parties[1].public_share(), parties[1].deal()
    for sender in received:
        parties[1].receive(sender, parties[sender].deal()[1])
    parties[1] = opened(sealed(parties[1]), ceremony)
    assert parties[1].public_share() == share
    assert parties[1].deal() == deals
    assert parties[1].missing == sorted({0, 2} - set(received))
    for sender in parties:
        for recipient in parties:
            if sender.index in recipient.missing:
                recipient.receive(sender.index, sender.deal()[recipient.index])
    public = ceremony.public_key({p.index: p.public_share() for p in parties})
    party_group = Group(ceremony, parties, public)
    total = party_group.total(Q)
    parts = party_group.parts(total, [0, 1, 2])
    np.testing.assert_array_equal(ceremony.decrypt_integers(total, parts), Q)


def test_a_state_opens_with_its_passphrase_and_ceremony_only() -> None:
    party_group = meet(ceremony_of(parameters(3), 2))
    state = party_group.parties[0].to_bytes(passphrase=b"correct horse")
    ceremony = party_group.ceremony
    again = Party.from_bytes(state, ceremony, passphrase=b"correct horse")
    assert (again.index, again.ceremony, again.missing) == (0, ceremony, [])
    with pytest.raises(qn.PassphraseError):
        Party.from_bytes(state, ceremony, passphrase=b"wrong")
    with pytest.raises(qn.KeyMismatchError, match="the party belongs to ceremony"):
        Party.from_bytes(state, ceremony_of(parameters(3), 2), passphrase=b"correct horse")
    header, body = oracle.unframe(state)
    del header["body_bytes"]
    changed = oracle.frame(8, {**header, "party": 1}, body)
    with pytest.raises(qn.PassphraseError):  # the header is authenticated
        Party.from_bytes(changed, ceremony, passphrase=b"correct horse")
    with pytest.raises(qn.WireFormatError):
        Party.from_bytes(state[:-1], ceremony, passphrase=b"correct horse")


def test_a_state_shows_nothing_secret() -> None:
    party = Party(ceremony_of(parameters(3), 2), 0)
    state = sealed(party)
    secret = bytes(party._core.save())
    for at in range(0, len(secret) - 16, 4096):
        assert secret[at : at + 16] not in state
    assert bytes(party._pair_secret) not in state


def test_a_link_to_the_memory_is_followed(tmp_path: Path) -> None:
    """Both names are one memory; replacing the link instead would leave the old one to be found."""
    party_group = group(2, 3)
    state = sealed(party_group.parties[0])
    (tmp_path / "volume").mkdir()
    real, link = tmp_path / "volume/answered", tmp_path / "answered"
    Party.from_bytes(state, party_group.ceremony, passphrase=PASSPHRASE, memory=real)
    link.symlink_to(real)
    total = party_group.total(Q)
    assert opened(state, party_group.ceremony, link).partial_decryption(total, [0, 1])
    assert link.is_symlink()
    with pytest.raises(AnsweredError):
        opened(state, party_group.ceremony, real).partial_decryption(total, [0, 1])


def test_a_party_answers_for_as_many_ciphertexts_as_its_noise_is_made_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a state, and over restarts: the limit is of the key, not of a process."""
    assert _answered.MOST_ANSWERED == 65_536  # 2^-56 each, 2^-40 in all: docs/cryptography.md
    monkeypatch.setattr(_answered, "MOST_ANSWERED", 3)
    params = parameters(3)
    ceremony = ceremony_of(params, 2)
    memory = tmp_path / "memory"
    parties = [Party(ceremony, i, memory=memory if i == 0 else None) for i in range(3)]
    for sender in parties:
        for recipient, data in sender.deal().items():
            parties[recipient].receive(sender.index, data)
    public = ceremony.public_key({party.index: party.public_share() for party in parties})
    encryptor = qn.Encryptor(params, public)

    def total(ciphertexts: int) -> qn.EncryptedUpdate:
        q = np.zeros(ciphertexts * params.values_per_ciphertext, dtype=np.int64)
        return qn.aggregate([encryptor.encrypt_integers(q)])

    parties[0].partial_decryption(total(2), [0, 1])
    with pytest.raises(AnsweredError, match="has answered 2 ciphertexts, and this sum has 2; allo"):
        parties[0].partial_decryption(total(2), [0, 1])
    parties[0].partial_decryption(total(1), [0, 1])
    again = opened(sealed(parties[0]), ceremony, memory)
    for party in (parties[0], again):
        with pytest.raises(AnsweredError, match="allowed: 3 under one key"):
            party.partial_decryption(total(1), [0, 1])
