"""A run of several processes: which data are whose, which folder, which checkpoint all have, and how shards are saved.

    torchrun --nproc-per-node 4 train.py

Every rank writes its checkpoints into a folder of its own, as its random state and its place in the data are its own:
rank 0 into the run folder, the others into `ranks/N` inside it. The journal is rank 0's, unless more are asked for. A
run is resumed from the newest checkpoint that all ranks have.
"""

from __future__ import annotations

import logging
import random
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

from flyball import run_folder
from flyball.errors import CheckpointError, InputError
from flyball.govern.agreement import is_sharded
from flyball.train import resume as resuming
from flyball.train.checkpoint import found

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence, Sized
    from pathlib import Path

_LOG = logging.getLogger("flyball.train")

RANKS = "ranks"
_LARGE = 1 << 18  # elements from which on a tensor is not worth being copied together with others

T = TypeVar("T")


def world() -> tuple[int, int]:
    """Return the rank of this process, and how many there are; 0 and 1 for a process alone."""
    if not dist.is_available() or not dist.is_initialized():
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def seed(number: int, *, apart: bool = False) -> None:
    """Seed the generators of Python, NumPy and torch: alike on every rank, or so that no two ranks draw the same.

        seed(0)
        model = DistributedDataParallel(make_model())    # the same weights everywhere
        seed(0, apart=True)                              # and from here on dropout and augmentation of its own

    Args:
        number: The seed of the run, 0 or more.
        apart: Whether each rank gets a stream of its own.

    Raises:
        InputError: `number` is negative.
    """
    if number < 0:
        raise InputError(f"`number` is {number}: seed with 0 or more")
    path = (1 + world()[0],) if apart else ()
    for_torch, for_numpy, for_python = np.random.SeedSequence(number, spawn_key=path).generate_state(3, np.uint32)
    torch.manual_seed(int(for_torch))
    np.random.seed(for_numpy)  # noqa: NPY002 -- what many augmentations draw from
    random.seed(int(for_python))


def own_folder(folder: Path) -> Path:
    """Return the part of a run folder that this rank writes."""
    rank, _ = world()
    return folder if rank == 0 else folder / RANKS / str(rank)


def bare(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model inside DDP, whose forward says nothing to other ranks: these may have fewer batches."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def average_over_ranks(gradients: Sequence[torch.Tensor]) -> None:
    """Make each gradient the mean of what the ranks have for it; every rank calls this with as many."""
    ranks = world()[1]
    if ranks == 1:
        return
    large = [one for one in gradients if one.numel() >= _LARGE]
    for one in large:
        dist.all_reduce(one)
        one /= ranks  # noqa: PLW2901 -- in place
    small = [one for one in gradients if one.numel() < _LARGE]
    for dtype in dict.fromkeys(one.dtype for one in small):
        same = [one for one in small if one.dtype is dtype]
        flat = torch.cat([one.flatten() for one in same])
        dist.all_reduce(flat)
        flat /= ranks
        for one, mean in zip(same, flat.split([one.numel() for one in same]), strict=True):  # type: ignore[no-untyped-call]
            one.copy_(mean.view_as(one))


def set_epoch(loader: object, epoch: int) -> None:
    """Tell a sampler that shuffles by the epoch, as `DistributedSampler` does, which one begins."""
    tell = getattr(getattr(loader, "sampler", None), "set_epoch", None)
    if callable(tell):
        tell(epoch)


class Part(Sampler[int]):
    """The samples of a dataset that this rank measures: every one is in the part of exactly one rank.

    `DistributedSampler` repeats samples until all parts are equally long, and what is measured counts these twice.

    Args:
        dataset: What is divided.

    Raises:
        InputError: There are fewer samples than ranks, so a part would be empty.
    """

    def __init__(self, dataset: Sized) -> None:
        self._rank, self._ranks = world()
        self._size = len(dataset)
        if self._size < self._ranks:
            raise InputError(f"`dataset` has {self._size} samples for {self._ranks} ranks: measure it on fewer")

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._rank, self._size, self._ranks))

    def __len__(self) -> int:
        return len(range(self._rank, self._size, self._ranks))


def newest_of_all(folder: Path) -> resuming.Checkpoint | None:
    """Read the newest checkpoint in this rank's folder of which every rank has one that can be read.

    Args:
        folder: Where this rank's checkpoints are.

    Returns:
        None where no rank has any.

    Raises:
        CheckpointError: There are some, and none that all have; the message says what each rank has.
    """
    if world()[1] == 1:
        return resuming.newest(folder)
    mine = {one.path.name: one.path for one in found(folder)}
    had = _from_all(sorted(mine))
    passed_over: list[str] = []
    for name in sorted(set.intersection(*map(set, had)), reverse=True):
        checkpoint, trouble = None, ""
        try:
            checkpoint = resuming.read(mine[name], tuple(passed_over))
        except CheckpointError as error:
            trouble = str(error)
        troubles = [f"rank {rank}: {said}" for rank, said in enumerate(_from_all(trouble)) if said]
        if not troubles:
            return checkpoint
        _LOG.warning("%s; the one before it is taken, if there is one", "; ".join(troubles))
        passed_over += troubles
    if not any(had):
        return None
    newest = "; ".join(f"rank {rank}: {names[-1] if names else 'none'}" for rank, names in enumerate(had))
    raise CheckpointError(
        f"the ranks have no checkpoint in common that can be read ({'; '.join(passed_over) or newest}): bring their "
        "folders back, or start in another one",
        reason="missing",
    )


def at(path: Path) -> resuming.Checkpoint:
    """Read the checkpoint that a path of rank 0 names, or the newest that all ranks have of a run folder.

    Raises:
        CheckpointError: There is none, it cannot be read, or it is not one of flyball's.
    """
    if world()[1] == 1 or path.is_file():
        return resuming.at(path)
    if path.parent.name == run_folder.CHECKPOINTS:
        return resuming.at(own_folder(path.parent.parent) / run_folder.CHECKPOINTS / path.name)
    own = own_folder(path)
    return newest_of_all(own / run_folder.CHECKPOINTS) or resuming.at(own)


@contextmanager
def with_shards(model: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[None]:
    """Let an optimizer of shards have its state while one is put back: only the optimizer can make its shards."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    made = [one for one in optimizers if not one.state] if any(map(is_sharded, model.parameters())) else []
    if made:
        get_optimizer_state_dict(model, made)  # which makes what is not there
    try:
        yield
    except BaseException:
        for one in made:
            one.state.clear()
        raise


def save_sharded(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer]
) -> Path:
    """Write weights and optimizer state of a model that is sharded over the ranks, each rank its shards.

    Unlike the checkpoints of a run, it can be loaded by another number of ranks; it holds neither random state nor the
    place in the data. It appears under its name whole or not at all. Every rank calls this.

    Args:
        folder: Where; it must not exist.
        model: As `fully_shard` made it, under DDP, or plain.
        optimizer: Its optimizer, or several.

    Raises:
        CheckpointError: The folder exists already.
    """
    from torch.distributed.checkpoint.state_dict import get_state_dict
    from torch.distributed.checkpoint.state_dict_saver import save

    rank, ranks = world()
    if _on_any(folder.exists()):
        raise CheckpointError(f"`{folder}` exists already, and is not written over: name another one", reason="foreign")
    weights, moments = get_state_dict(model, optimizer)
    part = folder.with_name(f".{folder.name}.part")
    if rank == 0:
        shutil.rmtree(part, ignore_errors=True)  # of a run that was killed while it wrote
    _meet(ranks)
    save({"model": weights, "optimizer": moments}, checkpoint_id=part, no_dist=ranks == 1)
    if rank == 0:
        part.rename(folder)
    _meet(ranks)
    return folder


def load_sharded(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer]
) -> None:
    """Load what `save_sharded` has written into a model and its optimizer, over as many ranks as there are now.

    The folder is one of torch's own, and its index is a pickle: load only what you have written yourself. Every rank
    calls this.

    Raises:
        CheckpointError: There is no such folder.
    """
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load

    _, ranks = world()
    if not (folder / ".metadata").is_file():
        raise CheckpointError(f"`{folder}` is no checkpoint that `save_sharded` has written", reason="missing")
    weights, moments = get_state_dict(model, optimizer)
    state: dict[str, Any] = {"model": weights, "optimizer": moments}
    load(state, checkpoint_id=folder, no_dist=ranks == 1)
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])


def _meet(ranks: int) -> None:
    if ranks > 1:
        dist.barrier()


def _on_any(flag: bool) -> bool:  # noqa: FBT001 -- what is asked of all ranks
    if world()[1] == 1:
        return flag
    return any(_from_all(flag))


def _from_all(value: T) -> list[T]:
    """Return what each rank has given."""
    found: list[Any] = [None] * world()[1]
    dist.all_gather_object(found, value)
    return found
