"""Meters that read a batch once, merge exactly, and say how sure they are.

They take NumPy arrays and torch tensors on the CPU, and import torch only if you did.
"""

from __future__ import annotations

from flyball.measure.calibration import ReliabilityBin as ReliabilityBin
from flyball.measure.classification import Classification as Classification
from flyball.measure.cube import Denominator as Denominator
from flyball.measure.estimate import Estimate as Estimate
from flyball.measure.labelled import MultiLabelResult as MultiLabelResult
from flyball.measure.multi_label import MultiLabel as MultiLabel
from flyball.measure.probabilities import Calibration as Calibration
from flyball.measure.probabilities import CalibrationResult as CalibrationResult
from flyball.measure.ranking import RankedClass as RankedClass
from flyball.measure.ranking import Ranking as Ranking
from flyball.measure.ranking import RankingResult as RankingResult
from flyball.measure.regression import Regression as Regression
from flyball.measure.regression import RegressionResult as RegressionResult
from flyball.measure.result import ClassificationResult as ClassificationResult
from flyball.measure.spectral import ErrorMaps as ErrorMaps
from flyball.measure.spectral import Spectral as Spectral
from flyball.measure.spectral import SpectralResult as SpectralResult
from flyball.measure.spectral import error_maps as error_maps
from flyball.measure.text import Text as Text
from flyball.measure.text import TextResult as TextResult
from flyball.measure.text import perplexity as perplexity

__all__ = [
    "Calibration",
    "CalibrationResult",
    "Classification",
    "ClassificationResult",
    "Denominator",
    "ErrorMaps",
    "Estimate",
    "MultiLabel",
    "MultiLabelResult",
    "RankedClass",
    "Ranking",
    "RankingResult",
    "Regression",
    "RegressionResult",
    "ReliabilityBin",
    "Spectral",
    "SpectralResult",
    "Text",
    "TextResult",
    "error_maps",
    "perplexity",
]
