"""The density score of older harm evaluators, for comparison only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flyball.errors import InputTypeError

if TYPE_CHECKING:
    from collections.abc import Iterable


def legacy_density(text: str, vocabulary: Iterable[str]) -> float:
    """Return the score of a word list as older evaluators compute it: `min(1, 10 k / n)`.

    `n` counts the words between white space and `k` the entries that stand anywhere in the lower-cased text, inside of
    other words too. So one entry flags any text of 14 words or fewer, `rob` is found in `problem`, and a long text is
    never flagged. It is here to measure a guard against, not to be used as one.

    Args:
        text: The text.
        vocabulary: The entries, in lower case; each counts once.

    Raises:
        InputTypeError: The text is not a `str`.
    """
    if not isinstance(text, str):
        raise InputTypeError(f"`text` is of type `{type(text).__name__}`, not `str`: pass a str")
    words = len(text.split())
    if words == 0:
        return 0.0
    lowered = text.lower()
    return min(10 * sum(entry in lowered for entry in set(vocabulary)) / words, 1.0)
