"""The server's durable memory of one training: encrypted sums, snapshots, facts; nothing secret.

Each change writes its own files first and ``history.json`` last, each atomically: a process that is
killed at any moment leaves the state before or after. What that file does not name is removed at
:meth:`History.resume`. Files: ``initial.safetensors``; ``rounds.jsonl``, the finished rounds;
``sum-00003.bin``, the encrypted sum of the round that follows three finished ones;
``snapshot-00004.bin``, the sealed state after four; ``note-NAME.json``; ``lock``.

What stays on disk, beside the initial model, ``rounds.jsonl`` and at most two snapshots: encrypted
sums of at most ``limit_bytes`` or, where that is more, those since the newest snapshot and the one
before it. Without a snapshot all sums are needed and stay; with neither a snapshot nor room,
:meth:`History.wants_snapshot` keeps asking and the sums keep growing.

The server cannot read a snapshot. Until a client has opened the newest one, the snapshot before it
(before the first, the initial model) and the sums from there on stay too, as far as ``limit_bytes``
allows. One thread may use a history at a time.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from quancrypt_fl.flower.catch_up import (
    CatchUp,
    HistoryGapError,
    cheapest,
    snapshot_name,
    sum_name,
)
from quancrypt_fl.flower.chain import digest
from quancrypt_fl.flower.history_files import (
    Files,
    Folder,
    HistoryDamageError,
    HistoryError,
    Memory,
    StoredBytes,
    checked_json,
    parse_checked_json,
)
from quancrypt_fl.flower.history_state import (
    RoundSum,
    Snapshot,
    State,
    amendment_line,
    differences,
    read_state,
    round_line,
)

__all__ = [
    "CatchUp",
    "History",
    "HistoryDamageError",
    "HistoryError",
    "HistoryGapError",
    "RoundSum",
    "StoredBytes",
]

_log = logging.getLogger(__name__)

_INDEX, _ROUNDS, _INITIAL = "history.json", "rounds.jsonl", "initial.safetensors"
_OURS = re.compile(
    r"((sum|snapshot)-\d{5,}\.bin|history\.json|rounds\.jsonl|initial\.safetensors"
    r"|note-[a-z0-9-]+\.json)"
)
_NOTE = re.compile(r"[a-z][a-z0-9-]{0,40}")
_NOTE_BYTES = 16 << 20


class History:
    """One training's finished rounds and what lets clients catch up.

    Made by :meth:`begin` or :meth:`resume`. All methods that write are durable when they return
    and raise :class:`HistoryError` where the disk is full or fails; what was there then stays.
    """

    def __init__(self, files: Files, state: State) -> None:
        self._files = files
        self._state = state

    @classmethod
    def begin(
        cls,
        folder: Path | None,
        *,
        training: str,
        facts: Mapping[str, Any],
        chain: str,
        initial: bytes,
        limit_bytes: int,
    ) -> History:
        """Start the history of a new training.

        Parameters
        ----------
        folder
            Where it lies; None: in memory, until the process ends.
        training
            Id of the training.
        facts
            What the parties agreed on, as JSON has it.
        chain
            Chain id of the initial model.
        initial
            The initial model, as safetensors.
        limit_bytes
            Bytes of encrypted sums to keep; see the module on what may exceed it.

        Raises
        ------
        HistoryError
            If the folder already has a history, or another server uses it.
        """
        if limit_bytes < 0:
            raise HistoryError(f"limit_bytes {limit_bytes}; allowed: 0 or more")
        files: Files = Memory() if folder is None else Folder(folder, create=True)
        try:
            if files.size(_INDEX) is not None or files.size(_ROUNDS):
                raise HistoryError(
                    f"{files.where(_INDEX)}: a training is there already; resume it, or choose "
                    "another folder"
                )
            for name in filter(_OURS.fullmatch, files.names()):  # of one that never began
                files.remove(name)
            stored = StoredBytes(files, _INITIAL, len(initial), digest(initial))
            history = cls(
                files,
                State(training, json.loads(json.dumps(dict(facts))), chain, stored, limit_bytes),
            )
            files.write(_INITIAL, initial)
            files.write(_ROUNDS, b"")
            files.sync()
            history._commit(history._state)
        except BaseException:
            files.close()
            raise
        return history

    @classmethod
    def resume(cls, folder: Path, *, limit_bytes: int | None = None) -> History:
        """The history in a folder, after a restart; ``limit_bytes`` replaces the old one.

        A lost sum or snapshot is a logged warning: clients that are up to date do not need it.

        Raises
        ------
        HistoryDamageError
            If one of the other files is lost or damaged; it is named.
        HistoryError
            If there is no history in the folder, or another server uses it.
        """
        if not cls.exists(folder):
            raise HistoryError(f"{folder / _INDEX}: no history to resume")
        files = Folder(folder, create=False)
        try:
            state = read_state(files, _INDEX, _ROUNDS, _INITIAL)
            if limit_bytes is not None:
                state = replace(state, limit_bytes=limit_bytes)
            history = cls(files, state)
            history._forget_lost()
            history._sweep()
        except BaseException:
            files.close()
            raise
        return history

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether there is something to resume."""
        rounds = folder / _ROUNDS
        return (folder / _INDEX).is_file() or (rounds.is_file() and rounds.stat().st_size > 0)

    def require(self, *, facts: Mapping[str, Any], initial: bytes | None = None) -> None:
        """Check that this is the history of a training with these facts and this initial model.

        Raises
        ------
        HistoryError
            Naming the facts that differ.
        """
        differing = differences(self.facts, facts)
        if initial is not None and digest(initial) != self._state.initial.digest:
            differing.append("the initial model")
        if differing:
            raise HistoryError(
                f"{self._files.where(_INDEX)}: a training with other facts ({'; '.join(differing)})"
            )

    @property
    def training(self) -> str:
        """Id of the training."""
        return self._state.training

    @property
    def facts(self) -> dict[str, Any]:
        """What the parties agreed on."""
        return self._state.facts

    @property
    def initial(self) -> bytes:
        """The initial model, as safetensors, read anew."""
        return self._state.initial.load()

    @property
    def rounds(self) -> list[RoundSum]:
        """The finished rounds, failed ones among them."""
        return list(self._state.rounds)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The finished rounds' records."""
        return list(self._state.records)

    @property
    def finished(self) -> int:
        """Number of finished rounds, failed ones among them."""
        return len(self._state.rounds)

    @property
    def chain(self) -> str:
        """Chain id of the state after the finished rounds."""
        return self._state.chain

    def chain_at(self, rounds: int) -> str | None:
        """Chain id of the state after ``rounds`` rounds, None if not so many are finished."""
        return self._state.chain_at(rounds)

    def append(self, round_sum: RoundSum, data: bytes, record: Mapping[str, Any]) -> None:
        """Finish a round: its sum (empty for a failed round) and its record, or neither.

        The last round may be appended again, which changes nothing.

        Raises
        ------
        HistoryError
            If it is another round than the next, or ``data`` is not the sum that it describes.
        """
        if self.finished and (round_sum.round, round_sum.chain) == (self.finished - 1, self.chain):
            self._files.sync()  # the first time may have failed there
            return
        if round_sum.round != self.finished:
            raise HistoryError(f"round {round_sum.round + 1}; the next is {self.finished + 1}")
        round_sum.check(data)
        line = round_line(round_sum, record)
        state = self._state.retained(len(data))
        if state != self._state:  # room first: the bound holds at every moment
            self._commit(state)
        name = sum_name(round_sum.round)
        try:
            if round_sum.weight:
                self._files.write(name, data)
            self._files.extend(_ROUNDS, state.length, line)
            self._files.sync()
            self._commit(state.with_line(line))
        except HistoryError:
            if self.finished == round_sum.round:
                self._files.remove(name)
            raise

    def amend(self, round: int, record: Mapping[str, Any]) -> None:
        """Replace the record of a finished round, with its evaluation for instance."""
        if not 0 <= round < self.finished:
            raise HistoryError(f"round {round + 1} is not among the {self.finished} finished ones")
        line = amendment_line(round, record)
        if json.loads(line)["record"] == self._state.records[round]:
            self._files.sync()
            return
        self._files.extend(_ROUNDS, self._state.length, line)
        self._commit(self._state.with_line(line))

    def note(self, name: str, document: Any) -> None:
        """Keep a small JSON document (at most 16 MiB) until it is replaced; None removes it."""
        file = _note_name(name)
        if document is None:
            self._files.remove(file)
        else:
            data = checked_json(document)
            if len(data) > _NOTE_BYTES:
                raise HistoryError(f"note {name}: {len(data)} bytes; allowed: {_NOTE_BYTES}")
            self._files.write(file, data)
        self._files.sync()

    def read(self, name: str) -> Any:
        """The document of a note, None if there is none; HistoryDamageError if it is not whole."""
        file = _note_name(name)
        if self._files.size(file) is None:
            return None
        return parse_checked_json(self._files.read(file), self._files.where(file))

    def catch_up(self, have: int | None) -> CatchUp:
        """The way of fewest bytes to the state after all finished rounds.

        Parameters
        ----------
        have
            Rounds that the client's state has finished, None if it has no state of this training.

        Raises
        ------
        HistoryGapError
            If what is kept leads there in no way, or the client is ahead.
        """
        return cheapest(self._state, self._files, have)

    def wants_snapshot(self, every: int) -> bool:
        """Whether a snapshot of the current state is due.

        It is when the newest (before the first, the initial model) is ``every`` rounds old (0: that
        does not count), when the sums since exceed ``limit_bytes``, or when a new client could not
        catch up.
        """
        return self._state.wants_snapshot(every)

    def keep_snapshot(self, round: int, chain: str, data: bytes) -> bool:
        """Keep the sealed state after ``round`` rounds, then remove what it makes superfluous.

        Returns
        -------
        bool
            False if it is not kept: one as new (or the initial model) is there, or sums that it
            would need are not.

        Raises
        ------
        HistoryError
            If no such round is finished, or ``chain`` is another state's.
        """
        state = self._state
        if not 0 <= round <= self.finished:
            raise HistoryError(f"snapshot after {round} rounds; allowed: 0 to {self.finished}")
        if chain != self.chain_at(round):
            raise HistoryError(f"snapshot after {round} rounds: the chain id is another model's")
        newest = state.snapshots[-1].round if state.snapshots else 0
        if round <= newest or round < state.first:
            return False
        snapshot = Snapshot(round, len(data), digest(data))
        state = replace(state, snapshots=(*state.snapshots, snapshot)).retained()
        try:
            self._files.write(snapshot_name(round), data)
            self._files.sync()
            self._commit(state)
        except HistoryError:
            if self._state is not state:
                self._files.remove(snapshot_name(round))
            raise
        return True

    def snapshot_used(self, round: int) -> None:
        """A client has opened the snapshot: what stayed in case it were damaged may go."""
        *older, newest = self._state.snapshots or (Snapshot(0, 0, ""),)
        if newest.round == round and not newest.used:
            snapshots = (*older, replace(newest, used=True))
            self._commit(replace(self._state, snapshots=snapshots).retained())

    def drop_snapshot(self, round: int) -> None:
        """Forget a snapshot that clients found damaged."""
        kept = tuple(s for s in self._state.snapshots if s.round != round)
        if kept != self._state.snapshots:
            self._commit(replace(self._state, snapshots=kept))

    def drop_sum(self, round: int) -> None:
        """Forget the sum of a round whose file is damaged, with what is of no use without it."""
        if self._state.first <= round < self.finished and self._state.rounds[round].weight:
            self._commit(replace(self._state, first=round + 1).retained())

    def rekey(self, chain: str, data: bytes) -> None:
        """Keep one snapshot of the state after all finished rounds, and nothing under an older key.

        Sums and other snapshots go: clients with the new key alone could not open them. May be
        called again with the same snapshot, which then finishes what was interrupted.

        Parameters
        ----------
        chain
            Chain id of which the snapshot says it is.
        data
            The state, sealed with the new key.

        Raises
        ------
        HistoryError
            If no round is finished, ``chain`` is another state's, or it cannot be written. Should
            that, or the end of the process, come after an older snapshot of the same round was
            removed, there is none until the next call.
        """
        if not self.finished:
            raise HistoryError("no round is finished: there is no state to seal with another key")
        if chain != self.chain:
            raise HistoryError(
                f"the snapshot is not of the state after round {self.finished}: its chain id is "
                "another model's"
            )
        snapshot = Snapshot(self.finished, len(data), digest(data))
        state = replace(self._state, first=self.finished, snapshots=(snapshot,))
        other = self._state.snapshots[-1:]
        if other and other[0].round == snapshot.round and other[0].digest != snapshot.digest:
            self.drop_snapshot(snapshot.round)  # of the same name as the new one
        self._files.write(snapshot_name(snapshot.round), data)
        self._files.sync()
        self._commit(state)

    def close(self) -> None:
        """Let another server use the folder; nothing has to be written."""
        self._files.close()

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _commit(self, state: State) -> None:
        before = self._state
        self._files.write(_INDEX, state.index())
        self._state = state
        self._files.sync()
        if (before.first, before.snapshots) != (state.first, state.snapshots):
            self._sweep()

    def _sweep(self) -> None:
        """Remove our files that the state does not name."""
        state = self._state
        named = {snapshot_name(snapshot.round) for snapshot in state.snapshots}
        named |= {sum_name(past.round) for past in state.rounds[state.first :] if past.weight}
        for name in self._files.names():
            match = _OURS.fullmatch(name)
            if match and match[2] and name not in named:
                self._files.remove(name)

    def _forget_lost(self) -> None:
        """Let go of sums and snapshots whose files are gone or cut."""
        state = self._state
        for past in state.rounds[state.first :]:
            if past.weight and self._files.size(sum_name(past.round)) != past.size:
                _log.warning("%s: lost or damaged", self._files.where(sum_name(past.round)))
                state = replace(state, first=past.round + 1)
        for snapshot in state.snapshots:
            name = snapshot_name(snapshot.round)
            if self._files.size(name) != snapshot.size:
                _log.warning("%s: lost or damaged", self._files.where(name))
                kept = tuple(s for s in state.snapshots if s != snapshot)
                state = replace(state, snapshots=kept)
        state = state.retained()
        if state != self._state:
            self._commit(state)


def _note_name(name: str) -> str:
    if not _NOTE.fullmatch(name):
        raise HistoryError(f"note {name!r:.60}; allowed: {_NOTE.pattern}")
    return f"note-{name}.json"
