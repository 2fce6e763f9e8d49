"""The server of the page that refreshes: what it answers, to whom, and nothing else."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fl.flower.runs import NODES, middle, put
from tests.fl.test_report import EVIL
from tests.fl.test_report import check as check_page

from quancrypt_fl.watching import source as sources
from quancrypt_fl.watching.page import live_page
from quancrypt_fl.watching.server import WatchServer
from quancrypt_fl.watching.source import StatusSource


def get(
    server: WatchServer, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=named)
        answered = connection.getresponse()
        return answered.status, dict(answered.getheaders()), answered.read().decode()
    finally:
        connection.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WatchServer]:
    with WatchServer(StatusSource(tmp_path)) as made:
        yield made


def test_the_page_and_its_policy(server: WatchServer) -> None:
    status, headers, page = get(server, "/")
    assert status == 200
    policy = headers["Content-Security-Policy"]
    for part in ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'",
                 "base-uri 'none'", "form-action 'none'"):  # fmt: skip
        assert part in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert (page, policy) == live_page()
    assert not re.search(
        r"(?:https?:)?//(?!www\.w3\.org)\w", re.sub(r"^\s*//.*$", "", page, flags=re.M)
    )
    assert "innerHTML" not in page
    assert "url(" not in page


def test_the_status_and_its_tag(server: WatchServer, tmp_path: Path) -> None:
    status, headers, body = get(server, "/status.json")
    assert status == 200
    assert json.loads(body) == {"status": None, "report": False, "problem": None}
    sources._SEARCH_EVERY, before = 0.0, sources._SEARCH_EVERY
    try:
        put(tmp_path, middle().document())
        status, headers, body = get(server, "/status.json")
    finally:
        sources._SEARCH_EVERY = before
    document = json.loads(body)
    assert document["report"] is True
    assert document["status"]["heading"] == "Round 2 of 3"
    assert document["status"]["clients"][0]["node"] == str(next(iter(NODES)))
    assert float(headers["X-Now"]) > 1e9
    status, again, body = get(server, "/status.json", If_None_Match=headers["ETag"])
    assert (status, body) == (304, "")
    assert again["ETag"] == headers["ETag"]
    put(tmp_path, middle().document() | {"finished": 2})
    assert get(server, "/status.json", If_None_Match=headers["ETag"])[0] == 200


def test_only_reading_and_only_these_paths(server: WatchServer) -> None:
    assert get(server, "/", "HEAD")[::2] == (200, "")
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert get(server, "/", method)[0] == 501
    for path in ("/x", "/../etc/passwd", "/status.json/", "/templates/live.js"):
        assert get(server, path)[0] == 404
    assert get(server, "/?a=b")[0] == 200


def test_other_host_names_are_refused(server: WatchServer) -> None:
    """A page from elsewhere whose name resolves to 127.0.0.1 reads nothing."""
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
        assert get(server, "/status.json", Host=host)[0] == 403, host
    for host in ("localhost", f"localhost:{server.port}", f"127.0.0.1:{server.port}", "[::1]:80"):
        assert get(server, "/status.json", Host=host)[0] == 200, host


def test_the_report_so_far(server: WatchServer, tmp_path: Path) -> None:
    status, _, text = get(server, "/report")
    assert status == 404
    assert "No report yet" in text
    put(tmp_path, middle().document())
    status, headers, page = get(server, "/report")
    assert status == 200
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    text = " ".join("".join(check_page(page).text).split())
    assert "deployed on Flower, not finished" in text


def test_texts_of_clients_are_escaped_in_json(tmp_path: Path) -> None:
    run = middle()
    run.refused(round=2, phase="train", node=1, name=EVIL, reason=EVIL)
    put(tmp_path, run.document())
    with WatchServer(StatusSource(tmp_path)) as server:
        _, headers, body = get(server, "/status.json")
    assert headers["Content-Type"] == "application/json"
    names = [client["name"] for client in json.loads(body)["status"]["clients"]]
    assert any("\\u202e" in name and "\\x00" in name for name in names)
    assert "\u202e" not in json.loads(body)["status"]["clients"][-1]["reason"]
