from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Final, Literal, Self, TypeAlias, TypedDict, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from flyball.scan.report import Finding, PackName, Severity
from flyball.scan.rules.lint import Problem

__all__ = [
    "FINDINGS",
    "UNICODE_VERSION",
    "Classification",
    "Detector",
    "ExactSum",
    "MultiLabel",
    "Norm",
    "Pack",
    "Ranking",
    "Report",
    "Scanner",
    "Text",
    "__version__",
    "resample_means",
    "resample_selective",
    "scan_words",
    "snapshot_gather",
    "snapshot_inspect",
    "snapshot_scatter",
]

FINDINGS: Final[int]
UNICODE_VERSION: Final[str]
__version__: Final[str]

# Count, hits and sum of confidences of each bin.
_Bins: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]

class _Totals(TypedDict):
    samples: int
    left_out: int
    confusion: NDArray[np.int64]
    hits: list[int]
    nll: tuple[float, float]
    brier: tuple[float, float]
    top_label: tuple[float, float]
    bins: _Bins
    groups: _Bins

@final
class Classification:
    def __new__(cls, classes: int, topk: Sequence[int], bins: int) -> Classification: ...
    @staticmethod
    def from_state(state: dict[str, Any]) -> Classification: ...
    def update(
        self,
        logits: NDArray[Any],
        targets: NDArray[np.int64],
        half: str | None,
        leave_out: bool,
    ) -> None: ...
    def update_outcomes(self, classes: NDArray[np.int64], scores: NDArray[np.float64], left_out: int) -> None: ...
    def merge(self, other: Classification) -> None: ...
    @property
    def classes(self) -> int: ...
    @property
    def topk(self) -> list[int]: ...
    @property
    def bins(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def left_out(self) -> int: ...
    def state(self) -> dict[str, Any]: ...
    def totals(self) -> _Totals: ...

@final
class MultiLabel:
    def __new__(cls, labels: int, threshold: float) -> MultiLabel: ...
    @staticmethod
    def from_state(labels: int, threshold: float, state: Sequence[int]) -> MultiLabel: ...
    def update(self, logits: NDArray[Any], targets: NDArray[Any], half: str | None, leave_out: bool) -> None: ...
    def merge(self, other: MultiLabel) -> None: ...
    @property
    def labels(self) -> int: ...
    @property
    def threshold(self) -> float: ...
    @property
    def samples(self) -> int: ...
    @property
    def left_out(self) -> int: ...
    def state(self) -> list[int]: ...
    def counts(self) -> list[tuple[int, int, int]]: ...
    def rows(self) -> tuple[int, int, list[int], list[float]]: ...

@final
class ExactSum:
    def __new__(cls) -> ExactSum: ...
    @staticmethod
    def from_chunks(chunks: Sequence[int]) -> ExactSum: ...
    def add(self, values: NDArray[np.float64]) -> None: ...
    def add_products(self, left: NDArray[np.float64], right: NDArray[np.float64]) -> None: ...
    def merge(self, other: ExactSum) -> None: ...
    @property
    def value(self) -> float: ...
    def chunks(self) -> list[int]: ...

@final
class Text:
    def __new__(cls, vocabulary: int) -> Text: ...
    @staticmethod
    def from_state(vocabulary: int, counts: Sequence[int], nll: Sequence[int], nll_squared: Sequence[int]) -> Text: ...
    def update(
        self,
        logits: NDArray[Any],
        targets: NDArray[np.int64],
        half: str | None,
        ignored: int | None,
        leave_out: bool,
    ) -> None: ...
    def merge(self, other: Text) -> None: ...
    @property
    def vocabulary(self) -> int: ...
    def counts(self) -> list[int]: ...
    def losses(self) -> tuple[float, float]: ...
    def chunks(self) -> tuple[list[int], list[int]]: ...

@final
class Ranking:
    def __new__(cls, columns: int, probabilities: bool) -> Ranking: ...
    @staticmethod
    def from_state(columns: int, probabilities: bool, state: Sequence[int]) -> Ranking: ...
    def update(self, scores: NDArray[Any], labels: NDArray[Any], half: str | None, leave_out: bool) -> None: ...
    def merge(self, other: Ranking) -> None: ...
    @property
    def columns(self) -> int: ...
    @property
    def probabilities(self) -> bool: ...
    @property
    def rows(self) -> int: ...
    @property
    def left_out(self) -> int: ...
    def state(self) -> list[int]: ...
    def groups(self, column: int) -> NDArray[np.int64]: ...
    def ranked(self) -> list[tuple[int, int, float, float, float, float, float]]: ...

# Source, parameter group, value, baseline, scale, threshold, z and count.
_Evidence: TypeAlias = tuple[str, int | None, float, float | None, float | None, float | None, float | None, int]

@final
class Detector:
    def __new__(
        cls,
        *,
        budget: float,
        window: int,
        heat: float,
        sustained: int,
        refractory: int,
        update_ratio_watch: float,
        update_ratio_anomaly: float | None,
        dead_steps: int,
        amp_skips: int,
        amp_floor: float,
    ) -> Detector: ...
    def observe(
        self,
        loss: float,
        norm: float | None,
        update_ratio: Sequence[float] | None = None,
        nonfinite: int = 0,
        amp_scale: float | None = None,
        /,
    ) -> tuple[float, int, tuple[int, bool, list[str], list[_Evidence]] | None]: ...
    def expect_shift(self, steps: int, /) -> None: ...
    def rebaseline(self) -> None: ...
    def loss_reference(self) -> tuple[float | None, float] | None: ...
    def held(self) -> int: ...
    def found_sound(self) -> None: ...
    def adopt_held(self) -> None: ...
    def watch_anew(self) -> None: ...
    def rolled_back(self) -> None: ...
    def state(self) -> dict[str, Any]: ...
    def restored(self, state: dict[str, Any], /) -> Detector: ...

@final
class Norm:
    def __new__(cls, tensor: type) -> Norm: ...
    def of(self, tensors: list[Any], threads: int) -> float | None: ...
    def of_gradients(self, parameters: list[Any], threads: int) -> tuple[int, float] | None: ...

@final
class Pack:
    """Rules as data: read from TOML or from dicts, checked, and never executed."""

    @staticmethod
    def load(path: str | PathLike[str], /) -> Pack:
        """Read a pack from a TOML file."""
    @staticmethod
    def from_toml(text: str, /, origin: str = "pack") -> Pack:
        """Read a pack from the text of a TOML file; messages call it by `origin`."""
    @staticmethod
    def from_rules(rules: Iterable[Mapping[str, object]], /, *, name: str = "rules", version: str = "0") -> Pack:
        """Build a pack from dicts with the keys of a `[[rule]]`."""
    @staticmethod
    def from_sources(sources: list[tuple[str, str]], /) -> Pack:
        """Build a pack from what `sources` of another holds."""
    @property
    def name(self) -> str:
        """The name of the pack."""
    @property
    def version(self) -> str:
        """The version of the pack."""
    @property
    def hash(self) -> str:
        """A fingerprint of everything that the pack holds."""
    @property
    def rules(self) -> list[dict[str, Any]]:
        """The rules as dicts, with the keys of a `[[rule]]`."""
    @property
    def notes(self) -> str:
        """What the pack says about itself."""
    @property
    def flag_at(self) -> Severity:
        """The severity from which on a finding flags a text."""
    @property
    def places(self) -> list[tuple[str, int] | None]:
        """The file and line of each rule; none if the pack was built from dicts."""
    @property
    def lists(self) -> dict[str, list[tuple[str, str]]]:
        """The lists with all their forms, and which form each is."""
    @property
    def frames(self) -> list[dict[str, Any]]:
        """The frames as dicts, with the keys of a `[[frame]]`."""
    @property
    def subtle(self) -> tuple[float, list[tuple[str, float, list[str]]]]:
        """The threshold of the subtle score, and its words with their weights and forms."""
    @property
    def sources(self) -> list[tuple[str, str]]:
        """The text of every file it was read from, the pack itself first; empty if it was built from dicts."""
    def check(self) -> list[Problem]:
        """Return what is wrong with the pack beyond what it is refused for: file, line, and the problem.

        Every rule needs three examples of each kind, and has to find its own and leave the others alone; a rule that
        no text can reach, or that makes every scan slow, is named.
        """
    def __len__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Report:
    """What was found in one text; reports of two equal texts by equal packs are equal."""

    @property
    def flagged(self) -> bool:
        """Whether the text is flagged: a finding of kind `harm` is bad enough, or its words are suspicious together."""
    @property
    def explicit(self) -> bool:
        """Whether a finding flags it."""
    @property
    def subtle_score(self) -> float:
        """How suspicious its words are together, from 0 to 1."""
    @property
    def score(self) -> float:
        """How bad it is, from 0 to 1: one number to rank texts by."""
    @property
    def severity(self) -> Severity | None:
        """The worst severity found, None if nothing was."""
    @property
    def categories(self) -> tuple[str, ...]:
        """The categories found, in alphabetical order."""
    @property
    def findings(self) -> tuple[Finding, ...]:
        """Every place where a rule matches, in the order of their starts."""
    @property
    def reasoning(self) -> str:
        """What was found, in a sentence."""
    @property
    def method(self) -> Literal["rules", "validation"]:
        """`rules`, or `validation` where the text is empty or white space and no rule was asked."""
    @property
    def pack(self) -> PackName:
        """Name, version and hash of the pack."""
    @property
    def n_words(self) -> int:
        """How many words the text has, between white space."""
    @property
    def elapsed_ns(self) -> int:
        """How long the scan took, in nanoseconds; 0 if the text was one of a batch and was not kept."""
    @property
    def text(self) -> str | None:
        """The text, None if it was one of a batch and was not kept."""
    def to_dict(self, *, legacy: bool = False) -> dict[str, Any]:
        """Return the report as plain data, as JSON holds it; `legacy` gives the five keys of older harm evaluators."""
    def to_html(self) -> str:
        """Return the text as HTML with its findings marked, escaped, and what was said of it."""
    def _repr_html_(self) -> str: ...
    def __rich__(self) -> Any: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@disjoint_base
class Scanner:
    """A pack ready to scan."""

    def __new__(cls, pack: Pack, max_chars: int, window: bool, normalise: str, kernel: str | None = None) -> Self: ...
    @property
    def pack(self) -> Pack:
        """The pack."""
    @property
    def slow_rules(self) -> list[tuple[str, str | None]]:
        """The rules that every text is searched for by an automaton, with the character without which it is not."""
    def flagged(self, text: str, /) -> bool:
        """Return whether the text is flagged."""
    def scan(self, text: str, /) -> Report:
        """Return a report on the text: what was found, where, and how bad it is."""
    def nothing(self, *, blank: bool, words: int) -> Report:
        """Return the report of a text in which nothing was found, and which was not kept."""
    def rows(
        self, texts: Sequence[str], /, *, first: int, threads: int
    ) -> tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.bool_], list[int], list[int]]:
        """Scan a list or tuple of texts.

        Offsets and rules of each, whether it is flagged, which have suspicious words and no rule, and which are blank.
        """
    def column(
        self, data: object, /, *, column: str | None, threads: int, first: int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.bool_], NDArray[np.bool_], list[int]]:
        """Scan a column of Arrow.

        Offsets and rules of each row, whether it is flagged, which rows are null, and which are not UTF-8. Rows, and
        errors, are counted from `first`.
        """

def scan_words(texts: Iterable[str], /) -> list[int]:
    """Count the words of texts, between white space."""

def snapshot_gather(
    arena: NDArray[np.uint8],
    offsets: Sequence[int],
    sources: Sequence[NDArray[np.uint8]],
    lanes: Sequence[str],
    threads: int,
) -> list[tuple[int, int | None]]: ...
def snapshot_inspect(
    arena: NDArray[np.uint8],
    offsets: Sequence[int],
    lengths: Sequence[int],
    lanes: Sequence[str],
    threads: int,
) -> list[tuple[int, int | None]]: ...
def snapshot_scatter(
    arena: NDArray[np.uint8],
    offsets: Sequence[int],
    targets: Sequence[NDArray[np.uint8]],
    threads: int,
) -> list[int]: ...
def resample_means(
    values: NDArray[np.float64],
    columns: int,
    strata: Sequence[int],
    seed: int,
    first: int,
    draws: int,
    threads: int,
) -> NDArray[np.float64]: ...
def resample_selective(
    wrong: NDArray[np.uint8],
    ends: NDArray[np.uint32],
    coverages: Sequence[float],
    risks: Sequence[float],
    seed: int,
    first: int,
    draws: int | None,
    threads: int,
) -> NDArray[np.float64]: ...
