"""Watch a training run, and decide before each update whether to trust the step.

`Vitals` is the detector alone: floats in, a `Verdict` out. It needs no torch.
"""

from flyball.govern.policy import Policy as Policy
from flyball.govern.verdict import Action as Action
from flyball.govern.verdict import Evidence as Evidence
from flyball.govern.verdict import Level as Level
from flyball.govern.verdict import Verdict as Verdict
from flyball.govern.vitals import Vitals as Vitals

__all__ = ["Action", "Evidence", "Level", "Policy", "Verdict", "Vitals"]
