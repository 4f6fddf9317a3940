import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

class _Model:
    item_factors: NDArray[np.float32]
    user_factors: NDArray[np.float32]
    def fit(self, user_items: csr_matrix, show_progress: bool = ...) -> None: ...

def AlternatingLeastSquares(
    *,
    factors: int = ...,
    regularization: float = ...,
    alpha: float = ...,
    iterations: int = ...,
    random_state: int | None = ...,
    use_gpu: bool = ...,
    num_threads: int = ...,
) -> _Model: ...
