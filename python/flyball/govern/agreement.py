"""What the ranks of a run agree on, so that all of them do the same at the same step.

Each rank judges alone, with a detector of its own. All detectors are fed the same numbers, the loss as its mean over
the ranks and the norm of all gradients, so every verdict, question and snapshot is the same everywhere, and one small
message a step is enough:

    step        loss and norm, and whether the batch can be kept; what is not finite on one rank is refused on all
    answer      the loss of a batch that is served again: of the same age on every rank
    look        rarely: which kept batches every rank can serve, what of the state is not finite
    capture     whether every rank has its snapshot, and whether replicas still have the same weights
    vote        the newest snapshot that every rank has whole, and has prepared to restore
    restored    whether it did, and whether replicas have the same weights again
    epoch, end  where the data stand: ranks with different numbers of batches would wait for each other for ever

The mean is taken in the order of the ranks, so it is the same to the last bit everywhere, and NaN travels as itself.
Random state, buffers, kept batches and places in the data stay each rank's own.
"""

from __future__ import annotations

import hashlib
import logging
import math
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import torch

from flyball.errors import AgreementError, FlyballError
from flyball.govern import records
from flyball.govern.wire import WORDS, Wire, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from flyball.events import Event

_LOG = logging.getLogger("flyball.govern")


class Topic(IntEnum):
    """What a message is about."""

    START = 0
    STEP = 1
    ANSWER = 2
    LOOK = 3
    CAPTURE = 4
    VOTE = 5
    RESTORED = 6
    EPOCH = 7
    END = 8


_CALLED = ("start", "step", "answer", "look", "snapshot", "rollback", "restored", "epoch", "end of epoch")


class Spoilt(IntEnum):
    """Whether a buffer of the model is not finite, and since when."""

    NOTHING = 0
    BATCH = 1
    STATE = 2


class Measured(NamedTuple):
    """What one step is judged by: measured on one rank, or agreed on by all.

    Attributes:
        loss: The loss; agreed on, the mean.
        norm: The norm of the gradients that every rank has alike, None if there are none.
        shards: The squared norm of the shards that a rank has alone, 0 if nothing is sharded; agreed on, their part is
            in `norm`.
        scale: The scale of the gradient scaler, if there is one.
        buffers: Whether a buffer is not finite; agreed on, the worst.
        whole: Whether the step is made of what its feed was told.
        keep: Whether its batches can be kept.
    """

    loss: float
    norm: float | None
    shards: float = 0.0
    scale: float | None = None
    buffers: Spoilt = Spoilt.NOTHING
    whole: bool = True
    keep: bool = True


class Replicas:
    """The parameters that every rank holds in full, and must hold alike; the shards of others are a rank's own.

    Args:
        model: Whose parameters.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model

    def names(self) -> tuple[str, ...]:
        """Return what they are called in the model."""
        return tuple(name for name, one in self._model.named_parameters() if not is_sharded(one))

    def digests(self) -> list[int]:
        """Return a digest of the bytes of each."""
        return digests_of([one for one in self._model.parameters() if not is_sharded(one)])

    def digest_of_shards(self) -> int:
        """Return a digest of the bytes that are this rank's own."""
        return digest_of(digests_of([own_part(one) for one in self._model.parameters() if is_sharded(one)]))


class Agreement:
    """The ranks of a run, seen from one of them; every method is to be called by all of them, in the same order.

    Args:
        wire: What carries the messages.
        tell: Where events go.

    Attributes:
        stop: Set it where this rank wants the run to end; it is said with the next step.
        stopped: Whether a rank has said so: all of them know it after the same step.

    Every method raises `AgreementError`, which names the rank that is gone, late, or elsewhere in its program.
    """

    def __init__(self, wire: Wire, tell: Callable[[Event], None]) -> None:
        self.rank = wire.rank
        self.ranks = wire.ranks
        self._wire = wire
        self._tell = tell
        self.stop = self.stopped = False
        self._told_norms = False

    @classmethod
    def of_this_run(cls, timeout: float, tell: Callable[[Event], None]) -> Agreement | None:
        """Connect the ranks of the default process group; None where there is one process.

        Args:
            timeout: How long a rank is waited for, in seconds.
            tell: Where events go.
        """
        if not torch.distributed.is_available() or not torch.distributed.is_initialized():
            return None
        ranks = torch.distributed.get_world_size()
        if ranks == 1:
            return None
        return cls(connect(torch.distributed.get_rank(), ranks, timeout, _CALLED), tell)

    def start(self, **digests: int) -> None:
        """Compare what must be alike before the first step, each thing by its name.

        Raises:
            AgreementError: Something differs; it is named, and so are the ranks.
        """
        rows = self._exchange(Topic.START, *map(float, digests.values()))
        for number, name in enumerate(digests):
            others = _unlike([row[2 + number] for row in rows])
            if others:
                raise AgreementError(
                    f"`{name}` of {named(others)} is not that of the other ranks: build the same run on every rank",
                    ranks=others,
                )

    def step(self, own: Measured) -> Measured:
        """Return what all ranks judge the step by."""
        flags = (own.norm is not None) | own.whole << 1 | own.keep << 2 | own.buffers << 3 | self.stop << 5
        norm = 0.0 if own.norm is None else own.norm
        scale = 0.0 if own.scale is None else own.scale
        rows = self._exchange(Topic.STEP, own.loss, norm, own.shards, scale, float(flags))
        loss, shards, squares = 0.0, 0.0, 0.0
        every, some = -1, 0
        first = rows[0][3]
        alike = True
        for _, _, one, norm, square, _, flag, *_ in rows:
            loss += one
            shards += square
            squares += norm * norm
            alike = alike and (norm == first or abs(norm - first) <= _ROUNDING * first)
            every &= int(flag)
            some |= int(flag)
        # Replicas have the same gradients. Where nobody has averaged them, no rank's norm is the right one.
        together: float | None = first if alike else math.sqrt(squares / self.ranks)
        if not alike and math.isfinite(squares):
            self._say_that_norms_differ([row[3] for row in rows])
        if shards:
            together = math.sqrt((first * first if alike else squares / self.ranks) + shards)
        self.stopped = bool(some >> 5)
        return Measured(
            loss / self.ranks,
            together if some & 1 else None,
            0.0,
            None if own.scale is None else min(row[5] for row in rows),
            Spoilt(max(int(row[6]) >> 3 & 3 for row in rows)) if some >> 3 & 3 else Spoilt.NOTHING,
            bool(every & 2),
            bool(every & 4),
        )

    def answer(self, loss: float, *, whole: bool) -> tuple[float, bool]:
        """Return the mean loss of what every rank has served again, and whether each has seen all of it."""
        rows = self._exchange(Topic.ANSWER, loss, float(whole))
        return sum(row[2] for row in rows) / self.ranks, all(row[3] for row in rows)

    def every(self, *flags: bool) -> tuple[bool, ...]:
        """Return which flags are up on every rank."""
        rows = self._exchange(Topic.LOOK, *map(float, flags))
        return tuple(all(row[2 + number] for row in rows) for number in range(len(flags)))

    def common(self, *masks: int) -> tuple[int, ...]:
        """Return the bits, of at most 52, that are set on every rank."""
        rows = self._exchange(Topic.LOOK, *map(float, masks))
        found = []
        for number in range(len(masks)):
            bits = -1
            for row in rows:
                bits &= int(row[2 + number])
            found.append(bits)
        return tuple(found)

    def first_named(self, name: str | None, names: Sequence[str]) -> str | None:
        """Return the last of the names that a rank gives: where shards differ, what a backward reaches first."""
        rows = self._exchange(Topic.LOOK, -1.0 if name is None else float(names.index(name)))
        last = int(max(row[2] for row in rows))
        return None if last < 0 else names[last]

    def captured(self, *, whole: bool, reason: int, digest: int) -> Captured:
        """Say whether this rank has its snapshot, and return what became of it on all ranks.

        Args:
            whole: Whether it has.
            reason: Why not, as a number; the highest of all ranks is returned.
            digest: Of what replicas have alike.
        """
        rows = self._exchange(Topic.CAPTURE, float(whole), float(reason), float(digest))
        failed = tuple(rank for rank, row in enumerate(rows) if not row[2])
        unlike = () if failed else _unlike([row[4] for row in rows])
        return Captured(failed, int(max(row[3] for row in rows)), unlike)

    def vote(self, snapshot: int) -> tuple[int, ...]:
        """Return the newest snapshot that each rank is ready to restore, 0 where there is none."""
        return tuple(int(row[2]) for row in self._exchange(Topic.VOTE, float(snapshot)))

    def restored(self, *, whole: bool, digest: int, shards: int) -> Restored:
        """Say how a restore went on this rank, and return how it went on all of them.

        Args:
            whole: Whether it did not break off.
            digest: Of what replicas have alike.
            shards: Of what is this rank's own.
        """
        rows = self._exchange(Topic.RESTORED, float(whole), float(digest), float(shards))
        failed = tuple(rank for rank, row in enumerate(rows) if not row[2])
        unlike = () if failed else _unlike([row[3] for row in rows])
        return Restored(failed, unlike, f"{digest_of([int(row[word]) for row in rows for word in (3, 4)]):012x}")

    def first_difference(self, digests: Sequence[int]) -> int | None:
        """Return the number of the first digest that is not the same on all ranks, in a few messages."""
        low, high = 0, len(digests)  # the first `low` are alike, the first `high` are not
        while high - low > 1:
            middle = (low + high) // 2
            rows = self._exchange(Topic.LOOK, float(digest_of(digests[:middle])))
            if _unlike([row[2] for row in rows]):
                high = middle
            else:
                low = middle
        return low if high else None

    def epoch(self, epoch: int, batch: int, length: int | None) -> None:
        """Compare where the data stand when a loop over them begins.

        Raises:
            AgreementError: The ranks are in different epochs, or have different numbers of batches.
        """
        rows = self._exchange(Topic.EPOCH, float(epoch), float(batch), -1.0 if length is None else float(length))
        for number, what in ((0, "epoch"), (1, "batch")):
            found = [int(row[2 + number]) for row in rows]
            if others := _unlike(found):
                raise AgreementError(
                    f"the loop over the data begins at {what} {_by_rank(found)}: bring every rank to the same place, "
                    "as `load_state_dict` of the feed does",
                    ranks=others,
                )
        lengths = [int(row[4]) for row in rows]
        if others := _unlike(lengths):
            raise AgreementError(
                f"an epoch has different numbers of batches: {_by_rank(lengths)}. Those with more would wait "
                "for the others for ever: give every rank as many, as `DistributedSampler` and `drop_last=True` do",
                ranks=others,
            )

    def end(self, batches: int) -> None:
        """Say that the data of an epoch are used up; a rank that has more of them is found by being elsewhere."""
        self._exchange(Topic.END, float(batches))

    @contextmanager
    def naming_ranks(self) -> Iterator[None]:
        """Name the rank that is gone where a collective of somebody else fails: a backward under DDP, for one.

        Raises:
            AgreementError: In the place of the error, which becomes its cause, if a rank is gone.
        """
        try:
            yield
        except FlyballError:
            raise
        except RuntimeError as error:
            named = self._wire.roll_call(_PATIENCE) if _is_of_a_connection(error) else None
            if named is None:
                raise
            self._tell(records.AgreementLost(ranks=named.ranks, message=str(named)))
            raise named from error

    def _say_that_norms_differ(self, norms: Sequence[float]) -> None:
        if not self._told_norms:
            self._told_norms = True
            listed = ", ".join(f"{norm:.6g} on rank {rank}" for rank, norm in enumerate(norms))
            _LOG.warning(
                "the norms of the gradients differ between the ranks (%s), so nobody has averaged them: wrap the model "
                "in `DistributedDataParallel`, or use `fully_shard`",
                listed,
            )

    def _exchange(self, topic: Topic, *words: float) -> list[tuple[float, ...]]:
        try:
            return self._wire.exchange(topic, words + _REST[len(words)])  # type: ignore[return-value]
        except AgreementError as error:
            self._tell(records.AgreementLost(ranks=error.ranks, message=str(error)))
            raise


class Captured(NamedTuple):
    """What became of a snapshot.

    Attributes:
        failed: The ranks that could not take it.
        reason: The highest of their reasons.
        unlike: The ranks whose weights are not those of the others, though they are replicas.
    """

    failed: tuple[int, ...]
    reason: int
    unlike: tuple[int, ...]


class Restored(NamedTuple):
    """How a restore went.

    Attributes:
        failed: The ranks on which it broke off.
        unlike: The ranks whose weights are not those of the others now, though they are replicas.
        digest: Of the weights of all ranks together.
    """

    failed: tuple[int, ...]
    unlike: tuple[int, ...]
    digest: str


_ROUNDING = 1e-4  # of a norm: ranks may sum it in another order
_REST = tuple((0.0,) * (WORDS - given) for given in range(WORDS + 1))
_PATIENCE = 5.0  # seconds until a death that torch has seen is seen here
_CONNECTION = ("gloo", "nccl", "connection closed", "connection reset", "timed out")


def is_sharded(tensor: torch.Tensor) -> bool:
    """Say whether a tensor is distributed, so that this rank holds only its own shard."""
    return hasattr(tensor, "to_local")


@torch.no_grad()
def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return the shard of a distributed tensor that this rank holds, and any other tensor as it is."""
    if not is_sharded(tensor):
        return tensor
    shard: torch.Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return shard


def shape_of(*things: torch.nn.Module | torch.optim.Optimizer) -> int:
    """Return a digest of what modules and optimizers are made of, not of their values."""
    said: list[object] = []
    for one in things:
        said.append(type(one).__name__)
        if isinstance(one, torch.nn.Module):
            said += [(name, tuple(part.shape), part.dtype) for name, part in one.named_parameters()]
        else:
            said += [[tuple(part.shape) for part in group["params"]] for group in one.param_groups]
    return digest_of(said)


def digest_of(values: Sequence[object]) -> int:
    """Return a digest of 48 bits, which a message can carry."""
    digest = hashlib.blake2b(digest_size=6)
    for value in values:
        digest.update(f"{value}\0".encode())
    return int.from_bytes(digest.digest(), "little")


def digests_of(tensors: Sequence[torch.Tensor]) -> list[int]:
    """Return a digest of the bytes of each tensor."""
    found = []
    for tensor in tensors:
        values = tensor.detach().cpu().contiguous().view(torch.uint8) if tensor.numel() else None
        content = b"" if values is None else values.numpy().data
        found.append(int.from_bytes(hashlib.blake2b(content, digest_size=6).digest(), "little"))
    return found


def _unlike(values: Sequence[object]) -> tuple[int, ...]:
    """Return the ranks that do not have what most have; where two halves differ, what rank 0 has counts."""
    if all(value == values[0] for value in values):
        return ()
    most = max(values, key=lambda value: (values.count(value), value == values[0]))
    return tuple(rank for rank, value in enumerate(values) if value != most)


def named(ranks: Sequence[int]) -> str:
    """Return what some ranks are called in a message."""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def _by_rank(values: Sequence[int]) -> str:
    return ", ".join(f"{'unknown' if value < 0 else value} on rank {rank}" for rank, value in enumerate(values))


def _is_of_a_connection(error: RuntimeError) -> bool:
    text = str(error).lower()
    return any(word in text for word in _CONNECTION)
