"""A training under a joint key: the model of a shared key, and who opened which sum."""

from __future__ import annotations

import pytest
from tests.fl.flower.federation import (
    NO_EVALUATION,
    NODES,
    Federation,
    assert_equal,
    final,
)
from tests.fl.flower.joint_federation import THRESHOLD, JointFederation, JointKit

import quancrypt_native as qn
from quancrypt_fl.errors import ConfigError, FederatedError
from quancrypt_fl.flower import QuanCryptStrategy
from quancrypt_fl.joint.facts import JointFacts

CHOICES = [{}, {"error_feedback": True}, {"rounding": "stochastic", "seed": 5}]


@pytest.mark.parametrize("choices", CHOICES, ids=["", "feedback", "stochastic"])
def test_the_model_is_that_of_a_shared_key(
    joint_federation: JointFederation, federation: Federation, joint_kit: JointKit, choices: dict
) -> None:
    result = joint_federation.train(**choices)
    model = final(result, joint_kit.group)
    assert_equal(model, joint_federation.expected(**choices))
    federation.train(**choices)
    assert_equal(model, dict(federation.held(NODES[0]).state.weights))
    for node in NODES:
        assert_equal(model, dict(joint_federation.held(node).state.weights))
    records = joint_federation.last.records
    assert [record["participants"] for record in records] == [5, 5, 5]
    for record in records:
        opening = record["opening"]
        assert len(opening["participants"]) == THRESHOLD
        assert (opening["attempts"], opening["lost"]) == (1, [])
    assert records[0]["opening"]["reports"]["attempts"] == 1
    # Others open in other rounds.
    assert len({tuple(r["opening"]["participants"]) for r in records}) > 1


def test_fewer_take_part_than_open(joint_federation: JointFederation, joint_kit: JointKit) -> None:
    """Others open with them, who catch up for it."""
    federation = joint_federation
    result = federation.train(4, fraction_train=0.4, min_train_nodes=2, **NO_EVALUATION)
    assert [record["participants"] for record in federation.last.records] == [2] * 4
    for record in federation.last.records:
        inside = {client["name"] for client in record["clients"] if client["weight"]}
        opened = set(record["opening"]["participants"])
        assert len(opened) == THRESHOLD
        assert inside < opened
    assert_equal(final(result, joint_kit.group), federation.expected())


def test_only_parts_and_sums_pass_the_server(
    joint_federation: JointFederation, joint_kit: JointKit
) -> None:
    """What the server sees of a joint key opens nothing: no share, deal or key in the clear."""
    federation = joint_federation
    federation.train(1, **NO_EVALUATION)
    party = federation.party(NODES[0])
    secret = party._party
    needles = [secret.deal()[1][100:164], bytes(secret._pair_secret)]
    needles += [
        bytes(joint_kit.channels[0]._secret),
        bytes(joint_kit.group.secret._core.save())[:64],
    ]
    total = b"".join([*federation.grid.wire("up"), *federation.grid.wire("down")])
    assert all(needle not in total for needle in needles)
    assert secret.public_share()[-64:] in total  # what is public is found


def test_a_training_needs_a_state_folder(joint_kit: JointKit) -> None:
    federation = JointFederation.of(joint_kit, None)
    with pytest.raises(FederatedError, match="needs a channel key and a folder for its state"):
        federation.train(1, **NO_EVALUATION)


def test_what_a_strategy_refuses(joint_kit: JointKit, params: qn.Parameters) -> None:
    with pytest.raises(ConfigError, match="or 'threshold' with joint="):
        QuanCryptStrategy(joint_kit.params)
    with pytest.raises(ConfigError, match="key_mode 'symmetric'; allowed"):
        QuanCryptStrategy(params, joint=joint_kit.facts)
    with pytest.raises(ConfigError, match="joint with regions"):
        QuanCryptStrategy(
            joint_kit.params, joint=joint_kit.facts_file, regions={1: 2}, weighting="uniform"
        )
    facts = JointFacts(2, bytes(32), joint_kit.facts.parties[:3])
    with pytest.raises(qn.ParameterError, match="parties is 3; params are for 5"):
        QuanCryptStrategy(joint_kit.params, joint=facts)
