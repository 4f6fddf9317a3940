import numpy as np
from numpy.typing import NDArray

class csr_matrix:
    data: NDArray[np.float32]
    @property
    def T(self) -> csr_matrix: ...
    def __init__(
        self,
        arg: tuple[NDArray[np.float32], tuple[NDArray[np.int32], NDArray[np.int32]]],
        shape: tuple[int, int],
    ) -> None: ...
    def __matmul__(self, other: csr_matrix) -> csr_matrix: ...
    def toarray(self) -> NDArray[np.float32]: ...
