"""The trainer: a loop one can read, checkpoints, and the way back into a run."""

from flyball.train.callbacks import Callback as Callback
from flyball.train.callbacks import Step as Step
from flyball.train.history import EarlyStopping as EarlyStopping
from flyball.train.history import Epoch as Epoch
from flyball.train.history import History as History
from flyball.train.signals import Stopped as Stopped
from flyball.train.trainer import Trainer as Trainer

__all__ = ["Callback", "EarlyStopping", "Epoch", "History", "Step", "Stopped", "Trainer"]
