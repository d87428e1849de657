"""The detector again, as plainly as it can be said: the oracle of `flyball.Vitals`.

Every list is sorted anew whenever it is needed, nothing is cached, and the order of every sum is
written out, so that the numbers must agree with the compiled ones to the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

LN_2_HIGH = float.fromhex("0x1.62e42feep-1")
LN_2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
LARGEST = 1e150
LARGEST_SCORE = 1e9
UNITS = {"loss": 1.0, "norm": 1.0, "joint": 1.5, "run": 1.25}


def ln(x: float) -> float:
    """The logarithm of a positive number, as `k ln 2 + ln(1 + f)`."""
    mantissa, exponent = math.frexp(x)
    mantissa, exponent = 2.0 * mantissa, exponent - 1
    if mantissa > math.sqrt(2.0):
        mantissa, exponent = 0.5 * mantissa, exponent + 1
    f = mantissa - 1.0
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    odd, even = 2.0 / 19.0, 2.0 / 21.0
    for one, other in ((15.0, 17.0), (11.0, 13.0), (7.0, 9.0), (3.0, 5.0)):
        odd = odd * w + 2.0 / one
        even = even * w + 2.0 / other
    r = z * (odd + z * even)
    half = 0.5 * f * f
    return exponent * LN_2_HIGH - ((half - (s * (half + r) + exponent * LN_2_LOW)) - f)


def exp(x: float) -> float:
    """The exponential of a number between -700 and 700."""
    n = math.floor(x * 1.4426950408889634 + 0.5)
    high, low = x - n * LN_2_HIGH, n * LN_2_LOW
    r = high - low
    t = r * r
    series = -691.0 / 653837184000.0
    for coefficient in (1.0 / 23950080.0, -1.0 / 604800.0, 1.0 / 15120.0, -1.0 / 360.0, 1.0 / 6.0):
        series = series * t + coefficient
    c = r - t * series
    fraction = 1.0 - ((low - r * c / (2.0 - c)) - high)
    return math.ldexp(fraction, n)


def clamp(value: float, reach: float) -> float:
    return min(max(value, -reach), reach)


# --- one signal -----------------------------------------------------------------------------


@dataclass
class Signal:
    floor: float
    n: int = 0
    level: float = 0.0
    fast: float = 0.0
    slow: float = 0.0
    signed: bool = False
    first: list[float] = field(default_factory=list)
    lows: list[float] = field(default_factory=list)

    def reference(self) -> float:
        """The lower median of the first values."""
        return sorted(self.first)[(len(self.first) - 1) // 2] if self.first else 0.0

    def offset(self) -> float:
        return 0.0 if self.signed else 0.05 * self.reference()

    def baseline(self) -> float | None:
        if self.n == 0:
            return None
        return self.level if self.signed else max(exp(self.level) - self.offset(), 0.0)

    def coordinate(self, value: float) -> float | None:
        if self.signed:
            return value
        reference = self.reference() if self.first else value
        if reference == 0.0:
            return None
        return ln(max(value + 0.05 * reference, 2.0**-1022))

    def scale(self) -> float:
        if self.signed:
            if len(self.first) < 4:
                return math.inf
            prior = max(self.first) - min(self.first)
            floor = prior / 1000.0
        else:
            prior, floor = 0.5, self.floor
        w = 144.0 / (144.0 + float(self.n) * float(self.n))
        m = max(self.fast, self.slow)
        s = max(math.sqrt(w * (prior * prior) + (1.0 - w) * (m * m)), floor)
        return s if s > 0.0 else math.inf

    def score(self, x: float | None) -> float | None:
        if x is None:
            return None
        residual = 0.0 if self.n == 0 else x - self.level
        return clamp(residual / self.scale(), LARGEST_SCORE) + 0.0

    def accept(self, value: float) -> None:
        x = self.coordinate(value)
        if x is None:
            return
        s = self.scale()
        r = 0.0 if self.n == 0 else x - self.level
        a = 1.0 / (self.n + 1.0)
        d = 1.2533 * min(abs(r), 3.0 * s)
        self.fast += max(a, 0.02) * (d - self.fast)
        self.slow += max(a, 0.004) * (d - self.slow)
        self.level = x if self.n == 0 else self.level + max(a, 0.06) * clamp(r, 3.0 * s)
        self.n += 1
        if value != 0.0 and len(self.first) < 8:
            self.first.append(value)
        if r < -4.0 * s:
            self.lows.append(x)
        elif self.n > 16:
            self.lows = []
        if len(self.lows) == 4:
            one, two, three, four = self.lows
            self.level = (((one + two) + three) + four) / 4.0
            self.lows = []
            if self.n <= 16 and not self.signed:
                self.__init__(self.floor)  # type: ignore[misc]
                self.accept(value)


# --- thresholds -----------------------------------------------------------------------------


def quantile(ordered: list[float], q: float) -> float:
    position = q * (len(ordered) - 1)
    below = math.floor(position)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    return low + (position - below) * (high - low)


def kept(score: float) -> float:
    """A score as a window keeps it: at most 30,000, and a whole number of 65,536ths."""
    return int(clamp(score, 30_000.0) * 65_536.0) / 65_536.0


def tail(ordered: list[float], part: int, m0: float, b0: float, budget: float) -> tuple[float, float]:
    m = max(1, len(ordered) // part)
    base = ordered[len(ordered) - m - 1]
    b = (math.fsum(ordered[-m:]) - m * base + m0 * b0) / (m + m0)
    k = m + m0
    reach = max(budget + ln(1.0 / part), 0.0)
    return b, base + b * (k * (exp(reach / k) - 1.0))


def threshold(channel: str, scores: list[float], budget: float) -> float:
    unit, count = UNITS[channel], len(scores)
    if count < 16:
        return 5.0 * unit
    ordered = sorted(scores)
    mid = quantile(ordered, 0.5)
    up = quantile(ordered, 0.84) - mid
    a = min(1.0, count / 64.0)
    wide = max(a * up + (1.0 - a) * max(up, unit), 0.6)
    t = 5.0 * wide + max(mid, 0.0)
    b1, e1 = tail(ordered, 10, 20.0, 0.45 * up, budget)
    t = max(t, e1)
    if count // 50 >= 1:
        t = max(t, tail(ordered, 50, 10.0, b1, budget)[1])
    return t * (1.0 + 0.3 * max(1.0 - count / 128.0, 0.0))


# --- the slow watch -------------------------------------------------------------------------


@dataclass
class Slow:
    k: int = 0
    ev: float = 0.0
    es: float = 0.0
    best: float = 0.0
    es_best: float = 0.0
    top: float = 0.0
    rows: dict[str, int] = field(default_factory=lambda: {"drawdown": 0, "collapse": 0})

    def observe(self, loss: float, offset: float | None, *, muted: bool) -> list[tuple[Any, ...]]:
        if offset is not None and self.k:
            loss = min(loss, self.ev + 10.0 * (self.ev + offset))
        rate = max(1.0 / (self.k + 1.0), 0.06)
        deviation = 1.2533 * abs(loss - self.ev) if self.k else 0.0
        self.ev += rate * (loss - self.ev)
        self.es += rate * (deviation - self.es)
        self.k += 1
        if self.k < 16:
            return []
        if self.k == 16:
            self.best, self.top, self.es_best = self.ev, self.ev, self.es
        elif self.ev < self.best:
            self.best, self.es_best = self.ev, self.es
        f = offset or 0.0
        rise, progress = self.ev - self.best, self.top - self.best
        noise = 6.0 * min(self.es, 8.0 * self.es_best) * math.sqrt(0.06 / 1.94)
        conditions = {
            "drawdown": offset is not None and self.ev + f > 3.0 * (self.best + f) and rise > noise,
            "collapse": rise > 0.7 * progress and progress > max(0.25 * abs(self.top), 2.0 * noise) and rise > noise,
        }
        found: list[tuple[Any, ...]] = []
        for name, condition in conditions.items():
            self.rows[name] = min(self.rows[name] + 1, 9) if condition and not muted else 0
            if self.rows[name] == 8:
                if name == "drawdown":
                    scale, z, limit = self.best + f, (self.ev + f) / (self.best + f), 3.0
                else:
                    scale, z, limit = progress, rise / progress, 0.7
                found.append((name, None, self.ev, self.best, scale, limit, z, 8))
        return found


# --- the detector ---------------------------------------------------------------------------

# What was decided before what was seen.
ORDER = (
    *("nonfinite", "nonfinite-gradients", "nonfinite-parameters", "nonfinite-buffers", "nonfinite-optimizer"),
    *("amp-skip", "amp-skips", "amp-scale", "sustained", "too-many", "pending", "adopted", "learning"),
    *("expected", "sign", "drawdown", "collapse", "loss", "norm", "joint", "run"),
    *("loss-hot", "norm-hot", "joint-hot", "run-hot", "update-ratio", "dead-group"),
)
OK, WATCH, ANOMALY, PANIC = range(4)


@dataclass
class Judgement:
    level: int = OK
    apply: bool = True
    codes: set[str] = field(default_factory=set)
    rho: float = 0.0
    evidence: list[tuple[Any, ...]] = field(default_factory=list)

    def reasons(self) -> tuple[str, ...]:
        return tuple(code for code in ORDER if code in self.codes)


@dataclass
class NaiveVitals:
    """One stream; the fields are the settings of a `Policy`."""

    budget: float = 13.0
    window: int = 512
    heat: float = 0.7
    sustained: int = 5
    refractory: int = 16
    update_ratio_watch: float = 1e-2
    update_ratio_anomaly: float | None = None
    dead_steps: int = 16
    amp_skips: int = 8
    amp_floor: float = 1.0

    def __post_init__(self) -> None:
        self.rebaseline()

    def rebaseline(self) -> None:
        self.loss, self.norm, self.slow = Signal(0.02), Signal(0.05), Slow()
        self.run = 0.0
        self.scores: dict[str, list[float]] = {name: [] for name in UNITS}
        self.delay: list[dict[str, float | None]] = []
        self.held: list[tuple[float | None, float | None]] = []
        self.refused: list[bool] = []
        self.hot = self.span = self.sign = self.streak = 0
        self.panicked = False
        self.learning = self.expected = self.quiet = 0
        self.skips, self.scale_low = 0, False
        self.still: list[int] = []

    def state(self) -> dict[str, Any]:
        """Everything remembered but the number of observations, as `Vitals` tells it."""
        signals = {
            name: {
                "accepted": one.n,
                **{key: getattr(one, key) for key in ("level", "fast", "slow", "signed", "first", "lows")},
            }
            for name, one in (("loss", self.loss), ("norm", self.norm))
        }
        slow = self.slow
        return {
            **signals,
            "slow": {
                "seen": slow.k,
                "mean": slow.ev,
                "deviation": slow.es,
                "best": slow.best,
                "best_deviation": slow.es_best,
                "top": slow.top,
                **slow.rows,
            },
            **{name: getattr(self, name) for name in ("run", "hot", "span", "sign", "streak", "panicked")},
            "windows": list(self.scores.values()),
            "delay": [list(row.values()) for row in self.delay],
            "held": [list(row) for row in self.held],
            "refused": [age for age, refused in enumerate(reversed(self.refused)) if refused],
            "learning": self.learning,
            "expected": self.expected,
            "refractory": self.quiet,
            "amp_skips": self.skips,
            "amp_low": self.scale_low,
            "still": self.still,
        }

    def expect_shift(self, n: int) -> None:
        self.expected = n
        self.held = []

    def rolled_back(self) -> None:
        self.streak = self.hot = self.span = self.sign = self.skips = 0
        self.held, self.refused = [], []
        self.panicked = False
        self.quiet = self.refractory

    def observe(
        self,
        loss: float,
        norm: float | None = None,
        *,
        update_ratio: list[float] | None = None,
        nonfinite: tuple[str, ...] = (),
        amp_scale: float | None = None,
    ) -> Judgement:
        self.hot = max(self.hot - 1, 0)
        self.span = max(self.span - 1, 0)
        self.sign = max(self.sign - 1, 0)
        self.refused = [*self.refused, False][-128:]
        verdict = Judgement()
        self.look_at_groups(update_ratio or [], verdict)

        finite_norm = norm is None or math.isfinite(norm)
        broken = {f"nonfinite-{name}" for name in nonfinite}
        if not (math.isfinite(loss) and finite_norm):
            broken.add("nonfinite")
        if broken & {"nonfinite-parameters", "nonfinite-buffers", "nonfinite-optimizer"}:
            self.forbid(verdict, broken)
            self.show_nonfinite(loss, norm, verdict)
            return verdict
        if amp_scale is not None:
            skips = math.isfinite(loss) and (not finite_norm or "gradients" in nonfinite)
            if self.look_at_scaler(amp_scale, verdict, skips=skips):
                return verdict
        if broken:
            verdict.rho = math.inf
            self.show_nonfinite(loss, norm, verdict)
            self.refuse(verdict, broken, None, nonfinite=True)
            return verdict
        self.judge(clamp(loss, LARGEST) + 0.0, None if norm is None else min(norm, LARGEST) + 0.0, verdict)
        return verdict

    def look_at_groups(self, ratios: list[float], verdict: Judgement) -> None:
        if ratios and len(self.still) != len(ratios):
            self.still = [0] * len(ratios)
        for group, ratio in enumerate(ratios):
            limits = [(WATCH, self.update_ratio_watch)]
            if self.update_ratio_anomaly is not None:
                limits.insert(0, (ANOMALY, self.update_ratio_anomaly))
            for level, limit in limits:
                if not ratio <= limit:
                    verdict.level = max(verdict.level, level)
                    verdict.apply &= level < ANOMALY
                    verdict.codes.add("update-ratio")
                    verdict.evidence.append(("update-ratio", group, ratio, None, None, limit, None, 1))
                    break
            self.still[group] = self.still[group] + 1 if ratio == 0.0 else 0
            if self.still[group] == self.dead_steps:
                verdict.level = max(verdict.level, WATCH)
                verdict.codes.add("dead-group")
                count = self.still[group]
                verdict.evidence.append(("dead-group", group, ratio, None, None, None, None, count))

    def look_at_scaler(self, scale: float, verdict: Judgement, *, skips: bool) -> bool:
        low = not (math.isfinite(scale) and scale >= self.amp_floor)
        falls = low and not self.scale_low
        self.scale_low = low
        self.skips = self.skips + 1 if skips else 0
        if falls:
            self.forbid(verdict, {"amp-scale"})
            verdict.evidence.append(("amp-scale", None, scale, None, None, self.amp_floor, None, 1))
        if skips:
            verdict.rho = math.inf
            verdict.level = max(verdict.level, WATCH)
            verdict.codes.add("amp-skip")
            verdict.apply = False
        if self.skips >= self.amp_skips:
            self.forbid(verdict, {"amp-skips"})
            n = self.skips
            verdict.evidence.append(("amp-skips", None, float(n), None, None, float(self.amp_skips), None, n))
            self.skips = 0
        return falls or skips

    def forbid(self, verdict: Judgement, codes: set[str]) -> None:
        verdict.level, verdict.apply, verdict.rho = PANIC, False, math.inf
        verdict.codes |= codes
        self.run = 0.0
        self.refused[-1] = True

    def show_nonfinite(self, loss: float, norm: float | None, verdict: Judgement) -> None:
        for name, value, signal in (("loss", loss, self.loss), ("norm", norm, self.norm)):
            if value is not None and not math.isfinite(value):
                count = len(self.scores[name])
                verdict.evidence.append((name, None, value, signal.baseline(), None, None, None, count))

    def judge(self, loss: float, norm: float | None, verdict: Judgement) -> None:  # noqa: C901, PLR0912 -- in one piece, as it is told
        x_norm = None if norm is None else self.norm.coordinate(norm)
        if loss < 0.0 and not self.loss.signed:
            level = self.loss.baseline() or 0.0
            carried = level - loss <= 3.0 * (self.loss.scale() * (level + self.loss.offset()))
            if self.loss.n >= 64 and self.sign == 0 and self.expected == 0 and not carried:
                self.sign = 16
                verdict.rho = math.inf
                count = len(self.scores["loss"])
                verdict.evidence.append(("loss", None, loss, self.loss.baseline(), None, 0.0, None, count))
                self.refuse(verdict, {"sign"}, (None, x_norm))
                return
            self.become_signed()
        x_loss = self.loss.coordinate(loss)

        if self.expected:
            verdict.level, verdict.apply = min(verdict.level, WATCH), True
            verdict.codes.add("expected")
            self.hold((x_loss, x_norm))
            self.streak = 0
            self.expected -= 1
            if self.expected == 0:
                self.adopt()
                verdict.codes.add("adopted")
            return

        z_loss = self.loss.score(x_loss)
        z_norm = None if norm is None else self.norm.score(x_norm)
        scores: dict[str, float | None] = {"loss": z_loss, "norm": z_norm, "joint": None, "run": None}
        if z_loss is not None:
            scores["run"] = clamp(z_loss, 30.0) + 0.6 * self.run + 0.0
            if z_norm is not None:
                scores["joint"] = clamp(z_loss, 30.0) + clamp(z_norm, 30.0) + 0.0

        by_ratio = verdict.level == ANOMALY
        codes: set[str] = set()
        strong, far = False, by_ratio
        thresholds: dict[str, float] = {}
        for name, score in scores.items():
            if score is None:
                continue
            full = threshold(name, self.scores[name], self.budget)
            thresholds[name] = full
            verdict.rho = max(verdict.rho, score / full)
            limit = full * (self.heat if self.hot else 1.0)
            if not score > limit:
                continue
            strong = strong or score > full
            far = far or score > 4.0 * full
            codes.add(name if score > full else f"{name}-hot")
            if name == "loss":
                seen: tuple[float | None, ...] = (loss, self.loss.baseline(), self.loss.scale())
            elif name == "norm":
                seen = (norm, self.norm.baseline(), self.norm.scale())
            else:
                seen = (score, None, None)
            verdict.evidence.append((name, None, *seen, limit, score, len(self.scores[name])))

        learning = self.learning > 0
        self.learning = max(self.learning - 1, 0)
        if (codes or by_ratio) and (far or not learning):
            if strong:
                self.span = 32
                self.drop_near_misses(thresholds)
            if strong or (codes and self.span):
                self.hot = 16
            self.refuse(verdict, codes, (x_loss, x_norm))
            return
        if codes:
            verdict.level = max(verdict.level, WATCH)
            verdict.codes |= codes | {"learning"}
        self.accept(loss, norm, x_loss, scores, verdict)

    def drop_near_misses(self, thresholds: dict[str, float]) -> None:
        for row in self.delay:
            for name, full in thresholds.items():
                score = row[name]
                if score is not None and score > 0.5 * full:
                    row[name] = None

    def hold(self, coordinates: tuple[float | None, float | None]) -> None:
        if coordinates != (None, None):
            self.held.append(coordinates)

    def refuse(
        self,
        verdict: Judgement,
        codes: set[str],
        coordinates: tuple[float | None, float | None] | None,
        *,
        nonfinite: bool = False,
    ) -> None:
        self.run = 0.0
        self.refused[-1] = True
        self.streak += 1
        if coordinates is not None:
            self.hold(coordinates)
        verdict.codes |= codes
        if self.panicked:
            if nonfinite:
                verdict.level = ANOMALY
            elif len(self.held) >= 16:
                self.adopt()
                verdict.level = WATCH
                verdict.codes.add("adopted")
            else:
                verdict.level = WATCH
                verdict.codes.add("pending")
        elif self.streak >= (16 if self.quiet else self.sustained):
            self.panicked = True
            self.delay = []
            verdict.level = PANIC
            verdict.codes.add("sustained")
        elif sum(self.refused) > 32:
            self.refused = []
            self.learning = 64
            self.hot = self.span = 0
            verdict.level = PANIC
            verdict.codes.add("too-many")
        else:
            verdict.level = ANOMALY
        verdict.apply = verdict.level < ANOMALY

    def accept(
        self,
        loss: float,
        norm: float | None,
        x_loss: float | None,
        scores: dict[str, float | None],
        verdict: Judgement,
    ) -> None:
        self.streak = 0
        self.held = []
        self.panicked = False
        if scores["run"] is not None:
            self.run = scores["run"]
        self.loss.accept(loss)
        if norm is not None:
            self.norm.accept(norm)
        self.delay.append(scores)
        if len(self.delay) > 6:
            for name, score in self.delay.pop(0).items():
                if score is not None:
                    self.scores[name] = [*self.scores[name], kept(score)][-self.window :]
        muted = self.quiet > 0
        self.quiet = max(self.quiet - 1, 0)
        if x_loss is not None:
            offset = None if self.loss.signed else self.loss.offset()
            for found in self.slow.observe(loss, offset, muted=muted):
                verdict.level, verdict.apply = PANIC, False
                verdict.codes.add(found[0])
                verdict.evidence.append(found)

    def adopt(self) -> None:
        for index, signal in enumerate((self.loss, self.norm)):
            held = sorted(x for row in self.held if (x := row[index]) is not None)
            if held:
                signal.level = held[len(held) // 2]
        self.held = []
        self.streak = self.hot = self.span = 0
        self.panicked = False
        self.slow = Slow()

    def become_signed(self) -> None:
        self.loss = Signal(0.02, signed=True)
        for name in ("loss", "joint", "run"):
            self.scores[name] = []
        self.run = 0.0
        self.delay, self.held = [], []
        self.sign = 0
        self.slow = Slow()
