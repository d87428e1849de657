"""The trainer on several processes. `torchrun --nproc-per-node 2 examples/ddp.py RUN [EPOCHS]`.

Run again with the same folder it goes on where it stood.
"""

import sys

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from flyball import Policy, Trainer
from flyball.data import digits
from flyball.objective import Task
from flyball.train.distributed import Part, seed

torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
rank = torch.distributed.get_rank()
folder, epochs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
splits = digits()

seed(0)  # the same weights on every rank
model = torch.nn.Sequential(
    torch.nn.Flatten(), torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(128, 10)
)
model = DistributedDataParallel(model)
seed(0, apart=True)  # and dropout of its own

trainer = Trainer(
    model, Task(), torch.optim.AdamW(model.parameters(), lr=3e-3), policy=Policy(snapshot_every=25), run=folder
)
history = trainer.fit(
    DataLoader(splits.train, batch_size=32, sampler=DistributedSampler(splits.train, drop_last=True)),
    DataLoader(splits.validation, batch_size=256, sampler=Part(splits.validation)),
    epochs=epochs,
    resume="auto",
)
if rank == 0:
    for epoch in history:
        print(f"epoch {epoch.epoch:3}  loss {epoch.loss:.4f}  accuracy {epoch.validation['accuracy']:.4f}")
torch.distributed.destroy_process_group()
