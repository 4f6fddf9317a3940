"""The one place that says which extra a missing package belongs to."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from schemas.errors import ExtraError


@contextmanager
def extra(name: str = "content") -> Iterator[None]:
    """Import packages of an extra inside; a missing one raises `ExtraError`, not `ImportError`.

    >>> from schemas.errors import ExtraError
    >>> try:
    ...     with extra():
    ...         import no_such_package
    ... except ExtraError as error:
    ...     print(error)
    no_such_package is not installed: pip install 'reelflow[content]'
    """
    try:
        with warnings.catch_warnings():  # jieba's sources have escapes that compile with a warning
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", SyntaxWarning)
            yield
    except ModuleNotFoundError as error:
        raise ExtraError(name, error.name or str(error)) from error
