from collections.abc import Sequence
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Classification", "__version__"]

__version__: Final[str]

@final
class Classification:
    def __new__(cls, classes: int, topk: Sequence[int]) -> Classification: ...
    @staticmethod
    def from_state(
        classes: int,
        topk: Sequence[int],
        samples: int,
        confusion: Sequence[int],
        hits: Sequence[int],
        nll: Sequence[int],
        nll_squared: Sequence[int],
    ) -> Classification: ...
    def update(self, logits: NDArray[np.float32] | NDArray[np.float64], targets: NDArray[np.int64]) -> None: ...
    def merge(self, other: Classification) -> None: ...
    @property
    def classes(self) -> int: ...
    @property
    def topk(self) -> list[int]: ...
    @property
    def samples(self) -> int: ...
    def state(
        self,
    ) -> tuple[int, list[int], int, list[int], list[int], list[int], list[int]]: ...
    def totals(self) -> tuple[int, NDArray[np.int64], list[int], float, float]: ...
