"""How sensitive the detector is, how often a state is kept, and what is done when a run goes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from flyball.config import Config, Range

if TYPE_CHECKING:
    from collections.abc import Iterable

Count = Annotated[int, Range(low=1, high=1 << 20)]
Positive = Annotated[float, Range(above=0.0)]


@dataclass(frozen=True)
class Policy(Config):
    """What a governor may be told; the defaults are the measured ones.

    Args:
        budget: -ln of the nominal false-alarm probability per channel and step, the one real knob: 10 finds more, and
            refuses about one clean step in 5,000 where 13 refuses one in 50,000 (`python -m benches.faults`).
        window: How many accepted scores a threshold is learnt from.
        heat: The factor on every threshold for 16 steps after a strong anomaly; 1 is none.
        sustained: How many refusals in a row are a PANIC.
        refractory: For so many accepted steps after a rollback, a PANIC takes 16 refusals in a
            row, and the slow watch is silent.
        update_ratio_every: After every so many updates the governor measures by how much each parameter group moved,
            for the limits below, which costs a copy of the parameters; never if None. Where steps come from `Vitals`
            alone, the ratios are yours to pass.
        update_ratio_watch: A parameter group whose relative update is above this is a WATCH.
        update_ratio_anomaly: One above this is an ANOMALY. None by default: where parameters are
            born near zero, or the rate is high, healthy updates are larger than any fixed limit.
        dead_steps: After so many measured updates of exactly zero a parameter group is called dead.
        amp_skips: How many steps in a row a gradient scaler may skip.
        amp_floor: A scale of the gradient scaler below this is a PANIC.
        snapshot_every: Updates between two snapshots.
        probation: How many healthy updates a snapshot waits before it counts as known good.
        snapshots: How many known-good snapshots are kept; older ones lie further apart.
        memory_cap: The most bytes that all snapshots together may take.
        bundles: How many replay bundles are kept, where a governor writes them at all; the oldest go.
        diagnosis: Whether, in doubt, kept batches are served again to tell bad data from a damaged state.
        recovery: What a rollback makes different. ``skip``: the data go on where they stood, so that what led to it is
            never served again. ``lr_backoff``: they come again from the snapshot on, at a lowered rate. ``reseed``:
            they come again, and what is drawn for them is drawn anew. ``replay``: they come again with the same
            random state, to see it happen again. Where a loader cannot be rewound they go on, and ``replay`` is
            refused.
        max_rollbacks: How many rollbacks there may be within `rollback_window` steps; the next one stops the run.
        rollback_window: So many steps.
        lr_backoff: From the second rollback within the window on (from the first, where `recovery` is ``lr_backoff``),
            the learning rate is multiplied with this, once more each time, and rises back over a hundred steps.
        agreement_timeout: With several ranks, how many seconds one is waited for before the run stops and names it.

    Raises:
        ConfigError: A value is out of its range.
    """

    budget: Annotated[float, Range(low=5.0, high=100.0)] = 13.0
    window: Annotated[int, Range(low=64, high=4096)] = 512
    heat: Annotated[float, Range(above=0.0, high=1.0)] = 0.7
    sustained: Annotated[int, Range(low=1, high=15)] = 5
    refractory: Annotated[int, Range(low=0, high=1 << 20)] = 16
    update_ratio_every: Count | None = None
    update_ratio_watch: Positive = 1e-2
    update_ratio_anomaly: Positive | None = None
    dead_steps: Count = 16
    amp_skips: Count = 8
    amp_floor: Positive = 1.0
    snapshot_every: Count = 100
    probation: Count = 4
    snapshots: Annotated[int, Range(low=1, high=64)] = 3
    memory_cap: Annotated[int, Range(low=1)] | None = None
    bundles: Count = 8
    diagnosis: bool = True
    recovery: Literal["skip", "lr_backoff", "reseed", "replay"] = "skip"
    max_rollbacks: Count = 3
    rollback_window: Count = 1000
    lr_backoff: Annotated[float, Range(above=0.0, high=1.0)] = 0.5
    agreement_timeout: Positive = 600.0

    def conflicts(self) -> Iterable[str]:
        """An anomaly below the watch would hide it."""
        anomaly = self.update_ratio_anomaly
        if anomaly is not None and anomaly < self.update_ratio_watch:
            yield (
                f"`update_ratio_anomaly` is {anomaly!r}, below `update_ratio_watch`, which is "
                f"{self.update_ratio_watch!r}: raise one or lower the other"
            )
