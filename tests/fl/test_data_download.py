"""Downloads from a server on this machine: whole, cut off, resumed, wrong, absent."""

from __future__ import annotations

import hashlib
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from quancrypt_fl.data import DATASETS
from quancrypt_fl.data.download import download
from quancrypt_fl.data.sources import SOURCES, RemoteFile
from quancrypt_fl.errors import DataError

CONTENT = np.random.default_rng(0).bytes(300_000)
NAME = "set.bin"


class Server(http.server.ThreadingHTTPServer):
    """Serves ``content`` at every path; attributes say how badly."""

    content = CONTENT
    ranges = True
    cuts: list[int]  # bytes after which the next connections end, one each
    statuses: list[int]  # answers to the next requests, before anything is served
    wrong_range = False
    chunked = False  # neither a length nor an end that can be told from a cut

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts, self.statuses = [], []
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append((self.path, asked))
        if server.statuses and (status := server.statuses.pop(0)) != 200:
            self.send_error(status)
            return
        content, start = server.content, 0
        if asked and server.ranges:
            found = re.fullmatch(r"bytes=(\d+)-", asked)
            assert found
            start = int(found[1])
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            shown = start + 1 if server.wrong_range else start
            self.send_header("Content-Range", f"bytes {shown}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if not server.chunked:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + server.cuts.pop(0) if server.cuts else len(content)
        self.wfile.write(content[start:end])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def remote(*servers: Server | str, content: bytes = CONTENT, **changes: object) -> RemoteFile:
    urls = tuple(s if isinstance(s, str) else s.url + NAME for s in servers)
    fields: dict[str, object] = {
        "name": NAME,
        "urls": urls,
        "size": len(content),
        "digest": hashlib.md5(content).hexdigest(),
    }
    return RemoteFile(**{**fields, **changes})  # type: ignore[arg-type]


def bring(folder: Path, file: RemoteFile, **options: object) -> list[Path]:
    return download([file], folder, pause=0.001, **options)  # type: ignore[arg-type]


def test_a_download_is_whole_and_reports_progress(server: Server, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    folder = tmp_path / "new" / "folder"
    paths = bring(folder, remote(server), progress=lambda *news: told.append(news))
    assert paths == [folder / NAME]
    assert paths[0].read_bytes() == CONTENT
    assert [path.name for path in folder.iterdir()] == [NAME]
    assert {(name, size) for name, _, size in told} == {(NAME, len(CONTENT))}
    done = [bytes_there for _, bytes_there, _ in told]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, len(CONTENT))
    assert len(done) > 3


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_what_is_there_is_verified_and_not_fetched_again(
    server: Server, tmp_path: Path, algorithm: str
) -> None:
    file = remote(server, algorithm=algorithm, digest=hashlib.new(algorithm, CONTENT).hexdigest())
    bring(tmp_path, file)
    bring(tmp_path, file)
    assert len(server.asked) == 1


def test_a_cut_connection_is_resumed_where_it_ended(server: Server, tmp_path: Path) -> None:
    server.cuts = [100_000, 50_000]
    bring(tmp_path, remote(server))
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-", "bytes=150000-"]


def test_an_interrupted_command_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    class StopError(BaseException):
        pass

    def stop(name: str, done: int, size: int) -> None:
        if done > 100_000:
            raise StopError

    with pytest.raises(StopError):
        bring(tmp_path, remote(server), progress=stop)
    kept = (tmp_path / f"{NAME}.part").stat().st_size
    assert 100_000 < kept < len(CONTENT)
    assert not (tmp_path / NAME).exists()
    bring(tmp_path, remote(server))
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.asked[-1][1] == f"bytes={kept}-"


def test_a_server_that_ignores_ranges_sends_everything(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1000])
    server.cuts = [200_000, 100]
    bring(tmp_path, remote(server))
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [
        "bytes=1000-",
        "bytes=200000-",
        "bytes=100-",
    ]


def test_a_server_that_never_gets_further_is_given_up(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.cuts = [1000, 2000] * 50
    with pytest.raises(DataError, match="the connection ended after"):
        bring(tmp_path, remote(server))
    assert len(server.asked) < 10


def test_a_wrong_checksum_removes_the_file_and_names_both(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    found = hashlib.md5(server.content).hexdigest()
    expected = hashlib.md5(CONTENT).hexdigest()
    with pytest.raises(DataError, match=rf"removed: its md5 is {found}, expected {expected}"):
        bring(tmp_path, remote(server))
    assert list(tmp_path.iterdir()) == []
    server.content = CONTENT
    bring(tmp_path, remote(server))
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_stale_part_of_another_file_is_found_and_removed(server: Server, tmp_path: Path) -> None:
    part = tmp_path / f"{NAME}.part"
    part.write_bytes(b"stale" * 100)
    with pytest.raises(DataError, match="run the command again to start afresh"):
        bring(tmp_path, remote(server))
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_is_too_long_is_dropped(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT + b"x")
    bring(tmp_path, remote(server))
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.asked == [(f"/{NAME}", None)]


def test_a_whole_part_only_has_to_be_verified(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    bring(tmp_path, remote(server))
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.asked == []


def test_a_file_of_that_name_is_never_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"mine")
    with pytest.raises(DataError, match="is there already, and is not the published file: md5"):
        bring(tmp_path, remote(server))
    assert (tmp_path / NAME).read_bytes() == b"mine"
    assert server.asked == []


@pytest.mark.parametrize("status", [403, 404, 410])
def test_an_absent_file_is_asked_for_once(server: Server, tmp_path: Path, status: int) -> None:
    server.statuses = [status] * 10
    with pytest.raises(DataError, match=rf"set.bin: cannot be downloaded: {server.url}.* {status}"):
        bring(tmp_path, remote(server))
    assert len(server.asked) == 1
    assert not (tmp_path / NAME).exists()


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429, 500]
    bring(tmp_path, remote(server))
    assert (tmp_path / NAME).read_bytes() == CONTENT
    server.statuses = [503] * 50
    with pytest.raises(DataError, match="HTTP 503"):
        bring(tmp_path / "other", remote(server))
    assert len(server.asked) == 4 + 4


def test_the_next_address_goes_on_with_what_is_there(server: Server, tmp_path: Path) -> None:
    with Server() as first:
        thread = threading.Thread(target=first.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        first.cuts, first.statuses = [1234], [200, 404]
        bring(tmp_path, remote(first, server))
        first.shutdown()
        thread.join()
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == ["bytes=1234-"]


def test_an_address_where_nobody_listens(server: Server, tmp_path: Path) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match="Connection refused"):
        bring(tmp_path, remote(server))


@pytest.mark.parametrize("content", [CONTENT[:-5], CONTENT + b"extra", b"<html>log in</html>"])
def test_a_file_of_another_length_is_not_begun(
    server: Server, tmp_path: Path, content: bytes
) -> None:
    server.content = content
    with pytest.raises(
        DataError, match=f"the server offers {len(content):,} bytes, expected 300,000"
    ):
        bring(tmp_path, remote(server))
    assert not (tmp_path / NAME).exists()


def test_a_stream_without_end_is_cut_off(server: Server, tmp_path: Path) -> None:
    server.chunked = True
    server.content = CONTENT * 3
    with pytest.raises(DataError, match="sends more than the expected 300,000 bytes"):
        bring(tmp_path, remote(server))
    assert (tmp_path / f"{NAME}.part").stat().st_size == 0
    server.content = CONTENT
    bring(tmp_path, remote(server))
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_another_range_than_the_one_asked_for_is_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1000])
    server.wrong_range = True
    with pytest.raises(DataError, match="another range than the one asked for"):
        bring(tmp_path, remote(server))


def test_a_range_beyond_the_end_starts_over(server: Server, tmp_path: Path) -> None:
    """The file on the server is shorter than what is there: 416, then its length."""
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1000])
    server.content = CONTENT[:500]
    with pytest.raises(DataError, match="the server offers 500 bytes"):
        bring(tmp_path, remote(server))
    assert [asked for _, asked in server.asked] == ["bytes=1000-", None]


def test_two_processes_do_not_fill_one_file(server: Server, tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / f"{NAME}.part").open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process is downloading it"):
            bring(tmp_path, remote(server))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file.*: cannot be written: (Not a dir|File exists)"):
        bring(tmp_path / "file", remote("http://127.0.0.1:1/"))


def test_a_full_disk_is_not_the_network(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/dev/full takes writes and has no room."""
    (tmp_path / f"{NAME}.part").symlink_to("/dev/full")
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        bring(tmp_path, remote(server))
    assert len(server.asked) <= 1


# --- the table of addresses ---


def each_source() -> list[tuple[str, RemoteFile]]:
    return [(name, file) for name, files in SOURCES.items() for file in files]


def test_the_table_is_well_formed() -> None:
    assert set(SOURCES) == set(DATASETS) - {"digits", "ham10000"}
    for _, file in each_source():
        assert len(file.digest) == hashlib.new(file.algorithm).digest_size * 2
        assert set(file.digest) <= set("0123456789abcdef")
        assert all(re.match(r"https?://[^/]+/", url) for url in file.urls)
        assert all(url.endswith(f"/{file.name}") for url in file.urls)
        assert file.size > 0
    digests = [file.digest for _, file in each_source()]
    assert len(set(digests)) == len(digests) == 10


def test_checksums_agree_with_the_official_files_at_hand(mnist_dir: Path) -> None:
    """The shared test files of MNIST are the published ones; the shared training set is a part."""
    for file in SOURCES["mnist"]:
        if file.name.startswith("t10k"):
            content = (mnist_dir / file.name).read_bytes()
            assert (len(content), hashlib.md5(content).hexdigest()) == (file.size, file.digest)


def test_no_loader_reaches_for_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("a loader opened a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    loaders: dict[str, Callable[..., object]] = dict(DATASETS)
    for name in set(loaders) - {"digits"}:
        with pytest.raises(DataError):
            loaders[name](tmp_path, 1)
