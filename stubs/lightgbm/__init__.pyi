from typing import Any

import numpy as np
from numpy.typing import NDArray

class Dataset:
    def __init__(self, data: NDArray[Any], label: NDArray[Any], *, free_raw_data: bool = ...) -> None: ...

class Booster:
    def predict(self, data: NDArray[Any], *, num_threads: int = ...) -> NDArray[np.float64]: ...

def train(params: dict[str, Any], train_set: Dataset, num_boost_round: int = ...) -> Booster: ...
