"""Finding and reading the files of a data set, packed with gzip or not."""

from __future__ import annotations

import gzip
from fnmatch import fnmatchcase
from importlib.resources.abc import Traversable
from pathlib import Path

from schemas.errors import SourceError

Folder = Path | Traversable


def find_file(folder: Folder, pattern: str) -> Folder | None:
    """First file of `folder`, by name, that matches `pattern` (``*``) with or without ``.gz``."""
    found = find_files(folder, pattern)
    return found[0] if found else None


def find_files(folder: Folder, pattern: str) -> list[Folder]:
    """Files of `folder`, by name, that match `pattern` with or without ``.gz``."""
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder")
    files = (file for file in folder.iterdir() if file.is_file())
    return sorted(
        (file for file in files if fnmatchcase(file.name.removesuffix(".gz"), pattern)),
        key=lambda file: file.name,
    )


def read_unpacked(file: Folder) -> bytes:
    """Bytes of a file, unpacked if its name ends in ``.gz``.

    Raises
    ------
    SourceError
        It cannot be read.
    """
    try:
        content = file.read_bytes()
        return gzip.decompress(content) if file.name.endswith(".gz") else content
    except (OSError, EOFError) as error:
        raise SourceError(f"{file}: {error}") from error


def read_lines(file: Folder) -> list[str]:
    """Lines of a text file without their ends: UTF-8, or Latin-1 where it is not UTF-8."""
    content = read_unpacked(file)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    # Not splitlines: titles may hold characters that it takes for line ends.
    return text.removesuffix("\n").replace("\r\n", "\n").split("\n")
