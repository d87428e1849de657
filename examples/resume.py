"""Break a run off in the middle of an epoch, resume it, and see that nothing differs. `examples/resume.py DIR`."""

import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from flyball import Trainer
from flyball.data import digits
from flyball.objective import Task
from flyball.train import Callback, Step


class BreaksOff(Callback):
    """Something goes wrong after a step, as things do."""

    def __init__(self, after: int | None) -> None:
        self.after = after

    def step_ends(self, trainer: Trainer, step: Step) -> None:  # noqa: ARG002
        if step.number == self.after:
            raise RuntimeError(f"broken off after step {step.number}")


def train(run: Path, *, seed: int, breaks_off_after: int | None = None) -> torch.Tensor:
    """Build everything, train for three epochs or what is left of them, and return the weights as one vector."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(64, 10)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    trainer = Trainer(
        model, Task(), optimizer, run=run, checkpoint_every=10, callbacks=[BreaksOff(breaks_off_after)]
    )  # fmt: skip
    trainer.fit(DataLoader(digits().train, batch_size=32, shuffle=True), epochs=3, resume="auto")
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


folder = Path(sys.argv[1])
whole = train(folder / "whole", seed=0)
try:
    train(folder / "broken", seed=0, breaks_off_after=57)
except RuntimeError as error:
    print(error)
resumed = train(folder / "broken", seed=123)  # another seed: the random state is that of the checkpoint
print("the weights are equal, bit for bit" if torch.equal(whole, resumed) else "the weights differ")
