from typing import Any

from numpy.typing import NDArray

class RapidOCROutput:
    txts: tuple[str, ...] | None

class RapidOCR:
    def __init__(self, config_path: str | None = None, params: dict[str, Any] | None = None) -> None: ...
    def __call__(self, img_content: NDArray[Any]) -> RapidOCROutput: ...
