"""How good a model is, in one call that changes nothing and hides nothing.

evaluation = evaluate(model, loader)
print(evaluation)                                        # a table
evaluation.loss.value, evaluation.accuracy.low           # every number has its interval
"""

from __future__ import annotations

from flyball.evaluation.result import Evaluation as Evaluation
from flyball.evaluation.streaming import evaluate as evaluate

__all__ = ["Evaluation", "evaluate"]
