"""When may a model decline to answer, and what is it worth? Scores, curves, thresholds and cascades, on NumPy alone."""

from __future__ import annotations

from flyball.measure.selective.cascade import Cascade as Cascade
from flyball.measure.selective.cascade import Decisions as Decisions
from flyball.measure.selective.curve import RiskCoverage as RiskCoverage
from flyball.measure.selective.curve import SelectiveReport as SelectiveReport
from flyball.measure.selective.curve import risk_coverage as risk_coverage
from flyball.measure.selective.scores import certainty as certainty
from flyball.measure.selective.scores import largest_probability as largest_probability
from flyball.measure.selective.scores import margin as margin
from flyball.measure.selective.threshold import Kept as Kept
from flyball.measure.selective.threshold import Threshold as Threshold
from flyball.measure.selective.threshold import best_pair as best_pair
from flyball.measure.selective.threshold import best_threshold as best_threshold
from flyball.measure.selective.threshold import guaranteed_threshold as guaranteed_threshold
from flyball.measure.selective.threshold import on_new_samples as on_new_samples

__all__ = [
    "Cascade",
    "Decisions",
    "Kept",
    "RiskCoverage",
    "SelectiveReport",
    "Threshold",
    "best_pair",
    "best_threshold",
    "certainty",
    "guaranteed_threshold",
    "largest_probability",
    "margin",
    "on_new_samples",
    "risk_coverage",
]
