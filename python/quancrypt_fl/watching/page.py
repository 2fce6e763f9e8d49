"""The page that refreshes, as one text, and the policy that lets nothing else into it."""

from __future__ import annotations

from jinja2 import BaseLoader, ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from quancrypt_fl.report.policy import content_hash, package_version

__all__ = ["live_page"]


def live_page() -> tuple[str, str]:
    """The page, and its Content-Security-Policy.

    Styles are those of the report and a few of its own; the script is inline and known by its
    hash. It may talk to nobody but the server that it came from.
    """
    loader: BaseLoader = ChoiceLoader(
        [PackageLoader("quancrypt_fl.watching"), PackageLoader("quancrypt_fl.report")]
    )
    templates = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def source(name: str) -> str:
        return loader.get_source(templates, name)[0]

    style = source("page.css") + source("live.css")
    script = source("live.js")
    page = templates.get_template("live.html").render(
        style=Markup(style),  # both ours, from the package
        script=Markup(script),
        version=package_version(),
    )
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src '{content_hash(style)}'",
            f"script-src '{content_hash(script)}'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    return page, policy
