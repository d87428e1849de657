"""The trainer's loop: the plain loop bit for bit, what it adds to it, and what it says when something is wrong."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from flyball import events
from flyball.errors import CheckpointError, ConfigError, InputError, RunExistsError
from flyball.govern import Action, Level, Policy, Verdict
from flyball.objective import ObjectiveMeasured, Task
from flyball.train import Callback, EarlyStopping, Epoch, History, Step, Stopped, Trainer
from flyball.train.average import EMA
from flyball.train.checkpoint import found
from flyball.train.ungoverned import Ungoverned

Batch = tuple[torch.Tensor, torch.Tensor]


def data(samples: int = 60, *, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(samples) % 3
    return TensorDataset(torch.randn(samples, 5, generator=generator) + targets[:, None], targets)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.1), nn.Linear(12, 3))


def trainer(model: nn.Module | None = None, *, rate: float = 0.05, **more: Any) -> Trainer:
    model = network() if model is None else model
    return Trainer(model, Task(), torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9), **more)


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in model.state_dict().values()]


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


class Losses(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def step_ends(self, trainer: Trainer, step: Step) -> None:  # noqa: ARG002
        self.seen.append(float(step.loss))


# --- the plain loop


def plain(model: nn.Sequential, epochs: int, average: AveragedModel | None) -> list[float]:
    """The loop as everyone writes it."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)
    losses = []
    for _ in range(epochs):
        for inputs, targets in DataLoader(data(), batch_size=8, shuffle=True):
            loss = functional.cross_entropy(model(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
            if average is not None:
                average.update_parameters(model)
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses


@pytest.mark.parametrize("policy", [None, Policy()], ids=["bare", "governed"])
@pytest.mark.parametrize("validated", [False, True])
def test_it_is_the_plain_loop_bit_for_bit_and_validation_leaves_no_trace(
    policy: Policy | None, *, validated: bool
) -> None:
    """Property 39, for training: modes, random state and the order of the loader are as without validation."""
    model, average = network(), None
    average = AveragedModel(model)
    losses = plain(model, 3, average)
    ours = network()
    optimizer = torch.optim.AdamW(ours.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)
    seen, own = Losses(), AveragedModel(ours)
    run = Trainer(
        ours, Task(), optimizer, scheduler=scheduler, average=own, policy=policy, callbacks=[seen]
    )  # fmt: skip
    history = run.fit(
        Again(lambda: DataLoader(data(), batch_size=8, shuffle=True)),
        DataLoader(data(seed=1), batch_size=16, shuffle=True) if validated else None,
        epochs=3,
    )
    assert seen.seen == losses
    assert equal(ours, model)
    assert equal(own, average)
    assert [epoch.step for epoch in history] == [8, 16, 24]
    assert all("accuracy" in epoch.validation for epoch in history) is validated
    assert history.reason == "completed"


class Again:
    """A loader that is built anew for each epoch, as the loop above does."""

    def __init__(self, build: Callable[[], DataLoader[Any]]) -> None:
        self.build = build

    def __iter__(self) -> Iterator[Any]:
        return iter(self.build())


def test_the_loss_of_an_epoch_is_the_mean_over_its_samples_not_over_its_batches() -> None:
    seen = Losses()
    one = trainer(callbacks=[seen])
    (epoch,) = one.fit(DataLoader(data(20), batch_size=8), epochs=1)
    expected = (8 * seen.seen[0] + 8 * seen.seen[1] + 4 * seen.seen[2]) / 20
    assert epoch.loss == pytest.approx(expected, abs=1e-12)
    assert epoch.samples == 20


# --- what is trained


def test_weights_change_in_what_the_optimizers_own_and_only_there(caplog: pytest.LogCaptureFixture) -> None:
    """Property 32, of the normal mode: every owned group moves, nothing else, and what nobody owns is told once."""
    model = network()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    owned = {"0.weight", "4.bias"}
    first, second = (torch.optim.SGD([dict(model.named_parameters())[name]], lr=0.1) for name in sorted(owned))
    Trainer(model, Task(), [first, second]).fit(DataLoader(data(), batch_size=8), epochs=1)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == owned
    (told,) = [record for record in caplog.records if "no optimizer owns" in record.message]
    assert "`0.bias`, `1.weight`, `1.bias`, `4.weight`: give it to one" in told.message


def test_two_optimizers_that_own_one_parameter_are_refused() -> None:
    """Property 42."""
    model = network()
    first, second = torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.SGD(model[0].parameters(), lr=0.1)
    for policy in (None, Policy()):
        with pytest.raises(InputError, match="two of the optimizers own the same parameter"):
            Trainer(model, Task(), [first, second], policy=policy)


@settings(max_examples=10, deadline=None)
@given(share=st.floats(0.05, 0.99), seed=st.integers(0, 1000))
def test_descent_on_a_quadratic_never_raises_the_loss(share: float, seed: int) -> None:
    """Property 34: full batch, a step below one over the largest curvature."""
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = (torch.randn(16, n, generator=generator, dtype=torch.float64) for n in (3, 1))
    largest = 2 * torch.linalg.eigvalsh(inputs.T @ inputs / 16).max().item()
    model = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    seen = Losses()
    optimizer = torch.optim.SGD(model.parameters(), lr=share / largest)
    Trainer(model, Task("mse"), optimizer, callbacks=[seen]).fit([(inputs, targets)], epochs=12)
    assert all(after <= before + 1e-12 for before, after in zip(seen.seen, seen.seen[1:], strict=False))


# --- several batches a step


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=9), accumulate=st.integers(2, 4))
def test_a_group_is_one_large_batch_also_the_last_partial_one(sizes: list[int], accumulate: int) -> None:
    """Property 37, for training, and R of accumulation: samples weigh alike however they are cut."""
    torch.manual_seed(0)
    whole = [(torch.randn(size, 5), torch.arange(size) % 3) for size in sizes]
    parts = [whole[at : at + accumulate] for at in range(0, len(whole), accumulate)]
    joined = [tuple(torch.cat(column) for column in zip(*part, strict=True)) for part in parts]

    def fit(batches: Iterable[Any], accumulate: int) -> tuple[nn.Module, list[float], History]:
        torch.manual_seed(1)
        model, seen = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double(), Losses()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        history = Trainer(model, Task(), optimizer, accumulate=accumulate, callbacks=[seen]).fit(batches, epochs=2)
        return model, seen.seen, history

    double = [(inputs.double(), targets) for inputs, targets in whole]
    one, losses, history = fit(double, accumulate)
    other, expected, _ = fit([(inputs.double(), targets) for inputs, targets in joined], 1)
    assert losses == pytest.approx(expected, abs=1e-9)
    for ours, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    assert all(parameter.grad is None for parameter in one.parameters()), "nothing leaks into the next epoch"
    assert history[-1].samples == sum(sizes)


def test_the_scheduler_steps_once_a_step_and_not_once_a_batch() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    Trainer(model, Task(), optimizer, scheduler=scheduler, accumulate=3, max_norm=0.1).fit(
        DataLoader(data(64), batch_size=8), epochs=1
    )
    assert optimizer.param_groups[0]["lr"] == 0.5**3


# --- precision


def test_an_overflow_skips_the_step_its_schedule_and_its_average_and_is_counted() -> None:
    """Property 41: unscale, look, clip, step; a skipped step leaves weights and schedule."""
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    average = AveragedModel(model)
    verbs = Ungoverned(model, [optimizer], scheduler=[scheduler], scaler=scaler, average=average, max_norm=1.0)

    moved: list[float] = []

    def step(gradient: list[float]) -> tuple[str, ...]:
        before = model.weight.detach().clone()
        scaler.scale((model.weight * torch.tensor([gradient])).sum()).backward()  # type: ignore[no-untyped-call]
        reasons = verbs.step(torch.zeros(())).reasons
        moved[:] = (before - model.weight.detach()).flatten().tolist()
        return reasons

    assert step([3.0, 4.0]) == ()
    assert moved == pytest.approx([0.6, 0.8], abs=1e-5), "clipped after it was unscaled"
    assert (scheduler.get_last_lr(), int(average.n_averaged)) == ([0.5], 1)
    assert step([float("inf"), 0.0]) == ("amp-skip",)
    assert moved == [0.0, 0.0]
    assert (scheduler.get_last_lr(), int(average.n_averaged)) == ([0.5], 1)
    assert scaler.get_scale() == 512.0


def test_bf16_computes_in_bf16_and_keeps_the_weights_and_the_loss_in_fp32() -> None:
    model, types = network(), set()
    model[4].register_forward_hook(lambda *said: types.add(said[2].dtype))
    seen = Losses()
    trainer(model, precision="bf16", callbacks=[seen]).fit(DataLoader(data(), batch_size=8), epochs=1)
    assert types == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_compiled_model_keeps_the_names_of_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []
    monkeypatch.setattr(nn.Module, "compile", lambda _, mode=None: asked.append(mode))
    names = list(network().state_dict())
    for compiled in (True, "max-autotune", False):
        assert list(trainer(compile=compiled).model.state_dict()) == names
    assert asked == [None, "max-autotune"]


def test_a_sampler_is_told_the_epoch_so_ranks_share_each_one_anew(tmp_path: Path) -> None:
    """Property C25: disjoint, covering, another order each epoch, and the same one where a run is resumed."""

    class Numbered(TensorDataset):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
            drawn.append(index)
            return tuple(tensor[index] for tensor in self.tensors)

    def epochs(rank: int, count: int, **more: Any) -> list[list[int]]:
        drawn.clear()
        numbered = Numbered(*data().tensors)
        sampler: DistributedSampler[Any] = DistributedSampler(numbered, num_replicas=2, rank=rank, seed=4)
        trainer(**more).fit(DataLoader(numbered, batch_size=6, sampler=sampler), epochs=count, resume=resume)
        return [drawn[at : at + 30] for at in range(0, len(drawn), 30)]

    drawn: list[int] = []
    resume = None
    first, second = epochs(0, 2), epochs(1, 2)
    for one, other in zip(first, second, strict=True):
        assert sorted(one + other) == list(range(60))
    assert first[0] != first[1]
    assert epochs(0, 1, run=tmp_path / "run") == first[:1]
    resume = "auto"
    assert epochs(0, 2, run=tmp_path / "run") == first[1:]


# --- memory


class Small(nn.Module):
    """Has memory for so many samples, and says so as torch does."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.inner = network()
        self.most = most

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.inner(inputs)
        if len(inputs) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore advice")
        return outputs


@pytest.mark.parametrize("policy", [None, Policy()], ids=["bare", "governed"])
def test_a_batch_that_is_too_large_is_left_out_loudly_and_without_a_trace(
    policy: Policy | None, caplog: pytest.LogCaptureFixture
) -> None:
    rest = [(torch.randn(4, 5), torch.arange(4) % 3) for _ in range(6)]
    large = (torch.randn(9, 5), torch.arange(9) % 3)
    models = [Small(8), Small(8)]
    for model, batches in zip(models, ([*rest[:3], large, *rest[3:]], rest), strict=True):
        torch.manual_seed(3)
        history = trainer(model, on_oom="skip", policy=policy).fit(batches, epochs=1)
        assert (history.skipped, history.steps) == (len(batches) - 6, 6)
    assert equal(*models)
    assert (
        "step 4: out of memory (CUDA out of memory. Tried to allocate 2.00 GiB); its batches are left out"
        in caplog.text
    )


def test_a_batch_that_is_too_large_is_halved_until_it_fits(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    batch = (torch.randn(12, 5), torch.arange(12) % 3)
    models = []
    for most, on_oom in ((3, "split"), (12, "raise")):
        model = Small(most)
        torch.manual_seed(1)
        model.inner = nn.Sequential(nn.Linear(5, 3))
        trainer(model, on_oom=on_oom).fit([batch], epochs=2)
        models.append(model)
    for ours, theirs in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert caplog.text.count("its batches are halved") == 4
    with pytest.raises(torch.OutOfMemoryError):
        trainer(Small(3)).fit([batch], epochs=1)


# --- the best, and enough


def test_early_stopping_takes_no_nan_for_an_improvement_and_counts_it() -> None:
    """R of early stopping: a NaN is no improvement, never the best, and does not end the counting."""
    one = EarlyStopping(patience=2, min_delta=0.1)
    nan = float("nan")
    assert [one.see(value) for value in (nan, 1.0, nan, 0.95, 0.85)] == [False, True, False, False, True]
    assert (one.best, one.waited, one.over) == (0.85, 0, False)
    assert [one.see(value) for value in (None, nan)] == [False, False]
    assert one.over
    other = EarlyStopping(patience=2)
    other.load_state_dict(one.state_dict())
    assert (other.best, other.waited) == (one.best, one.waited)
    most = EarlyStopping(mode="max", patience=None)
    assert [most.see(value) for value in (0.5, 0.6, float("inf"), float("inf"))] == [True, True, True, False]
    assert not most.over
    for wrong in ({"mode": "least"}, {"patience": 0}, {"min_delta": nan}):
        with pytest.raises(InputError, match=f"`{next(iter(wrong))}` is"):
            EarlyStopping(**wrong)


class Spoils(Callback):
    """Makes the weights bad from the third epoch on, so that no later one is better."""

    def epoch_begins(self, trainer: Trainer, epoch: int) -> None:
        if epoch > 2:
            with torch.no_grad():
                for parameter in trainer.model.parameters():
                    parameter.mul_(-1.0)


def test_it_stops_and_goes_back_to_the_best_epoch_also_after_a_resume(tmp_path: Path) -> None:
    best: list[list[torch.Tensor]] = []

    class Keeps(Callback):
        def epoch_ends(self, trainer: Trainer, epoch: Epoch) -> None:
            if trainer.history.best == epoch.epoch:
                best.append(weights(trainer.model))

    def run(epochs: int, keeps: Callback) -> tuple[Trainer, History]:
        one = trainer(
            run=tmp_path / "run",
            stopping=EarlyStopping(patience=2, restore=True),
            keep=1,
            callbacks=[keeps, Spoils()],
        )
        loader = DataLoader(data(), batch_size=8)
        return one, one.fit(loader, DataLoader(data(seed=1), batch_size=30), epochs=epochs, resume="auto")

    run(3, Keeps())
    one, history = run(20, Callback())
    assert history.reason == "early stopping"
    assert history.best is not None
    assert len(history) == history.best + 2
    assert all(map(torch.equal, weights(one.model), best[-1]))


def test_a_measurement_that_is_monitored_and_not_there_is_named() -> None:
    with pytest.raises(
        InputError, match="`monitor` is 'acuracy', which was not measured: use one of `loss`, `accuracy`"
    ):
        trainer(stopping=EarlyStopping("acuracy", "max")).fit(
            DataLoader(data(), batch_size=8), DataLoader(data(), batch_size=8), epochs=1
        )


# --- callbacks


def test_callbacks_are_called_in_the_order_that_is_documented() -> None:
    called: list[str] = []

    class Notes(Callback):
        def fit_begins(self, trainer: Trainer) -> None:  # noqa: ARG002
            called.append("fit_begins")

        def epoch_begins(self, trainer: Trainer, epoch: int) -> None:  # noqa: ARG002
            called.append(f"epoch_begins {epoch}")

        def step_ends(self, trainer: Trainer, step: Step) -> None:  # noqa: ARG002
            called.append(f"step_ends {step.number} {step.epoch} {step.weight:g} {step.learning_rate:g}")

        def epoch_ends(self, trainer: Trainer, epoch: Epoch) -> None:  # noqa: ARG002
            called.append(f"epoch_ends {epoch.epoch}")

        def fit_ends(self, trainer: Trainer, history: History) -> None:  # noqa: ARG002
            called.append(f"fit_ends {history.reason}")

    trainer(callbacks=[Notes()]).fit(DataLoader(data(12), batch_size=8), epochs=2)
    assert called == [
        "fit_begins",
        "epoch_begins 1", "step_ends 1 1 8 0.05", "step_ends 2 1 4 0.05", "epoch_ends 1",
        "epoch_begins 2", "step_ends 3 2 8 0.05", "step_ends 4 2 4 0.05", "epoch_ends 2",
        "fit_ends completed",
    ]  # fmt: skip


# --- signals


class Signals(Callback):
    def __init__(self, number: signal.Signals, *, at: int, times: int = 1) -> None:
        self.number, self.at, self.times = number, at, times

    def step_ends(self, trainer: Trainer, step: Step) -> None:  # noqa: ARG002
        if step.number == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_saves_and_leaves_with_a_code_of_its_own(
    tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    reference, seen = network(), Losses()
    loader = DataLoader(data(), batch_size=8)
    trainer(reference, callbacks=[seen]).fit(loader, epochs=2)
    interrupted, first = network(), Losses()
    run = trainer(interrupted, run=tmp_path / "run", callbacks=[first, Signals(number, at=5)])
    with pytest.raises(Stopped) as caught:
        run.fit(loader, epochs=2)
    assert (caught.value.code, caught.value.signal) == (75, number.name)
    assert caught.value.checkpoint == "00002-step-00000005"
    assert "resume with `resume='auto'`" in str(caught.value)
    assert signal.getsignal(number) is before
    finished = [record.event for record in events.read(tmp_path / "run" / "events.jsonl")][-1]
    assert isinstance(finished, events.RunFinished)
    assert finished.reason == number.name
    resumed, rest = network(seed=5), Losses()
    trainer(resumed, run=tmp_path / "run", callbacks=[rest]).fit(loader, epochs=2, resume="auto")
    assert first.seen + rest.seen == seen.seen
    assert equal(resumed, reference)


def test_a_second_interrupt_interrupts_at_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer(run=tmp_path / "run", callbacks=[Signals(signal.SIGINT, at=2, times=2)]).fit(
            DataLoader(data(), batch_size=8), epochs=1
        )


def test_without_a_folder_there_is_nothing_to_save_and_an_interrupt_is_one() -> None:
    # Who starts the tests in the background may have them ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer(callbacks=[Signals(signal.SIGINT, at=2)]).fit(DataLoader(data(), batch_size=8), epochs=1)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("averaged", [False, True])
def test_a_signal_does_not_wait_for_a_validation_which_is_made_when_the_run_goes_on(
    tmp_path: Path,
    averaged: bool,  # noqa: FBT001 -- a case
) -> None:
    loader = DataLoader(data(), batch_size=8)
    batches = [(torch.randn(6, 5, generator=torch.Generator().manual_seed(n)), torch.arange(6) % 3) for n in range(9)]

    def made(**more: Any) -> Trainer:
        model = network()
        return trainer(model, average=EMA(model) if averaged else None, **more)

    reference = made()
    whole = reference.fit(loader, batches, epochs=2)
    asked: list[int] = []

    class Kills(list[Any]):
        """Sends a signal while its third batch is drawn."""

        def __iter__(self) -> Iterator[Any]:
            for number, batch in enumerate(super().__iter__()):
                asked.append(number)
                if len(asked) == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

    with pytest.raises(Stopped) as caught:
        made(run=tmp_path / "run").fit(loader, Kills(batches), epochs=2)
    assert asked == [0, 1, 2]
    assert caught.value.checkpoint == "00002-step-00000008"
    resumed = made(run=tmp_path / "run")
    history = resumed.fit(loader, batches, epochs=2, resume="auto")
    assert [epoch.validation for epoch in history] == [epoch.validation for epoch in whole]
    assert equal(resumed.model, reference.model)


# --- the folder of the run


def test_the_folder_says_what_was_done_with_what_and_how_it_went(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = trainer(run=folder, checkpoint_every=5, policy=Policy(), config={"seed": 7, "note": None}, log_every=2)
    run.objective = run.objective  # the trainer's own
    run.fit(DataLoader(data(), batch_size=8), DataLoader(data(seed=1), batch_size=30), epochs=2)
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints", "config.toml", "environment.json", "events.jsonl",
    ]  # fmt: skip
    config = tomllib.loads((folder / "config.toml").read_text())
    assert config["optimizer"]["type"] == "SGD"
    assert (config["optimizer"]["lr"], config["policy"]["budget"], config["config"]) == (0.05, 13.0, {"seed": 7})
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__
    assert {"device", "git", "platform", "threads"} <= environment.keys()
    told = [record.event.kind for record in events.read(folder / "events.jsonl")]
    assert told[0] == "run.started"
    assert told[-1] == "run.finished"
    counts = {kind: told.count(kind) for kind in ("train.step", "train.epoch", "evaluation.done", "checkpoint.saved")}
    assert counts == {"train.step": 16, "train.epoch": 2, "evaluation.done": 2, "checkpoint.saved": 5}
    assert [one.step for one in found(folder / "checkpoints")] == [10, 15, 16]


def test_the_journal_lists_the_terms_of_a_sum_each_by_itself(tmp_path: Path) -> None:
    model = network()
    objective = Task() + 0.5 * Task(smoothing=0.1, name="smooth")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    Trainer(model, objective, optimizer, run=tmp_path / "run", log_every=4).fit(
        DataLoader(data(), batch_size=8), epochs=1
    )
    measured = [
        record.event
        for record in events.read(tmp_path / "run" / "events.jsonl")
        if isinstance(record.event, ObjectiveMeasured)
    ]
    assert [event.step for event in measured] == [4, 8]
    assert {name: term.weight for name, term in measured[0].terms.items()} == {"task": 1.0, "smooth": 0.5}


def test_a_folder_that_holds_a_run_is_refused_with_both_remedies(tmp_path: Path) -> None:
    loader = DataLoader(data(), batch_size=8)
    trainer(run=tmp_path / "run").fit(loader, epochs=1)
    content = (tmp_path / "run" / "events.jsonl").read_bytes()
    with pytest.raises(RunExistsError, match=r"already holds a run.*name another folder.*resume='auto'"):
        trainer(run=tmp_path / "run").fit(loader, epochs=1)
    assert (tmp_path / "run" / "events.jsonl").read_bytes() == content


def test_a_copy_of_a_folder_that_lost_its_empty_checkpoints_starts_afresh(tmp_path: Path) -> None:
    loader = DataLoader(data(), batch_size=8)
    trainer(run=tmp_path / "run").fit(loader, epochs=1)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert len(trainer(run=tmp_path / "run").fit(loader, epochs=1, resume="auto")) == 1


def test_a_folder_in_which_another_process_trains_is_refused(tmp_path: Path) -> None:
    program = """if True:
        import fcntl, os, sys
        lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
        fcntl.lockf(lock, fcntl.LOCK_EX)
        print("locked", flush=True)
        sys.stdin.read()
    """
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    command = [sys.executable, "-c", program, str(folder / "checkpoints" / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(RunExistsError, match="in use by another process"):
            trainer(run=folder).fit(DataLoader(data(), batch_size=8), epochs=1)
        assert other.stdin is not None
        other.stdin.close()
    trainer(run=folder).fit(DataLoader(data(), batch_size=8), epochs=1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"accumulate": 2}, "`accumulate` was 1 and is 2"),
        ({"rate": 0.1}, "`optimizer.lr` was 0.05 and is 0.1"),
        ({"policy": Policy()}, "`policy` was None and is 'nothing'.*`policy.budget` was 'nothing' and is 13.0"),
        ({"config": {"seed": 2}}, "`config.seed` was 1 and is 2"),
        ({"samples": 70}, "`batches` was 8 and is 9"),
    ],
)
def test_a_run_that_was_changed_is_not_resumed_until_the_change_is_accepted(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    def fit(epochs: int, *, samples: int = 60, accept: tuple[str, ...] = (), **more: Any) -> History:
        run = trainer(run=tmp_path / "run", **({"config": {"seed": 1}} | more))
        return run.fit(DataLoader(data(samples), batch_size=8), epochs=epochs, resume="auto", accept=accept)

    fit(1)
    with pytest.raises(CheckpointError, match=said) as caught:
        fit(2, **change)
    assert caught.value.reason == "changed"
    if "policy" not in change:  # a governor has a state that the checkpoint lacks
        names = tuple(re.findall(r"`([a-z._]+)` was", str(caught.value)))
        assert len(fit(2, accept=names, **change)) == 2


def test_resuming_from_a_path_goes_on_in_a_folder_of_its_own(tmp_path: Path) -> None:
    loader = DataLoader(data(), batch_size=8)
    reference = network()
    trainer(reference).fit(loader, epochs=3)
    trainer(run=tmp_path / "first", checkpoint_every=4).fit(loader, epochs=2)
    other = network(seed=4)
    history = trainer(other, run=tmp_path / "second").fit(loader, epochs=3, resume=tmp_path / "first")
    assert equal(other, reference)
    assert [epoch.epoch for epoch in history] == [1, 2, 3]
    assert len(found(tmp_path / "first" / "checkpoints")) == 3
    # From an older checkpoint of the same folder the run takes another way, and that is then the newest.
    older = found(tmp_path / "first" / "checkpoints")[0]
    again = network(seed=6)
    trainer(again, run=tmp_path / "first", checkpoint_every=4).fit(loader, epochs=3, resume=older.path)
    assert equal(again, reference)
    assert found(tmp_path / "first" / "checkpoints")[-1].step == 24


def test_a_run_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    loader = DataLoader(data(), batch_size=8)
    one = trainer(run=tmp_path / "run")
    one.fit(loader, epochs=2)
    other = trainer(network(seed=3), run=tmp_path / "run")
    assert len(other.fit(loader, epochs=2, resume="auto")) == 2
    assert equal(one.model, other.model)


# --- what a new user meets


def test_a_loader_without_a_batch_is_named() -> None:
    """Property 35."""
    with pytest.raises(InputError, match="the loader, a `list`, has no batch"):
        trainer().fit([], epochs=1)
    with pytest.raises(InputError, match="validation"):
        trainer().fit(DataLoader(data(), batch_size=8), iter(()), epochs=1)


@pytest.mark.parametrize("policy", [None, Policy()], ids=["bare", "governed"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_epoch_in_which_nothing_counts_is_an_error_and_not_a_loss_of_none(
    policy: Policy | None, accumulate: int, caplog: pytest.LogCaptureFixture
) -> None:
    batch = (torch.randn(4, 5), torch.full((4,), -100))
    run = trainer(policy=policy, accumulate=accumulate)
    with pytest.raises(InputError, match=r"epoch 1 trained nothing: all of its batches were left out.*`ignore_index`"):
        run.fit([batch] * 4, [batch], epochs=1)
    assert run.history.reason == "running"
    assert "no sample, or token, of its batches counts" in caplog.text


def test_an_epoch_for_which_the_memory_is_too_small_says_so() -> None:
    with pytest.raises(InputError, match=r"epoch 1 trained nothing: .*memory was too small"):
        trainer(Small(2), on_oom="skip").fit([(torch.randn(4, 5), torch.arange(4) % 3)] * 3, epochs=1)


def test_a_run_of_which_no_update_was_applied_is_not_called_completed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a gradient scaler still looks for its scale when the only step is over."""
    run = trainer()
    before = weights(run.model)[0]

    refused = Verdict(0, "train", Level.OK, Action.SKIP, ("amp-skip",))
    monkeypatch.setattr(run._verbs, "step", lambda _: refused)
    history = run.fit([(torch.randn(4, 5), torch.arange(4) % 3)], epochs=1)
    assert (history.reason, history[0].loss, history[0].left_out) == ("nothing applied", None, 1)
    assert "none of the 1 updates of this run was applied" in caplog.text
    assert torch.equal(weights(run.model)[0], before)


def test_a_label_out_of_range_is_one_clear_message() -> None:
    batch = (torch.randn(4, 5), torch.tensor([0, 1, 2, 3]))
    with pytest.raises(InputError, match=r"(?i)label|target|class") as caught:
        trainer().fit([batch], epochs=1)
    assert "3" in str(caught.value)


def test_a_model_that_returns_something_else_is_one_clear_message() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"heads": self.inner(inputs)}

    with pytest.raises(InputError, match=r"the model returns a dict of `heads`.*Task\(output="):
        trainer(Odd()).fit(DataLoader(data(), batch_size=8), epochs=1)


def test_a_model_that_returns_a_tuple_trains_by_its_first_part() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, str]:
            return self.inner(inputs), "and more"

    pair, single = Pair(), network()
    torch.manual_seed(1)
    trainer(pair).fit(DataLoader(data(), batch_size=8), epochs=1)
    torch.manual_seed(1)
    trainer(single).fit(DataLoader(data(), batch_size=8), epochs=1)
    assert equal(pair.inner, single)


def test_a_full_disk_is_met_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("flyball.govern.snapshot.spill._write_tensors", full)
    seen = Losses()
    with pytest.raises(CheckpointError, match=r"takes no checkpoint \(No space left on device\): make room there"):
        trainer(run=tmp_path / "run", callbacks=[seen]).fit(DataLoader(data(), batch_size=8), epochs=1)
    assert seen.seen == []
    last = list(events.read(tmp_path / "run" / "events.jsonl"))[-1].event
    assert isinstance(last, events.RunFailed)


def test_a_disk_that_fills_during_training_does_not_end_it_and_the_last_checkpoint_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Fills(Callback):
        def step_ends(self, trainer: Trainer, step: Step) -> None:
            def full(*_: object) -> None:
                raise OSError(28, os.strerror(28))

            if step.number == 3 and trainer._run is not None and trainer._run.checkpoints is not None:
                trainer._run.checkpoints.join()
                monkeypatch.setattr("flyball.govern.snapshot.spill._write_tensors", full)

    seen = Losses()
    run = trainer(run=tmp_path / "run", checkpoint_every=2, callbacks=[Fills(), seen])
    with pytest.raises(CheckpointError, match="No space left on device"):
        run.fit(DataLoader(data(), batch_size=8), epochs=1)
    assert len(seen.seen) == 8
    assert [one.step for one in found(tmp_path / "run" / "checkpoints")] == [0, 2]
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 4


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"accumulate": 0}, InputError, "`accumulate` is 0: give 1 or more"),
        ({"checkpoint_every": 0, "run": "x"}, InputError, "`checkpoint_every` is 0"),
        ({"checkpoint_every": 5}, ConfigError, "`checkpoint_every` writes checkpoints, and `run` is None"),
        ({"stopping": EarlyStopping(restore=True)}, ConfigError, "`stopping` with `restore` writes checkpoints"),
        ({"refresh": 0}, InputError, "`refresh` is 0: give True, False, or how many batches"),
        ({"on_oom": "retry"}, InputError, "`on_oom` is 'retry': use 'raise', 'skip' or 'split'"),
        ({"max_norm": -1.0}, InputError, "`max_norm` is -1.0: pass a number above 0"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(arguments: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=re.escape(said)):
        trainer(**arguments)


def test_fit_refuses_what_cannot_be_meant() -> None:
    loader = DataLoader(data(), batch_size=8)
    with pytest.raises(InputError, match="`epochs` is 0: give 1 or more"):
        trainer().fit(loader, epochs=0)
    with pytest.raises(ConfigError, match="`resume` is 'auto', which looks into the run folder, and `run` is None"):
        trainer().fit(loader, epochs=1, resume="auto")
    with pytest.raises(CheckpointError, match="does not exist"):
        trainer().fit(loader, epochs=1, resume="nowhere")
