"""The page in Chromium: no message, no request, no overflow at any width, and something to see."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fl.test_report import as_method, hostile, write_run

from quancrypt_fl.report.page import render_page
from quancrypt_fl.report.reading import collect

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
TIMEOUT = 60.0
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
SCREENS = ((320, 1), (360, 2), (768, 2), (1440, 1), (3840, 1))

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: chromium)")


class Browser:
    """Chromium, spoken to over two pipes in the DevTools protocol: JSON texts, each ended by 0."""

    def __init__(self, profile: Path) -> None:
        ours_out, theirs_in = self._pipe()[::-1]
        theirs_out, ours_in = self._pipe()[::-1]

        def place() -> None:
            os.dup2(theirs_in, 3)
            os.dup2(theirs_out, 4)

        self._process = subprocess.Popen(
            [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(3, 4),
            preexec_fn=place,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._out, self._in = ours_out, ours_in
        self._data, self._number = b"", 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(t["targetId"] for t in targets if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    @staticmethod
    def _pipe() -> tuple[int, int]:
        """Reading and writing end, out of the way of the numbers 3 and 4."""
        ends = os.pipe()
        high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
        for end in ends:
            os.close(end)
        return high[0], high[1]

    def call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def wait(self, method: str) -> None:
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._receive())

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + TIMEOUT
        while b"\0" not in self._data:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            assert ready, "Chromium does not answer"
            received = os.read(self._in, 1 << 20)
            assert received, "Chromium has ended"
            self._data += received
        message, _, self._data = self._data.partition(b"\0")
        return dict(json.loads(message))

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"]

    def screen(self, width: int, *, dark: bool = False, media: str = "screen") -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def picture(self) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="module")
def page(
    tiny_run: tuple[Any, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    """A page with runs of several methods, a hostile one and a broken one, open in Chromium."""
    folder = tmp_path_factory.mktemp("report")
    results = tiny_run[1]
    write_run(folder / "quancrypt", results)
    write_run(folder / "vanilla", as_method(results, "vanilla"))
    write_run(folder / ("long-name-" * 12), {**results, "seed": 2})
    write_run(folder / "hostile", hostile(results))
    (folder / "broken").mkdir()
    (folder / "broken" / "results.json").write_text("{")
    html = folder / "page.html"
    html.write_text(render_page(collect(folder), "Runs <of> a test"), encoding="utf-8")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    try:
        browser.call("Page.navigate", url=html.as_uri())
        browser.wait("Page.loadEventFired")
        yield browser
    finally:
        browser.close()


@pytest.mark.parametrize(("width", "columns"), SCREENS)
def test_nothing_is_wider_than_the_screen(page: Browser, width: int, columns: int) -> None:
    page.screen(width, dark=columns == 2)
    assert page.evaluate("innerWidth") == width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.body.scrollWidth") <= width
    # Text keeps its size: charts are not scaled down with the screen.
    size = page.evaluate(
        "parseFloat(getComputedStyle(document.querySelector('.area text')).fontSize)"
    )
    assert size >= 12


def test_wide_tables_scroll_in_their_box_and_are_reached_by_keyboard(page: Browser) -> None:
    page.screen(360)
    boxes = page.evaluate(
        "[...document.querySelectorAll('.scroll')].map(b => "
        "[b.scrollWidth > b.clientWidth, b.tabIndex, !!b.getAttribute('aria-labelledby')])"
    )
    assert any(wide for wide, _, _ in boxes)
    assert all(index == 0 and named for _, index, named in boxes)


def test_there_is_something_to_see_in_light_and_in_dark(page: Browser) -> None:
    from io import BytesIO

    from matplotlib.image import imread

    page.screen(1440)
    light = imread(BytesIO(page.picture()))
    page.screen(1440, dark=True)
    dark = imread(BytesIO(page.picture()))
    assert light.shape == dark.shape == (900, 1440, 4) or light.shape == (900, 1440, 3)
    assert light[..., :3].std() > 0.05
    assert dark[..., :3].std() > 0.05
    assert light[..., :3].mean() > 0.8
    assert dark[..., :3].mean() < 0.3


def test_prints_on_white_with_all_tables_whole(page: Browser) -> None:
    page.screen(1040, dark=True, media="print")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(255, 255, 255)"
    overflow = page.evaluate(
        "[...document.querySelectorAll('.scroll')].map(b => getComputedStyle(b).overflowX)"
    )
    assert set(overflow) == {"visible"}
    assert base64.b64decode(page.call("Page.printToPDF")["data"]).startswith(b"%PDF")


def test_text_is_readable_in_both_schemes(page: Browser) -> None:
    """WCAG 2.1 AA: 4.5 to 1 for text, 3 to 1 for lines of charts."""
    names = {"ink": 4.5, "soft": 4.5, "link": 4.5, "good": 4.5, "warn": 4.5, "bad": 4.5}
    names |= {f"c{i}": 3.0 for i in range(8)}
    for dark in (False, True):
        page.screen(1440, dark=dark)
        style = "getComputedStyle(document.documentElement).getPropertyValue"
        for background in ("paper", "panel"):
            under = page.evaluate(f"{style}('--{background}')")
            for name, least in names.items():
                over = page.evaluate(f"{style}('--{name}')")
                assert contrast(over, under) >= least, (name, background, dark)


def contrast(one: str, other: str) -> float:
    """Ratio of the relative luminances of two colours such as ``#a0b1c2``."""

    def luminance(colour: str) -> float:
        parts = [int(colour.strip()[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_hostile_text_is_text(page: Browser) -> None:
    """What a file's names and values hold never becomes an element, and no script runs."""
    assert (
        page.evaluate("document.querySelectorAll('script, img, iframe, object, link').length") == 0
    )
    assert page.evaluate("typeof window.pwned") == "undefined"
    assert "</script><img src=x onerror=" in page.evaluate("document.body.textContent")


def test_no_message_and_no_request(page: Browser) -> None:
    """Last: whatever happened in the tests before is in the list."""
    page.evaluate("document.body.offsetHeight")
    methods = [event.get("method") for event in page.events]
    assert methods.count("Page.loadEventFired") == 1
    assert "Runtime.consoleAPICalled" not in methods
    assert "Runtime.exceptionThrown" not in methods
    assert [e["params"]["entry"] for e in page.events if e.get("method") == "Log.entryAdded"] == []
    requested = [
        e["params"]["request"]["url"]
        for e in page.events
        if e.get("method") == "Network.requestWillBeSent"
    ]
    assert len(requested) == 1  # the page itself
    assert requested[0].startswith("file:")
