from enum import Enum
from typing import Any

class QuantFormat(Enum):
    QDQ = 1

class QuantType(Enum):
    QUInt8 = 1

class CalibrationDataReader:
    def get_next(self) -> dict[str, Any] | None: ...

def quantize_static(
    model_input: str,
    model_output: str,
    calibration_data_reader: CalibrationDataReader,
    *,
    quant_format: QuantFormat,
    activation_type: QuantType,
    per_channel: bool,
) -> None: ...
