"""Where the networks of encoders run, and in which numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from msgspec import Struct

from learners.device import resolve_device
from schemas.content_settings import ContentSettings, Precision
from schemas.errors import ConfigurationError

_DTYPES: Final[dict[Precision, torch.dtype]] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class Placement(Struct, frozen=True):
    """Device and numbers of a network of torch; an ONNX file brings its own numbers.

    Vectors are float32 whatever they were computed in. Other numbers are another version of a model; another
    device is not, as it changes no more than the order of sums.

    Parameters
    ----------
    device : torch.device
    precision : str
    """

    device: torch.device = torch.device("cpu")
    precision: Precision = "float32"

    @property
    def suffix(self) -> str:
        """What a model's version ends with; nothing for float32."""
        return "" if self.precision == "float32" else f"-{self.precision}"

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def moved(self, model: Any) -> Any:
        """A torch module there, in these numbers, for use and not for learning."""
        return model.to(device=self.device, dtype=_DTYPES[self.precision]).eval()

    def inputs(self, named: Mapping[str, Any]) -> dict[str, Any]:
        """Tensors there; those of floating point in these numbers, those of indices as they are."""
        dtype = _DTYPES[self.precision]
        return {
            name: value.to(self.device, dtype if value.is_floating_point() else value.dtype)
            for name, value in named.items()
        }


def placement_of(settings: ContentSettings) -> Placement:
    """As the settings have it.

    Raises
    ------
    ConfigurationError
        A GPU is asked for that is not there.
    """
    try:
        device = resolve_device(settings.device)
    except ConfigurationError as error:  # names the learner's setting
        raise ConfigurationError("content.device", str(error).partition(": ")[2]) from error
    return Placement(device, settings.precision)
