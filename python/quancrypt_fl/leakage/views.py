"""What an attacker sees of an update: each layer of protection by itself, and all together."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quancrypt_fl.leakage.decoding import decoded_values, unmasked_upload
from quancrypt_fl.leakage.gradients import Update, mean_of
from quancrypt_fl.method.clipping import clip_bounds, from_unit, mean_magnitudes, to_unit
from quancrypt_fl.method.pruning import shared_masks
from quancrypt_fl.protect import Channel
from quancrypt_fl.seeds import generator

__all__ = ["Observation", "View", "observe"]

Arrays = dict[str, NDArray[np.float32]]

CLIP_FACTOR = 3.0  # alpha of the method: the bound is alpha times the mean magnitude
_MAX_WEIGHT = 16
_NORM = 1.0  # of an update to which noise is added
_TRAILER = 4  # the checksum at the end of a serialized object


@dataclass(frozen=True, kw_only=True)
class View:
    """What is done to an update before the attacker sees it, in the order of the fields.

    Attributes
    ----------
    kind
        Name for results: ``plaintext``, ``quantized``, ...
    setting
        What tells it from others of its kind, for people.
    epochs
        0: the attacker sees a gradient; otherwise the difference after so many local epochs.
    rate
        Pruning rate; the mask is that of the global weights, which the attacker knows.
    clip
        Whether values are clipped to three times their mean magnitude.
    bits
        Bits of a quantized value; 0: float32.
    noise
        Differential privacy: the update is clipped to an L2 norm of 1, and Gaussian noise of this
        standard deviation is added; 0: none.
    clients
        Number of clients whose mean the attacker sees, with one image each.
    encrypted
        The attacker sees one client's serialized ciphertexts, and reads the bytes as numbers.
    random
        The attacker sees random bytes: the reference for ciphertexts.
    decoded
        The attacker takes a serialized upload apart and decodes its polynomials without a key.
    unmasked
        The same of an upload whose encryption is switched off: does such an attacker see anything?
    """

    kind: str
    setting: str = ""
    epochs: int = 0
    rate: float = 0.0
    clip: bool = False
    bits: int = 0
    noise: float = 0.0
    clients: int = 1
    encrypted: bool = False
    random: bool = False
    decoded: bool = False
    unmasked: bool = False

    def described(self) -> dict[str, Any]:
        """Fields for a cell's parameters.

        Those that came later are left out where they say nothing: cells that were measured before
        stay valid.
        """
        fields = asdict(self)
        return {
            n: value for n, value in fields.items() if value or n not in ("decoded", "unmasked")
        }

    @property
    def key(self) -> str:
        """A name for folders."""
        words = f"{self.kind} {self.setting}".replace("%", "").replace("+", "").replace(".", "-")
        return "-".join(words.replace(",", "").split())


@dataclass(frozen=True)
class Observation:
    """What the attacker has.

    Attributes
    ----------
    tensors
        Values by name, zeros where nothing was sent.
    seen
        True where a value was sent, by name; absent: everywhere.
    bounds
        Clip bound by name; values at it may be larger in truth. Absent: not clipped.
    sent
        Bytes of one client's upload.
    norm
        L2 norm to which the update was clipped as a whole; None: it was not.
    epochs
        0: values are those of a gradient; otherwise of a difference after local epochs of Adam.
    """

    tensors: Mapping[str, Tensor]
    seen: Mapping[str, Tensor]
    bounds: Mapping[str, float]
    sent: int
    norm: float | None = None
    epochs: int = 0


def observe(
    view: View, updates: Sequence[Update], weights: Update, typical: Update, seed: int, t: int = 0
) -> Observation:
    """The attacker's view of the updates of ``view.clients`` clients.

    Parameters
    ----------
    view
        What is done to them.
    updates
        One for each client.
    weights
        Global weights, by which the mask is chosen.
    typical
        An update of the attacker's own, that tells it how large values usually are.
    seed
        Decides noise and random bytes. Encryption draws its randomness from the system.
    t
        Round, in which the mask has its turn.
    """
    values = sum(tensor.numel() for tensor in updates[0].values())
    if view.random:
        numbers = generator(seed, "random-bytes").integers(0, 256, values, dtype=np.uint8)
        return Observation(_read_as_numbers(numbers, typical), {}, {}, values)
    if view.decoded:
        return _decoded(updates[0], view, typical)
    if view.encrypted:
        data = _Upload(updates[0], view.bits).data
        numbers = np.frombuffer(data[-_TRAILER - values : -_TRAILER], dtype=np.uint8)
        return Observation(_read_as_numbers(numbers, typical), {}, {}, len(data))
    masks = _masks(view, updates[0], weights, t)
    shown = []
    bounds: Mapping[str, float] = {}
    for client, update in enumerate(updates):
        kept = {name: _numpy(tensor)[masks[name]] for name, tensor in update.items()}
        layered, bounds = _layers(view, kept)
        if view.noise:
            layered = _noisy(layered, view.noise, generator(seed, "noise", client))
        shown.append({n: _scattered(v, masks[n], updates[0][n]) for n, v in layered.items()})
    size = sum(int(np.count_nonzero(mask)) for mask in masks.values())
    return Observation(
        mean_of(shown),
        {n: torch.from_numpy(m).to(updates[0][n].device) for n, m in masks.items()}
        if view.rate
        else {},
        bounds if view.clip and view.clients == 1 else {},
        math.ceil(size * (view.bits or 32) / 8),
        _NORM if view.noise else None,
        view.epochs,
    )


def _masks(view: View, update: Update, weights: Update, t: int) -> dict[str, NDArray[np.bool_]]:
    """Shared masks of the method; what is no parameter (statistics) is sent whole."""
    if not view.rate:
        return {name: np.ones(tuple(t.shape), dtype=np.bool_) for name, t in update.items()}
    chosen = shared_masks({n: _numpy(t) for n, t in weights.items()}, view.rate, t)
    return {
        name: chosen[name].kept if name in chosen else np.ones(tuple(t.shape), dtype=np.bool_)
        for name, t in update.items()
    }


def _layers(view: View, kept: Arrays) -> tuple[Arrays, Mapping[str, float]]:
    """Clipping and quantization of one client's update, and the clip bounds."""
    if not view.clip and not view.bits:
        return kept, {}
    if view.clip:
        bounds = clip_bounds(mean_magnitudes(kept), CLIP_FACTOR)
    else:  # quantized over the whole range of each tensor
        bounds = {name: float(np.abs(v).max()) or 1.0 for name, v in kept.items()}
    unit = {name: to_unit(values, bounds[name]) for name, values in kept.items()}
    if view.bits:
        sender = _channel(view.bits, sum(v.size for v in kept.values())).client()
        unit = sender.quantized(unit, dict.fromkeys(unit, 1.0), 0)
    else:
        unit = {name: np.clip(values, -1.0, 1.0) for name, values in unit.items()}
    return {name: from_unit(values, bounds[name]) for name, values in unit.items()}, bounds


class _Upload:
    """The upload of a client: clipped, quantized, encrypted, serialized.

    Attributes
    ----------
    bounds
        Clip bound by name.
    data
        What the server gets.
    """

    def __init__(self, update: Update, bits: int) -> None:
        kept = {name: _numpy(tensor) for name, tensor in update.items()}
        self.bounds = clip_bounds(mean_magnitudes(kept), CLIP_FACTOR)
        unit = {name: to_unit(values, self.bounds[name]) for name, values in kept.items()}
        self.channel = _channel(bits, sum(v.size for v in kept.values()))
        self.q_max = 2 ** (bits - 1) - 1
        self._unit, self._ones = unit, dict.fromkeys(unit, 1.0)
        self._sender = self.channel.client()
        self.data = self._sender.protect(unit, self._ones, 0).data

    @functools.cached_property
    def integers(self) -> NDArray[np.int64]:
        """What was encrypted, in [-q_max, q_max], in the order of the tensors."""
        quantized = self._sender.quantized(self._unit, self._ones, 0)
        flat = np.concatenate([values.ravel() for values in quantized.values()])
        return np.asarray(np.rint(flat.astype(np.float64) * self.q_max), dtype=np.int64)


def _decoded(update: Update, view: View, typical: Update) -> Observation:
    """An upload taken apart by somebody who knows the format, the bounds, and no key."""
    upload = _Upload(update, view.bits)
    params = upload.channel.parameters()
    data = upload.data
    if view.unmasked:
        data = unmasked_upload(data, params, upload.integers)
    numbers = decoded_values(data, params, sum(tensor.numel() for tensor in update.values()))
    if np.abs(numbers).max() > upload.q_max:  # no quantized update: scaled as updates usually are
        spread = (numbers - numbers.mean()) / max(numbers.std(), 1e-12)
        return Observation(_scaled_as(spread, typical), {}, {}, len(data))
    found, start = {}, 0
    for name, tensor in update.items():
        part = (numbers[start : start + tensor.numel()] / upload.q_max).astype(np.float32)
        values = from_unit(part.reshape(tuple(tensor.shape)), upload.bounds[name])
        found[name] = torch.from_numpy(values).to(tensor.device, tensor.dtype)
        start += tensor.numel()
    return Observation(found, {}, upload.bounds, len(data))


def _read_as_numbers(numbers: NDArray[np.uint8], typical: Update) -> dict[str, Tensor]:
    """One byte for each value, centred and scaled."""
    return _scaled_as((numbers.astype(np.float64) - 127.5) / 73.9, typical)


def _scaled_as(numbers: NDArray[np.float64], typical: Update) -> dict[str, Tensor]:
    """Numbers of variance 1, scaled to what is usual for each tensor."""
    found, start = {}, 0
    for name, tensor in typical.items():
        part = torch.from_numpy(numbers[start : start + tensor.numel()].astype(np.float32))
        spread = float(tensor.double().pow(2).mean().sqrt())
        found[name] = part.to(tensor.device, tensor.dtype).reshape(tensor.shape) * spread
        start += tensor.numel()
    return found


def _noisy(kept: Arrays, noise: float, rng: np.random.Generator) -> Arrays:
    """Gaussian mechanism: a bounded L2 norm, noise of standard deviation ``noise``."""
    norm = math.sqrt(sum(float(np.square(v, dtype=np.float64).sum()) for v in kept.values()))
    scale = np.float32(_NORM / max(_NORM, norm))
    return {
        name: v * scale + np.float32(noise) * rng.standard_normal(v.shape, dtype=np.float32)
        for name, v in kept.items()
    }


@functools.lru_cache(maxsize=8)
def _channel(bits: int, values: int) -> Channel:
    return Channel(bits=bits, max_weight=_MAX_WEIGHT, security=128, values=values)


def _scattered(values: NDArray[np.float32], mask: NDArray[np.bool_], like: Tensor) -> Tensor:
    whole = np.zeros(mask.shape, dtype=np.float32)
    whole[mask] = values
    return torch.from_numpy(whole).to(like.device, like.dtype)


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float32)
