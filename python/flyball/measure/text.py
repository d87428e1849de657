"""The meter of a language model: loss per token, perplexity and bits per byte."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from flyball import _native
from flyball.errors import InputError
from flyball.measure.estimate import mean, wilson
from flyball.measure.inputs import choice, floats, indices, number
from flyball.measure.meter import Meter, check_alike, check_keys
from flyball.measure.result import aligned, mapped, plain, shown, within

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flyball.measure.estimate import Estimate
    from flyball.measure.inputs import Array

CLAMP = 20.0
"""The loss from which on a perplexity is infinite: half a billion equally likely tokens say nothing more."""

_STATE_VERSION = 1
_STATE_PARTS = frozenset(("bytes", "counts", "nll", "nll_squared", "vocabulary"))


def perplexity(loss: float, clamp: float = CLAMP) -> float:
    """Return exp(loss), infinity from `clamp` on, and NaN for NaN."""
    if math.isnan(loss):
        return math.nan
    return math.exp(loss) if loss < clamp else math.inf


class Text(Meter):
    """Measure a language model batch by batch; every token weighs the same, whatever the batch it came in.

    ```python
    meter = Text(vocabulary=50_257)
    for tokens in loader:
        meter.update(model(tokens[:, :-1]).detach().flatten(0, 1), tokens[:, 1:].flatten())
    print(meter.compute())
    ```

    Args:
        vocabulary: The number of tokens, at least 2.
        ignore_index: The target of rows that are counted and not looked at, as padding is; None for none.
        nonfinite: What to do with a row that holds NaN or an infinity: "raise" refuses its batch, "count" leaves the
            row out and counts it.

    Raises:
        InputError: One of these cannot be measured.
    """

    __slots__ = ("__weakref__", "_bytes", "_ignored", "_native", "_nonfinite")

    def __init__(
        self,
        vocabulary: int,
        ignore_index: int | None = -100,
        *,
        nonfinite: Literal["raise", "count"] = "raise",
    ) -> None:
        self._nonfinite = choice(nonfinite, "nonfinite", ("raise", "count"))
        if ignore_index is not None and (isinstance(ignore_index, bool) or not isinstance(ignore_index, int)):
            raise InputError(f"`ignore_index` is {ignore_index!r}: pass a whole number or None")
        self._ignored = ignore_index
        self._native = _native.Text(number(vocabulary, "vocabulary"))
        self._bytes = 0

    @property
    def vocabulary(self) -> int:
        """The number of tokens of the vocabulary."""
        return self._native.vocabulary

    @property
    def tokens(self) -> int:
        """The number of tokens measured so far."""
        return self._native.counts()[0]

    def update(self, logits: Array, targets: Array, *, size: int = 0) -> None:
        """Add a batch; all of it counts or, if it is refused, nothing.

        Args:
            logits: Unnormalized scores, a row for each position and a column for each token of the vocabulary.
            targets: The token that came at each position; integers.
            size: How many bytes of text these tokens stand for, for bits per byte.

        Raises:
            InputError: An array has the wrong type, shape, place or values.
        """
        bytes_more = number(size, "size")
        rows, half = floats(logits, "logits", 2, "pass a row for each position; `.flatten(0, 1)` joins batch and time")
        wanted = indices(targets, "targets", "pass one token for each row of `logits`; `.flatten()` joins")
        if rows.shape[1] != self.vocabulary:
            raise InputError(f"`logits` has {rows.shape[1]} columns, but the vocabulary {self.vocabulary} tokens")
        self._native.update(rows, wanted, half, self._ignored, self._nonfinite == "count")
        self._bytes += bytes_more

    def merge(self, other: Text) -> None:
        """Add everything that another meter, made with the same arguments, has seen.

        Raises:
            InputError: `other` measures something else.
        """
        if not isinstance(other, Text):
            raise InputError(f"`other` is a {type(other).__name__}: only a `Text` can be merged")
        self._native.merge(other._native)
        self._bytes += other._bytes

    def compute(self, confidence: float = 0.95) -> TextResult:
        """Return every number so far; the meter can go on.

        Raises:
            InputError: Nothing was measured yet, or `confidence` is not between 0 and 1.
        """
        tokens, ignored, left_out, hits = self._native.counts()
        if tokens == 0:
            raise InputError(
                f"the meter has seen 0 tokens ({ignored} ignored, {left_out} left out), which have no loss: call "
                "`update` first, and look whether the loader is empty or every target is ignored"
            )
        loss = within(mean(*self._native.losses(), tokens, confidence), 0.0, math.inf)
        rate = tokens / math.log(2.0) / self._bytes if self._bytes else 0.0
        return TextResult(
            tokens=tokens,
            ignored=ignored,
            left_out=left_out,
            bytes=self._bytes,
            confidence=confidence,
            loss=loss,
            perplexity=mapped(loss, perplexity),
            bits_per_byte=mapped(loss, lambda nats: nats * rate) if rate else None,
            accuracy=wilson(hits, tokens, confidence),
            uniform_loss=math.log(self.vocabulary),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state as ints and lists of ints, which every file format holds exactly."""
        nll, nll_squared = self._native.chunks()
        return {
            "version": _STATE_VERSION,
            "vocabulary": self.vocabulary,
            "bytes": self._bytes,
            "counts": list(self._native.counts()),
            "nll": nll,
            "nll_squared": nll_squared,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the state by one that `state_dict` of a meter made alike returned.

        Raises:
            InputError: The state is damaged or of another kind of meter; this meter is unchanged.
        """
        check_keys(state, _STATE_PARTS, _STATE_VERSION)
        try:
            loaded = _native.Text.from_state(state["vocabulary"], state["counts"], state["nll"], state["nll_squared"])
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"`state` is damaged ({error}): pass what `state_dict` returned") from error
        check_alike(vocabulary=(self.vocabulary, loaded.vocabulary))
        self._bytes = number(state["bytes"], "bytes")
        self._native = loaded

    def __getstate__(self) -> dict[str, Any]:
        return {
            "arguments": (self.vocabulary, self._ignored), "nonfinite": self._nonfinite, "state": self.state_dict()
        }  # fmt: skip

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(*state["arguments"], nonfinite=state["nonfinite"])  # type: ignore[misc]
        self.load_state_dict(state["state"])

    def __repr__(self) -> str:
        return f"Text(vocabulary={self.vocabulary}, ignore_index={self._ignored}, tokens={self.tokens})"


@dataclass(frozen=True, slots=True)
class TextResult:
    """How well a language model predicts, how sure that is, and what guessing evenly would reach.

    The intervals take tokens for independent, which neighbours in a text are not: they are too narrow.

    Attributes:
        tokens: The tokens that were measured.
        ignored: The rows whose target was to be ignored.
        left_out: The rows that held NaN or an infinity.
        bytes: The bytes of text that the tokens stand for, as far as `update` was told.
        confidence: The share of intervals that would hold the truth if tokens were independent.
        loss: The mean negative log-likelihood of a token, in nats; central limit theorem.
        perplexity: exp(loss), infinite from a loss of 20 on; the ends are those of the loss.
        bits_per_byte: The sum of the losses in bits over the bytes; None without bytes.
        accuracy: The share of tokens that had the largest logit; Wilson's interval.
        uniform_loss: The rival of `loss`: ln of the vocabulary.
    """

    tokens: int
    ignored: int
    left_out: int
    bytes: int
    confidence: float
    loss: Estimate
    perplexity: Estimate
    bits_per_byte: Estimate | None
    accuracy: Estimate
    uniform_loss: float

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data that `json.dumps` takes."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}

    def __str__(self) -> str:
        title = (
            f"{self.tokens} tokens, {self.ignored} ignored, {self.left_out} left out, {self.confidence:.4g} confidence"
        )
        rows = [
            ("loss", shown(self.loss), f"all tokens alike: {self.uniform_loss:.4f}"),
            ("perplexity", shown(self.perplexity), ""),
            ("bits per byte", shown(self.bits_per_byte), "" if self.bits_per_byte else "no bytes were told"),
            ("accuracy", shown(self.accuracy), ""),
        ]
        return "\n".join([title, "", *aligned(rows, "<<<")])
