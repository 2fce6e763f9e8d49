"""Gradient inversion: from what is seen of an update to the images that it was computed from."""

from __future__ import annotations

from collections.abc import Mapping

from quancrypt_fl.leakage.inversion.analytic import invert_analytically
from quancrypt_fl.leakage.inversion.cosine import invert_by_cosine
from quancrypt_fl.leakage.inversion.dlg import invert_by_dlg
from quancrypt_fl.leakage.inversion.target import Attack

__all__ = ["ATTACKS"]

ATTACKS: Mapping[str, Attack] = {
    "dlg": invert_by_dlg,
    "cosine": invert_by_cosine,
    "analytic": invert_analytically,
}
