"""Which device the tensors live on."""

from __future__ import annotations

import torch

from schemas.errors import ConfigurationError


def resolve_device(name: str) -> torch.device:
    """Device for the setting ``learner.device``.

    Parameters
    ----------
    name : str
        ``auto`` (a GPU where there is one, else the CPU), ``cpu``, ``cuda`` or ``cuda:<index>``.

    Raises
    ------
    ConfigurationError
        The name is unknown, or a GPU is asked for that is not there.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in {"cpu", "cuda"}:
        raise ConfigurationError("learner.device", f"{name!r} is not one of auto, cpu, cuda, cuda:<index>")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigurationError(
                "learner.device", f"{name!r} is asked for, but this machine or this torch build has no GPU"
            )
        index = device.index or 0
        if index >= torch.cuda.device_count():
            raise ConfigurationError(
                "learner.device", f"{name!r} is asked for, but there are {torch.cuda.device_count()} GPUs"
            )
        return torch.device("cuda", index)
    return torch.device("cpu")


def device_name(device: str) -> str:
    """What sums are taken on, by the name of a device as `torch.device` prints it.

    Two GPUs of one name are taken to give the same bits; a GPU and a CPU agree to rounding.

    >>> device_name("cpu")
    'cpu'
    """
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
