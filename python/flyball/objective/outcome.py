"""What an objective said of one batch: the loss, and every term by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from flyball.events import Event, event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flyball.objective.context import Check


@dataclass(frozen=True, slots=True)
class TermMeasured:
    """One term of a step: its raw value, the weight it had, and what it added; None where it was not computed."""

    raw: float | None
    weight: float
    weighted: float | None
    measured: Mapping[str, float]


@event("objective.measured", version=1)
class ObjectiveMeasured(Event):
    """The terms of one step, each raw, weighted and with the weight that it had."""

    step: int
    loss: float
    terms: Mapping[str, TermMeasured]


class Part(NamedTuple):
    """One term of one step, still on the device.

    Args:
        name: The term's.
        raw: Its value; None if it was not computed.
        weight: What it was multiplied with; 0.0 if it was not computed.
        weighted: What it added to the loss.
        measured: What else it found.
    """

    name: str
    raw: torch.Tensor | None
    weight: float | torch.Tensor
    weighted: torch.Tensor | None
    measured: Mapping[str, Any]


class Outcome(NamedTuple):
    """What an objective said of one batch; nothing has been read from the device.

    Args:
        loss: The sum of the weighted terms, to call `backward` on.
        parts: Every term, in the order of the formula.
        outputs: What the model said of the batch, if a term asked for it.
        checks: What `verify` reads.
    """

    loss: torch.Tensor
    parts: tuple[Part, ...]
    outputs: Any = None
    checks: tuple[Check, ...] = ()

    def verify(self) -> None:
        """Read what was looked at on the device; worth the wait when the loss is not a number.

        Raises:
            InputError: Something is wrong with the batch, such as a label out of range.
        """
        verify(self.checks)

    def record(self, step: int) -> ObjectiveMeasured:
        """Return the event that lists every term; waits for the device, so call it when a step is logged."""
        numbers: list[Any] = [self.loss]
        for part in self.parts:
            numbers += [part.raw, part.weight, part.weighted, *part.measured.values()]
        read = iter(_floats(numbers))
        loss = next(read)
        terms = {}
        for part in self.parts:
            raw, weight, weighted = next(read), next(read), next(read)
            measured = {name: value for name in part.measured if (value := next(read)) is not None}
            terms[part.name] = TermMeasured(raw, 0.0 if weight is None else weight, weighted, measured)
        return ObjectiveMeasured(step=step, loss=float("nan") if loss is None else loss, terms=terms)


def verify(checks: Sequence[Check]) -> None:
    """Read many checks with one wait for the device.

    Raises:
        InputError: One of them found something wrong.
    """
    if checks:
        broken = torch.stack([flag for flag, _ in checks]).tolist()
        for (_, explain), found in zip(checks, broken, strict=True):
            if found:
                raise explain()


def _floats(numbers: list[Any]) -> list[float | None]:
    """Read numbers, those on a device with one wait for all of them."""
    plain = [number.detach() if isinstance(number, torch.Tensor) else number for number in numbers]
    there = [number for number in plain if isinstance(number, torch.Tensor) and not number.is_cpu]
    if there:
        came = iter(torch.stack([number.float().reshape(()) for number in there]).tolist())
        plain = [next(came) if isinstance(n, torch.Tensor) and not n.is_cpu else n for n in plain]
    return [None if number is None else float(number) for number in plain]
