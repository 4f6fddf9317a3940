"""Media over http: the list of hosts, private addresses, redirects, sizes, slowness; all on a real server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.errors import MediaError
from schemas.media import MediaModality, MediaReason
from streams.content.decoded import Picture
from streams.content.http_fetch import fetch_http, is_public
from streams.content.limits import Form, MediaLimits, SourceRules
from streams.content.pool import MediaPool

from .. import media_files as make

LIMITS = MediaLimits(max_bytes=100_000, fetch_s=20.0)
LOOPBACK = ("127.0.0.1/32",)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.headers["Host"] + self.path)
        path, _, rest = self.path[1:].partition("/")
        getattr(self, f"answer_{path.partition('.')[0]}")(rest)

    def begin(self, status: int, **headers: Any) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def answer_good(self, _: str) -> None:
        self.begin(200, Content_Length=len(self.server.picture))
        self.wfile.write(self.server.picture)

    def answer_undeclared(self, _: str) -> None:
        self.begin(200)
        self.wfile.write(self.server.picture)

    def answer_short(self, _: str) -> None:
        self.begin(200, Content_Length=len(self.server.picture) + 1)
        self.wfile.write(self.server.picture)

    def answer_huge(self, _: str) -> None:
        self.begin(200, Content_Length=1 << 40)

    def answer_endless(self, _: str) -> None:
        self.begin(200)
        while not self.server.over.is_set():
            try:
                self.wfile.write(bytes(1 << 16))
            except OSError:
                return

    def answer_packed(self, _: str) -> None:
        body = make.gzipped(1 << 20)
        self.begin(200, Content_Length=len(body), Content_Encoding="gzip")
        self.wfile.write(body)

    def answer_dribble(self, _: str) -> None:
        self.begin(200, Content_Length=50_000)
        while not self.server.over.wait(0.02):
            try:
                self.wfile.write(b"x")
                self.wfile.flush()
            except OSError:
                return

    def answer_headers(self, _: str) -> None:
        """Headers that never end, a byte at a time."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-A: ")
        while not self.server.over.wait(0.02):
            try:
                self.wfile.write(b"x")
            except OSError:
                return

    def answer_status(self, status: str) -> None:
        self.begin(int(status.partition(".")[0]), Content_Length=0)

    def answer_to(self, location: str) -> None:
        self.begin(302, Location=location, Content_Length=0)

    def answer_loop(self, _: str) -> None:
        self.begin(301, Location="/loop", Content_Length=0)

    def log_message(self, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, picture: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.picture = picture
        self.over = threading.Event()
        self.asked: list[str] = []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(make.picture(tmp_path / "a.png")) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.over.set()
        running.shutdown()
        thread.join()


def rules(server: Server, **changes: Any) -> SourceRules:
    port = server.server_port
    hosts = (f"127.0.0.1:{port}", f"127.0.0.2:{port}", f"media.test:{port}")
    return SourceRules(hosts=hosts, private_networks=LOOPBACK, **changes)


def fetched(server: Server, path: str, limits: MediaLimits = LIMITS, host: str = "127.0.0.1") -> bytes:
    return b"".join(fetch_http(f"http://{host}:{server.server_port}/{path}", rules(server), limits))


def reason(server: Server, path: str, **limits: Any) -> MediaReason:
    with pytest.raises(MediaError) as raised:
        fetched(server, path, msgspec.structs.replace(LIMITS, **limits))
    return raised.value.reason


@pytest.mark.parametrize("path", ["good", "undeclared", "to//good", "to//to//good"])
def test_what_is_good(server: Server, path: str) -> None:
    assert fetched(server, path) == server.picture


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("short", "truncated"),
        ("huge", "too_large"),
        ("packed", "unsupported"),
        ("loop", "unreachable"),
        ("status/404", "not_found"),
        ("status/410", "not_found"),
        ("status/403", "permission"),
        ("status/401", "permission"),
        ("status/500", "unreachable"),
        ("status/429", "unreachable"),
        ("status/204", "not_found"),
        ("to/http://other.test/a.png", "host_not_allowed"),
        ("to/http://user@127.0.0.1/a.png", "host_not_allowed"),
        ("to/file:///etc/passwd", "path_not_allowed"),
        ("to/ftp://127.0.0.1/a.png", "path_not_allowed"),
        ("to/http://[/a.png", "unsupported"),
    ],
)
def test_what_is_not(server: Server, path: str, expected: MediaReason) -> None:
    assert reason(server, path) == expected


def test_a_redirect_to_a_private_address(server: Server) -> None:
    # Only 127.0.0.1 is in the listed network; 127.0.0.2 is a listed host, and private.
    assert reason(server, f"to/http://127.0.0.2:{server.server_port}/good") == "private_address"
    assert len(server.asked) == 1


def test_a_slow_server(server: Server) -> None:
    start = time.monotonic()
    assert reason(server, "dribble", fetch_s=0.3) == "slow_server"
    assert time.monotonic() - start < 5.0


def test_hosts() -> None:
    listed = SourceRules(hosts=("cdn.test", "alt.test:8080", "*.wild.test"), private_networks=())
    for url in (
        "http://other.test/",
        "http://cdn.test.evil.test/",
        "http://xcdn.test/",
        "http://cdn.test:8080/",
        "http://alt.test/",
        "http://wild.test/",
        "http://user:word@cdn.test/",
        "http://cdn.test@evil.test/",
        "http:///path",
        "http://0x7f.1/",
        "http://2130706433/",
    ):
        with pytest.raises(MediaError) as raised:
            next(fetch_http(url, listed, LIMITS))
        assert raised.value.reason == "host_not_allowed", url
    with pytest.raises(MediaError) as raised:
        next(fetch_http("http://nothing-of-that-name.wild.test/", listed, LIMITS))
    assert raised.value.reason == "not_found"


def test_private_addresses_are_not_asked(server: Server) -> None:
    for host in ("127.0.0.1", "localhost"):
        closed = SourceRules(hosts=(f"{host}:{server.server_port}",))
        with pytest.raises(MediaError) as raised:
            next(fetch_http(f"http://{host}:{server.server_port}/good", closed, LIMITS))
        assert raised.value.reason == "private_address"
    assert server.asked == []


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.8.8.8",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:0a00:1::1",
    ],
)
def test_special_addresses(address: str) -> None:
    assert not is_public(address)


def test_public_addresses() -> None:
    assert all(map(is_public, ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")))


def test_a_name_cannot_change_between_check_and_use(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [["127.0.0.1"], ["127.0.0.2"], ["127.0.0.1", "127.0.0.2"]]

    def lookup(host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        assert host == "media.test"
        kind = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
        return [(*kind, (address, port)) for address in answers.pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    assert fetched(server, "good", host="media.test") == server.picture
    assert server.asked == [f"media.test:{server.server_port}/good"]
    for _ in range(2):  # at a private address; at a public one and a private one
        with pytest.raises(MediaError) as raised:
            fetched(server, "good", host="media.test")
        assert raised.value.reason == "private_address"


def test_through_the_pool(server: Server) -> None:
    base = f"http://127.0.0.1:{server.server_port}"
    with MediaPool(rules(server), LIMITS, Form(side=16), workers=1) as pool:
        assert isinstance(pool.read(f"{base}/good.png", "image"), Picture)
        refusals: list[tuple[str, MediaModality, float, MediaReason]] = [
            ("good.jpg", "image", 20.0, "wrong_type"),
            ("endless.png", "image", 20.0, "too_large"),
            ("dribble.png", "image", 0.3, "slow_server"),
            ("headers.png", "image", 0.3, "slow_server"),
            ("status/404.png", "image", 20.0, "not_found"),
        ]
        for path, modality, fetch_s, expected in refusals:
            pool.limits = msgspec.structs.replace(LIMITS, fetch_s=fetch_s)
            with pytest.raises(MediaError) as raised:
                pool.read(f"{base}/{path}", modality)
            assert raised.value.reason == expected, path
            assert raised.value.retriable == (expected == "slow_server")
