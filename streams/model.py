"""The model of one worker: item names, learners, ranker, prequential board."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from learners.blend import Gate
from learners.drift import DriftMonitor
from learners.embeddings import Embeddings
from learners.evaluation import PrequentialBoard, rank_of
from learners.popularity import Popularity
from learners.tags import TagChain
from learners.transitions import FirstOrderMarkov, Transitions
from schemas.interning import Interner
from schemas.learner import Contexts, Interactions
from schemas.records import EVENT_TYPES, Item
from schemas.settings import LearnerSettings, RankerSettings
from serving.ranking import Ranker

from .catalogue import Catalogue

TOP = 10
MICRO_BATCH = 128
WATCH = EVENT_TYPES.index("watch")
EOF = None
