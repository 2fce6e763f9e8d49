"""What every page of ours says of itself: what may be in it, and which version made it."""

from __future__ import annotations

import base64
import hashlib
from importlib.metadata import PackageNotFoundError, version

__all__ = ["content_hash", "package_version"]


def content_hash(text: str) -> str:
    """The source by which a content security policy lets this style sheet or script alone in."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def package_version() -> str:
    """The installed package's version; empty where the sources are used without one."""
    try:
        return version("quancrypt-native")
    except PackageNotFoundError:
        return ""
