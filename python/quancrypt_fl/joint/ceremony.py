"""From the facts of a joint key to its ceremony; the parameters of the group key beside it."""

from __future__ import annotations

import quancrypt_native as qn
from quancrypt_fl.joint.facts import JointFacts
from quancrypt_native import threshold

__all__ = ["ceremony_of", "group_parameters"]


def ceremony_of(facts: JointFacts, params: qn.Parameters) -> threshold.Ceremony:
    """The ceremony of a joint key: the same object at every party, and at the server."""
    return threshold.Ceremony(
        params,
        parties=len(facts.parties),
        threshold=facts.threshold,
        common_seed=facts.common_seed,
    )


def group_parameters(security: int) -> qn.Parameters:
    """Parameters of the clients' group key: subkeys are all that is made of it, so the smallest."""
    return qn.Parameters.for_aggregation(max_weight=1, security=security, values=1)
