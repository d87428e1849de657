"""The trainer on real digits. `python examples/digits.py RUN [EPOCHS]` leaves a run folder, and may be run again.

Interrupt it with Ctrl-C, or kill it: the same command goes on where it stood.
"""

import sys

import torch
from torch.utils.data import DataLoader

from flyball import Policy, Trainer, evaluate
from flyball.data import digits
from flyball.objective import Task
from flyball.train import EarlyStopping
from flyball.train.average import EMA

torch.manual_seed(0)
folder, epochs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 20
splits = digits()
model = torch.nn.Sequential(
    torch.nn.Conv2d(1, 32, 3, padding=1), torch.nn.BatchNorm2d(32), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
    torch.nn.Flatten(), torch.nn.Dropout(0.2), torch.nn.Linear(512, 10),
)  # fmt: skip
average = EMA(model, decay=0.99)
trainer = Trainer(
    model,
    Task(smoothing=0.05),
    torch.optim.AdamW(model.parameters(), lr=3e-3),
    policy=Policy(snapshot_every=25),
    average=average,
    max_norm=1.0,
    run=folder,
    checkpoint_every=50,
    stopping=EarlyStopping("accuracy", "max", patience=5, restore=True),
)
history = trainer.fit(
    DataLoader(splits.train, batch_size=32, shuffle=True),
    DataLoader(splits.validation, batch_size=256),
    epochs=epochs,
    resume="auto",
)
for epoch in history:
    print(f"epoch {epoch.epoch:3}  loss {epoch.loss:.4f}  accuracy {epoch.validation['accuracy']:.4f}")
print(f"{history.reason}; the best epoch is {history.best}")
print(evaluate(model, DataLoader(splits.test, batch_size=256)))
