"""A sharded model, governed, saved, and loaded by any number of processes.

`torchrun --nproc-per-node 2 examples/fsdp2.py FOLDER [EPOCHS]`; with another number of processes it goes on from there.
"""

import sys
from pathlib import Path

import torch
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, DistributedSampler

from flyball import Governor
from flyball.data import digits
from flyball.train.distributed import load_sharded, save_sharded

torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
rank = torch.distributed.get_rank()
folder, epochs = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2
splits = digits()

torch.manual_seed(0)
layers = [torch.nn.Flatten(), torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)]
model = torch.nn.Sequential(*layers)
for layer in layers:
    fully_shard(layer)
fully_shard(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

saved = sorted(folder.glob("epoch-*"))
if saved:
    load_sharded(saved[-1], model, optimizer)
governor = Governor(model, optimizer, max_norm=1.0)
sampler: DistributedSampler[object] = DistributedSampler(splits.train, drop_last=True)
loader = DataLoader(splits.train, batch_size=32, sampler=sampler)
with governor.naming_ranks():
    for epoch in range(len(saved), len(saved) + epochs):
        sampler.set_epoch(epoch)
        for inputs, targets in governor.feed(loader):
            loss = torch.nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            governor.step(loss)
        save_sharded(folder / f"epoch-{epoch:04}", model, optimizer)
        if rank == 0:
            print(f"epoch {epoch}  loss {loss.item():.4f}  {torch.distributed.get_world_size()} ranks")
torch.distributed.destroy_process_group()
