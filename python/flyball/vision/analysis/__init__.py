"""What a trained model does inside: where it looks, what its layers have in common, how sharp its minimum is.

Everything here leaves the model as it was: its mode, its gradients, no hooks.
"""

from __future__ import annotations

from flyball.vision.analysis.alignment import Alignment as Alignment
from flyball.vision.analysis.alignment import alignment as alignment
from flyball.vision.analysis.attention import AttentionReport as AttentionReport
from flyball.vision.analysis.attention import HeadStatistics as HeadStatistics
from flyball.vision.analysis.attention import attention_report as attention_report
from flyball.vision.analysis.attention import distances as distances
from flyball.vision.analysis.attention import head_statistics as head_statistics
from flyball.vision.analysis.augmented import augmented_probabilities as augmented_probabilities
from flyball.vision.analysis.augmented import shifts as shifts
from flyball.vision.analysis.curvature import Trace as Trace
from flyball.vision.analysis.curvature import hessian_trace as hessian_trace
from flyball.vision.analysis.gradcam import grad_cam as grad_cam

__all__ = [
    "Alignment",
    "AttentionReport",
    "HeadStatistics",
    "Trace",
    "alignment",
    "attention_report",
    "augmented_probabilities",
    "distances",
    "grad_cam",
    "head_statistics",
    "hessian_trace",
    "shifts",
]
