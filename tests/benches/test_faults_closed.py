"""The fault bench in the loop: real trainings, and what flyball's default policy promises on them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benches.faults import looped_bench
from benches.faults.__main__ import main
from benches.faults.families import FAMILIES, Batch8, Clusters, Digits, Distilled
from benches.faults.faults import FAULTS, Fault, Shuffled
from benches.faults.fleet import Fleet
from benches.faults.guards import Governed, Guard, Immediate, Nobody, guards
from benches.faults.held_out import Residual
from benches.faults.looped import (
    CADENCE,
    Healthy,
    Runs,
    clean_run,
    drive,
    healthy,
    length,
    possible,
    same,
    spoilt,
    visible,
)
from benches.faults.task import Task
from benches.faults.training import Training
from flyball.errors import GovernorExhausted
from flyball.govern.governor import Governor

FAULT = {fault.name: fault for fault in FAULTS}
NOTHING = Fault("nothing")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small are no work for two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def residual() -> Healthy:
    return healthy(Residual, 1, 0, [NOTHING, *FAULTS])


def through(run: Healthy, fault: Fault, make: object = Governed) -> Runs:
    batches = spoilt(run, fault)
    return drive(run, fault, make, batches, visible(run, fault, batches))  # type: ignore[arg-type]


# --- the trainings --------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [Batch8, Clusters, Distilled, Residual])
def test_a_training_is_that_of_the_fleet(family: type[Task]) -> None:
    training, fleet = Training(family(1, 3)), Fleet.launch(family(1, 3))
    for step in range(5):
        measured = fleet.measure(*fleet.batch())
        loss, norm = training.backward(training.batch(step))
        assert loss == pytest.approx(float(measured.losses), rel=1e-3)
        assert norm == pytest.approx(float(measured.norms), rel=1e-3)
        fleet.apply(measured)
        training.update()


@pytest.mark.parametrize("name", ["flyball", "flyball, no diagnosis", "OLMo-core, rolls back", "nobody"])
def test_a_guard_leaves_a_healthy_run_as_it_is(residual: Healthy, name: str) -> None:
    runs = through(residual, NOTHING, guards()[name])
    assert runs.excess == [0.0]
    assert (runs.good_refused, runs.rollbacks, runs.silent, runs.broken) == (0, 0, 1, 0)


def test_a_state_is_a_copy(residual: Healthy) -> None:
    training = Training(residual.task, residual.struck)
    before = training.state()
    assert same(before, training)
    training.model.strike(FAULT["weight = 50"], residual.position)
    assert not same(before, training)
    training.restore(before)
    assert same(before, training)
    training.backward(training.batch(0))
    training.update()
    assert not same(before, training)


def test_damage_comes_just_before_a_snapshot_is_due() -> None:
    for replica in range(3):
        run = healthy(Batch8, replica, 0, [NOTHING])
        assert 1 <= run.start + CADENCE - run.position <= 3
        assert len(run.past) == run.position


def test_what_is_visible_lies_above_all_that_was_before(residual: Healthy) -> None:
    for name, shown in (("NaN", True), ("shuffled once", True), ("BatchNorm NaN", False)):
        assert visible(residual, FAULT[name], spoilt(residual, FAULT[name]))[0] is shown
    assert not any(visible(residual, NOTHING, spoilt(residual, NOTHING)))


# --- what a guard does ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["NaN", "inf", "shuffled once", "inputs x100"])
def test_one_bad_batch_is_refused_and_leaves_no_trace(residual: Healthy, name: str) -> None:
    runs = through(residual, FAULT[name])
    assert (runs.bad_refused, runs.untouched, runs.good_refused, runs.rolled, runs.broken) == (1, 1, 0, 0, 0)
    assert runs.excess[0] < 0.2


def test_twenty_in_a_row_need_no_rollback_where_the_state_can_be_asked(residual: Healthy) -> None:
    asked = through(residual, FAULT["20 in a row"])
    assert (asked.bad_refused, asked.good_refused, asked.rolled, asked.silent) == (20, 0, 0, 1)
    assert through(residual, FAULT["20 in a row"], guards()["flyball, no diagnosis"]).rolled == 1


@pytest.mark.parametrize("name", ["head zeroed", "weights + noise"])
def test_damage_is_rolled_back_and_never_trusted(residual: Healthy, name: str) -> None:
    runs = through(residual, FAULT[name])
    assert (runs.visible, runs.found, runs.due, runs.trusted, runs.stopped) == (1, 1, 1, 0, 0)


def test_a_poisoned_running_statistic_is_found_though_no_loss_shows_it(residual: Healthy) -> None:
    runs = through(residual, FAULT["BatchNorm NaN"])
    assert (runs.rolled, runs.broken) == (1, 0)
    assert through(residual, FAULT["BatchNorm NaN"], Nobody).broken == 1


def test_an_overflow_of_half_precision_is_refused_six_times(residual: Healthy) -> None:
    runs = through(residual, FAULT["fp16 overflow"])
    assert (runs.bad_refused, runs.good_refused, runs.rolled, runs.untouched) == (6, 0, 0, 1)


def test_the_rival_rolls_back_at_every_refusal_and_never_recovers_from_a_nan(residual: Healthy) -> None:
    runs = through(residual, FAULT["NaN"], Immediate)
    assert runs.rollbacks == length(FAULT["NaN"])
    assert (runs.good_refused, runs.broken) == (runs.rollbacks - 1, 0)
    assert through(residual, FAULT["NaN"], Nobody).excess == [math.inf]


# --- what the default policy promises -------------------------------------------------------------


def test_a_row_of_bad_batches_in_each_of_ten_epochs_does_not_exhaust_the_budget() -> None:
    bad = frozenset(130 * epoch + step for epoch in range(10) for step in range(20))
    fault = Shuffled("a row an epoch", kind="slow", bad=bad, steps=1300)
    run = healthy(Clusters, 0, 0, [fault])
    runs = drive(run, fault, Governed, spoilt(run, fault), [])
    assert (runs.bad_all_refused, runs.stopped, runs.rollbacks) == (200, 0, 0)
    assert runs.good_refused <= 1
    assert runs.excess[0] < 0.2


def test_a_bad_batch_in_each_of_ten_epochs_costs_no_more_than_its_step() -> None:
    fault = Shuffled("a batch an epoch", kind="slow", bad=frozenset(range(0, 300, 30)), steps=300)
    run = healthy(Clusters, 0, 0, [fault])
    runs = drive(run, fault, Governed, spoilt(run, fault), [])
    assert runs.bad_all_refused > 0
    assert (runs.good_refused, runs.stopped, runs.rollbacks) == (0, 0, 0)


def test_nan_without_end_stops_the_run_with_the_reason_within_300_steps() -> None:
    training = Training(Clusters(1, 0, 1000))
    governor = Governor(training.model, training.optimizer, scheduler=training.scheduler)
    healthy_steps, endless = [training.batch(step) for step in range(100)], training.batch(100)
    endless.inputs.fill_(math.nan)
    at: list[tuple[int, bytes]] = []

    def loop() -> None:
        for batch in governor.feed([*healthy_steps, *[endless] * 400]):
            at.append((governor.updates, training.model.get_parameter("head/weight").detach().numpy().tobytes()))
            loss = training.model(batch)
            loss.backward()
            governor.step(loss)

    with pytest.raises(GovernorExhausted, match="refused while the state is sound"):
        loop()
    assert len(at) <= 100 + 300
    assert len(set(at[100:])) == 1, "nothing of them went into the weights"


def test_a_lasting_shift_is_reported_absorbed_and_then_silent() -> None:
    fault = FAULT["level shift"]
    run = healthy(Digits, 0, 0, [fault])
    runs = through(run, fault)
    assert 1 <= runs.bad_all_refused <= 100
    assert (runs.stopped, runs.silent, runs.broken) == (0, 1, 0)
    assert runs.rollbacks <= 1


# --- the bench ------------------------------------------------------------------------------------


def test_a_healthy_run_from_its_first_step_is_left_alone() -> None:
    clean = clean_run(Batch8, 0, 0, Governed, 150)
    assert (clean.steps, clean.rollbacks, clean.stopped) == (150, 0, 0)
    assert clean.asked >= 1, "the state of every snapshot is asked before it is trusted"


@pytest.mark.parametrize(("events", "bound"), [(0, 2.996), (1, 4.744), (3, 7.754), (10, 16.962)])
def test_the_bound_is_that_of_a_poisson_number(events: int, bound: float) -> None:
    assert looped_bench.upper_bound(events) == pytest.approx(bound, abs=1e-3)


def test_families_are_named_by_parts_of_their_names() -> None:
    assert looped_bench.named(["batch 8", "BatchNorm"])[0] is Batch8
    assert looped_bench.named([]) == FAMILIES
    with pytest.raises(ValueError, match=r"`batch 7`.*`clusters, batch 64`"):
        looped_bench.named(["batch 7"])


def test_clean_runs_alone_bound_what_is_done_without_need(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", "--quick", "--families", "batch 8", "--clean", "1"]) == 0
    steps, refused, rolled, stopped = capsys.readouterr().out.splitlines()
    count = int(steps.split()[0])
    assert count >= 150
    assert rolled == f"rolled back: 0, 0 per 10k, at most {looped_bench._number(1e4 / count * 2.9957)} (95 %)"
    assert (refused.split(":")[0], stopped.split(":")[0]) == ("refused", "stopped")


def test_a_family_without_running_statistics_has_none_to_poison() -> None:
    assert FAULT["BatchNorm NaN"] not in possible(Batch8(1, 0), FAULTS)
    assert possible(Residual(1, 0), FAULTS) == list(FAULTS)


def test_a_small_run_from_end_to_end() -> None:
    settings = looped_bench.Settings(
        replicas=1, clean=1, clean_steps=40, families=(Batch8,), faults=(FAULT["NaN"], FAULT["head zeroed"])
    )
    made: dict[str, type[Guard]] = {"flyball": Governed, "nobody": Nobody}
    said: list[str] = []
    result = looped_bench.summary(looped_bench.run(settings, made, said.append))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert len(said) == 1
    text = looped_bench.tables(result)
    assert "| NaN: left as it was, bit for bit | 1 of 1 (100 %) | 0 of 1 (0 %) |" in text
    assert "| clean steps refused / 10k | 0 | - |" in text
    assert "infinite / infinite" in text, "nobody outlives a NaN"


def test_an_unknown_family_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no family is named like `nothing`"):
        main(["closed", "--families", "nothing", "--out", str(tmp_path / "closed.json")])
