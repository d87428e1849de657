"""What ranks do in the tests of the meters; run by `support.ranks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyball.measure.meter import Meter


def reduced(rank: int, meters: list[Meter]) -> dict[str, Any]:
    """The state of a rank's meter after it was made one with the others."""
    meter = meters[rank]
    meter.reduce()
    return meter.state_dict()
