"""The formats that `reelflow replay` knows, by name."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Final

from schemas.errors import ConfigurationError, SourceError

from .source import Source

FORMATS: Final = ("sample", "kuairand", "movielens", "movietweetings", "native")


def open_source(
    format: str,  # noqa: A002 - the word on the command line
    path: Path | None = None,
    *,
    history: bool = False,
    seed: int = 0,
    catalogue: Path | None = None,
    pass_invalid: bool = False,
) -> Source:
    """Source of a data set.

    Parameters
    ----------
    format : str
        One of FORMATS; ``sample`` is the part of KuaiRand that ships with reelflow.
    path : Path or None
        Folder of the data set (or, of a data set, one of its files); file of JSON lines for native.
        Not used by ``sample``.
    history, seed
        As in `kuairand.load_kuairand`; only for kuairand.
    catalogue, pass_invalid
        As in `native.NativeSource`; only for native.

    Raises
    ------
    ConfigurationError
        The format is unknown, or an option does not go with it.
    SourceError
        The data cannot be read.
    """
    if format not in FORMATS:
        raise ConfigurationError("format", f"must be one of {', '.join(FORMATS)}, not {format!r}")
    _check_option("history", history, format == "kuairand")
    _check_option("catalogue", catalogue is not None, format == "native")
    _check_option("pass_invalid", pass_invalid, format == "native")
    if format == "sample":
        from .kuairand import load_kuairand

        return load_kuairand(importlib.resources.files("streams").joinpath("sample"), name="sample")
    if path is None:
        raise ConfigurationError("input", f"format {format} needs the path of its data")
    if format == "native":
        from .native import NativeSource

        return NativeSource(path, catalogue=catalogue, pass_invalid=pass_invalid)
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder")
    folder = path if path.is_dir() else path.parent
    if format == "kuairand":
        from .kuairand import load_kuairand

        return load_kuairand(folder, history=history, seed=seed)
    from .ratings import load_movielens, load_movietweetings

    return load_movielens(folder) if format == "movielens" else load_movietweetings(folder)


def _check_option(name: str, given: bool, allowed: bool) -> None:
    if given and not allowed:
        raise ConfigurationError(name, "does not go with this format")
