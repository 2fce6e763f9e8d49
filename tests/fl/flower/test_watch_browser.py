"""The page that refreshes, in Chromium, while ``status.json`` changes under it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fl.flower.runs import LOST, NODES, answer, ask, begin, put, record, whole_round
from tests.fl.test_report import EVIL
from tests.fl.test_report_browser import CHROMIUM, SCREENS, TIMEOUT, Browser, contrast

from quancrypt_fl.flower.run_status import RunStatus
from quancrypt_fl.flower.status import StatusFile
from quancrypt_fl.watching import source as sources
from quancrypt_fl.watching.server import WatchServer
from quancrypt_fl.watching.source import StatusSource

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: chromium)")

BERLIN, UPPSALA, PORTO = NODES
WHOLE = "document.body.innerText"


@pytest.fixture
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    made = Browser(tmp_path_factory.mktemp("profile"))
    try:
        made.screen(1200)
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def search_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_SEARCH_EVERY", 0.1)


def wait(browser: Browser, expression: str) -> None:
    """Until it is true."""
    end = time.monotonic() + TIMEOUT
    while not browser.evaluate(f"!!({expression})"):
        assert time.monotonic() < end, (expression, browser.evaluate(WHOLE))
        time.sleep(0.05)


def text(browser: Browser, name: str) -> Any:
    return browser.evaluate(f"document.getElementById('{name}').textContent")


def saw(browser: Browser, part: str, name: str = "main") -> None:
    wait(browser, f"document.getElementById('{name}')?.textContent.includes({part!r})")


def complaints(browser: Browser) -> list[Any]:
    browser.evaluate("1")
    methods = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
    return [event for event in browser.events if event.get("method") in methods]


def test_the_page_follows_a_run_from_before_its_start_to_its_report(
    browser: Browser, tmp_path: Path
) -> None:
    with WatchServer(StatusSource(tmp_path)) as server:
        browser.call("Page.navigate", url=server.url)
        browser.wait("Page.loadEventFired")
        saw(browser, "Waiting for a run to start", "heading")
        saw(browser, "no run has started yet", "link-text")

        file = StatusFile(tmp_path / "state")
        begin(file)
        file.waiting(connected=1, needed=3)
        saw(browser, "1 of 3 connected", "heading")
        saw(browser, "Live", "link-text")
        ask(file, 1)
        saw(browser, "Round 1 of 3", "heading")
        saw(browser, "0 of 3 answered", "phase")
        assert browser.evaluate("document.getElementById('report').hidden")
        answer(file, 1, BERLIN, UPPSALA)
        saw(browser, "2 of 3 answered", "phase")
        file.lost(round=1, phase="train+upload", **LOST)
        saw(browser, "did not answer in 5 s", "client-rows")
        first = browser.evaluate("document.querySelector('#client-rows th').textContent")
        assert first == "Porto"  # trouble first
        file.round_finished(record(1, participants=2, lost=1))
        saw(browser, "50.00 %", "tiles")
        saw(browser, "counted, total weight 16", "round-rows")
        saw(browser, "Round 1 is finished, test accuracy 50.00 %", "news")
        whole_round(file, 2, failed="only 1 client answered", test_accuracy=None)
        saw(browser, "failed: only 1 client answered", "round-rows")
        whole_round(file, 3)
        wait(browser, "document.querySelectorAll('#chart-accuracy .dot').length === 2")
        assert browser.evaluate("document.querySelectorAll('.chart').length") == 4
        file.run_finished({}, None)
        saw(browser, "Finished after 3 rounds", "heading")
        saw(browser, "The run is over", "link-text")
        assert browser.evaluate("document.title") == "Finished after 3 rounds · QuanCrypt"

        assert complaints(browser) == []
        requested = {
            event["params"]["request"]["url"]
            for event in browser.events
            if event.get("method") == "Network.requestWillBeSent"
        }
        assert requested == {server.url, server.url + "status.json"}
        browser.events.clear()
        browser.evaluate("document.getElementById('report').click(); 1")
        browser.wait("Page.loadEventFired")
        assert "deployed on Flower" in browser.evaluate(WHOLE)
        assert complaints(browser) == []


def test_a_lost_connection_is_shown_and_found_again(browser: Browser, tmp_path: Path) -> None:
    run = RunStatus()
    begin(run)
    whole_round(run, 1)
    ask(run, 2)
    put(tmp_path, run.document())
    with WatchServer(StatusSource(tmp_path)) as server:
        port = server.port
        browser.call("Page.navigate", url=server.url)
        saw(browser, "Round 2 of 3", "heading")
    browser.call("Network.emulateNetworkConditions", offline=True, latency=0,
                 downloadThroughput=-1, uploadThroughput=-1)  # fmt: skip
    saw(browser, "Connection lost", "link-text")
    assert text(browser, "heading") == "Round 2 of 3"  # what was known stays
    assert browser.evaluate("document.getElementById('link').className") == "link gone"
    run.round_finished(record(2))
    put(tmp_path, run.document())
    with WatchServer(StatusSource(tmp_path), port=port):
        browser.call("Network.emulateNetworkConditions", offline=False, latency=0,
                     downloadThroughput=-1, uploadThroughput=-1)  # fmt: skip
        saw(browser, "Live", "link-text")
        saw(browser, "75.00 %", "tiles")


def test_a_silent_server_and_a_damaged_file_are_named(browser: Browser, tmp_path: Path) -> None:
    run = RunStatus(clock=lambda: time.time() - 100)
    begin(run)
    ask(run, 1)
    path = put(tmp_path, run.document())
    with WatchServer(StatusSource(tmp_path)) as server:
        browser.call("Page.navigate", url=server.url)
        saw(browser, "it may have stopped", "link-text")
        assert text(browser, "phase").endswith("for 0 s")  # clocks stop with the news
        path.write_text("{")
        saw(browser, "status.json: not JSON", "error")
        assert text(browser, "heading") == "Round 1 of 3"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A long run with many clients, one of which names itself with markup, open in Chromium."""
    folder = tmp_path_factory.mktemp("run")
    run = RunStatus()
    begin(run, rounds=80)
    for i in range(1, 71):
        whole_round(run, i, failed=EVIL * 3 if i == 69 else None)
    names = {i: f"a-client-with-a-long-name-{i}" for i in range(300)}
    run.round_started(round=71, asked={**names, 999: EVIL})
    run.phase_started(round=71, phase=EVIL, asked=[*names, 999])
    run.lost(round=71, phase="train", node=999, name=EVIL, reason=EVIL * 10)
    run.answered(round=71, phase=EVIL, node=3, name="n", seconds={EVIL: 1.0}, nbytes=10**12)
    put(folder, run.document() | {"facts": {EVIL: EVIL, "long": "x" * 3_000}})
    browser = Browser(tmp_path_factory.mktemp("profile"))
    try:
        with WatchServer(StatusSource(folder)) as server:
            browser.call("Page.navigate", url=server.url)
            saw(browser, "Round 71 of 80", "heading")
            yield browser
    finally:
        browser.close()


def test_hostile_text_is_text(hostile: Browser) -> None:
    assert hostile.evaluate("document.querySelectorAll('img, iframe, object, link').length") == 0
    assert hostile.evaluate("document.querySelectorAll('script').length") == 1
    assert hostile.evaluate("typeof window.pwned") == "undefined"
    for name in ("client-rows", "round-rows", "events", "facts", "phase"):
        assert "</script><img src=x onerror=" in text(hostile, name), name
    assert hostile.evaluate("document.querySelectorAll('#client-rows tr').length") == 200
    assert complaints(hostile) == []


@pytest.mark.parametrize(("width", "columns"), SCREENS)
def test_nothing_is_wider_than_the_screen(hostile: Browser, width: int, columns: int) -> None:
    hostile.screen(width, dark=columns == 2)
    assert hostile.evaluate("document.documentElement.scrollWidth") <= width
    assert hostile.evaluate("document.body.scrollWidth") <= width


def test_text_is_readable_in_both_schemes(hostile: Browser) -> None:
    """WCAG 2.1 AA for what this page adds to the report's styles: white paper, dark paper."""
    for dark in (False, True):
        hostile.screen(1200, dark=dark)
        paper = hostile.evaluate(
            "getComputedStyle(document.documentElement).getPropertyValue('--paper')"
        )
        for selector in ("#link", "td.lost", "td.asked", "#phase", "td.failed", "td.ok"):
            colour = hostile.evaluate(
                f"getComputedStyle(document.querySelector('{selector}')).color.match(/\\d+/g)"
            )
            named = "#" + "".join(f"{int(part):02x}" for part in colour[:3])
            assert contrast(named, paper) >= 4.5, (selector, dark)


def test_a_section_that_has_not_changed_is_not_drawn_anew(hostile: Browser) -> None:
    """A tooltip, a selection and a place in a table survive a refresh."""
    hostile.evaluate("window.row = document.querySelector('#client-rows tr'); 1")
    hostile.evaluate("window.asked = performance.getEntriesByType('resource').length; 1")
    wait(hostile, "performance.getEntriesByType('resource').length >= window.asked + 2")
    assert hostile.evaluate("window.row === document.querySelector('#client-rows tr')")
