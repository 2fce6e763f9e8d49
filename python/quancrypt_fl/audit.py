"""Can an object get at a secret? A search through everything that it refers to."""

from __future__ import annotations

import gc
import types
from collections import deque

__all__ = ["secrets_within_reach"]

# Shared by the whole program: through them everything reaches everything.
_SHARED = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type, types.FrameType)


def secrets_within_reach(root: object, secret_types: tuple[type, ...]) -> list[str]:
    """Class names of the secrets that can be reached from ``root`` by following references.

    Follows attributes, slots, containers and closures, as the garbage collector sees them; bound
    methods lead to their objects. Modules, classes and plain functions are where it stops.

    Parameters
    ----------
    root
        Where to start, for instance a server object.
    secret_types
        Classes that count as secrets, asked by ``isinstance``: one whose metaclass defines
        ``__instancecheck__`` can look at the object, as where one class holds public keys or
        secret ones.

    Returns
    -------
    list of str
        Empty if there is none.
    """
    found: list[str] = []
    seen = {id(root)}
    queue: deque[object] = deque([root])
    while queue:
        item = queue.popleft()
        if isinstance(item, secret_types):
            found.append(type(item).__qualname__)
            continue
        for referent in _referents(item):
            if id(referent) not in seen:
                seen.add(id(referent))
                queue.append(referent)
    return found


def _referents(item: object) -> list[object]:
    if isinstance(item, types.FunctionType):
        cells = [cell.cell_contents for cell in item.__closure__ or () if _filled(cell)]
        return [*cells, item.__defaults__, item.__kwdefaults__]
    if isinstance(item, _SHARED):
        return []
    return list(gc.get_referents(item))


def _filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
