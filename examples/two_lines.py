"""Your own loop, and the two lines that govern it. `python examples/two_lines.py [EPOCHS]`."""

import sys

import torch
from torch.utils.data import DataLoader

import flyball
from flyball.data import digits

torch.manual_seed(0)
splits = digits()
model = torch.nn.Sequential(
    torch.nn.Flatten(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
)  # fmt: skip
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
loader = DataLoader(splits.train, batch_size=32, shuffle=True)

governor = flyball.Governor(model, optimizer, max_norm=1.0)  # the first line
for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 10):
    for inputs, targets in governor.feed(loader):
        loss = torch.nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        governor.step(loss)  # the second: it stands where `optimizer.step()` and `optimizer.zero_grad()` stood

evaluation = flyball.evaluate(model, DataLoader(splits.test, batch_size=256))
print(evaluation)
