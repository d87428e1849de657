"""The rules that others publish, written again from their formulas, with their defaults.

Each docstring names the source. Where a rule has two readings, the one that is kinder to it is taken.
"""

from __future__ import annotations

import math
from collections import deque

from benches.faults.detector import Remedy


class SkipStep:
    """OLMo-core's `SkipStepOptimizer`: a step is skipped above mean + 6 std of the last 128, on loss or norm.

    Source: allenai/OLMo-core, `src/olmo_core/optim/skip_step_optimizer.py` (`get_step_factor`); the update and the
    moments are multiplied by 0 or 1 (`adamw.py`). The window holds refused values too, and values that are not finite:
    with one NaN in it every comparison is false, and every step is skipped until it has left. Nothing is skipped until
    half the window, the current step included, is filled; the deviation is the unbiased one.

    Args:
        sigmas: How many standard deviations above the mean are too many.
        window: How many past steps are compared with.
    """

    remedy = Remedy.FACTOR

    def __init__(self, sigmas: float = 6.0, window: int = 128) -> None:
        self.sigmas = sigmas
        self.window = window
        self.losses: deque[float] = deque(maxlen=window)
        self.norms: deque[float] = deque(maxlen=window)

    def observe(self, loss: float, norm: float) -> bool:
        refused = False
        if len(self.losses) + 1 >= max(2, self.window // 2):
            refused = not (self._usual(self.losses, loss) and self._usual(self.norms, norm))
        self.losses.append(loss)
        self.norms.append(norm)
        return refused

    def _usual(self, past: deque[float], value: float) -> bool:
        mean = sum(past) / len(past)
        spread = math.sqrt(sum([(one - mean) * (one - mean) for one in past]) / (len(past) - 1))
        return value - mean <= self.sigmas * spread


class ZClip:
    """ZClip: a gradient norm above an exponential mean + 2.5 std is clipped, the harder the larger it is.

    Source: Kumar et al., "ZClip: Adaptive Spike Mitigation for LLM Pre-Training" (arXiv 2504.02507), and
    bluorion-com/ZClip, `zclip.py`: smoothing 0.97, 25 norms to start from, limit = mean + 2.5 std / (z / 2.5), which
    then enters the statistics in the norm's place. It looks at no loss and refuses nothing: "refused" here means that
    it clips. Its fixed maximum of 1 is left out, since the families bring their own clipping.
    """

    remedy = Remedy.CLIP

    def __init__(self, smoothing: float = 0.97, most: float = 2.5, warm_up: int = 25) -> None:
        self.smoothing = smoothing
        self.most = most
        self.warm_up = warm_up
        self.first: list[float] = []
        self.mean = 0.0
        self.variance = 0.0
        self.limit = math.inf

    def observe(self, loss: float, norm: float) -> bool:
        del loss
        self.limit = math.inf
        if len(self.first) < self.warm_up:
            self.first.append(norm)
            if len(self.first) == self.warm_up:
                self.mean = sum(self.first) / self.warm_up
                self.variance = sum((one - self.mean) ** 2 for one in self.first) / self.warm_up
            return False
        spread = math.sqrt(self.variance)
        z = (norm - self.mean) / (spread + 1e-6)
        refused = z > self.most
        if refused:
            self.limit = norm = self.mean + self.most * spread / (z / self.most)
        self.mean = self.smoothing * self.mean + (1 - self.smoothing) * norm
        off = norm - self.mean
        self.variance = self.smoothing * self.variance + (1 - self.smoothing) * off * off
        return refused


class SpikeDetection:
    """Lightning's `SpikeDetection`: a loss that rose and is off the mean of the last 10 by twice that mean.

    Source: Lightning-AI/pytorch-lightning, `src/lightning/fabric/utilities/spike.py`: window 10, warm-up 1, rtol 2,
    non-finite values count as spikes; a spike does not enter the mean. It raises, and the run is to be restarted
    without this batch and the one before.
    """

    remedy = Remedy.STOP

    def __init__(self, window: int = 10, tolerance: float = 2.0) -> None:
        self.tolerance = tolerance
        self.past: deque[float] = deque(maxlen=window)

    def observe(self, loss: float, norm: float) -> bool:
        del norm
        if self.past:
            mean = sum(self.past) / len(self.past)
            rose = loss - self.past[-1] > 0.0
            if not math.isfinite(loss) or (rose and abs(loss - mean) >= abs(self.tolerance * mean)):
                return True
        self.past.append(loss)
        return False


class FactorTen:
    """Megatron-LM's rerun rule: a loss of ten times the largest among the first hundred, or one that is not finite.

    Source: NVIDIA/Megatron-LM, `megatron/core/rerun_state_machine.py` (`is_unexpectedly_large`, with the factor 10 and
    the finite checks that `pretrain_gpt.py` gives it). It looks for faults of the hardware: it runs the step again to
    see whether the result is the same, and leaves the process.
    """

    remedy = Remedy.STOP

    def __init__(self, factor: float = 10.0, samples: int = 100) -> None:
        self.factor = factor
        self.samples = samples
        self.seen = 0
        self.largest = 0.0

    def observe(self, loss: float, norm: float) -> bool:
        del norm
        if not math.isfinite(loss):
            return True
        if self.seen < self.samples:
            self.seen += 1
            self.largest = max(self.largest, abs(loss))
            return False
        return abs(loss) >= self.factor * self.largest


class KillLossSpike:
    """LLM Foundry's `KillLossSpike`: five losses in a row of twice the mean of the last 100, or half of them above 10.

    Source: mosaicml/llm-foundry, `llmfoundry/callbacks/kill_loss_spike_callback.py`: multiplier 2, patience 4, cap 10
    (judged from step 200 on). Every loss enters the window. It stops the run when told to (by default it only logs).
    """

    remedy = Remedy.STOP

    def __init__(self, multiplier: float = 2.0, patience: int = 4, window: int = 100, cap: float = 10.0) -> None:
        self.multiplier = multiplier
        self.patience = patience
        self.window = window
        self.cap = cap
        self.past: deque[float] = deque(maxlen=window)
        self.high: deque[bool] = deque(maxlen=window)
        self.row = 0
        self.step = 0

    def observe(self, loss: float, norm: float) -> bool:
        del norm
        refused = False
        if len(self.past) == self.window:
            outlier = loss >= self.multiplier * (sum(self.past) / self.window)
            self.row = self.row + 1 if outlier else 0
            lasting = self.step >= 2 * self.window and sum(self.high) >= self.window / 2
            refused = self.row > self.patience or lasting
        self.past.append(loss)
        self.high.append(loss > self.cap)
        self.step += 1
        return refused


class Multiple:
    """What many write by hand: skip a loss above three times its exponential mean, or one that is not finite."""

    remedy = Remedy.SKIP

    def __init__(self, factor: float = 3.0, smoothing: float = 0.98) -> None:
        self.factor = factor
        self.smoothing = smoothing
        self.mean: float | None = None

    def observe(self, loss: float, norm: float) -> bool:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return True
        if self.mean is None:
            self.mean = loss
        refused = loss > self.factor * self.mean
        self.mean = self.smoothing * self.mean + (1 - self.smoothing) * loss
        return refused


class NonFinite:
    """The least that a loop can do, and what a gradient scaler does: skip what is not finite."""

    remedy = Remedy.SKIP

    def observe(self, loss: float, norm: float) -> bool:
        return not (math.isfinite(loss) and math.isfinite(norm))
