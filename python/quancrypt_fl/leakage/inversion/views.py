"""The views that are attacked, in the order of tables."""

from __future__ import annotations

from typing import Any

from quancrypt_fl.leakage.views import View

__all__ = ["ALL_VIEWS", "FEWEST_VIEWS", "FEW_VIEWS", "KINDS", "REFERENCES", "chosen_views"]

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
    View(kind="unmasked", setting="8 bits, decoded", bits=8, decoded=True, unmasked=True),
    View(kind="decoded", setting="8 bits, no key", bits=8, decoded=True),
    View(kind="ciphertext", setting="8 bits", bits=8, encrypted=True),
    View(kind="random", setting="the reference", random=True),
    View(kind="guess", setting="the mean image"),
    View(kind="guess", setting="2 others", clients=2),
    View(kind="guess", setting="10 others", clients=10),
    View(kind="guess", setting="50 others", clients=50),
)
"""Plaintext to ciphertext; what ciphertexts are compared with; and what needs no update at all."""

REFERENCES = ("decoded", "ciphertext", "random")
"""Kinds that get more images: what they are to show is that there is no difference."""

_FEW = ("plaintext", "quantized-8-bits", "pruned-70", "all-layers-50-clipped-8-bits",
        "difference-1-local-epoch", "all-layers-the-same-1-local-epoch", "aggregate-2-clients",
        "unmasked-8-bits-decoded", "decoded-8-bits-no-key", "ciphertext-8-bits",
        "random-the-reference", "guess-the-mean-image", "guess-2-others")  # fmt: skip

FEW_VIEWS = tuple(view for view in ALL_VIEWS if view.key in _FEW)
"""For larger images, and for networks that take minutes an image."""

_FEWEST = ("plaintext", "all-layers-50-clipped-8-bits", "ciphertext-8-bits",
           "random-the-reference", "guess-the-mean-image")  # fmt: skip

FEWEST_VIEWS = tuple(view for view in ALL_VIEWS if view.key in _FEWEST)
"""For the latter at quick scale."""

KINDS = tuple(dict.fromkeys(view.kind for view in ALL_VIEWS))


def chosen_views(views: tuple[View, ...], kinds: tuple[str, ...]) -> tuple[View, ...]:
    """Those of the named kinds; all without names."""
    return tuple(view for view in views if not kinds or view.kind in kinds)
