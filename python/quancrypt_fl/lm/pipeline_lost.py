"""When a connection ends: which stages are gone, so that the message names them.

A stage that ends takes its connections with it; its neighbours end for that, then theirs. Each that
is still there says so in the store, and who says nothing within a while is the one that is lost.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from torch.distributed.distributed_c10d import Store

from quancrypt_fl.errors import FederatedError

__all__ = ["StageLostError", "who_is_lost"]

_PATIENCE = 5.0  # seconds for the others to notice
_LOOK = 0.05  # seconds


class StageLostError(FederatedError):
    """Another stage ended, or does not answer."""


def who_is_lost(
    store: Store, stage: int, stages: int, error: Exception, patience: float = _PATIENCE
) -> str:
    """A sentence that names the stages that do not answer any more.

    Parameters
    ----------
    store
        Shared by all stages.
    stage, stages
        Number of this one, from 0, and how many there are.
    error
        What torch.distributed raised.
    patience
        Seconds to wait for signs of life.
    """
    others = [other for other in range(stages) if other != stage]
    try:
        store.set(_key(stage), "1")
        deadline = time.monotonic() + patience
        while (silent := [o for o in others if not store.check([_key(o)])]) and (
            time.monotonic() < deadline
        ):
            time.sleep(_LOOK)
    except RuntimeError:  # its machine is gone
        return "the stage or the launcher that keeps the store of the pipeline does not answer"
    if not silent:
        return f"a connection between stages failed: {str(error).splitlines()[0]}"
    return f"{_named(silent)} of {stages} {'do' if len(silent) > 1 else 'does'} not answer any more"


def _named(stages: Sequence[int]) -> str:
    numbers = " and ".join(str(stage + 1) for stage in stages)
    return f"stage{'s' if len(stages) > 1 else ''} {numbers}"


def _key(stage: int) -> str:
    return f"here/{stage}"
