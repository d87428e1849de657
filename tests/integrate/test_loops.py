"""The governor inside other people's loops, each the real package: a fault is injected, and survived."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from flyball.errors import InputError
from flyball.events import Event
from flyball.govern.records import VerdictGiven

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("single_thread")]  # of the packages
BAD = 40
STEPS = 64


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


@pytest.fixture
def single_thread() -> None:
    torch.set_num_threads(1)


class Kept:
    """Keep what the governor says."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def write(self, event: Event) -> None:
        self.events.append(event)

    @property
    def left_out(self) -> list[int]:
        return [one.step for one in self.events if isinstance(one, VerdictGiven) and one.action == "skip"]


def data(*, bad: bool = True) -> TensorDataset:
    """Two clusters; the forty-first batch of sixteen is NaN."""
    chance = torch.Generator().manual_seed(0)
    targets = torch.arange(16 * STEPS) % 2
    inputs = torch.randn(len(targets), 8, generator=chance) + targets[:, None]
    if bad:
        inputs[BAD * 16 : (BAD + 1) * 16] = math.nan
    return TensorDataset(inputs, targets)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))


def sound(model: nn.Module) -> bool:
    return all(bool(torch.isfinite(one).all()) for one in model.state_dict().values())


def lightning_module() -> Any:
    from lightning.pytorch import LightningModule

    class Module(LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
            return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)]

    return Module()


def lightning_fit(folder: Path, *callbacks: Any, bad: bool = True, **settings: Any) -> Any:
    from lightning.pytorch import Trainer

    module = lightning_module()
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=list(callbacks), **settings,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data(bad=bad), batch_size=16))
    return module


@needs("lightning")
def test_lightning_leaves_the_bad_batch_out_and_lives(tmp_path: Path) -> None:
    from flyball.integrate.lightning import GovernorCallback

    kept = Kept()
    callback = GovernorCallback(journal=kept)
    module = lightning_fit(tmp_path, callback, enable_checkpointing=False)
    assert sound(module)
    assert kept.left_out == [BAD]
    assert callback.governor is not None
    assert callback.governor.updates == STEPS - 1
    assert not sound(lightning_fit(tmp_path, enable_checkpointing=False)), "without it the same run is dead"


@needs("lightning")
def test_a_healthy_run_of_lightning_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    from flyball.integrate.lightning import GovernorCallback

    governed = lightning_fit(tmp_path, GovernorCallback(), bad=False, enable_checkpointing=False)
    plain = lightning_fit(tmp_path, bad=False, enable_checkpointing=False)
    assert all(torch.equal(a, b) for a, b in zip(governed.parameters(), plain.parameters(), strict=True))
    assert "step" not in vars(governed.trainer.optimizers[0]) or governed.trainer.optimizers[0].step is not None


@needs("lightning")
def test_a_checkpoint_of_lightning_holds_what_the_governor_remembers(tmp_path: Path) -> None:
    from flyball.integrate.lightning import GovernorCallback

    callback = GovernorCallback()
    lightning_fit(tmp_path, callback, bad=False)
    (path,) = tmp_path.rglob("*.ckpt")
    saved = torch.load(path, weights_only=False)["callbacks"]
    again = GovernorCallback()
    again.load_state_dict(next(state for name, state in saved.items() if "Governor" in name))
    assert again._state is not None and again._state["updates"] == STEPS


class Returning(nn.Module):
    """What a Trainer of Hugging Face wants of a model: a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.net(inputs)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def transformers_fit(folder: Path, *callbacks: Any, bad: bool = True) -> nn.Module:
    from transformers import Trainer, TrainingArguments

    class InOrder(Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(data())

    model = Returning()
    rows = [{"inputs": x, "labels": y} for x, y in zip(*data(bad=bad).tensors, strict=True)]
    arguments = TrainingArguments(
        str(folder), per_device_train_batch_size=16, num_train_epochs=1, use_cpu=True, report_to=[], save_strategy="no",
        learning_rate=1e-2, max_grad_norm=0.0, disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    InOrder(model, arguments, train_dataset=rows, callbacks=list(callbacks)).train()
    return model


@needs("transformers")
def test_transformers_leaves_the_bad_batch_out_and_lives(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    from flyball.integrate.transformers import GovernorCallback

    kept = Kept()
    callback = GovernorCallback(journal=kept)
    assert sound(transformers_fit(tmp_path, callback))
    assert kept.left_out == [BAD]
    assert callback.governor is not None
    assert callback.governor.updates == STEPS - 1
    assert not sound(transformers_fit(tmp_path)), "without it the same run is dead"


@needs("transformers")
def test_a_healthy_run_of_transformers_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    from flyball.integrate.transformers import GovernorCallback

    governed, plain = transformers_fit(tmp_path, GovernorCallback(), bad=False), transformers_fit(tmp_path, bad=False)
    assert all(torch.equal(a, b) for a, b in zip(governed.parameters(), plain.parameters(), strict=True))


@needs("accelerate")
def test_accelerate_leaves_the_bad_batch_out_and_asks(tmp_path: Path) -> None:  # noqa: ARG001
    from accelerate import Accelerator

    from flyball.integrate.accelerate import govern

    accelerator, kept = Accelerator(cpu=True), Kept()
    plain = network()
    model, optimizer, loader = accelerator.prepare(
        plain, torch.optim.AdamW(plain.parameters(), lr=1e-2), DataLoader(data(), batch_size=16)
    )
    governor = govern(accelerator, model, optimizer, journal=kept)
    asked = 0
    for inputs, targets in governor.feed(loader):
        asked += governor.probing
        loss = nn.functional.cross_entropy(model(inputs), targets)
        accelerator.backward(loss)
        governor.step(loss)
    assert sound(plain)
    assert set(kept.left_out) == {BAD}
    assert governor.updates == STEPS - 1
    assert asked, "a loop that is yours can be asked"


@needs("accelerate")
def test_what_accelerate_makes_impossible_is_refused() -> None:
    from accelerate import Accelerator

    from flyball.integrate.accelerate import govern

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    with pytest.raises(InputError, match=r"`gradient_accumulation_steps` is 2: leave it at 1"):
        govern(accelerator, network(), None)


@needs("lightning_fabric")
def test_fabric_leaves_the_bad_batch_out_and_asks() -> None:
    from lightning_fabric import Fabric

    from flyball.integrate.fabric import govern

    fabric, kept = Fabric(accelerator="cpu"), Kept()
    plain = network()
    model, optimizer = fabric.setup(plain, torch.optim.AdamW(plain.parameters(), lr=1e-2))
    loader = fabric.setup_dataloaders(DataLoader(data(), batch_size=16))
    governor = govern(fabric, model, optimizer, journal=kept)
    for inputs, targets in governor.feed(loader):
        loss = nn.functional.cross_entropy(model(inputs), targets)
        fabric.backward(loss)
        governor.step(loss)
    assert sound(plain)
    assert set(kept.left_out) == {BAD}
    assert governor.updates == STEPS - 1
