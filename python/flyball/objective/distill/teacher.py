"""A teacher: a model that is asked and never trained, about the pixels that it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from flyball import outputs
from flyball.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import nn

    from flyball.objective.context import StepContext


@dataclass(frozen=True)
class Normalization:
    """What was done to pixels: x = (pixel - mean) / std, channel by channel.

    Args:
        mean: For each channel.
        std: For each channel, above 0.

    Raises:
        ConfigError: They differ in length, or a `std` is not above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        if len(self.mean) != len(self.std) or not all(std > 0 for std in self.std):
            raise ConfigError(f"`mean` is {self.mean} and `std` is {self.std}: give a std above 0 for each mean")


@dataclass(frozen=True)
class _Seen:
    """What a teacher said of one batch."""

    output: Any
    layers: Mapping[int, torch.Tensor]


class TeacherSpec:
    """A trained model, and the pixels that it wants.

        teacher = TeacherSpec(resnet, own=Normalization(mean, std), student=Normalization((0.3,), (0.4,)), size=224)

    Each batch is asked about once, without gradients and in evaluation mode, whoever calls `train()` in between. What
    the student was given is turned into what the teacher knows: x * std + mean of the student's, then the teacher's.

    Args:
        model: The trained model; it goes to the device of the batches when it is first asked.
        own: How its images were normalised, if not as the student's.
        student: How the batches are normalised; needed with `own`.
        size: Height and width that it wants, or both; images of another are resized.
        depth: How many layers it has; by default what the model says.

    Raises:
        ConfigError: One of `own` and `student` is missing.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        own: Normalization | None = None,
        student: Normalization | None = None,
        size: int | tuple[int, int] | None = None,
        depth: int | None = None,
    ) -> None:
        if (own is None) != (student is None):
            missing = "own" if own is None else "student"
            raise ConfigError(f"`{missing}` is missing: images are turned from the student's normalisation to `own`")
        self.model = model.requires_grad_(requires_grad=False).eval()
        self.own, self.student = own, student
        self.size = (size, size) if isinstance(size, int) else size
        self._depth = depth

    @classmethod
    def of(cls, teacher: TeacherSpec | nn.Module) -> TeacherSpec:
        """Return a spec as it is, and a model as a teacher that wants what the student is given.

        Raises:
            ConfigError: It is neither.
        """
        if isinstance(teacher, TeacherSpec):
            return teacher
        if isinstance(teacher, torch.nn.Module):
            return cls(teacher)
        raise ConfigError(f"`teacher` is a {type(teacher).__name__}: pass a trained model, or a `TeacherSpec`")

    @property
    def depth(self) -> int:
        """How many layers it has.

        Raises:
            ConfigError: Neither the model nor `depth=` says.
        """
        found = self._depth if self._depth is not None else getattr(self.model, "depth", None)
        if not isinstance(found, int):
            raise ConfigError(f"the teacher is a {type(self.model).__name__}, which has no `depth`: pass `depth=`")
        return found

    def need(self, step: StepContext, layers: Iterable[int]) -> None:
        """Have the teacher tell what stands behind some layers when it is asked in this step."""
        step.share(self._key("layers"), set[int]).update(layers)

    def ask(self, step: StepContext) -> _Seen:
        """Return what the teacher says of the batch; the first who asks has it computed."""
        return step.share(self._key("answer"), lambda: self._compute(step))

    def scores(self, step: StepContext) -> torch.Tensor:
        """Return its scores of the batch."""
        return outputs.scores(self.ask(step).output)

    def view(self, images: torch.Tensor) -> torch.Tensor:
        """Return a batch of the student's as the teacher wants it."""
        if self.own is not None and self.student is not None:
            mean, std, own_mean, own_std = (
                torch.tensor(values, dtype=images.dtype, device=images.device).reshape(1, -1, 1, 1)
                for values in (self.student.mean, self.student.std, self.own.mean, self.own.std)
            )
            images = (images * std + (mean - own_mean)) / own_std
        if self.size is not None and tuple(images.shape[2:]) != self.size:
            images = functional.interpolate(images, self.size, mode="bicubic", align_corners=False, antialias=True)
        return images

    def _compute(self, step: StepContext) -> _Seen:
        images = step.batch.inputs
        layers = step.share(self._key("layers"), set[int])
        self.model.eval()
        if isinstance(images, torch.Tensor):
            first = next(self.model.parameters(), None)
            if first is not None and first.device != images.device:
                self.model.to(images.device)
            images = self.view(images)
        elif self.own is not None or self.size is not None:
            raise InputError(f"the inputs are a {type(images).__name__}, and only a tensor of images can be normalised")
        with torch.no_grad():
            if not layers:
                return _Seen(outputs.forward(self.model, images), {})
            found = outputs.intermediates(self.model, images, sorted(layers))
            return _Seen(found.output, found.layers)

    def _key(self, what: str) -> tuple[str, int]:
        return f"the teacher's {what}", id(self.model)

    def __repr__(self) -> str:
        return type(self.model).__name__


def relative_layers(layers: Sequence[int], student: int, teacher: int) -> dict[int, int]:
    """Return for each layer of the student the one of the teacher at the same share of its depth; the last is the last.

        relative_layers((6, 11), 12, 24)  # {6: 13, 11: 23}

    Raises:
        ConfigError: The student has no such layer.
    """
    found = {}
    for layer in layers:
        if not -student <= layer < student:
            raise ConfigError(f"`layers` holds {layer}, and the student has the layers 0 to {student - 1}")
        # A half goes up: 1 of 2 layers is 1 of 3 from the end.
        found[layer] = max(0, (2 * (layer % student + 1) * teacher + student) // (2 * student) - 1)
    return found
