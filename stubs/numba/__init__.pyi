from collections.abc import Callable
from typing import Any, TypeVar, overload

_F = TypeVar("_F", bound=Callable[..., Any])

__version__: str

@overload
def njit(function: _F, /) -> _F: ...
@overload
def njit(
    *,
    nogil: bool = ...,
    cache: bool = ...,
    fastmath: bool | set[str] = ...,
    inline: str = ...,
    forceinline: bool = ...,
    parallel: bool = ...,
    boundscheck: bool | None = ...,
    _nrt: bool = ...,
) -> Callable[[_F], _F]: ...
def prange(*args: int) -> range: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
