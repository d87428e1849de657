"""Train, kill -9 at a random instant, resume, again and again; then compare with the run that nobody killed.

    python tests/train/killing.py KILLS SEED FOLDER

prints one line of JSON. Each training is a process of its own, forked from this one so that torch is imported once, and
killed for real: nothing is flushed, nothing is closed, and a checkpoint that is being written stays half written.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as to_bytes
from torch import nn
from torch.utils.data import DataLoader, Dataset

from flyball.events import StepSample, read
from flyball.files import write_whole
from flyball.govern import Policy
from flyball.objective import Task
from flyball.train import Trainer
from flyball.train.average import EMA
from flyball.train.checkpoint import found
from flyball.train.records import RunResumed

FINAL = "final.safetensors"


@dataclass(frozen=True)
class Kind:
    adam: bool
    accumulate: int = 1
    policy: Policy | None = None
    workers: int = 0
    every: int | None = 3


KINDS = (
    Kind(adam=True, policy=Policy(snapshot_every=5)),
    Kind(adam=False, accumulate=3, every=2),
    Kind(adam=True, every=1),
    Kind(adam=False, workers=1, every=4, policy=Policy(snapshot_every=5)),
    Kind(adam=True, every=None),
)


class Points(Dataset[tuple[torch.Tensor, int]]):
    """Two clusters; every sample is augmented, from every generator."""

    def __init__(self) -> None:
        self.targets = torch.arange(96) % 2
        self.inputs = torch.randn(96, 64, generator=torch.Generator().manual_seed(5)) + self.targets[:, None]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        noise = torch.randn(64) + random.random() + float(np.random.random())  # noqa: NPY002
        return self.inputs[index] + 0.1 * noise, int(self.targets[index])


def train(kind: Kind, folder: Path, seed: int) -> None:
    """Build everything as a new process does, and train to the end, from wherever the run stands."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, 2))
    parameters = model.parameters()
    optimizer = torch.optim.AdamW(parameters) if kind.adam else torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    average = EMA(model, decay=0.9)
    trainer = Trainer(
        model,
        Task(),
        optimizer,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40),
        average=average,
        accumulate=kind.accumulate,
        policy=kind.policy,
        run=folder,
        checkpoint_every=kind.every,
        keep=2,
    )
    context = "fork" if kind.workers else None
    loader = DataLoader(
        Points(), batch_size=8, shuffle=True, num_workers=kind.workers, multiprocessing_context=context
    )  # fmt: skip
    trainer.fit(loader, [(Points().inputs, Points().targets)], epochs=3, resume="auto")
    final = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    final |= {f"average.{name}": tensor.clone() for name, tensor in average.module.state_dict().items()}
    write_whole(folder / FINAL, to_bytes(final))


def start(kind: Kind, folder: Path, seed: int) -> int:
    """Train in a process of its own."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    try:
        train(kind, folder, seed)
    except BaseException as error:  # noqa: BLE001 -- it is told, and the parent fails
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        os._exit(1)
    os._exit(0)


def ended(child: int) -> int:
    """Wait for a process; return its exit code, minus the signal where one killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def losses(folder: Path) -> list[float]:
    """The loss of each step, as it was made last."""
    seen: dict[int, float] = {}
    for record in read(folder / "events.jsonl"):
        if isinstance(record.event, StepSample):
            seen[record.event.step] = record.event.loss
    return [seen[step] for step in sorted(seen)]


def newest(folder: Path) -> int:
    """The step of the newest checkpoint, -1 if there is none."""
    there = found(folder / "checkpoints")
    return there[-1].step if there else -1


def main(kills: int, seed: int, parent: Path) -> dict[str, int]:
    """Kill so many times, and count what came of it."""
    torch.set_num_threads(1)
    train(KINDS[0], parent / "warm", 1)  # what is imported on the way is imported once
    chance = random.Random(seed)
    count = {"kills": 0, "half_written": 0, "before_any": 0, "runs": 0, "same": 0, "lost": 0, "failed": 0}
    references: dict[Kind, tuple[bytes, list[float], float]] = {}
    while count["kills"] < kills:
        kind = KINDS[count["runs"] % len(KINDS)]
        if kind not in references:
            folder = parent / f"reference-{len(references)}"
            started = time.perf_counter()
            if ended(start(kind, folder, 1)):
                raise SystemExit("the reference failed")
            references[kind] = (folder / FINAL).read_bytes(), losses(folder), time.perf_counter() - started
        final, trace, seconds = references[kind]
        folder = parent / f"run-{count['runs']}"
        count["runs"] += 1
        code, attempt = -1, 0
        while code and not count["failed"]:
            # Once a run has begun, the seed of the process must not matter.
            attempt += 1
            before = newest(folder)
            child = start(kind, folder, 1 if before < 0 else 1000 + attempt)
            if count["kills"] < kills:
                time.sleep(chance.uniform(0.0, seconds * 0.7))
                os.kill(child, signal.SIGKILL)
            code = ended(child)
            if code == -signal.SIGKILL:
                count["kills"] += 1
                count["half_written"] += any(path.suffix == ".part" for path in (folder / "checkpoints").glob(".*"))
                count["before_any"] += newest(folder) < 0
                count["lost"] += newest(folder) < before
            count["failed"] += code not in {0, -signal.SIGKILL}
        if count["failed"]:
            break
        resumed = [one.event.step for one in read(folder / "events.jsonl") if isinstance(one.event, RunResumed)]
        count["lost"] += resumed != sorted(resumed)
        count["same"] += (folder / FINAL).exists() and (
            ((folder / FINAL).read_bytes(), losses(folder)) == (final, trace)
        )
        shutil.rmtree(folder)
    return count


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))) + "\n")
