"""Averages are running means of accepted weights, know BatchNorm's statistics, and are part of a run's state."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from flyball.errors import ConfigError, InputError
from flyball.evaluation import evaluate
from flyball.govern.governor import Governor
from flyball.govern.verdict import Action
from flyball.objective import Task
from flyball.train import Trainer
from flyball.train.average import EMA, SWA, Average

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INPUTS = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randint(2, (24,), generator=torch.Generator().manual_seed(1))


def model(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


def states(count: int) -> list[nn.Sequential]:
    """The same model at several moments."""
    return [model(seed) for seed in range(count)]


def weights(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def test_an_exponential_average_is_the_one_of_torch() -> None:
    ours = EMA(model(), decay=0.9, warmup=False)
    theirs = AveragedModel(model(), multi_avg_fn=get_ema_multi_avg_fn(0.9))  # type: ignore[no-untyped-call]
    for state in states(6):
        ours.update_parameters(state)
        theirs.update_parameters(state)
    for mine, its in zip(ours.module.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(mine, its)


def test_the_first_weights_are_forgotten_early() -> None:
    average = EMA(model(), decay=0.999)
    expected: list[torch.Tensor] = []
    for n, state in enumerate(states(5)):
        decay = min(0.999, (1 + n) / (10 + n)) if n else 0.0
        expected = [
            decay * old + (1 - decay) * new for old, new in zip(expected or weights(state), weights(state), strict=True)
        ]
        average.update_parameters(state)
    for mine, wanted in zip(average.module.parameters(), expected, strict=True):
        torch.testing.assert_close(mine, wanted)


def test_a_late_average_begins_at_its_step_and_is_the_mean_of_what_came_since() -> None:
    """Property C31."""
    average = SWA(model(), start=0.75, steps=17)  # int(0.75 * 17) = 12
    history = [model(seed) for seed in range(17)]
    for number, state in enumerate(history):
        average.update_parameters(state)
        assert average.ready == (number >= 12)
    for mine, *late in zip(average.module.parameters(), *map(weights, history[12:]), strict=True):
        torch.testing.assert_close(mine, torch.stack(late).mean(0))
    assert (average.updates, average.seen) == (5, 17)


def test_one_state_of_an_epoch_can_enter() -> None:
    average = SWA(model(), start=4, every=3)
    for state in states(11):
        average.update_parameters(state)
    for mine, *late in zip(average.module.parameters(), *(weights(model(n)) for n in (4, 7, 10)), strict=True):
        torch.testing.assert_close(mine, torch.stack(late).mean(0))


def spoiled(step: int) -> torch.Tensor:
    return INPUTS * (math.nan if step in {9, 13} else 1.0)


@pytest.mark.parametrize("make", [lambda m: EMA(m, decay=0.9), lambda m: SWA(m, start=5, every=2)], ids=["ema", "swa"])
def test_a_step_that_is_refused_never_enters_an_average(make: Callable[[nn.Module], Average]) -> None:
    """The governed run with two bad batches ends with the average of the run that never saw them."""

    def run(batches: list[torch.Tensor]) -> Average:
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        net.load_state_dict(dict(zip(net.state_dict(), nn_state, strict=True)))
        average = make(net)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        governor = Governor(net, optimizer, average=average)
        for batch in batches:
            loss = nn.functional.cross_entropy(net(batch), TARGETS)
            loss.backward()  # type: ignore[no-untyped-call]
            governor.step(loss)
        return average

    nn_state = list(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).state_dict().values())
    nn_state = [value.clone() for value in nn_state]
    faulty = run([spoiled(step) for step in range(20)])
    healthy = run([spoiled(0)] * 18)
    assert faulty.updates == healthy.updates
    for mine, wanted in zip(faulty.module.state_dict().values(), healthy.module.state_dict().values(), strict=True):
        assert torch.equal(mine, wanted)


def test_a_rollback_takes_the_average_back_and_a_checkpoint_keeps_it() -> None:
    net = model()
    average = EMA(net, decay=0.5)
    governor = Governor(net, torch.optim.SGD(net.parameters(), lr=0.1), average=average)

    def step() -> Action:
        loss = nn.functional.cross_entropy(net(INPUTS), TARGETS)
        loss.backward()  # type: ignore[no-untyped-call]
        return governor.step(loss).action

    assert {step() for _ in range(3)} == {Action.APPLY}
    governor.snapshot()
    kept, updates = copy.deepcopy(average.state_dict()), average.updates
    step()
    assert average.updates == updates + 1
    governor.rollback()
    assert average.updates == updates
    again = EMA(model(7), decay=0.5)
    again.load_state_dict(kept)
    assert again.updates == updates
    for name, value in average.module.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[name])


@pytest.mark.parametrize("size", [24, 8, 7])
def test_refreshed_statistics_are_those_of_a_direct_computation(size: int) -> None:
    """Property C32: under the averaged weights, each batch weighted by its samples; also the last, smaller one."""
    average = SWA(model(), start=0)
    for state in states(4):
        average.update_parameters(state)
    layer = average.module[1]  # type: ignore[index]
    loader = DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=size)
    order, momentum = torch.get_rng_state(), layer.momentum
    assert average.refresh(loader) == 1
    with torch.no_grad():
        parts = [average.module[0](inputs) for inputs, _ in loader]  # type: ignore[index]
    share = [len(part) / len(INPUTS) for part in parts]
    mean = sum(s * part.mean(0) for s, part in zip(share, parts, strict=True))
    variance = sum(s * part.var(0) for s, part in zip(share, parts, strict=True))
    torch.testing.assert_close(layer.running_mean, mean)
    torch.testing.assert_close(layer.running_var, variance)
    assert layer.momentum == momentum
    assert not any(part.training for part in average.modules())
    torch.set_rng_state(order)
    assert evaluate(average.module, loader).samples == 24


def test_a_model_without_batchnorm_needs_no_refresh_and_no_data() -> None:
    def forbidden() -> Any:
        yield pytest.fail("the data were touched")

    assert EMA(nn.Linear(3, 2)).refresh(forbidden()) == 0


def test_a_refresh_on_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="`loader` gave no batch"):
        EMA(model()).refresh([])


def test_an_average_is_never_trained_and_shares_nothing_with_the_model() -> None:
    net = model()
    average = EMA(net)
    average.train()
    assert not any(part.training for part in average.modules())
    assert not any(parameter.requires_grad for parameter in average.parameters())
    kept = weights(average.module)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert all(map(torch.equal, kept, weights(average.module)))
    assert average(INPUTS).shape == (24, 2)


def test_tied_weights_stay_tied_and_halves_are_averaged_with_the_rest() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2).half())
    net[1].weight = net[0].weight
    average = EMA(net, decay=0.5, warmup=False)
    average.update_parameters(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(2.0)
    average.update_parameters(net)
    assert average.module[0].weight is average.module[1].weight  # type: ignore[index]
    for mine, its in zip(average.module.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(mine, its - 1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EMA(model(), decay=1.0), "`decay` of `EMA` is 1.0"),
        (lambda: EMA(model(), decay=math.nan), "`decay` of `EMA` is nan"),
        (lambda: SWA(model(), start=4, every=0), "`every` of `SWA` is 0"),
        (lambda: SWA(model(), start=-1), "`start` of `SWA` is -1"),
        (lambda: SWA(model(), start=1.0), "`start` of `SWA` is 1.0"),
    ],
)
def test_an_average_that_cannot_be_is_refused(make: Callable[[], Average], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_fraction_needs_the_number_of_steps_and_another_model_is_refused() -> None:
    with pytest.raises(InputError, match="needs to know how many steps"):
        SWA(model(), start=0.75)
    with pytest.raises(InputError, match="other parameters or buffers"):
        EMA(model()).update_parameters(nn.Linear(3, 2))


@pytest.mark.parametrize("normalised", [False, True])
def test_an_average_is_current_when_it_can_be_measured_as_it_is(normalised: bool) -> None:  # noqa: FBT001 -- a case
    net = model() if normalised else nn.Sequential(nn.Linear(3, 2))
    follows, late = EMA(net), SWA(net, start=0)
    current = [(follows.current, late.current)]
    for average in (follows, late):
        average.update_parameters(net)
    current.append((follows.current, late.current))
    assert late.refresh([(INPUTS, TARGETS)]) == normalised
    current.append((follows.current, late.current))
    late.update_parameters(net)
    current.append((follows.current, late.current))
    plain = not normalised
    assert current == [(False, False), (True, plain), (True, True), (True, plain)]


@pytest.mark.parametrize("refresh", [True, 2, False])
def test_a_trainer_refreshes_an_average_measures_it_and_saves_it(refresh: bool | int, tmp_path: Path) -> None:  # noqa: FBT001
    """Property C32: the loss of the refreshed average is measured beside the model's, and a checkpoint holds it."""
    net = model()
    loader = [(INPUTS[at : at + 8], TARGETS[at : at + 8]) for at in range(0, 24, 8)]
    average = SWA(net, start=3)
    trainer = Trainer(
        net, Task(), torch.optim.SGD(net.parameters(), lr=0.1), average=average, refresh=refresh, run=tmp_path / "run"
    )
    history = trainer.fit(loader, loader, epochs=3)
    by_epoch = ["average.loss" in epoch.validation for epoch in history]
    if not refresh:
        assert by_epoch == [False, False, False]
        return
    assert by_epoch == [False, True, True], "it begins with the fourth step"
    assert history[-1].validation["average.loss"] == evaluate(average.module, loader).loss.value
    wanted = copy.deepcopy(average)
    wanted.refresh(loader, batches=None if refresh is True else refresh)
    for mine, direct in zip(average.module.buffers(), wanted.module.buffers(), strict=True):
        torch.testing.assert_close(mine, direct)
    other = model()
    again = SWA(other, start=3)
    Trainer(
        other, Task(), torch.optim.SGD(other.parameters(), lr=0.1), average=again, refresh=refresh, run=tmp_path / "run"
    ).fit(loader, epochs=3, resume="auto")
    for mine, saved in zip(average.module.state_dict().values(), again.module.state_dict().values(), strict=True):
        assert torch.equal(mine, saved)


def test_without_validation_an_average_is_refreshed_at_the_end_and_one_pass_of_data_is_not_used_for_it() -> None:
    net, other = model(), model()
    loader = [(INPUTS[at : at + 8], TARGETS[at : at + 8]) for at in range(0, 24, 8)]
    average, stale = SWA(net, start=0), SWA(other, start=0)
    Trainer(net, Task(), torch.optim.SGD(net.parameters(), lr=0.1), average=average).fit(loader, epochs=1)
    Trainer(other, Task(), torch.optim.SGD(other.parameters(), lr=0.1), average=stale).fit(iter(loader), epochs=1)
    assert (average.current, stale.current) == (True, False)


def test_a_trainer_measures_the_average_beside_the_model() -> None:
    net = model()
    loader = [(INPUTS[at : at + 8], TARGETS[at : at + 8]) for at in range(0, 24, 8)]
    average = EMA(net, decay=0.5)
    trainer = Trainer(net, Task(), torch.optim.SGD(net.parameters(), lr=0.1), average=average)
    history = trainer.fit(loader, loader, epochs=2)
    wanted = {name: evaluate(part, loader).loss.value for name, part in (("", net), ("average.", average.module))}
    for name, loss in wanted.items():
        assert history[-1].validation[f"{name}loss"] == loss
    assert wanted[""] != wanted["average."]
    assert trainer.validate(loader, average=True).name == "validation.average"
