"""Sums of encrypted updates: no key is needed, and none is held."""

from collections.abc import Iterable, Sequence
from typing import Never

from quancrypt_native import _core, wire
from quancrypt_native._validate import integer
from quancrypt_native.errors import KeyMismatchError, ParameterError
from quancrypt_native.layout import Layout
from quancrypt_native.parameters import Parameters, require_parameters
from quancrypt_native.update import EncryptedUpdate, update_prefix

_LARGEST_FACTOR = 2**63 - 1


class Aggregator:
    """Weighted sum of updates as they arrive; memory does not grow with their number.

    Parameters
    ----------
    params
        Parameters of the updates; no key is involved.

    Notes
    -----
    A refused update leaves the sum as it was. One aggregator is for one thread at a time.
    """

    def __init__(self, params: Parameters) -> None:
        self._params = require_parameters(params)
        self._core: _core.Aggregator | None = None
        self._layout: Layout | None = None
        self._key_id = ""
        self._count = 0

    @property
    def params(self) -> Parameters:
        """Parameters of the updates."""
        return self._params

    @property
    def weight(self) -> int:
        """Total weight so far."""
        return 0 if self._core is None else self._core.weight

    @property
    def count(self) -> int:
        """Number of updates so far."""
        return self._count

    def add(self, update: EncryptedUpdate | wire.BytesLike, weight: int = 1) -> None:
        """Add ``weight * update``.

        Parameters
        ----------
        update
            Of the same parameters, key, names, shapes and clip bounds as the first; or the bytes of
            one, which are checked as they are added, in one pass.
        weight
            A positive integer. Sums may be added too; weights multiply.

        Raises
        ------
        CapacityError
            If the total weight would pass ``params.max_weight``.
        KeyMismatchError
            If the update belongs to another key or other parameters.
        WireFormatError
            If bytes are malformed.
        ParameterError
            If names, shapes or clip bounds differ (naming the tensor), or the weight is not a
            positive integer.
        """
        factor = integer("weight", weight, 1, _LARGEST_FACTOR)
        if isinstance(update, bytes | bytearray | memoryview):
            update = EncryptedUpdate.parse(update, self._params)
        if not isinstance(update, EncryptedUpdate):
            raise ParameterError(
                f"update is a {type(update).__name__}; allowed: EncryptedUpdate or bytes"
            )
        if update.params != self._params:
            raise KeyMismatchError(
                f"the update was made with parameters {update.params.fingerprint}, "
                f"not {self._params.fingerprint}"
            )
        if self._layout is not None:
            if update.key_id != self._key_id:
                raise KeyMismatchError(
                    f"the update was encrypted with key {update.key_id}, not {self._key_id}"
                )
            self._layout.require_same(update.layout)
        core = self._core
        if core is None:
            core = _core.Aggregator(self._params._core, update.ciphertexts)
        core.add(update._body, update._seed, update.weight, factor)
        self._core, self._layout, self._key_id = core, update.layout, update.key_id
        self._count += 1

    def result(self) -> EncryptedUpdate:
        """The sum so far; adding may go on afterwards.

        Raises
        ------
        ParameterError
            If nothing was added.
        """
        if self._core is None or self._layout is None:
            raise ParameterError("nothing was added: a sum needs at least one update")
        about = (self._params, self._key_id, self._layout, self._core.weight, None)
        return EncryptedUpdate(*about, self._core.result(update_prefix(*about)))

    def __reduce_ex__(self, protocol: object) -> Never:
        """Refuse pickling and copying: a copy would share the running sum."""
        raise ParameterError("an Aggregator is not pickled or copied; pickle its result()")

    __reduce__ = __reduce_ex__  # type: ignore[assignment]


def aggregate(
    updates: Iterable[EncryptedUpdate], weights: Sequence[int] | None = None
) -> EncryptedUpdate:
    """Weighted sum of updates, one at a time: a generator's updates are not kept.

    Parameters
    ----------
    updates
        At least one; all of the same parameters, key, names, shapes and clip bounds.
    weights
        A positive integer for each; all 1 if None.

    Raises
    ------
    CapacityError, KeyMismatchError, ParameterError
        As :meth:`Aggregator.add`, and if the number of weights is not that of the updates.
    """
    if isinstance(updates, EncryptedUpdate):
        raise ParameterError("updates is one EncryptedUpdate; allowed: a list of them")
    if not isinstance(updates, Iterable):
        raise ParameterError(
            f"updates is a {type(updates).__name__}; allowed: a list of EncryptedUpdate"
        )
    if weights is not None and not (
        hasattr(weights, "__len__") and hasattr(weights, "__getitem__")
    ):
        raise ParameterError(f"weights is a {type(weights).__name__}; allowed: a list of integers")
    aggregator: Aggregator | None = None
    count = 0
    for update in updates:
        if weights is not None and count >= len(weights):
            raise ParameterError(f"there are more updates than the {len(weights)} weights")
        if not isinstance(update, EncryptedUpdate):
            raise ParameterError(
                f"update {count} is a {type(update).__name__}; allowed: EncryptedUpdate"
            )
        aggregator = aggregator or Aggregator(update.params)
        aggregator.add(update, 1 if weights is None else weights[count])
        count += 1
    if aggregator is None:
        raise ParameterError("updates is empty: a sum needs at least one update")
    if weights is not None and len(weights) != count:
        raise ParameterError(f"there are {len(weights)} weights for {count} updates")
    return aggregator.result()
