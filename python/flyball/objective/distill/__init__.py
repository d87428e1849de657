"""Terms that take a teacher's word for it: what it says, and how it sees.

    objective = 0.5 * Task() + Cosine(0.0, 0.5) * Distill(teacher, tau=3.0) + 0.1 * TokenMatch(teacher, width=192)

A teacher is a trained model, or a `TeacherSpec` where it wants other pixels than the student. It is never trained, and
is asked once a batch, whatever the number of terms.
"""

from __future__ import annotations

from flyball.objective.distill.logits import Distill as Distill
from flyball.objective.distill.logits import distillation as distillation
from flyball.objective.distill.relation import CKA as CKA
from flyball.objective.distill.relation import CrossCorrelation as CrossCorrelation
from flyball.objective.distill.relation import Gram as Gram
from flyball.objective.distill.relation import Relation as Relation
from flyball.objective.distill.teacher import Normalization as Normalization
from flyball.objective.distill.teacher import TeacherSpec as TeacherSpec
from flyball.objective.distill.teacher import relative_layers as relative_layers
from flyball.objective.distill.tokens import ProjectionHead as ProjectionHead
from flyball.objective.distill.tokens import TokenMatch as TokenMatch
from flyball.objective.distill.tokens import resample_tokens as resample_tokens

__all__ = [
    "CKA",
    "CrossCorrelation",
    "Distill",
    "Gram",
    "Normalization",
    "ProjectionHead",
    "Relation",
    "TeacherSpec",
    "TokenMatch",
    "distillation",
    "relative_layers",
    "resample_tokens",
]
