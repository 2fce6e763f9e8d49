"""BatchCrypt (Zhang et al., USENIX ATC 2020): quantized updates in lanes under Paillier.

Each round the parties exchange :func:`layer_ranges` in the clear, derive the clip bounds with
:func:`clips_from_ranges`, and protect, sum and unprotect as the two sides of :class:`BatchCrypt`.
"""

from quancrypt_fl.baselines.batchcrypt.daciq import clips_from_ranges, layer_ranges
from quancrypt_fl.baselines.batchcrypt.lanes import Lanes
from quancrypt_fl.baselines.batchcrypt.method import (
    BatchCryptMethod,
    RangeReporter,
    RangeSummer,
)
from quancrypt_fl.baselines.batchcrypt.protection import (
    SECRET_TYPES,
    BatchCrypt,
    BatchCryptProtector,
    BatchCryptSummer,
)

__all__ = [
    "SECRET_TYPES",
    "BatchCrypt",
    "BatchCryptMethod",
    "BatchCryptProtector",
    "BatchCryptSummer",
    "Lanes",
    "RangeReporter",
    "RangeSummer",
    "clips_from_ranges",
    "layer_ranges",
]
