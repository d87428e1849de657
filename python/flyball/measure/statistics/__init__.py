"""Is a difference more than chance? Intervals, tests and effect sizes, on NumPy alone."""

from __future__ import annotations

from flyball.measure.statistics.bootstrap import Bootstrap as Bootstrap
from flyball.measure.statistics.bootstrap import bootstrap as bootstrap
from flyball.measure.statistics.effects import cohen_d as cohen_d
from flyball.measure.statistics.effects import cohen_dz as cohen_dz
from flyball.measure.statistics.effects import hedges_g as hedges_g
from flyball.measure.statistics.intervals import clopper_pearson as clopper_pearson
from flyball.measure.statistics.intervals import upper_bound as upper_bound
from flyball.measure.statistics.intervals import wilson as wilson
from flyball.measure.statistics.outcome import TestOutcome as TestOutcome
from flyball.measure.statistics.paired import equivalence as equivalence
from flyball.measure.statistics.paired import mcnemar as mcnemar
from flyball.measure.statistics.paired import mcnemar_counts as mcnemar_counts
from flyball.measure.statistics.paired import paired_t as paired_t
from flyball.measure.statistics.paired import permutation as permutation
from flyball.measure.statistics.paired import wilcoxon as wilcoxon
from flyball.measure.statistics.several import benjamini_hochberg as benjamini_hochberg
from flyball.measure.statistics.several import bonferroni as bonferroni
from flyball.measure.statistics.several import holm as holm

__all__ = [
    "Bootstrap",
    "TestOutcome",
    "benjamini_hochberg",
    "bonferroni",
    "bootstrap",
    "clopper_pearson",
    "cohen_d",
    "cohen_dz",
    "equivalence",
    "hedges_g",
    "holm",
    "mcnemar",
    "mcnemar_counts",
    "paired_t",
    "permutation",
    "upper_bound",
    "wilcoxon",
    "wilson",
]
