"""The way of fewest bytes from what a client holds to the state after all finished rounds."""

from __future__ import annotations

from dataclasses import dataclass

from quancrypt_fl.flower.history_files import Files, HistoryError, StoredBytes
from quancrypt_fl.flower.history_state import RoundSum, Snapshot, State

__all__ = ["CatchUp", "HistoryGapError", "cheapest", "snapshot_name", "sum_name"]


class HistoryGapError(HistoryError):
    """What a client would need to catch up is no longer kept."""


@dataclass(frozen=True)
class CatchUp:
    """How a client reaches the state after all finished rounds.

    Attributes
    ----------
    snapshot
        Start from this one: rounds finished, chain id, sealed bytes to load.
    initial
        Start from the initial model. With neither, the client goes on from what it holds.
    sums
        The rounds to apply then, in order; a round that failed has no bytes. Bytes are read by
        :meth:`StoredBytes.load`, one round at a time, before the history changes again. If that
        raises HistoryDamageError, drop the file (``History.drop_sum``, ``drop_snapshot``) and ask
        for the catch-up again.
    nbytes
        Bytes to send, the initial model included where ``initial``.
    """

    snapshot: tuple[int, str, StoredBytes] | None
    initial: bool
    sums: list[tuple[RoundSum, StoredBytes | None]]
    nbytes: int


def sum_name(round: int) -> str:
    """File of the sum of the round that follows ``round`` finished ones."""
    return f"sum-{round:05d}.bin"


def snapshot_name(round: int) -> str:
    """File of the snapshot after ``round`` rounds."""
    return f"snapshot-{round:05d}.bin"


def cheapest(state: State, files: Files, have: int | None) -> CatchUp:
    """See ``History.catch_up``."""
    finished = len(state.rounds)
    if have is not None and not 0 <= have <= finished:
        raise HistoryGapError(
            f"a client has finished {have} rounds; the server's history {finished}"
        )
    ways = [] if have is None else [_way(state, files, have)]
    ways += [_way(state, files, each.round, snapshot=each) for each in reversed(state.snapshots)]
    ways.append(_way(state, files, 0, initial=True))
    found = [way for way in ways if way]
    if not found:
        raise HistoryGapError(
            f"no way from {have or 0} finished rounds to {finished}: sums are kept from round "
            f"{state.first + 1} on, and no snapshot leads there"
        )
    return min(found, key=lambda way: way.nbytes)


def _way(
    state: State,
    files: Files,
    base: int,
    *,
    snapshot: Snapshot | None = None,
    initial: bool = False,
) -> CatchUp | None:
    if base < state.first:
        return None
    sums: list[tuple[RoundSum, StoredBytes | None]] = [
        (each, StoredBytes(files, sum_name(each.round), each.size, each.digest))
        if each.weight
        else (each, None)
        for each in state.rounds[base:]
    ]
    start, nbytes = None, sum(each.size for each, _ in sums)
    if snapshot:
        sealed = StoredBytes(files, snapshot_name(base), snapshot.size, snapshot.digest)
        start, nbytes = (base, state.rounds[base - 1].chain, sealed), nbytes + snapshot.size
    if initial:
        nbytes += state.initial.size
    return CatchUp(start, initial, sums, nbytes)
