from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

class USE:
    def __init__(self, threads: int = 4, denoise: bool = False) -> None: ...
    def encode(self, texts: Sequence[str]) -> NDArray[Any]: ...
