"""Fetching from servers that misbehave in every way that servers do."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests

from mnistlab.data.fetch import LIMITS, Archive, Limits, fetch
from mnistlab.errors import DataUnavailableError

CONTENT = {name: np.random.default_rng(i).bytes(150_000) for i, name in enumerate(("a.gz", "b.gz"))}
ARCHIVES = [Archive(name=name, known_hash=f"sha256:{hashlib.sha256(c).hexdigest()}") for name, c in CONTENT.items()]
FIRST = ARCHIVES[:1]
QUICK = replace(LIMITS, connect=2.0, read=0.5)


@dataclass
class Mirror:
    """A local server: `cuts` says after how many bytes the next answers break off (None: never)."""

    content: dict[str, bytes] = field(default_factory=lambda: dict(CONTENT))
    cuts: list[int | None] = field(default_factory=list)
    ranges: bool = True
    status: int = 200
    hang: bool = False
    over: threading.Event = field(default_factory=threading.Event)  # then nobody hangs any longer
    location: str = ""
    seen: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        name, wanted = request.path.strip("/"), request.headers.get("Range", "")
        self.seen.append((name, wanted))
        if self.hang:
            self.over.wait(60)
            return
        if self.location:
            request.send_response(302)
            request.send_header("Location", self.location)
            request.end_headers()
        elif self.status != 200:
            request.send_error(self.status)
        else:
            self.send(request, self.content[name], wanted)

    def send(self, request: BaseHTTPRequestHandler, body: bytes, wanted: str) -> None:
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start >= len(body):
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        cut = self.cuts.pop(0) if self.cuts else None
        request.wfile.write(body[start : None if cut is None else start + cut])


@pytest.fixture
def serve() -> Iterator:
    servers: list[ThreadingHTTPServer] = []
    over = threading.Event()

    def start(**faults) -> Mirror:
        mirror = Mirror(over=over, **faults)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                mirror.answer(self)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        mirror.url = f"http://127.0.0.1:{server.server_port}/"
        return mirror

    yield start
    over.set()
    for server in servers:
        server.shutdown()
        server.server_close()


def stored(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_fetches_every_archive_and_leaves_nothing_else(serve, tmp_path):
    mirror = serve()
    fetch(ARCHIVES, [mirror.url], tmp_path / "new" / "cache")
    assert stored(tmp_path / "new" / "cache") == CONTENT


def test_what_is_there_already_is_not_fetched_but_a_damaged_file_is(serve, tmp_path):
    mirror = serve()
    (tmp_path / "a.gz").write_bytes(CONTENT["a.gz"])
    (tmp_path / "b.gz").write_bytes(CONTENT["b.gz"][:-1] + b"?")
    fetch(ARCHIVES, [mirror.url], tmp_path)
    assert [name for name, _ in mirror.seen] == ["b.gz"]
    assert stored(tmp_path) == CONTENT


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ({"status": 404}, "404"),
        ({"status": 503}, "503"),
        ({"content": {"a.gz": b"<html>sign in first</html>"}}, "other contents: expected sha256:"),
        ({"hang": True}, "no answer within"),
    ],
    ids=["404", "503", "wrong content", "hangs"],
)
def test_the_second_mirror_serves_where_the_first_fails(serve, tmp_path, caplog, faults, words):
    bad, good = serve(**faults), serve()
    with caplog.at_level(logging.INFO, "mnistlab.data"):
        fetch(FIRST, [bad.url, good.url], tmp_path, QUICK)
    assert stored(tmp_path) == {"a.gz": CONTENT["a.gz"]}
    assert len(bad.seen) == 1
    assert any(bad.url in message and words in message for message in caplog.messages)
    assert f"fetching {good.url}a.gz" in caplog.messages


def test_a_download_that_is_cut_goes_on_where_it_broke_off(serve, tmp_path):
    mirror = serve(cuts=[100_000])
    fetch(FIRST, [mirror.url], tmp_path)
    (_, whole), (_, rest) = mirror.seen
    assert whole == ""
    assert 0 < int(rest.removeprefix("bytes=").rstrip("-")) <= 100_000
    assert stored(tmp_path) == {"a.gz": CONTENT["a.gz"]}


def test_another_mirror_goes_on_where_the_first_one_stopped_for_good(serve, tmp_path):
    first, second = serve(cuts=[70_000, 0, 0]), serve()
    fetch(FIRST, [first.url, second.url], tmp_path)
    assert second.seen[0][1].startswith("bytes=")
    assert stored(tmp_path) == {"a.gz": CONTENT["a.gz"]}


def test_a_later_process_goes_on_with_the_part_of_an_earlier_one(serve, tmp_path):
    mirror = serve()
    (tmp_path / "a.gz.part").write_bytes(CONTENT["a.gz"][:1234])
    fetch(FIRST, [mirror.url], tmp_path)
    assert mirror.seen == [("a.gz", "bytes=1234-")]
    assert stored(tmp_path) == {"a.gz": CONTENT["a.gz"]}


def test_a_server_that_ignores_ranges_is_read_from_the_start(serve, tmp_path):
    mirror = serve(ranges=False)
    (tmp_path / "a.gz.part").write_bytes(CONTENT["a.gz"][:1234])
    fetch(FIRST, [mirror.url], tmp_path)
    assert stored(tmp_path) == {"a.gz": CONTENT["a.gz"]}


@pytest.mark.parametrize("part", [b"poison" * 50, b"poison" * 50_000], ids=["shorter", "longer than the file"])
def test_a_part_of_another_file_is_thrown_away_and_fetched_anew(serve, tmp_path, part):
    mirror = serve()
    (tmp_path / "a.gz.part").write_bytes(part)
    fetch(FIRST, [mirror.url], tmp_path)
    assert [wanted for _, wanted in mirror.seen] == [f"bytes={len(part)}-", ""]
    assert stored(tmp_path) == {"a.gz": CONTENT["a.gz"]}


def test_all_mirrors_down_names_each_with_its_reason(serve, tmp_path):
    missing, html = serve(status=404), serve(content={"a.gz": b"<html>"})
    dead = "http://127.0.0.1:9/"
    with pytest.raises(DataUnavailableError) as caught:
        fetch(FIRST, [missing.url, html.url, dead], tmp_path)
    lines = str(caught.value).splitlines()
    assert "a.gz can't be fetched from any of 3 mirrors" in lines[0]
    assert missing.url in lines[1]
    assert "404" in lines[1]
    assert html.url in lines[2]
    assert FIRST[0].known_hash in lines[2]
    assert hashlib.sha256(b"<html>").hexdigest() in lines[2]
    assert dead in lines[3]
    assert "refused" in lines[3]
    assert stored(tmp_path) == {}


def test_a_file_larger_than_allowed_is_dropped(serve, tmp_path):
    mirror = serve()
    with pytest.raises(DataUnavailableError, match="more than the 100,000 bytes"):
        fetch(FIRST, [mirror.url], tmp_path, Limits(size=100_000))
    assert stored(tmp_path) == {}


def test_a_folder_that_can_not_be_written_is_said_in_words(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataUnavailableError, match="nothing can be stored in the cache folder"):
        fetch(FIRST, ["http://127.0.0.1:9/"], tmp_path / "file" / "cache")


@pytest.mark.parametrize(
    "place",
    ["http://example.invalid/a.gz", "ftp://example.invalid/a.gz", "file:///etc/passwd", "//example.invalid/a.gz"],
)
def test_a_redirection_to_anything_but_https_is_not_followed(serve, tmp_path, monkeypatch, place):
    asked = asked_for(monkeypatch)
    mirror = serve(location=place)
    with pytest.raises(DataUnavailableError, match=f"redirected to .*{place}: only https is fetched"):
        fetch(FIRST, [mirror.url], tmp_path)
    assert asked == [f"{mirror.url}a.gz"]
    assert stored(tmp_path) == {}


@pytest.mark.parametrize("url", ["http://example.invalid/", "http://127.0.0.1.example.invalid/", "http://localhost/"])
def test_a_mirror_without_https_is_not_asked(tmp_path, monkeypatch, url):
    asked = asked_for(monkeypatch)
    with pytest.raises(DataUnavailableError, match=f"{url}a.gz: only https is fetched"):
        fetch(FIRST, [url], tmp_path)
    assert asked == []


def test_a_redirection_is_followed_and_a_circle_of_them_is_not(serve, tmp_path, monkeypatch):
    asked = asked_for(monkeypatch)
    good = serve()
    fetch(FIRST, [serve(location=f"{good.url}a.gz").url], tmp_path)
    assert asked[1] == f"{good.url}a.gz"
    assert stored(tmp_path) == {"a.gz": CONTENT["a.gz"]}
    with pytest.raises(DataUnavailableError, match="redirected more than 5 times"):
        fetch(ARCHIVES, [serve(location="/b.gz").url], tmp_path)
    assert len(asked) == 8


def asked_for(monkeypatch) -> list[str]:
    """The addresses that are really asked, one after the other."""
    asked, get = [], requests.get

    def noted(url, **settings):
        asked.append(url)
        return get(url, **settings)

    monkeypatch.setattr(requests, "get", noted)
    return asked


def test_a_link_in_the_place_of_a_part_is_not_written_through(serve, tmp_path):
    (tmp_path / "precious").write_bytes(b"kept")
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "a.gz.part").symlink_to(tmp_path / "precious")
    (folder / "a.gz").symlink_to(tmp_path / "precious")
    fetch(FIRST, [serve().url], folder)
    assert (tmp_path / "precious").read_bytes() == b"kept"
    assert (folder / "a.gz").read_bytes() == CONTENT["a.gz"]


def test_another_process_never_sees_half_a_file(serve, tmp_path):
    """The file appears under its own name by a rename, once its hash is right."""
    mirror, seen = serve(), []
    real = mirror.send

    def send(request, body, wanted):
        seen.append((tmp_path / "a.gz").exists())
        real(request, body, wanted)

    mirror.send = send
    mirror.cuts = [70_000, 70_000]
    fetch(FIRST, [mirror.url], tmp_path)
    assert seen == [False] * 3
    assert stored(tmp_path) == {"a.gz": CONTENT["a.gz"]}


def test_nothing_is_written_to_the_terminal(serve, tmp_path, capfd):
    mirror = serve(status=404)
    with pytest.raises(DataUnavailableError):
        fetch(FIRST, [mirror.url], tmp_path)
    fetch(FIRST, [serve().url], tmp_path)
    assert capfd.readouterr() == ("", "")


def test_a_password_in_a_mirrors_address_is_told_to_nobody(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "mnistlab.data"), pytest.raises(DataUnavailableError) as caught:
        fetch(FIRST, ["https://ann:pa55@127.0.0.1:9/"], tmp_path)
    for said in (str(caught.value), *caplog.messages):
        assert "https://***@127.0.0.1:9/" in said
        assert "pa55" not in said


@pytest.mark.simulated
def test_four_processes_at_once_fetch_each_file_once(serve, tmp_path):
    mirror = serve()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=fetch, args=(ARCHIVES, [mirror.url], tmp_path)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert sorted(mirror.seen) == [("a.gz", ""), ("b.gz", "")]
    assert stored(tmp_path) == CONTENT
