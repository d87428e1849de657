"""The detector alone: a loss and a gradient norm in, a verdict out.

The work is done in Rust; here are the streams, the words and the plain data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex, TypeAlias, TypedDict

from flyball import _native
from flyball.errors import InputError
from flyball.govern.policy import Policy
from flyball.govern.verdict import Action, Evidence, Level, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Number: TypeAlias = SupportsFloat | SupportsIndex
"""A number, a NumPy scalar, or a tensor that holds one value."""

Parts: TypeAlias = tuple[str, int | None, float, float | None, float | None, float | None, float | None, int]
Finding: TypeAlias = tuple[int, bool, list[str], list[Parts]]
"""Level, whether the update is applied, reasons and evidence, as the compiled half gives them."""

_VERSION = 1
_LEVELS = tuple(Level)
_NONFINITE = {"gradients": 1, "parameters": 2, "buffers": 4, "optimizer": 8}


class VitalsState(TypedDict):
    """Everything a `Vitals` remembers, as data that JSON can hold."""

    version: int
    streams: dict[str, dict[str, Any]]
    notes: dict[str, str]


class Vitals:
    """Judge every step of a training run by its loss and its gradient norm.

    Call `observe` after the backward pass and before the update. The same observations give the
    same verdicts, bit for bit, on every platform. Each stream has levels and thresholds of its
    own and is made when it is first seen. It pickles and copies.

    Raises:
        ConfigError: The policy has a value out of its range.
        InputError: It is no policy.
    """

    __slots__ = ("_notes", "_streams", "policy")

    def __init__(self, policy: Policy | None = None) -> None:
        if policy is not None and not isinstance(policy, Policy):
            raise InputError(f"`policy` is {policy!r}: pass a `flyball.Policy`, or None for its defaults")
        self.policy = Policy() if policy is None else policy
        self._streams: dict[str, _native.Detector] = {}
        self._notes: dict[str, str] = {}

    def observe(
        self,
        loss: Number,
        grad_norm: Number | None = None,
        *,
        step: int | None = None,
        stream: str = "train",
        update_ratio: Number | Sequence[Number] | None = None,
        nonfinite: Iterable[str] | None = None,
        amp_scale: Number | None = None,
    ) -> Verdict:
        """Judge one step, and take it in unless it is refused.

        Args:
            loss: The loss; NaN and infinity are judged, not refused as arguments.
            grad_norm: The global gradient norm before clipping, unscaled; it may be left out.
            step: The number of the step for the verdict; by default, observations are counted.
            stream: Which levels and thresholds it is compared with, and enters.
            update_ratio: |update| / |parameters|, of the model or of each parameter group.
            nonfinite: What was found not to be finite: ``gradients`` costs the step;
                ``parameters``, ``buffers`` and ``optimizer`` are a PANIC at once.
            amp_scale: The gradient scaler's scale, where one is in use: a gradient that is not
                finite is then a skip of the scaler, until there are too many in a row.

        Raises:
            InputError: An argument is not a number, or is a norm or a ratio below zero.
        """
        detector = self._streams.get(stream) or self._stream(stream)
        if type(loss) is not float:
            loss = _as_float("loss", loss)
        if grad_norm is not None and type(grad_norm) is not float:
            grad_norm = _as_float("grad_norm", grad_norm)
        if update_ratio is None and nonfinite is None and amp_scale is None:
            rho, count, finding = detector.observe(loss, grad_norm)
        else:
            rho, count, finding = detector.observe(
                loss,
                grad_norm,
                None if update_ratio is None else _ratios(update_ratio),
                0 if nonfinite is None else _bits(nonfinite),
                None if amp_scale is None else _as_float("amp_scale", amp_scale),
            )
        if step is None:
            step = count
        if finding is None:
            return Verdict(step, stream, rho=rho)
        return self._spoken(step, stream, rho, finding)

    def _spoken(self, step: int, stream: str, rho: float, finding: Finding) -> Verdict:
        number, applied, reasons, evidence = finding
        level = _LEVELS[number]
        refused = Action.ROLLBACK if level is Level.PANIC else Action.SKIP
        seen = tuple(Evidence(*parts) for parts in evidence)
        note = self._notes.get(stream, "") if "expected" in reasons else ""
        return Verdict(step, stream, level, Action.APPLY if applied else refused, tuple(reasons), seen, rho, note)

    def expect_shift(self, n: int, reason: str = "", *, stream: str = "train") -> None:
        """Announce that the next n finite steps belong to a new level, which they define.

        For a curriculum, a new loss term, a new rate: these steps raise nothing, and then their
        median is the level. A loss that means something else wants `rebaseline`.

        Args:
            n: How many steps, at most the policy's window.
            reason: Said in the verdicts on these steps.
            stream: The stream that shifts.

        Raises:
            InputError: n is not such a number.
        """
        if not isinstance(n, int):
            raise InputError(f"`n` is {n!r}: it must be a whole number of steps")
        if not 1 <= n <= self.policy.window:
            raise InputError(f"`n` is {n}: it must be between 1 and the policy's window, {self.policy.window}")
        detector = self._streams.get(stream) or self._stream(stream)
        detector.expect_shift(n)
        self._notes[stream] = reason

    def rebaseline(self, *, stream: str | None = None) -> None:
        """Forget all levels, scales and thresholds of one stream, or of all of them."""
        for name, detector in self._streams.items():
            if stream is None or name == stream:
                detector.rebaseline()

    def loss_reference(self, *, stream: str = "train") -> tuple[float | None, float] | None:
        """Return how a loss of this moment is compared with a later one; None before there is a level.

        The first number is added to a loss before its logarithm is taken; it is None where losses may be negative, and
        are compared as they are. The second is the usual deviation from step to step in that coordinate.
        """
        detector = self._streams.get(stream)
        return None if detector is None else detector.loss_reference()

    def held(self, *, stream: str = "train") -> int:
        """Return how many of the last refusals in a row had finite values."""
        detector = self._streams.get(stream)
        return 0 if detector is None else detector.held()

    def found_sound(self, *, slow: bool = False, stream: str = "train") -> None:
        """Say that the state was looked into after a refusal, and is sound: what was refused were bad data.

        A row of bad data is then no PANIC; thresholds stay low for a while.

        Args:
            slow: It was looked into for a drawdown or a collapse, which start anew.
            stream: The stream that was refused.
        """
        detector = self._streams.get(stream) or self._stream(stream)
        if slow:
            detector.watch_anew()
        else:
            detector.found_sound()

    def adopt_held(self, *, stream: str = "train") -> None:
        """Take the last refused values, at most sixteen, as the new level: the data have changed for good."""
        detector = self._streams.get(stream)
        if detector is not None:
            detector.adopt_held()

    def rolled_back(self) -> None:
        """Say that the run was rolled back; load the `state_dict` of the snapshot first.

        Refusals, heat and an open PANIC are forgotten. What was learnt stays and refuses as
        before, but for some accepted steps only a longer row of refusals is another PANIC.
        """
        for detector in self._streams.values():
            detector.rolled_back()

    def state_dict(self) -> VitalsState:
        """Return everything that is remembered, as plain data that JSON can hold."""
        streams = {name: detector.state() for name, detector in self._streams.items()}
        return {"version": _VERSION, "streams": streams, "notes": dict(self._notes)}

    def load_state_dict(self, state: VitalsState) -> None:
        """Go on where the one that gave this state stood; the policy stays this one's.

        Raises:
            InputError: The state is damaged; nothing was changed.
        """
        try:
            version, streams, notes = state["version"], state["streams"], state["notes"]
            if version != _VERSION:
                raise InputError(
                    f"the state has version {version!r}, not {_VERSION}: it was written by another version of flyball"
                )
            blank = self._blank()
            restored = {_text(name): blank.restored(parts) for name, parts in streams.items()}
            texts = {_text(name): _text(note) for name, note in notes.items()}
        except (AttributeError, KeyError, OverflowError, TypeError) as error:
            raise InputError(f"the state is damaged: {error}; load one of `state_dict`") from error
        self._streams, self._notes = restored, texts

    def __getstate__(self) -> tuple[Policy, VitalsState]:
        return self.policy, self.state_dict()

    def __setstate__(self, state: tuple[Policy, VitalsState]) -> None:
        self.policy, remembered = state
        self.load_state_dict(remembered)

    def _blank(self) -> _native.Detector:
        policy = self.policy
        return _native.Detector(
            budget=policy.budget,
            window=policy.window,
            heat=policy.heat,
            sustained=policy.sustained,
            refractory=policy.refractory,
            update_ratio_watch=policy.update_ratio_watch,
            update_ratio_anomaly=policy.update_ratio_anomaly,
            dead_steps=policy.dead_steps,
            amp_skips=policy.amp_skips,
            amp_floor=policy.amp_floor,
        )

    def _stream(self, name: str) -> _native.Detector:
        return self._streams.setdefault(_text(name), self._blank())


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise InputError(f"a stream is named by text, not by {value!r}")
    return value


def _as_float(name: str, value: object) -> float:
    detach = getattr(value, "detach", None)
    if detach is not None:
        value = detach()  # PyTorch warns where a tensor that wants a gradient becomes a number
    try:
        if isinstance(value, SupportsFloat | SupportsIndex):
            return float(value)
    except (OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"`{name}` is not one number: {error}") from error
    raise InputError(f"`{name}` is {value!r}: it must be a number")


def _ratios(value: object) -> list[float]:
    if isinstance(value, SupportsFloat) and not hasattr(value, "__len__"):
        return [_as_float("update_ratio", value)]
    try:
        ratios = list(value)  # type: ignore[call-overload]
    except TypeError:
        raise InputError(f"`update_ratio` is {value!r}: it must be numbers") from None
    return [_as_float("update_ratio", ratio) for ratio in ratios]


def _bits(names: Iterable[str]) -> int:
    bits = 0
    for name in [names] if isinstance(names, str) else names:
        if name not in _NONFINITE:
            known = ", ".join(f"`{one}`" for one in _NONFINITE)
            raise InputError(f"`nonfinite` holds {name!r}: it may hold {known}")
        bits |= _NONFINITE[name]
    return bits
