"""The task itself: what the targets ask of the scores. Which loss it is, is said and never guessed from the data."""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from flyball import outputs
from flyball.errors import ConfigError, InputError
from flyball.objective import labels, losses
from flyball.objective.algebra import Objective, Term

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flyball.batch import Batch
    from flyball.objective.context import StepContext

Loss = Literal["cross-entropy", "focal", "binary", "language", "mse", "l1", "huber"]

# Which arguments each loss understands, besides `output`.
_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "cross-entropy": ("smoothing", "smooth_soft_targets", "class_weight", "ignore_index"),
    "focal": ("gamma", "class_weight", "ignore_index"),
    "binary": ("smoothing", "pos_weight", "gamma"),
    "language": ("smoothing", "ignore_index", "shift"),
    "mse": (),
    "l1": (),
    "huber": ("delta",),
}
_DEFAULTS: Mapping[str, Any] = {
    "smoothing": 0.0,
    "smooth_soft_targets": True,
    "class_weight": None,
    "ignore_index": losses.IGNORED,
    "gamma": None,
    "pos_weight": None,
    "shift": False,
    "delta": 1.0,
}
_HALF = (torch.float16, torch.bfloat16)
_INDICES = ("cross-entropy", "focal", "language")
_SUM_TOLERANCE = 1e-2  # probabilities may have been rounded to half precision
_SHOWN = 8
_FEW = 64


class Task(Term):
    """The task term: how far the scores are from the targets, as a mean over samples or tokens.

    `Task()` is multi-class: one class of several, as an index or as probabilities. Several labels at once are
    `Task("binary")`. Which part of the model's outputs is the scores, `flyball.outputs` tells; or `output` does.

    Args:
        loss: "cross-entropy", "focal", "binary" (each label yes or no), "language" (the next token, classes last),
            "mse", "l1", "huber", or a function of scores and targets that returns a mean.
        smoothing: Of cross-entropy (1 - s) onehot + s / C, of binary y (1 - s) + s / 2.
        smooth_soft_targets: Whether targets that are probabilities already are smoothed too.
        class_weight: How much each class counts; of focal, its alpha.
        ignore_index: A target that does not count.
        gamma: Of focal (2 by default) and binary (0): how little what is right already counts.
        pos_weight: Of binary: how much a yes counts, for each label or all.
        delta: Of huber: where the square ends.
        shift: Of language: whether the targets are the tokens themselves, so that score t is compared with t + 1.
        output: Where the scores are in what the model returns: a key, a position, or a function of it.
        pace: What every term takes: `weight`, `warmup`, `delay`, `every`, `phase`, `compensate`, `name`.

    Raises:
        ConfigError: The loss is unknown, or an argument is out of its range or not for this loss.
    """

    class_weight: torch.Tensor | None
    pos_weight: torch.Tensor | None

    def __init__(
        self,
        loss: Loss | Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = "cross-entropy",
        *,
        smoothing: float = 0.0,
        smooth_soft_targets: bool = True,
        class_weight: torch.Tensor | list[float] | None = None,
        ignore_index: int = losses.IGNORED,
        gamma: float | None = None,
        pos_weight: torch.Tensor | list[float] | float | None = None,
        delta: float = 1.0,
        shift: bool = False,
        output: str | int | Callable[[Any], torch.Tensor] | None = None,
        **pace: Any,
    ) -> None:
        super().__init__(**pace)
        given = {
            "smoothing": smoothing,
            "smooth_soft_targets": smooth_soft_targets,
            "class_weight": class_weight,
            "ignore_index": ignore_index,
            "gamma": gamma,
            "pos_weight": pos_weight,
            "delta": delta,
            "shift": shift,
        }
        self._said = {name: value for name, value in given.items() if _differs(value, _DEFAULTS[name])}
        _check(loss, self._said)
        self.loss = loss
        self.output = output
        self.smoothing, self.smooth_soft_targets = smoothing, smooth_soft_targets
        self.ignore_index, self.delta, self.shift = ignore_index, delta, shift
        self.gamma = (2.0 if loss == "focal" else 0.0) if gamma is None else float(gamma)
        self._plain = loss == "cross-entropy" and class_weight is None and output is None
        for name, value in (("class_weight", class_weight), ("pos_weight", pos_weight)):
            if value is None:
                setattr(self, name, None)  # a buffer that is None would be looked up slowly at every step
            else:
                self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32), persistent=False)

    def forward(self, model: Any, batch: Batch, step: StepContext) -> torch.Tensor:  # noqa: ARG002
        """Return the mean loss of the batch.

        Raises:
            InputError: Scores and targets do not fit each other; the message says how.
        """
        scores, targets = self.scores(step.outputs), batch.targets
        if self._plain and _usual(scores, targets) and batch.weight is None and batch.mask is None:
            try:  # what nearly every step is, in one call
                return functional.cross_entropy(
                    scores, targets, ignore_index=self.ignore_index, label_smoothing=self.smoothing
                )
            except (IndexError, RuntimeError, ValueError) as error:
                if (found := labels.trouble(scores, targets, ignore_index=self.ignore_index)) is not None:
                    raise found from error
                raise
        if not isinstance(targets, torch.Tensor):
            raise self._no_targets(targets)
        if scores.dtype in _HALF:
            scores = scores.float()
        loss = self.loss
        if loss == "cross-entropy" or loss == "focal":  # noqa: PLR1714 -- a set would have to hash a user's function
            return self._classes(scores, targets, losses.counted(batch.weight, batch.mask), step)
        if not isinstance(loss, str):
            return self._own(loss, scores, batch)
        counts = losses.counted(batch.weight, batch.mask)
        if loss == "language":
            return self._language(scores, targets, counts, step)
        scores = _same_shape(scores, targets)
        if loss == "binary":
            return self._labels(scores, targets, counts, step)
        return losses.regression(scores, targets, loss, delta=self.delta, counts=counts)

    def scores(self, said: Any) -> torch.Tensor:
        """Return the scores among what a model returned.

        Raises:
            InputError: They are not where they are looked for.
        """
        output = self.output
        if output is None:
            return outputs.scores(said)
        try:
            found = output(said) if callable(output) else said[output]
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(
                f"the model returned a {type(said).__name__}, in which `output={_called(output)}` finds nothing "
                f"({error!r}): name a key or a position that is there, or pass a function"
            ) from error
        if not isinstance(found, torch.Tensor):
            raise InputError(
                f"`output={_called(output)}` finds a {type(found).__name__}: name where the tensor of scores is"
            )
        return found

    def count(self, batch: Batch) -> float | torch.Tensor:
        """Return how many samples or tokens the loss is the mean of, each as often as its weight says."""
        targets: Any = batch.targets
        if self._plain and batch.weight is None and batch.mask is None and _few(targets):
            indices: list[int] = targets.tolist()
            return len(indices) - indices.count(self.ignore_index)
        counts = losses.counted(batch.weight, batch.mask)
        if not isinstance(targets, torch.Tensor):
            return batch.samples
        if self.loss not in _INDICES or targets.is_floating_point():
            return batch.samples if counts is None else counts.sum()
        if self.loss == "language":
            targets, counts = self._shifted(targets, losses.spread(counts, targets.shape))
        if counts is None and self.class_weight is None and targets.is_cpu:
            return int(np.count_nonzero(targets.numpy() != self.ignore_index))  # a tenth of what torch takes
        used = targets != self.ignore_index
        counts = losses.spread(counts, targets.shape)
        counts = used if counts is None else counts * used
        if self.class_weight is not None and self.loss == "cross-entropy":
            counts = counts * self.class_weight.to(targets.device)[torch.where(used, targets, 0)]
        total: torch.Tensor = counts.sum()
        return total

    def extra_repr(self) -> str:
        """Return the arguments as they were given."""
        shown = [] if self.loss == "cross-entropy" else [_called(self.loss)]
        shown += [f"{name}={_called(value)}" for name, value in self._said.items()]
        return ", ".join(shown if self.output is None else [*shown, f"output={_called(self.output)}"])

    def _classes(
        self, scores: torch.Tensor, targets: torch.Tensor, counts: torch.Tensor | None, step: StepContext
    ) -> torch.Tensor:
        poison, smoothing = None, self.smoothing
        if targets.is_floating_point():
            if targets.shape != scores.shape:
                raise labels.wrong_shapes(
                    scores, targets, "integers as class indices, or probabilities for all classes"
                )
            poison = labels.look(*labels.sums_check(targets, _SUM_TOLERANCE), step)
            targets = targets.to(scores.dtype)
            smoothing = smoothing if self.smooth_soft_targets else 0.0
        else:
            targets = targets if targets.dtype is torch.int64 else targets.long()
            if not labels.at_hand(targets) and targets.dim() == scores.dim() - 1:
                wrong, broken, explain = labels.range_check(scores, targets, self.ignore_index)
                poison = labels.look(broken, explain, step)
                targets = torch.where(wrong, 0, targets)
        try:
            value = losses.cross_entropy(
                scores,
                targets,
                smoothing=smoothing,
                class_weight=self.class_weight,
                ignore_index=self.ignore_index,
                gamma=self.gamma,
                counts=counts,
            )
        except (IndexError, RuntimeError, ValueError) as error:
            if (found := labels.trouble(scores, targets, ignore_index=self.ignore_index)) is not None:
                raise found from error
            raise
        return value if poison is None else value * poison

    def answers(self, said: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return what can be right or wrong: a row of scores for each class index, and which of them count.

        Args:
            said: What the model returned.
            batch: The batch.
        """
        scores, targets = self.scores(said), batch.targets
        scores = scores.detach()
        scores = scores.float() if scores.dtype in _HALF else scores
        mask = batch.mask
        if self.loss == "language":
            scores, targets, mask = self._tokens(scores, targets, mask)
        elif targets.is_floating_point():
            targets = targets.argmax(1)
        if self.loss != "language" and scores.dim() > 2:
            mask = losses.spread(mask, targets.shape)
            scores, targets = scores.movedim(1, -1).flatten(0, -2), targets.flatten()
            mask = None if mask is None else mask.flatten()
        counts = targets != self.ignore_index
        return scores, targets.long(), counts if mask is None else counts & mask

    def _language(
        self, scores: torch.Tensor, targets: torch.Tensor, counts: torch.Tensor | None, step: StepContext
    ) -> torch.Tensor:
        if targets.is_floating_point() or scores.shape[:-1] != targets.shape:
            raise labels.wrong_shapes(scores, targets, "one token for each position, the scores of all tokens last")
        return self._classes(*self._tokens(scores, targets, counts), step)

    def _tokens(
        self, scores: torch.Tensor, targets: torch.Tensor, counts: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return a row for each token, each compared with what it is to be compared with."""
        counts = losses.spread(counts, targets.shape)
        if self.shift:
            scores = scores[:, :-1]
        targets, counts = self._shifted(targets, counts)
        # Not `view`: scores may be a slice, or have had their dimensions exchanged.
        flat = None if counts is None else counts.reshape(-1)
        return scores.reshape(-1, scores.shape[-1]), targets.reshape(-1), flat

    def _shifted(self, targets: torch.Tensor, counts: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        if not self.shift:
            return targets, counts
        return targets[:, 1:], None if counts is None else counts[:, 1:]

    def _labels(
        self, scores: torch.Tensor, targets: torch.Tensor, counts: torch.Tensor | None, step: StepContext
    ) -> torch.Tensor:
        poison = None
        if targets.dtype is not torch.bool:
            poison = labels.look(*labels.probabilities_check(targets), step)
        value = losses.binary(
            scores, targets, smoothing=self.smoothing, pos_weight=self.pos_weight, gamma=self.gamma, counts=counts
        )
        return value if poison is None else value * poison

    def _own(self, loss: Callable[..., torch.Tensor], scores: torch.Tensor, batch: Batch) -> torch.Tensor:
        if batch.weight is not None or batch.mask is not None:
            raise InputError(
                f"the batch has a `{'mask' if batch.weight is None else 'weight'}`, which `{self!r}` would ignore: "
                "use a loss by its name, or a `Term` of your own, which is given the whole batch"
            )
        return loss(scores, batch.targets)

    def _no_targets(self, targets: object) -> InputError:
        said = "missing" if targets is None else f"a {type(targets).__name__}"
        return InputError(
            f"`targets` of the batch is {said}, and `{self!r}` compares tensors: "
            "`flyball.batch` says how targets are found in a batch"
        )


def as_objective(thing: Any) -> Objective:
    """Return an objective as it is, a term as an objective, and a loss function as that of a `Task`.

    Raises:
        ConfigError: It is none of these.
    """
    if isinstance(thing, Term | Objective) or not callable(thing) or isinstance(thing, type):
        return Objective.of(thing)
    return Objective.of(Task(thing))


def _check(loss: object, said: Mapping[str, Any]) -> None:
    """Refuse what a loss does not understand, and what is out of range."""
    if isinstance(loss, str):
        if loss not in _ARGUMENTS:
            near = difflib.get_close_matches(loss, _ARGUMENTS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"`loss` of `Task` is {loss!r}: use {', '.join(map(repr, _ARGUMENTS))}, or pass a function{hint}"
            )
        known = _ARGUMENTS[loss]
    elif callable(loss) and not isinstance(loss, type):
        known = ()
    else:
        raise ConfigError(f"`loss` of `Task` is {loss!r}: pass the name of a loss, or a function of scores and targets")
    for name, value in said.items():
        if name not in known:
            takes = ", ".join(f"`{one}`" for one in known) or "no arguments"
            raise ConfigError(
                f"`{name}` is {_called(value)}, which the loss {_called(loss)} does not read: it takes {takes}"
            )
    for name, low, high in (("smoothing", 0.0, 1.0), ("gamma", 0.0, math.inf), ("delta", 0.0, math.inf)):
        value = said.get(name, low)
        if not isinstance(value, int | float) or not low <= value < high:
            raise ConfigError(f"`{name}` of `Task` is {value!r}: pass a number from {low:g} up{_below(high)}")


def _below(high: float) -> str:
    return "" if high == math.inf else f", and below {high:g}"


def _few(targets: Any) -> bool:
    """Whether these are class indices, few enough that counting in Python is faster than calling for it."""
    return (
        type(targets) is torch.Tensor
        and targets.dtype is torch.int64
        and targets.dim() == 1
        and targets.is_cpu
        and len(targets) <= _FEW
    )


def _usual(scores: torch.Tensor, targets: Any) -> bool:
    """Whether scores are float32, on the CPU, and targets the indices of classes."""
    return (
        type(targets) is torch.Tensor
        and targets.dtype is torch.int64
        and scores.dtype is torch.float32
        and targets.is_cpu
        and scores.is_cpu
    )


def _same_shape(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return scores in the shape of the targets; a column of single scores is taken as the row that it is."""
    if scores.shape == targets.shape:
        return scores
    if scores.shape == (*targets.shape, 1):
        return scores.squeeze(-1)
    # To let them spread over each other would compare everything with everything, and say nothing.
    raise labels.wrong_shapes(scores, targets, "targets in the shape of the scores")


def _differs(value: Any, default: Any) -> bool:
    return isinstance(value, torch.Tensor | list) or (value is not default and value != default)


def _called(thing: object) -> str:
    if isinstance(thing, torch.Tensor):
        return repr(thing.tolist()) if thing.numel() <= _SHOWN else f"<{thing.numel()} numbers>"
    if isinstance(thing, nn.Module) or not callable(thing):
        return repr(thing)
    return str(getattr(thing, "__qualname__", repr(thing)))
