from typing import Any

from numpy.typing import NDArray

class ResampleStream:
    def __init__(
        self, in_rate: float, out_rate: float, num_channels: int, dtype: str = "float32", quality: str = "HQ"
    ) -> None: ...
    def resample_chunk(self, x: NDArray[Any], last: bool = False) -> NDArray[Any]: ...
