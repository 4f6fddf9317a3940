from typing import Any

from numpy.typing import NDArray

class FontFace:
    def __init__(self, fontPathOrName: str) -> None: ...

def setNumThreads(nthreads: int) -> None: ...
def putText(
    img: NDArray[Any],
    text: str,
    org: tuple[int, int],
    color: tuple[int, int, int],
    fface: FontFace,
    size: int,
    weight: int,
) -> Any: ...
