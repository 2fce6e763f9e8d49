"""Which tensors of an adapter travel in which round, told by their names alone."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["turns_of"]


def turns_of(mode: str, names: Collection[str]) -> tuple[frozenset[str], ...]:
    """See :attr:`quancrypt_fl.method.fedavg.FedAvg.turns`; empty where all travel in every round.

    Parameters
    ----------
    mode
        Of the adapter; see :mod:`.adapters`. Turns are those of ``"alternate"``: B first, then A.
    names
        All that ever travels, as peft writes it.
    """
    if mode != "alternate":
        return ()
    whole = {name for name in names if ".lora_" not in name}
    return tuple(
        frozenset(whole | {name for name in names if f".{factor}." in name})
        for factor in ("lora_B", "lora_A")
    )
