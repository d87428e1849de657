"""Known-good states of a run: what it consists of, copies in memory, and the way back."""

from flyball.govern.snapshot.ring import Prepared as Prepared
from flyball.govern.snapshot.ring import SnapshotInfo as SnapshotInfo
from flyball.govern.snapshot.ring import SnapshotRing as SnapshotRing
from flyball.govern.snapshot.state import TrainingState as TrainingState

__all__ = ["Prepared", "SnapshotInfo", "SnapshotRing", "TrainingState"]
