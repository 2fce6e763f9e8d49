"""A client's part of a round: what the mod does around the user's app.

The steps are those of :mod:`quancrypt_fl.method.rounds`, on the same pieces. What must outlive the
process (the global state, a finished training) goes to the client's store before a reply leaves.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.errors import MethodError
from quancrypt_fl.flower.chain import agreed_digest, agreed_facts, digest, first_link, next_link
from quancrypt_fl.flower.client_keys import ClientKeys, Updates
from quancrypt_fl.flower.client_sums import ClientSums, layouts_of, without_bounds
from quancrypt_fl.flower.protocol import Link, Phase, ProtocolError, Reply, Request
from quancrypt_fl.flower.snapshot import SnapshotError, open_snapshot, seal_snapshot
from quancrypt_fl.flower.stores import ClientStore, Held, Pending
from quancrypt_fl.flower.sums import Sums
from quancrypt_fl.method.pruning import Mask
from quancrypt_fl.method.quancrypt import Layout
from quancrypt_fl.method.roles import ClientMemory, GlobalState, Tensors, Update
from quancrypt_fl.method.updates import form_update, protect
from quancrypt_fl.method.variances import possible
from quancrypt_fl.method.weighting import Share, check_scale
from quancrypt_fl.seeds import generator

__all__ = ["ClientRound", "Finished"]

Model = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Finished:
    """What a user's app gave back for a training: its tensors, sample count and metrics."""

    weights: Tensors
    samples: int
    metrics: Mapping[str, Any]
    seconds: float


class ClientRound:
    """One request at work.

    Parameters
    ----------
    request
        Its header.
    blobs
        The bytes that it brings.
    store
        Where the client keeps what outlives a request.
    keys
        The client's keys.
    index
        Number of the client, from 0; decides its dither where the agreement has a seed.
    name
        What it calls itself.
    constants
        Tensors of the model that are not summed, as the request brings them.

    Raises
    ------
    MethodError
        If the request's scale is none that the agreement can lead to.
    """

    def __init__(
        self,
        request: Request,
        blobs: Mapping[str, bytes],
        store: ClientStore,
        keys: ClientKeys,
        *,
        index: int = 0,
        name: str = "",
        constants: Model | None = None,
    ) -> None:
        check_scale(request.agreement.weighting, request.scale, request.agreement.max_weight)
        self._request = request
        self._blobs = blobs
        self._store = store
        self._keys = keys
        self.index = index
        self._name = name
        self._constants = constants or {}
        self.method = request.agreement.method(request.floats)
        self.memory: ClientMemory = store.memory()
        self.seconds: dict[Phase, float] = {"train": 0.0, "protect": 0.0, "unprotect": 0.0}
        self._damaged: int | None = None
        self._dither_seed: int | None = None  # of the training at hand

    @cached_property
    def updates(self) -> Updates:
        """What protects updates and opens sums; with a joint key, once there is one."""
        return self._keys.updates(self._request.agreement.rounding, self._dither)

    @cached_property
    def _facts(self) -> dict[str, Any]:
        return agreed_facts(self._request.agreement, self._keys.params.fingerprint)

    def _agreed(self, constants: Model) -> str:
        return agreed_digest(self._facts, self._request.floats, constants)

    def _held(self) -> Held | None:
        """What the client holds; what does not say what was agreed on counts as absent."""
        held = self._store.held()
        return None if held is None or held.agreed is None else held

    def _sums(self, t: int) -> ClientSums:
        return ClientSums(self.updates, self._keys.params, self.method.at(t))

    def layouts(self, held: Held) -> tuple[Layout, ...]:
        """What sums of the round that begins with the state held consist of."""
        return layouts_of(self.method, held.state, self._request.floats)

    # --- the global state ---

    def catch_up(self, initial: Model | None) -> Held | None:
        """Reach the state that the request names; None if that takes more than it brings.

        Parameters
        ----------
        initial
            All tensors of the initial model, if the request brings them.

        Raises
        ------
        ProtocolError
            If the request's agreement, tensors or constants are not those of that state.
        """
        held = self._held()
        with self.phase("unprotect"):
            start = self._start(held, initial)
            if start is None:
                return None
            if start.agreed != self._agreed(self._constants):
                raise ProtocolError(
                    "the agreement, the tensors that are summed or those that are not differ from "
                    "what this training began with: a client goes on with what was agreed on"
                )
            if start is not held:
                self._settle_skipped(start)
            followed = self._follow(start)
        if followed is not held:
            self._store.hold(followed)
            self._store.drop_pending()  # it was for an earlier state
        return followed

    def behind(self) -> Reply:
        """The reply of a client that cannot reach the state asked for."""
        held = self._held()
        return self._reply(
            behind=True,
            held=None if held is None else (held.state.round, held.chain),
            damaged=self._damaged,
        )

    def _start(self, held: Held | None, initial: Model | None) -> Held | None:
        """What the client holds or the request brings, if the request leads on from there."""
        snapshot = self._request.snapshot
        if held is not None and self._leads_on(held.state.round, held.chain):
            return held
        if snapshot is not None and self._leads_on(*snapshot):
            try:
                opened = open_snapshot(
                    self._blobs["snapshot"],
                    self._request.training,
                    self._keys.secret,
                    round=snapshot[0],
                    chain=snapshot[1],
                )
                if opened.agreed is not None:  # else of an earlier version
                    return opened
            except (KeyError, SnapshotError):
                pass
            self._damaged = snapshot[0]
        if initial is not None:
            chain = first_link(self._request.training, self._facts, initial)
            floats = {
                name: np.asarray(initial[name], dtype=np.float32) for name in self._request.floats
            }
            if self._leads_on(0, chain):
                constants = {n: t for n, t in initial.items() if n not in floats}
                return Held(GlobalState(0, floats), chain, self._agreed(constants))
        return None

    def _leads_on(self, finished: int, chain: str) -> bool:
        """Whether the request's rounds lead from this state to the one that it names."""
        for link in self._request.links:
            if link.round == finished:
                finished, chain = finished + 1, _after(chain, link)
        return (finished, chain) == (self._request.round, self._request.chain)

    def _follow(self, held: Held) -> Held:
        """Apply the sums of the rounds after the state held."""
        for link in self._request.links:
            if link.round == held.state.round:
                held = self._apply(held, link)
        return held

    def _apply(self, held: Held, link: Link) -> Held:
        state, chain = held.state, _after(held.chain, link)
        if link.weight == 0:
            return Held(replace(state, round=state.round + 1), chain, held.agreed)
        data = self._blobs.get(f"sum-{link.round}", b"")
        if digest(data) != link.digest:
            raise ProtocolError(f"the sum of round {link.round + 1} is not the one announced")
        if self._request.agreement.weighting != "prescaled" and link.scale != 1.0:
            raise ProtocolError(f"round {link.round + 1}: a scale of {link.scale}; allowed: 1")
        sums, method = self._sums(state.round), self.method.at(state.round)
        brought = Sums.from_bytes(data)
        if brought.reports:
            state = _bounded(state, sums.bounds(brought.reports, brought.reports_weight))
        mean = sums.mean(brought.updates, link.weight, state, self._request.floats)
        if mean is None:
            return Held(replace(state, round=state.round + 1), chain, held.agreed)
        self._settle(link)
        if method.must_agree(state):  # all have uploaded zeros: see :func:`.without_bounds`
            state = _bounded(state, method.agreed(mean, link.weight))
            return Held(replace(state, round=state.round + 1), chain, held.agreed)
        masks = method.masks(state)
        after = method.apply(state, mean, link.weight, masks, link.scale)
        return Held(replace(after, weights=possible(after.weights)), chain, held.agreed)

    def _settle(self, link: Link) -> None:
        """What error feedback carries over counts once the sum holds the client's upload."""
        pending = self._store.pending()
        if pending is None or pending.round != link.round or pending.residual is None:
            return
        if link.counted:
            self.memory = ClientMemory(pending.residual, self.memory.buffers)
            self._store.remember(self.memory)

    def _settle_skipped(self, start: Held) -> None:
        """As :meth:`_settle`, where a snapshot leads past the round of the pending training."""
        pending = self._store.pending()
        if pending is None or pending.residual is None or pending.round >= start.state.round:
            return
        if (pending.round, pending.chain) == self._request.counted:
            self.memory = ClientMemory(pending.residual, self.memory.buffers)
            self._store.remember(self.memory)

    # --- a round ---

    def train(self, held: Held, app: Callable[[], Finished]) -> Pending:
        """Train, unless a training from this very state is already there: it is used again.

        Raises
        ------
        MethodError
            If it is gone and an upload of it is asked for once more, under a joint key: two sums of
            one state would differ by the two trainings.
        """
        pending = self._store.pending()
        if pending is not None and (pending.round, pending.chain, pending.agreed) == (
            held.state.round,
            held.chain,
            held.agreed,
        ):
            self._dither_seed = pending.dither
            return pending
        if self._keys.party is not None and "train" not in self._request.asks:
            raise MethodError("the training of this round, which is asked for again, is gone")
        done = app()
        self._check(done.weights, held.state.weights)
        loss = done.metrics.get("train_loss", done.metrics.get("train-loss"))
        pending = Pending(
            round=held.state.round,
            chain=held.chain,
            weights=done.weights,
            loss=float(loss) if isinstance(loss, int | float) else float("nan"),
            samples=done.samples,
            metrics=dict(done.metrics),
            seconds=done.seconds,
            dither=secrets.randbits(63),
            agreed=held.agreed,
        )
        self._dither_seed = pending.dither
        self._store.keep_pending(pending)
        self.seconds["train"] += done.seconds
        return pending

    def report(self, held: Held, pending: Pending) -> bytes:
        """Encrypted mean magnitudes, from which clients agree on clip bounds."""
        with self.phase("protect"):
            update = self._update(held.state, pending, self.method.masks(held.state))
            tensors, clips = self.method.at(held.state.round).report(update)
            return self.updates.protect(tensors, clips, held.state.round).data

    def upload(self, held: Held, pending: Pending) -> bytes:
        """The encrypted update. A repeated call encrypts the same update afresh."""
        state = self._with_bounds(held.state)
        method = self.method.at(state.round)
        with self.phase("protect"):
            masks = method.masks(state)
            update = self._update(state, pending, masks)
            before = self.memory
            self.memory = ClientMemory(before.residual, before.buffers)
            if method.must_agree(state):
                tensors, clips = without_bounds(method, update)
                data = self.updates.protect(tensors, clips, state.round).data
                residual: Tensors = {**before.residual, **(update.whole or {})}
            else:
                data = protect(self, update, state, method, masks).data
                residual = self.memory.residual
            self.memory = before
        if method.error_feedback:
            self._store.keep_pending(replace(pending, residual=residual))
        return data

    def snapshot(self, held: Held) -> bytes:
        """The global state, sealed for the other clients."""
        with self.phase("protect"):
            return seal_snapshot(held, self._request.training, self._keys.secret)

    def reply(self, held: Held, did: tuple[str, ...], pending: Pending | None = None) -> Reply:
        """The header of the reply."""
        facts: dict[str, Any] = {}
        if pending is not None:
            loss = pending.loss if np.isfinite(pending.loss) else None
            facts = {"samples": pending.samples, "loss": loss}
        return self._reply(did=did, held=(held.state.round, held.chain), **facts)

    # --- pieces ---

    def _reply(self, **facts: Any) -> Reply:
        party = self._keys.party
        if party is not None:
            public = party.public
            facts |= {"party": party.index, "joint": None if public is None else public.key_id}
        return Reply(
            training=self._request.training,
            round=self._request.round,
            chain=self._request.chain,
            key=self._keys.secret.key_id,
            params=self._keys.params.fingerprint,
            name=self._name[:64],
            seconds=self.seconds,
            **facts,
        )

    def _update(self, state: GlobalState, pending: Pending, masks: Mapping[str, Mask]) -> Update:
        share = Share(1, self._request.scale)  # the weight is the server's to give
        return form_update(self, pending.weights, share, state, self.method, masks)

    def _with_bounds(self, state: GlobalState) -> GlobalState:
        """The state with clip bounds; without, where the sum of reports did not open."""
        if "reports" not in self._blobs:
            if self._is_first(state.round):
                raise ProtocolError("an upload is asked for before clip bounds are agreed on")
            return state
        sums = self._sums(state.round)
        with self.phase("unprotect"):
            bounds = sums.bounds(self._blobs["reports"], self._request.reports_weight)
        return _bounded(state, bounds)

    def _is_first(self, t: int) -> bool:
        """Whether a tensor travels in round ``t`` that has not travelled before.

        The server knows that as well: what it hears must not tell whether an earlier sum opened.
        """
        method, names = self.method, self._request.floats
        earlier = range(min(t, max(1, len(method.turns))))
        before = {name for s in earlier for name in method.travelling(names, s)}
        return not before.issuperset(method.travelling(names, t))

    def _dither(self, t: int) -> np.random.Generator:
        """Of a training, also if its update is encrypted once more: the same is added then."""
        seed = self._request.agreement.seed
        if seed is None:
            return np.random.default_rng(self._dither_seed)
        return generator(seed, "rounding", t, self.index)

    def _check(self, trained: Tensors, before: Tensors) -> None:
        if trained.keys() != before.keys():
            missing = sorted(before.keys() - trained.keys())
            raise MethodError(
                f"the app gave back {len(trained)} tensors of {len(before)}; missing: {missing[:5]}"
            )
        for name, tensor in trained.items():
            if tensor.shape != before[name].shape:
                raise MethodError(
                    f"tensor {name!r} came back from the app with the shape {tensor.shape}; the "
                    f"global model has {before[name].shape}"
                )
            if not np.isfinite(tensor).all():
                raise MethodError(
                    f"tensor {name!r} came back from the app with NaN or infinity: local training "
                    "diverged"
                )

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Count the seconds of a block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def _bounded(state: GlobalState, bounds: Mapping[str, float] | None) -> GlobalState:
    """The state with these clip bounds, beside those of tensors that do not travel now."""
    if bounds is None:
        return state
    return replace(state, bounds={**(state.bounds or {}), **bounds})


def _after(chain: str, link: Link) -> str:
    """Chain id after a round."""
    return next_link(
        chain, round=link.round, weight=link.weight, scale=link.scale, sum_digest=link.digest
    )
