"""Benchmarks: ours beside Microsoft SEAL, TenSEAL and Paillier, as ratios measured in one run.

:func:`~quancrypt_fl.bench.run.run_benchmarks` is the whole path: subjects that answer rightly
(:mod:`.ours`, :mod:`.rivals`), timed in turn (:mod:`.timing`), and the kernels one by one
(:mod:`.kernels`, :mod:`.stages`). Times are per value, so that subjects may handle
different numbers of values.
"""

from __future__ import annotations
