"""The views that are attacked, in the order of tables."""

from __future__ import annotations

from typing import Any

from quancrypt_fl.leakage.views import View

__all__ = ["ALL_VIEWS", "FEWEST_VIEWS", "FEW_VIEWS", "KINDS", "chosen_views"]

_LAYERS: dict[str, Any] = {"rate": 0.5, "clip": True, "bits": 8}

ALL_VIEWS = (
    View(kind="plaintext"),
    View(kind="difference", setting="1 local epoch", epochs=1),
    View(kind="difference", setting="5 local epochs", epochs=5),
    View(kind="clipped", clip=True),
    View(kind="quantized", setting="8 bits", bits=8),
    View(kind="quantized", setting="4 bits", bits=4),
    View(kind="quantized", setting="2 bits", bits=2),
    View(kind="pruned", setting="30 %", rate=0.3),
    View(kind="pruned", setting="50 %", rate=0.5),
    View(kind="pruned", setting="70 %", rate=0.7),
    View(kind="pruned", setting="90 %", rate=0.9),
    View(kind="all-layers", setting="50 %, clipped, 8 bits", **_LAYERS),
    View(kind="all-layers", setting="the same, 1 local epoch", epochs=1, **_LAYERS),
    View(kind="noise", setting="sigma 0.001", noise=0.001),
    View(kind="noise", setting="sigma 0.01", noise=0.01),
    View(kind="noise", setting="sigma 0.1", noise=0.1),
    View(kind="aggregate", setting="2 clients", clients=2),
    View(kind="aggregate", setting="10 clients", clients=10),
    View(kind="aggregate", setting="50 clients", clients=50),
    View(kind="aggregate", setting="10 clients, all layers", clients=10, **_LAYERS),
    View(kind="ciphertext", setting="8 bits", bits=8, encrypted=True),
    View(kind="random", setting="the reference", random=True),
)
"""Plaintext to ciphertext; the last one is what ciphertexts are compared with."""

_FEW = ("plaintext", "quantized-8-bits", "pruned-70", "all-layers-50-clipped-8-bits",
        "aggregate-2-clients", "ciphertext-8-bits", "random-the-reference")  # fmt: skip

FEW_VIEWS = tuple(view for view in ALL_VIEWS if view.key in _FEW)
"""For larger images, and for networks that take minutes an image."""

_FEWEST = ("plaintext", "all-layers-50-clipped-8-bits", "ciphertext-8-bits", "random-the-reference")

FEWEST_VIEWS = tuple(view for view in ALL_VIEWS if view.key in _FEWEST)
"""For the latter at quick scale."""

KINDS = tuple(dict.fromkeys(view.kind for view in ALL_VIEWS))


def chosen_views(views: tuple[View, ...], kinds: tuple[str, ...]) -> tuple[View, ...]:
    """Those of the named kinds; all without names."""
    return tuple(view for view in views if not kinds or view.kind in kinds)
