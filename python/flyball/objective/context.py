"""What the terms of one step share: where training stands, and results that cost too much to be had twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from flyball import outputs
from flyball.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

    import torch

    from flyball.batch import Batch

T = TypeVar("T")

_FORWARD = "the forward of the batch"
_LAYERS = "what stood behind the layers in that forward"


class StepContext:
    """One step as a term sees it.

    Attributes:
        model: What is trained.
        batch: The batch of this step.
        step: How many updates came before; the batches of one update have the same.
        steps: How many there will be in all, or None if that is not known.
        epoch: How many epochs came before.
        training: Whether this is a step of training; else the terms are only measured.
    """

    __slots__ = ("_checks", "_layers", "_shared", "batch", "epoch", "model", "step", "steps", "training")

    def __init__(
        self,
        model: Any,
        batch: Batch,
        *,
        step: int = 0,
        steps: int | None = None,
        epoch: int = 0,
        training: bool = True,
    ) -> None:
        self.model = model
        self.batch = batch
        self.step = step
        self.steps = steps
        self.epoch = epoch
        self.training = training
        self._shared: dict[Hashable, Any] = {}
        self._layers: set[int] | None = None
        self._checks: list[Check] | None = None  # few steps have any

    @property
    def outputs(self) -> Any:
        """What the model says of the batch; the forward happens when a term first asks, and once."""
        shared = self._shared
        if _FORWARD not in shared:
            if self._layers is None:
                shared[_FORWARD] = outputs.forward(self.model, self.batch.inputs)
            else:
                found = outputs.intermediates(self.model, self.batch.inputs, sorted(self._layers))
                shared[_FORWARD], shared[_LAYERS] = found.output, found.layers
        return shared[_FORWARD]

    def need(self, layers: Iterable[int]) -> None:
        """Have the forward of this step bring what stands behind some layers of the model; say so in `Term.prepare`.

        Raises:
            InputError: The forward has happened already.
        """
        if _FORWARD in self._shared:
            raise InputError("layers are needed after the forward of the step: say `step.need(layers)` in `prepare`")
        self._layers = (self._layers or set()) | set(layers)

    @property
    def layers(self) -> Mapping[int, Any]:
        """What stands behind the layers that were needed, from the one forward of the batch."""
        self.outputs  # noqa: B018 -- the forward brings them
        found: Mapping[int, Any] = self._shared.get(_LAYERS, {})
        return found

    @property
    def scores(self) -> torch.Tensor:
        """The tensor among the outputs that the targets are compared with, as `flyball.outputs` finds it."""
        return outputs.scores(self.outputs)

    @property
    def checks(self) -> tuple[Check, ...]:
        """What was looked at on the device, and can be read when somebody waits for the device anyway."""
        return () if self._checks is None else tuple(self._checks)

    def share(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return what another term has computed under this key, or compute it.

        Args:
            key: What the result depends on, besides the model and the batch, such as an attack and its settings.
            compute: Computes it; called at most once a step.
        """
        if key not in self._shared:
            self._shared[key] = compute()
        found: T = self._shared[key]
        return found

    def forwarded(self) -> Any:
        """Return the outputs if a term has asked for them, else None."""
        return self._shared.get(_FORWARD)

    def check(self, broken: torch.Tensor, explain: Callable[[], Exception]) -> None:
        """Note that something is wrong where `broken` is true; it is read by `Outcome.verify`, not now."""
        self._checks = [*(self._checks or ()), (broken, explain)]


Check = tuple["torch.Tensor", "Callable[[], Exception]"]
