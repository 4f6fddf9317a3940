"""Words on covers: found and read by the small networks of PP-OCR, Chinese and English.

Runs within a decoder's job, whose limits of time, processor and memory hold for it too.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from .decoded import UInt8
from .extra import extra

SIDE: Final = 640
"""Pixels of the longest side at which covers are read; words of a cover are large."""

MOST_LINES: Final = 60
LEAST_SCORE: Final = 0.6
"""Of a line, mean over its signs: below it are drawings taken for signs."""

PREPARATION: Final = 1
"""Number of what is done here; a change that changes what is read raises it."""

_PARAMETERS: Final = {
    "Global.log_level": "critical",
    "Global.text_score": LEAST_SCORE,
    "Global.use_cls": False,  # lines that stand on their heads are rare, and cost a third network
    "Global.max_side_len": SIDE,
    "Det.limit_type": "max",  # by the shorter side a ribbon of a picture would be blown up
    "Det.limit_side_len": SIDE,
    "Det.max_candidates": MOST_LINES,
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
}


class CoverReader:
    """Reads lines of text in a picture; its networks come with the package, and nothing is fetched.

    Cost: 0.3 s of a core for a picture, 30 to 60 ms more a line; 170 MB.

    Raises
    ------
    ExtraError
        The packages of the extra ``ocr`` are not installed.

    References
    ----------
    Du et al. (2020), PP-OCR: A Practical Ultra Lightweight OCR System.
    """

    def __init__(self) -> None:
        with extra("ocr"):
            import cv2
            from rapidocr import RapidOCR
        cv2.setNumThreads(1)  # decoders fork
        self._engine = RapidOCR(params=dict(_PARAMETERS))
        # The first lines of a process are what loads the networks, and must not be those of a job.
        drawn = np.full((64, 160, 3), 255, dtype=np.uint8)
        cv2.putText(drawn, "reel", (20, 44), (0, 0, 0), cv2.FontFace("sans"), 32, 400)
        if not self.read(drawn):
            raise RuntimeError("the networks that read covers do not read")

    def read(self, pixels: UInt8) -> str:
        """Lines in uint8 (height, width, 3) RGB from top to bottom, by newlines; empty without any."""
        found = self._engine(np.ascontiguousarray(pixels[..., ::-1]))
        return "\n".join(line.strip() for line in found.txts or ())
