"""Open a medium by path, ``file://``, fsspec or http(s), after checking that it may be read.

Runs in a decoder's process, which is killed when it takes too long. What is not on a local disk is copied
into a nameless temporary file first.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from schemas.errors import MediaError

from .http_fetch import fetch_http
from .limits import MediaLimits, SourceRules

CHUNK_BYTES = 1 << 18


def open_medium(reference: str, rules: SourceRules, limits: MediaLimits) -> tuple[BinaryIO, str]:
    """The open medium, seekable and at its start, and the name whose extension counts.

    Raises
    ------
    MediaError
        With one of the reasons of fetching.
    """
    scheme, mark, rest = reference.partition("://")
    if not mark:
        return _open_local(reference, rules, limits), reference
    scheme = scheme.lower()
    if scheme == "file":
        path = unquote(urlsplit(reference).path)
        return _open_local(path, rules, limits), path
    if scheme in {"http", "https"}:
        response = fetch_http(reference, rules, limits)
        return _stored(response, limits), urlsplit(reference).path
    if scheme not in rules.schemes or "::" in reference:
        raise MediaError("path_not_allowed", f"scheme {scheme!r}")
    return _open_object(reference, limits), rest


def _open_local(path: str, rules: SourceRules, limits: MediaLimits) -> BinaryIO:
    """A regular file below one of the folders; what is checked is what was opened."""
    try:
        # Of a pipe or device, opening would wait for its other end.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _refusal(error, path) from error
    try:
        _check_opened(handle, path, rules, limits)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _check_opened(handle: int, path: str, rules: SourceRules, limits: MediaLimits) -> None:
    found = os.fstat(handle)
    real = os.readlink(f"/proc/self/fd/{handle}")
    roots = [os.path.realpath(root) for root in rules.roots]
    if real.startswith("/") and not any(os.path.commonpath([real, root]) == root for root in roots):
        raise MediaError("path_not_allowed", path)
    if not stat.S_ISREG(found.st_mode):
        raise MediaError("unsupported", f"{path} is not a regular file")
    check_size(found.st_size, limits)


def _open_object(url: str, limits: MediaLimits) -> BinaryIO:
    """A copy of what fsspec finds at a URL."""
    from fsspec.core import url_to_fs

    try:
        filesystem, path = url_to_fs(url, use_listings_cache=False)
        with filesystem.open(path, "rb") as source:
            return _stored(iter(lambda: source.read(CHUNK_BYTES), b""), limits)
    except (ImportError, OSError, ValueError) as error:
        raise _refusal(error, url) from error


def _stored(chunks: Iterable[bytes], limits: MediaLimits) -> BinaryIO:
    """The chunks in a nameless file, at its start."""
    file = tempfile.TemporaryFile(prefix="reelflow-medium-")  # noqa: SIM115 - the caller closes it
    try:
        size = 0
        for chunk in chunks:
            size += len(chunk)
            check_size(size, limits)
            file.write(chunk)
        file.seek(0)
    except BaseException:
        with suppress(OSError):
            file.close()
        raise
    return file


def check_size(size: int, limits: MediaLimits) -> None:
    """Raise `MediaError` too_large for more bytes than allowed."""
    if size > limits.max_bytes:
        raise MediaError("too_large", f"{size} bytes, {limits.max_bytes} allowed")


def _refusal(error: Exception, what: str) -> MediaError:
    """The reason in an error of the system, of fsspec or of what it uses."""
    message = f"{what}: {error}"
    if isinstance(error, PermissionError):
        return MediaError("permission", message)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return MediaError("not_found", message)
    if isinstance(error, ImportError):
        return MediaError("unsupported", message)
    if isinstance(error, ConnectionError | TimeoutError):
        return MediaError("unreachable", message)
    if isinstance(error, OSError) and error.errno in {errno.ENAMETOOLONG, errno.ELOOP}:
        return MediaError("not_found", message)
    if isinstance(error, OSError) and error.errno == errno.ENXIO:  # a socket
        return MediaError("unsupported", message)
    return MediaError("unreadable", message)
