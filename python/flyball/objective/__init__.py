"""What training makes small: terms that add up, with weights that follow the step.

    objective = Task(smoothing=0.1) + 0.1 * Entropy(every=2, warmup=0.1)

`Task` is the loss of the task itself. A term of your own is a class with a `forward`; see `Term`.
"""

from __future__ import annotations

from flyball.objective.algebra import Bound as Bound
from flyball.objective.algebra import Objective as Objective
from flyball.objective.algebra import Term as Term
from flyball.objective.context import StepContext as StepContext
from flyball.objective.losses import class_weights as class_weights
from flyball.objective.losses import positive_weights as positive_weights
from flyball.objective.outcome import ObjectiveMeasured as ObjectiveMeasured
from flyball.objective.outcome import Outcome as Outcome
from flyball.objective.outcome import Part as Part
from flyball.objective.outcome import TermMeasured as TermMeasured
from flyball.objective.schedule import Constant as Constant
from flyball.objective.schedule import Cosine as Cosine
from flyball.objective.schedule import Delay as Delay
from flyball.objective.schedule import Exponential as Exponential
from flyball.objective.schedule import Linear as Linear
from flyball.objective.schedule import Schedule as Schedule
from flyball.objective.schedule import Step as Step
from flyball.objective.schedule import Warmup as Warmup
from flyball.objective.task import Task as Task
from flyball.objective.task import as_objective as as_objective
from flyball.objective.weights import DynamicWeightAverage as DynamicWeightAverage
from flyball.objective.weights import Uncertainty as Uncertainty

__all__ = [
    "Bound",
    "Constant",
    "Cosine",
    "Delay",
    "DynamicWeightAverage",
    "Exponential",
    "Linear",
    "Objective",
    "ObjectiveMeasured",
    "Outcome",
    "Part",
    "Schedule",
    "Step",
    "StepContext",
    "Task",
    "Term",
    "TermMeasured",
    "Uncertainty",
    "Warmup",
    "as_objective",
    "class_weights",
    "positive_weights",
]
