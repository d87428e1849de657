"""One seeded way to cut data into train, validation and test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch.utils.data import Dataset

    # A `DataLoader` needs no base class when it runs; only a type checker asks for one.
    _MapStyle = Dataset[tuple[NDArray[Any], NDArray[np.int64]]]
else:
    _MapStyle = object


@dataclass(frozen=True, eq=False)
class Split(_MapStyle):
    """One part of the data: `inputs[i]` belongs to `targets[i]`.

    Args:
        name: What the part is for: "train", "validation" or "test".
        inputs: The samples, first axis.
        targets: What to predict for each.
    """

    name: str
    inputs: NDArray[Any]
    targets: NDArray[np.int64]

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise InputError(
                f"`{self.name}` has {len(self.inputs)} inputs and {len(self.targets)} targets: "
                "give one target for each input"
            )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return one sample and its target, as a `DataLoader` asks for them."""
        return self.inputs[index], self.targets[index]


@dataclass(frozen=True, eq=False)
class Splits:
    """Data cut in three. Choose on `validation`; read `test` once.

    Iterates over the three parts, so ``train, validation, test = digits()`` works.
    """

    train: Split
    validation: Split
    test: Split

    def __iter__(self) -> Iterator[Split]:
        return iter((self.train, self.validation, self.test))


def stratified(
    inputs: NDArray[Any],
    labels: NDArray[np.int64],
    *,
    targets: NDArray[np.int64] | None = None,
    validation: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
) -> Splits:
    """Cut data into train, validation and test with the classes in the same proportions.

    The same seed gives the same cut on every machine; nothing is drawn from a global generator.
    Every class needs at least three samples and gives at least one to every part.

    Args:
        inputs: The samples, first axis.
        labels: The class of each sample, by which the parts are balanced.
        targets: What to predict for each sample; by default its class.
        validation: The share of the samples for validation.
        test: The share of the samples for the test.
        seed: Decides which sample goes where.

    Raises:
        InputError: A share leaves a part empty, a class is too small, or the lengths differ.
    """
    targets = labels if targets is None else targets
    if not (len(inputs) == len(labels) == len(targets)):
        raise InputError(
            f"`inputs`, `labels` and `targets` have lengths {len(inputs)}, {len(labels)} and "
            f"{len(targets)}: give one label and one target for each input"
        )
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise InputError(
            f"`validation` is {validation} and `test` is {test}: both must be above 0, and together below 1"
        )
    # Sorting raw 64-bit draws is a shuffle. The raw stream of a bit generator never changes between versions of
    # NumPy; that of `Generator.permutation` may.
    raw = np.random.PCG64(seed).random_raw
    parts: tuple[list[NDArray[np.int64]], ...] = ([], [], [])
    for label in np.unique(labels):
        members = _shuffled(np.flatnonzero(labels == label), raw)
        if len(members) < 3:
            raise InputError(
                f"class {label} has {len(members)} samples: it needs at least 3, "
                "one for each of train, validation and test"
            )
        # Rounded, but never to nothing: a class that is absent from a part cannot be measured there.
        n_test = min(max(1, round(test * len(members))), len(members) - 2)
        n_validation = min(max(1, round(validation * len(members))), len(members) - 1 - n_test)
        cuts = [len(members) - n_test - n_validation, len(members) - n_test]
        for part, chosen in zip(parts, np.split(members, cuts), strict=True):
            part.append(chosen)
    if not parts[0]:
        raise InputError("`inputs` has no samples: there is nothing to cut")
    return Splits(
        *(
            Split(name, inputs[order], targets[order])
            for name, part in zip(("train", "validation", "test"), parts, strict=True)
            for order in [_shuffled(np.concatenate(part), raw)]
        )
    )


def held_out(
    train: tuple[NDArray[Any], NDArray[np.int64]],
    test: tuple[NDArray[Any], NDArray[np.int64]],
    *,
    validation: float = 0.1,
    seed: int = 0,
) -> Splits:
    """Cut a validation part out of data that come with a test set of their own.

    The same seed gives the same cut on every machine; classes keep their proportions. The test set is not touched.

    Args:
        train: Inputs and labels to cut.
        test: Inputs and labels of the test set.
        validation: The share of `train` for validation.
        seed: Decides which sample goes where.

    Raises:
        InputError: The share leaves a part without a sample of a class.
    """
    inputs, labels = train
    if not 0 < validation < 1:
        raise InputError(f"`validation` is {validation}: it must be above 0 and below 1")
    raw = np.random.PCG64(seed).random_raw
    kept: list[NDArray[np.int64]] = []
    chosen: list[NDArray[np.int64]] = []
    for label in np.unique(labels):
        members = _shuffled(np.flatnonzero(labels == label), raw)
        if len(members) < 2:
            raise InputError(
                f"class {label} has {len(members)} sample: it needs 2, one to train on and one to validate"
            )
        count = min(max(1, round(validation * len(members))), len(members) - 1)
        chosen.append(members[:count])
        kept.append(members[count:])
    if not kept:
        raise InputError("`train` has no samples: there is nothing to cut")
    rest, out = (_shuffled(np.concatenate(part), raw) for part in (kept, chosen))
    return Splits(
        Split("train", inputs[rest], labels[rest]),
        Split("validation", inputs[out], labels[out]),
        Split("test", *test),
    )


def _shuffled(indices: NDArray[np.int64], raw: Callable[[int], NDArray[np.uint64]]) -> NDArray[np.int64]:
    return indices[np.argsort(raw(len(indices)), kind="stable")]
