"""A step that went wrong, for a person to look into: its batch, the state before it, the random state, the verdict.

    governor = Governor(model, optimizer, bundles="bundles")        # while training
    bundle = open_bundle("bundles/run-…/bundle-00001234")           # later, in a program that builds the same run
    governor.replay(bundle)
    loss = criterion(model(bundle.batches[0][0]), …)                # bit for bit what it was

A bundle is a folder of safetensors and JSON, so that looking into it runs nothing: `state/` is a snapshot as it is
written elsewhere, `batch.safetensors` has the tensors of the batch, and `bundle.json` the rest. It is written whole or
not at all. A batch comes back in dictionaries, lists and tuples: a dataclass or a named tuple by its field names.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from flyball._native import __version__
from flyball.errors import SnapshotError
from flyball.events import Event, event
from flyball.govern.chance import Chance
from flyball.govern.snapshot.mirror import Arena, Capture, bind
from flyball.govern.snapshot.plain import freeze, thaw
from flyball.govern.snapshot.spill import Saved, decode, encode, folder_of_this_run, write
from flyball.govern.verdict import Action, Evidence, Level, Verdict
from flyball.nested import is_container, leaves, named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flyball.govern.snapshot import TrainingState
    from flyball.govern.telling import Teller

_PLAIN, _BATCH, _STATE = "bundle.json", "batch.safetensors", "state"
_FORMAT = 1


@event("bundle.saved", version=1)
class BundleSaved(Event):
    """A step that went wrong was written to the disk with all that is needed to see it happen again."""

    step: int
    path: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A step that went wrong.

    Args:
        path: The folder it was read from.
        verdict: What was said of it.
        loss: The loss that `step` was given.
        position: Where its first batch stood; None without a feed.
        batches: Its batches; none without a feed, or where a batch holds something that is neither tensor nor plain.
        chances: The random state before the forward of each batch.
        remarks: What could not be kept, in sentences.
        versions: Of flyball and torch, when it was written.
    """

    path: Path
    verdict: Verdict
    loss: float
    position: str | None
    batches: tuple[Any, ...]
    chances: tuple[Chance, ...]
    remarks: tuple[str, ...]
    versions: dict[str, str]

    @property
    def state(self) -> Path:
        """The folder with the state before the step, as a snapshot is written."""
        return self.path / _STATE


class Offence(NamedTuple):
    """What a bundle is made of, beside the state."""

    verdict: Verdict
    loss: float
    position: str | None
    batches: Sequence[Any]
    chances: Sequence[Chance]
    remarks: tuple[str, ...] = ()


class Bundles:
    """Write bundles into a folder of this run's, at most so many; the oldest goes.

    Args:
        folder: Where.
        state: What the run consists of.
        most: How many are kept.
        teller: Who is told.
    """

    def __init__(self, folder: Path, state: TrainingState, most: int, teller: Teller) -> None:
        self._folder = folder_of_this_run(folder)
        self._state = state
        self._most = most
        self._teller = teller
        self._written: list[Path] = []

    def save(self, offence: Offence) -> None:
        """Write a bundle; a disk that refuses is told, and stops nothing."""
        step = offence.verdict.step
        path = self._folder / f"bundle-{step:08}"
        part = self._folder / f".{path.name}.part"
        if path in self._written:  # the same step, after a rollback
            path = path.with_name(f"{path.name}-{len(self._written)}")
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            write(part, _captured(self._state, step), _STATE)
            _write(part, offence)
            part.rename(path)
        except (OSError, SnapshotError, SafetensorError) as error:
            shutil.rmtree(part, ignore_errors=True)
            self._teller.warn("step %d: no bundle was written to `%s` (%s)", step, path, error)
            return
        self._written.append(path)
        while len(self._written) > self._most:
            shutil.rmtree(self._written.pop(0), ignore_errors=True)
        self._teller.tell(BundleSaved(step=step, path=str(path)))


def open_bundle(folder: str | Path) -> Bundle:
    """Read a bundle; nothing in it is executed.

    Args:
        folder: Its folder.

    Raises:
        SnapshotError: A file is missing or damaged; it is named.
    """
    path = Path(folder)
    at = path / _PLAIN
    try:
        body = json.loads(at.read_bytes())
        if body["format"] != _FORMAT:
            raise ValueError(f"its format is {body['format']}, and this version reads {_FORMAT}")
        plain = decode(body["content"])
        at = path / _BATCH
        tensors = load_file(at) if at.exists() else {}
        return Bundle(
            path=path,
            verdict=_verdict(plain["verdict"]),
            loss=plain["loss"],
            position=plain["position"],
            batches=tuple(thaw(batch, lambda index: tensors[str(index)].clone()) for batch in plain["batches"]),
            chances=tuple(map(_chance, plain["chances"])),
            remarks=tuple(plain["remarks"]),
            versions=plain["versions"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise SnapshotError(f"`{at}` cannot be read ({why}): open another bundle", reason="damaged") from error


def _captured(state: TrainingState, step: int) -> Saved:
    """Copy the state as it is, finite or not: that it is not may be what is looked for."""
    captured = state.capture()
    source = bind(captured.members, None)
    arena = Arena(source.layout.size, pinned=source.pinned)
    checksums, bad = Capture(source, arena).finish()
    return Saved(0, step, bad is None, captured.trees, source.layout, checksums, arena.tensor)


def _write(folder: Path, offence: Offence) -> None:
    tensors: dict[str, torch.Tensor] = {}

    def take(_: str, tensor: torch.Tensor) -> int:
        tensors[str(len(tensors))] = tensor.detach().cpu().contiguous().clone()
        return len(tensors) - 1

    batches, remarks = [], list(offence.remarks)
    for number, batch in enumerate(offence.batches):
        try:
            strange = [one for one in leaves(batch) if isinstance(one, torch.Tensor) and one.layout != torch.strided]
            if strange:
                raise SnapshotError("a sparse tensor has no form in safetensors", reason="unsupported")
            frozen = freeze(_plain(batch), f"batch {number}", take)
            batches.append(encode(frozen, f"batch {number}"))
        except SnapshotError as error:
            remarks.append(f"batch {number} is not in the bundle: {error}")
    verdict = offence.verdict
    content = {
        "verdict": {
            "step": verdict.step,
            "stream": verdict.stream,
            "level": verdict.level.name,
            "action": verdict.action.value,
            "reasons": list(verdict.reasons),
            "evidence": [[getattr(one, name) for name in Evidence.__slots__] for one in verdict.evidence],
            "rho": verdict.rho,
            "note": verdict.note,
            "text": str(verdict),
        },
        "loss": offence.loss,
        "position": offence.position,
        "chances": [_of_chance(one) for one in offence.chances],
        "remarks": remarks,
        "versions": {"flyball": __version__, "torch": str(torch.__version__)},
    }
    encoded = encode(content, "bundle")
    encoded["dict"].append(["batches", batches])
    if tensors:
        save_file(tensors, folder / _BATCH)
    (folder / _PLAIN).write_text(json.dumps({"format": _FORMAT, "content": encoded}, allow_nan=False), encoding="utf-8")


def _plain(value: Any) -> Any:
    """Return a batch in containers that JSON knows: what has field names becomes a dictionary."""
    if not is_container(value):
        return value
    if type(value) in {tuple, list}:
        return type(value)(map(_plain, value))
    return {key: _plain(one) for key, one in named(value).items()}


def _verdict(plain: dict[str, Any]) -> Verdict:
    return Verdict(
        plain["step"],
        plain["stream"],
        Level[plain["level"]],
        Action(plain["action"]),
        tuple(plain["reasons"]),
        tuple(Evidence(*parts) for parts in plain["evidence"]),
        plain["rho"],
        plain["note"],
    )


def _of_chance(chance: Chance) -> dict[str, Any]:
    return {
        "cpu": chance.cpu.numpy().tobytes(),
        "gpus": [one.numpy().tobytes() for one in chance.gpus],
        "others": chance.others,
    }


def _chance(plain: dict[str, Any]) -> Chance:
    def tensor(content: bytes) -> torch.Tensor:
        return torch.frombuffer(bytearray(content), dtype=torch.uint8)

    return Chance(tensor(plain["cpu"]), tuple(map(tensor, plain["gpus"])), plain["others"])
