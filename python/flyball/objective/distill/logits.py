"""What the teacher says: its classes, or how sure it is of each (Hinton et al., 2015; Touvron et al., 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.nn import functional

from flyball.errors import ConfigError, InputError
from flyball.objective.algebra import Objective, Term
from flyball.objective.distill.teacher import TeacherSpec
from flyball.objective.task import Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from flyball.batch import Batch
    from flyball.objective.context import StepContext


class Distill(Term):
    """How far the student's scores are from the teacher's.

    Soft: tau^2 KL(softmax(teacher / tau) || softmax(student / tau)), summed over classes and averaged over samples.
    Hard: the cross-entropy of the class that the teacher finds. A student with a distillation token is measured by its
    second head, as the first learns the task; any other by its scores.

    Measures `agreement`: how often student and teacher find the same class.

    Args:
        teacher: A trained model, or a `TeacherSpec`.
        kind: "soft" or "hard".
        tau: How much both are softened; of "soft".
        reduction: "batchmean", or "elementmean": divided by the number of classes too, as DeiT's own code does.
        pace: What every term takes: `weight`, `warmup`, `delay`, `every`, `phase`, `compensate`, `name`.

    Raises:
        ConfigError: An argument is unknown or out of its range.
    """

    def __init__(
        self,
        teacher: TeacherSpec | nn.Module,
        *,
        kind: Literal["soft", "hard"] = "soft",
        tau: float = 3.0,
        reduction: Literal["batchmean", "elementmean"] = "batchmean",
        **pace: Any,
    ) -> None:
        super().__init__(**pace)
        if kind not in {"soft", "hard"}:
            raise ConfigError(f"`kind` of `Distill` is {kind!r}: use 'soft' or 'hard'")
        if reduction not in {"batchmean", "elementmean"}:
            raise ConfigError(f"`reduction` of `Distill` is {reduction!r}: use 'batchmean' or 'elementmean'")
        if not tau > 0:
            raise ConfigError(f"`tau` of `Distill` is {tau!r}: pass a number above 0")
        self.teacher = TeacherSpec.of(teacher)
        self.kind, self.tau, self.reduction = kind, float(tau), reduction

    def forward(
        self,
        model: Any,  # noqa: ARG002
        batch: Batch,  # noqa: ARG002
        step: StepContext,
    ) -> tuple[torch.Tensor, Mapping[str, Any]]:
        """Return the loss, and how often both find the same class.

        Raises:
            InputError: Student and teacher do not score the same classes.
        """
        said, taught = self._student(step).float(), self.teacher.scores(step).float()
        if said.shape != taught.shape:
            raise InputError(
                f"the student's scores have shape {tuple(said.shape)} and the teacher's {tuple(taught.shape)}: "
                "both must score the same classes"
            )
        if self.kind == "hard":
            loss = functional.cross_entropy(said, taught.argmax(1))
        else:
            wanted, found = (taught / self.tau).log_softmax(1), (said / self.tau).log_softmax(1)
            loss = self.tau**2 * functional.kl_div(found, wanted, reduction="batchmean", log_target=True)
            if self.reduction == "elementmean":
                loss = loss / said.shape[1]
        agreement = (said.detach().argmax(1) == taught.argmax(1)).float().mean()
        return loss, {"agreement": agreement}

    def _student(self, step: StepContext) -> torch.Tensor:
        said = step.outputs
        if isinstance(said, tuple) and len(said) == 2 and all(isinstance(part, torch.Tensor) for part in said):
            heads: tuple[torch.Tensor, torch.Tensor] = said
            return heads[1] if heads[1].shape == heads[0].shape else heads[0]
        return step.scores

    def extra_repr(self) -> str:
        """Return the arguments that differ from the defaults."""
        shown = [repr(self.teacher)]
        shown += ["kind='hard'"] if self.kind == "hard" else []
        shown += [f"tau={self.tau:g}"] if self.kind == "soft" and self.tau != 3.0 else []
        shown += [f"reduction={self.reduction!r}"] if self.reduction != "batchmean" else []
        return ", ".join(shown)


def distillation(
    teacher: TeacherSpec | nn.Module, *, alpha: float = 0.5, task: Term | Objective | None = None, **settings: Any
) -> Objective:
    """Return (1 - alpha) * task + alpha * Distill(teacher): the usual recipe under its usual name.

    Args:
        teacher: A trained model, or a `TeacherSpec`.
        alpha: How much the teacher's word counts, from 0 to 1; at 0 and 1 the other is not computed.
        task: What the student learns from the labels; `Task()` by default.
        settings: What `Distill` takes.

    Raises:
        ConfigError: `alpha` is not between 0 and 1.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"`alpha` is {alpha!r}: pass a number from 0, the labels alone, to 1, the teacher alone")
    return (1 - alpha) * (Task() if task is None else task) + alpha * Distill(teacher, **settings)
