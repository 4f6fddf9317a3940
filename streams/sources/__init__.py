"""Where events come from: data sets in several formats, a native log, a simulated platform."""

from .formats import FORMATS, open_source
from .pacing import Pacing
from .producer import ReplayProgress, ReplayReport, replay
from .selection import select
from .source import Record, Source

__all__ = [
    "FORMATS",
    "Pacing",
    "Record",
    "ReplayProgress",
    "ReplayReport",
    "Source",
    "open_source",
    "replay",
    "select",
]
