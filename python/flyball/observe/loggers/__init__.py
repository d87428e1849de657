"""Other people's loggers as readers of the journal: while the run goes on, or afterwards.

    with Following("runs/digits", TensorBoard("boards/digits")):
        trainer.fit(...)

    send("runs/digits", TensorBoard("boards/digits"))      # after the fact

A thread of its own reads what the journal has and passes it on; training waits for none of it. A logger that raises is
told so in the log, and after eight failures in a row it is not asked again. To write another, derive from `Logger`.
"""

from flyball.observe.loggers.base import Logger as Logger
from flyball.observe.loggers.base import numbers as numbers
from flyball.observe.loggers.following import Following as Following
from flyball.observe.loggers.following import send as send
from flyball.observe.loggers.known import MLflow as MLflow
from flyball.observe.loggers.known import TensorBoard as TensorBoard
from flyball.observe.loggers.known import Trackio as Trackio
from flyball.observe.loggers.known import WandB as WandB

__all__ = ["Following", "Logger", "MLflow", "TensorBoard", "Trackio", "WandB", "numbers", "send"]
