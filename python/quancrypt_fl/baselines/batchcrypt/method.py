"""BatchCrypt in a federated round: ranges in the clear, then encrypted updates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from quancrypt_fl.baselines.batchcrypt.daciq import clips_from_ranges, layer_ranges
from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.fedavg import Clips, FedAvg
from quancrypt_fl.method.roles import NOTHING_TO_SUM, GlobalState, Sealed, Tensors, Update
from quancrypt_fl.method.uploads import parsed

__all__ = ["BatchCryptMethod", "RangeReporter", "RangeSummer"]


@dataclass(frozen=True, kw_only=True)
class BatchCryptMethod(FedAvg):
    """Clip bounds come from the ranges of this round's updates, which the server sees."""

    def must_agree(self, state: GlobalState) -> bool:
        """In every round."""
        del state
        return True

    def report(self, update: Update) -> tuple[Tensors, Clips]:
        """Smallest and largest value of each layer."""
        return dict(layer_ranges(update.tensors)), {}

    def agreed(self, report: Tensors, weight: int) -> dict[str, float]:
        """The bounds that the server found, one to a layer."""
        del weight
        return {name: float(clip) for name, clip in report.items()}

    def outgoing(self, update: Update, state: GlobalState) -> tuple[Tensors, Clips]:
        """The update as it is; quantization clips it."""
        assert state.bounds is not None
        return update.tensors, state.bounds


class RangeReporter:
    """A party's side: two numbers to a layer there, one clip bound back, in the clear."""

    def protect(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Sealed:
        """The ranges as safetensors."""
        del clips, t
        return Sealed(save(dict(tensors)), ciphertexts=0)

    def unprotect(self, data: bytes) -> tuple[Tensors, int]:
        """Clip bounds, each a tensor without dimensions, and the number of parties."""
        clips = load(data)
        parties = int(clips.pop(_PARTIES))
        return clips, parties

    def quantized(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Tensors:
        """The ranges: nothing is rounded."""
        del clips, t
        return tensors


class RangeSummer:
    """The server's side: collects the parties' ranges and derives clip bounds by dACIQ.

    Parameters
    ----------
    sizes
        Values in each layer.
    bits, parties
        See :func:`~quancrypt_fl.baselines.batchcrypt.daciq.clips_from_ranges`.
    """

    def __init__(self, sizes: Mapping[str, int], bits: int, parties: int) -> None:
        self._sizes = dict(sizes)
        self._bits, self._parties = bits, parties
        self._reports: list[dict[str, NDArray[np.float32]]] = []

    def add(self, data: bytes, weight: int) -> None:
        """Parse one report; ``weight`` plays no part."""
        del weight
        self._reports.append(parsed(data, np.float32))

    def result(self) -> bytes:
        """The clip bounds from all reports since the last call."""
        if not self._reports:
            raise MethodError(NOTHING_TO_SUM)
        clips = clips_from_ranges(self._reports, self._sizes, self._bits, self._parties)
        parties = np.array(len(self._reports))
        self._reports = []
        return save({**{name: np.array(c) for name, c in clips.items()}, _PARTIES: parties})


_PARTIES = "parties"
