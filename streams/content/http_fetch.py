"""Fetch over http(s) from listed hosts only, with each name resolved once and its addresses checked.

1. The host must be on the list, with the default port of its scheme or a listed one; no user, no password.
2. The name is resolved. Every address it has must be public, or in a private network that is listed.
3. The connection goes to one of the addresses just checked: the name is not resolved again, so that it cannot
   lead elsewhere between check and use. TLS still verifies the certificate of the name.
4. A redirect starts at 1. The body ends at the limit of bytes; proxies of the environment are not asked.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from schemas.errors import MediaError
from schemas.media import MediaReason

from .limits import MediaLimits, SourceRules

CHUNK_BYTES: Final = 1 << 16
_PORTS: Final = {"http": 80, "https": 443}
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_STATUS: Final[dict[int, MediaReason]] = {
    401: "permission",
    403: "permission",
    404: "not_found",
    410: "not_found",
    451: "permission",
}
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def fetch_http(url: str, rules: SourceRules, limits: MediaLimits) -> Iterator[bytes]:
    """The body at a URL, chunk by chunk.

    Raises
    ------
    MediaError
        host_not_allowed, private_address, not_found, permission, unreachable, slow_server, too_large,
        truncated or unsupported.
    """
    deadline = time.monotonic() + limits.fetch_s
    for _ in range(rules.max_redirects + 1):
        parts = _split(url)
        host, port = check_host(parts, rules)
        addresses = public_addresses(host, port, rules)
        pinned = _Pinned(host, port, addresses, parts.scheme == "https", deadline)
        with closing(pinned) as connection, _ask(connection, parts) as response:
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                yield from _body(connection, response, limits)
                return
        url = _target(url, location)
    raise MediaError("unreachable", f"more than {rules.max_redirects} redirects")


def _target(url: str, location: str) -> str:
    """Where a redirect leads."""
    try:
        target = urljoin(url, location)
    except ValueError as error:
        raise MediaError("unsupported", f"a redirect to {location!r}") from error
    if url.lower().startswith("https:") and not target.lower().startswith("https:"):
        raise MediaError("host_not_allowed", "a redirect from https to another scheme")
    return target


def _split(url: str) -> SplitResult:
    if not url.isascii() or any(ord(sign) <= 32 or ord(sign) == 127 for sign in url):
        raise MediaError("unsupported", "a URL must be percent-encoded")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise MediaError("unsupported", str(error)) from error
    if parts.scheme not in _PORTS:
        raise MediaError("path_not_allowed", f"scheme {parts.scheme!r}")
    return parts


def check_host(parts: SplitResult, rules: SourceRules) -> tuple[str, int]:
    """Host and port of a URL, if they are on the list; `MediaError` host_not_allowed otherwise."""
    host = (parts.hostname or "").rstrip(".")
    default = _PORTS[parts.scheme]
    port = default if parts.port is None else parts.port
    if not host or "@" in parts.netloc:
        raise MediaError("host_not_allowed", "no host, or a user in the address")
    for entry in rules.hosts:
        name, colon, listed = entry.lower().rpartition(":")
        if not colon or not listed.isdecimal():
            name, listed = entry.lower(), ""
        if port != (int(listed) if listed else default):
            continue
        name = name.strip("[]")
        if host == name or (name.startswith("*.") and host.endswith(name[1:])):
            return host, port
    raise MediaError("host_not_allowed", f"{host}:{port}")


def public_addresses(host: str, port: int, rules: SourceRules) -> list[tuple[int, str]]:
    """Address families and addresses of a name, all of them checked.

    Raises
    ------
    MediaError
        private_address when one of them is neither public nor in a listed network; not_found.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise MediaError("not_found", f"{host}: {error}") from error
    addresses = [(int(family), str(address[0])) for family, _, _, _, address in found]
    networks = [ipaddress.ip_network(network) for network in rules.private_networks]
    for _, text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        if not is_public(text) and not any(address in network for network in networks):
            raise MediaError("private_address", f"{host} is at {text}")
    return list(dict.fromkeys(addresses))


def is_public(text: str) -> bool:
    """Whether an address, and the IPv4 address that it may carry inside, is of the public internet.

    >>> [is_public(text) for text in ("8.8.8.8", "10.1.2.3", "169.254.169.254", "::ffff:127.0.0.1", "::1")]
    [True, False, False, False, False]
    """
    address: Address = ipaddress.ip_address(text.partition("%")[0])
    carried: list[Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            carried = [address.ipv4_mapped]
        elif address in _NAT64:
            carried = [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
        else:
            carried += [address.sixtofour] if address.sixtofour is not None else []
            carried += address.teredo or ()
    return all(each.is_global and not each.is_multicast and not each.is_reserved for each in carried)


class _Pinned(HTTPConnection):
    """A connection to addresses that were checked, in the name of their host."""

    def __init__(
        self, host: str, port: int, addresses: list[tuple[int, str]], tls: bool, deadline: float
    ) -> None:
        super().__init__(host, port)
        self._addresses = addresses
        self._tls = tls
        self._deadline = deadline
        self._wire: socket.socket | None = None

    def connect(self) -> None:
        """See `HTTPConnection.connect`."""
        failure: OSError = OSError("no address")
        for family, address in self._addresses:
            found = socket.socket(family, socket.SOCK_STREAM)
            found.settimeout(_left(self._deadline))
            try:
                found.connect((address, self.port))
                if self._tls:
                    found = ssl.create_default_context().wrap_socket(found, server_hostname=self.host)
            except OSError as error:
                found.close()
                failure = error
                continue
            self.sock = self._wire = found
            return
        raise failure

    def hurry(self) -> None:
        """Let the next read take no longer than what is left; raises `TimeoutError` when nothing is."""
        left = _left(self._deadline)
        if self._wire is not None:  # `sock` is None as soon as the response owns the socket
            self._wire.settimeout(left)


def _left(deadline: float) -> float:
    """Seconds that are left; raises `TimeoutError` when none are."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _ask(connection: _Pinned, parts: SplitResult) -> HTTPResponse:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"Accept-Encoding": "identity", "User-Agent": "reelflow", "Connection": "close"}
    try:
        connection.request("GET", target, headers=headers)
        connection.hurry()
        return connection.getresponse()
    except TimeoutError as error:
        raise MediaError("slow_server", f"{connection.host} does not answer") from error
    except (OSError, HTTPException, ValueError) as error:
        raise MediaError("unreachable", f"{connection.host}: {error}") from error


def _body(connection: _Pinned, response: HTTPResponse, limits: MediaLimits) -> Iterator[bytes]:
    if response.status != 200:
        reason = _STATUS.get(response.status, "unreachable" if response.status >= 429 else "not_found")
        raise MediaError(reason, f"{connection.host} answers {response.status}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise MediaError("unsupported", "the server packs the body, which was not asked for")
    length = response.length
    if length is not None and length > limits.max_bytes:
        raise MediaError("too_large", f"{length} bytes, {limits.max_bytes} allowed")
    received = 0
    try:
        while chunk := _receive(connection, response):
            received += len(chunk)
            yield chunk
    except TimeoutError as error:
        raise MediaError("slow_server", f"{received} bytes of {length} in {limits.fetch_s:g} s") from error
    except (OSError, HTTPException) as error:
        raise MediaError("truncated", f"{received} bytes, then {error!r}") from error
    if length is not None and received < length:
        raise MediaError("truncated", f"{received} bytes of {length}")


def _receive(connection: _Pinned, response: HTTPResponse) -> bytes:
    connection.hurry()
    return response.read1(CHUNK_BYTES)
