"""The 1,797 handwritten digits that scikit-learn carries: real data without a download."""

from __future__ import annotations

import numpy as np

from flyball.data.splits import Splits, stratified
from flyball.errors import MissingExtraError


def digits(*, validation: float = 0.2, test: float = 0.2, seed: int = 0) -> Splits:
    """Load 1,797 images of handwritten digits, 8 by 8 pixels, cut into train, validation and test.

    Inputs are float32 in [0, 1] with shape (samples, 1, 8, 8), targets the digits as int64.

    Args:
        validation: The share of the images for validation.
        test: The share of the images for the test.
        seed: Decides which image goes where.

    Raises:
        MissingExtraError: Scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("scikit-learn", extra="data", purpose="the digits data set") from error
    loaded = load_digits()
    images = np.ascontiguousarray(loaded.images[:, None] / 16.0, dtype=np.float32)
    return stratified(images, loaded.target.astype(np.int64), validation=validation, test=test, seed=seed)
