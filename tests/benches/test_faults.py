"""The fault bench: runs that repeat, faults that do what they say, rivals that follow their formulas."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benches.faults import report, rivals
from benches.faults.__main__ import main
from benches.faults.bench import QUICK, Settings, run
from benches.faults.closed import UNGUARDED, govern
from benches.faults.detector import Detector, Flyball, Remedy, detectors
from benches.faults.families import FAMILIES, Batch8, Clusters, Digits
from benches.faults.faults import FAULTS, Fault
from benches.faults.fleet import Fleet
from benches.faults.held_out import Counts, Residual
from benches.faults.rules import Adam, Rule, Sgd
from benches.faults.score import episodes, judge, score
from benches.faults.task import Task
from benches.faults.traces import Forked, faulty_step, fork, positions, record

FAULT = {fault.name: fault for fault in FAULTS}
INF, NAN = math.inf, math.nan


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small are no work for two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def fleet_of(family: type[Task], *, steps: int = 40, replicas: int = 3, seed: int = 0) -> Fleet:
    fleet = Fleet.launch(family(replicas, seed, 1000))
    for _ in range(steps):
        fleet.apply(fleet.measure(*fleet.batch()))
    return fleet


def said(detector: Detector, losses: Iterable[float], norm: float = 1.0) -> list[bool]:
    return [detector.observe(loss, norm) for loss in losses]


# --- the trainings --------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_lane_is_a_training_of_its_own(family: type[Task]) -> None:
    fleet = fleet_of(family, steps=2)
    batch = fleet.batch()
    before = fleet.measure(*batch)
    assert before.losses.isfinite().all()
    assert (before.norms > 0).all()
    assert len(set(before.losses.tolist())) == fleet.task.replicas
    fleet.weights[1] = NAN
    after = fleet.measure(*batch)
    for lane in (0, 2):
        assert after.losses[lane] == before.losses[lane]
        assert torch.equal(after.gradient[lane], before.gradient[lane])
    assert after.losses[1].isnan()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_seed_decides_everything(family: type[Task]) -> None:
    first, again, other = (fleet_of(family, steps=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.weights, again.weights)
    assert not torch.equal(first.weights, other.weights)
    assert all(torch.equal(one, two) for one, two in zip(first.batch(), again.batch(), strict=True))


def test_families_learn() -> None:
    for family in (Clusters, Digits, Residual):
        fleet = fleet_of(family, steps=0, replicas=2)
        losses = []
        for _ in range(150):
            measured = fleet.measure(*fleet.batch())
            losses.append(measured.losses)
            fleet.apply(measured)
        assert (torch.stack(losses[-20:]).mean(0) < 0.8 * torch.stack(losses[:20]).mean(0)).all()


@pytest.mark.parametrize(
    ("rule", "make"),
    [
        (Sgd(0.1), lambda p: torch.optim.SGD(p, 0.1)),
        (Sgd(0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
        (Adam(0.1), lambda p: torch.optim.Adam(p, 0.1)),
        (Adam(0.1, decay=0.3), lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.3)),
    ],
)
def test_the_rules_are_those_of_torch(rule: Rule, make: Callable[[list[torch.Tensor]], torch.optim.Optimizer]) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 5, generator=generator)
    moments, updates = torch.zeros(2, rule.moments, 5), torch.zeros(2)
    theirs = weights.clone().requires_grad_()
    optimizer = make([theirs])
    for _ in range(4):
        gradient = torch.randn(2, 5, generator=generator)
        weights, moments = rule.update(weights, moments, gradient, torch.full((2,), 0.1), updates)
        updates = updates + 1
        theirs.grad = gradient
        optimizer.step()
        torch.testing.assert_close(weights, theirs.detach())


def test_a_fork_without_a_fault_is_the_run_it_left() -> None:
    recording = record(Batch8(2, 0, 600), faults=[replace(Fault("none", kind="state"), steps=30)])
    (forked,) = recording.forks
    assert forked.position == 270
    assert np.array_equal(forked.losses, recording.losses[270:300])
    assert np.array_equal(forked.norms, recording.norms[270:300])


def test_faults_begin_early_in_the_middle_and_late() -> None:
    assert positions(2000) == (160, 900, 1700)
    assert positions(300) == (135,)


# --- the faults -----------------------------------------------------------------------------------


def test_a_refused_batch_leaves_no_trace() -> None:
    fleet = fleet_of(Residual)
    forked = fork(fleet, FAULT["inputs x100"], applied=False)
    fleet.skip()
    rest = fork(fleet, Fault("none", kind="state", steps=59), applied=True)
    assert np.array_equal(forked.losses[1:], rest.losses)


def test_an_applied_nan_kills_the_weights_and_a_refused_one_costs_one_step() -> None:
    fleet = fleet_of(Clusters)
    for name in ("NaN", "inf"):
        applied, refused = (fork(fleet, FAULT[name], applied=way) for way in (True, False))
        assert not np.isfinite(applied.losses[1:]).any()
        assert not np.isfinite(refused.norms[0]).any()
        assert np.isfinite(refused.losses[1:]).all()


def test_what_a_bad_batch_is() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, targets = Clusters(2, 0).batch_at(0)
    shuffled = FAULT["shuffled once"].spoil(inputs, targets, generator)
    assert torch.equal(shuffled[0], inputs)
    assert not torch.equal(shuffled[1], targets)
    assert torch.equal(shuffled[1].sort(1).values, targets.sort(1).values)
    assert torch.equal(FAULT["inputs x100"].spoil(inputs, targets, generator)[0], inputs * 100)
    poisoned = FAULT["NaN"].spoil(inputs, targets, generator)[0]
    assert poisoned.isnan().sum() == 2
    assert inputs.isfinite().all()
    shifted = FAULT["level shift"].spoil(inputs, targets, generator)[1]
    assert torch.equal(shifted[:, 32:], targets[:, 32:])
    assert not torch.equal(shifted, targets)


def test_which_steps_are_bad() -> None:
    assert sorted(FAULT["burst of 20"].bad) == list(range(0, 40, 2))
    assert sorted(FAULT["20 in a row"].bad) == list(range(20))
    assert all(len(FAULT[name].bad) == 1 for name in ("shuffled once", "inputs x100", "NaN", "inf"))
    assert all(not fault.bad for fault in FAULTS if fault.kind == "state")


def test_half_precision_overflows_six_times() -> None:
    forked = fork(fleet_of(Clusters), FAULT["fp16 overflow"], applied=False)
    assert np.isposinf(forked.norms[:6]).all()
    assert np.isfinite(forked.norms[6:]).all()
    assert np.isfinite(forked.losses).all()


def test_the_rate_is_a_hundred_times_too_large_for_one_step() -> None:
    moves = []
    for fault in (Fault(), FAULT["rate x100"]):
        fleet = fleet_of(Batch8)
        before = fleet.weights
        fleet.apply(faulty_step(fleet, fault, 0), rate=fault.rate(0))
        moves.append(fleet.weights - before)
    torch.testing.assert_close(moves[1], 100 * moves[0], rtol=1e-3, atol=1e-5)
    assert FAULT["rate x100"].rate(1) == 1.0
    assert FAULT["rate +2 %"].rate(99) == pytest.approx(1.02**100)


def test_what_is_done_to_the_state() -> None:
    generator = torch.Generator().manual_seed(0)
    healthy = fleet_of(Residual)

    def struck(name: str) -> Fleet:
        fleet = healthy.fork()
        FAULT[name].strike(fleet, generator)
        return fleet

    headless = struck("head zeroed")
    assert not headless.task.views(headless.weights)["head.weight"].any()
    assert (headless.weights == healthy.weights).sum(1).min() == healthy.weights.shape[1] - 48
    heavy = struck("weight = 50")
    assert ((heavy.weights == 50.0).sum(1) == 1).all()
    assert (heavy.weights != healthy.weights).sum() == 3
    noisy = struck("weights + noise")
    moved = healthy.task.views(noisy.weights - healthy.weights)["one.weight"].flatten(1).std(1)
    spread = healthy.task.views(healthy.weights)["one.weight"].flatten(1).std(1)
    torch.testing.assert_close(moved, spread, rtol=0.15, atol=0.0)
    poisoned = struck("BatchNorm NaN")
    assert poisoned.buffers["one.mean"].isnan().any()
    assert torch.equal(poisoned.weights, healthy.weights)
    assert all(buffer.isfinite().all() for buffer in healthy.buffers.values())
    assert not FAULT["BatchNorm NaN"].possible(fleet_of(Counts, steps=0))


def test_a_poisoned_running_statistic_shows_in_no_loss_of_training() -> None:
    forked = fork(fleet_of(Residual), FAULT["BatchNorm NaN"], applied=True)
    assert np.isfinite(forked.losses).all()


# --- the rivals -----------------------------------------------------------------------------------

STEADY = [1.0, 1.2] * 64  # mean 1.1, unbiased deviation 0.1004 over 128


def test_skip_step_compares_with_mean_and_deviation_of_the_window() -> None:
    above, below = 1.1 + 6.03 * 0.1, 1.1 + 6.02 * 0.1
    assert said(rivals.SkipStep(), [*STEADY, below]) == [False] * 129
    assert said(rivals.SkipStep(), [*STEADY, above]) == [False] * 128 + [True]
    assert said(rivals.SkipStep(20.0), [*STEADY, 3.0, 3.2])[-2:] == [False, False]
    # It looks at the norm as well, and only upwards.
    assert [rival.observe(1.1, 9.0) for rival in [_fed(rivals.SkipStep(), STEADY)]] == [True]
    assert said(_fed(rivals.SkipStep(), STEADY), [-50.0]) == [False]


def test_skip_step_waits_for_half_a_window_and_keeps_what_it_refused() -> None:
    assert said(rivals.SkipStep(), [1.0, 1.2] * 31 + [99.0])[-1] is False
    assert said(rivals.SkipStep(), [1.0, 1.2] * 31 + [1.0, 99.0])[-1] is True
    # A second spike hides behind the first: it raised mean and deviation.
    assert said(_fed(rivals.SkipStep(), STEADY), [10.0, 5.0]) == [True, False]


def test_skip_step_refuses_129_steps_after_one_nan() -> None:
    answers = said(_fed(rivals.SkipStep(), STEADY), [NAN, *STEADY, *STEADY])
    assert answers == [True] * 129 + [False] * 128


def test_zclip_clips_the_harder_the_larger_the_norm_and_never_sees_a_nan() -> None:
    rival = rivals.ZClip()
    norms = [1.0, 1.2] * 12 + [1.0]
    assert [rival.observe(1.0, norm) for norm in norms] == [False] * 25
    mean, spread = np.mean(norms), np.std(norms)
    z = (3.0 - mean) / (spread + 1e-6)
    assert rival.observe(1.0, 3.0)
    assert rival.limit == pytest.approx(mean + 2.5 * spread / (z / 2.5))
    assert rival.mean == pytest.approx(0.97 * mean + 0.03 * rival.limit)
    assert not rival.observe(1.0, rival.mean)
    assert rival.limit == INF
    assert [rival.observe(1.0, norm) for norm in (NAN, 1e9)] == [False, False]


def test_spike_detection_wants_a_rise_of_twice_the_mean_of_ten() -> None:
    assert said(rivals.SpikeDetection(), [1.0] * 5 + [2.99, 1.0]) == [False] * 7
    assert said(rivals.SpikeDetection(), [1.0] * 5 + [3.0, 3.0, NAN, 1.0]) == [False] * 5 + [True, True, True, False]
    # A loss that falls is better, however far from the mean.
    assert said(rivals.SpikeDetection(), [1.0, -5.0]) == [False, False]
    assert said(rivals.SpikeDetection(), [100.0] + [1.0] * 10 + [3.0])[-1] is True


def test_factor_ten_learns_the_largest_of_a_hundred_and_stays_there() -> None:
    losses = [1.0] * 50 + [4.0] + [1.0] * 49
    assert said(rivals.FactorTen(), [*losses, 39.9, 40.0, NAN]) == [False] * 101 + [True, True]
    assert said(rivals.FactorTen(), [1.0, 99.0, INF]) == [False, False, True]


def test_kill_loss_spike_wants_five_in_a_row_or_half_a_window_above_ten() -> None:
    assert said(rivals.KillLossSpike(), [1.0] * 100 + [3.0] * 4 + [1.0] + [3.0] * 4) == [False] * 109
    assert said(rivals.KillLossSpike(), [1.0] * 100 + [3.0] * 5) == [False] * 104 + [True]
    assert said(rivals.KillLossSpike(), [1.0] * 99 + [3.0] * 5)[-1] is False
    high = said(rivals.KillLossSpike(), [11.0] * 201)
    assert high == [False] * 200 + [True]


def test_the_two_rules_of_thumb() -> None:
    assert said(rivals.Multiple(), [1.0, 3.01, 3.01, NAN]) == [False, True, False, True]
    assert said(rivals.NonFinite(), [1.0, 1e30, INF, NAN]) == [False, False, True, True]
    assert rivals.NonFinite().observe(1.0, NAN)


def _fed(rival: rivals.SkipStep, losses: list[float]) -> rivals.SkipStep:
    for loss in losses:
        rival.observe(loss, 1.0 + 0.1 * (loss > 1.1))
    return rival


# --- the score ------------------------------------------------------------------------------------


def test_refusals_that_are_close_are_one_episode() -> None:
    assert episodes([]) == []
    assert episodes([0, 3, 13, 24, 25, 100]) == [0, 24, 100]


class Scripted:
    remedy = Remedy.SKIP

    def __init__(self, at: Iterable[int]) -> None:
        self.at, self.step = set(at), -1

    def observe(self, loss: float, norm: float) -> bool:
        del loss, norm
        self.step += 1
        return self.step in self.at


def test_bad_steps_are_found_at_the_step_and_only_visible_ones_count() -> None:
    forked = Forked(FAULT["burst of 20"], 0, applied=False, losses=np.zeros((80, 1)), norms=np.zeros((80, 1)))
    over = np.zeros(80, dtype=np.bool_)
    over[[0, 2, 4, 5]] = True
    answers = np.zeros(80, dtype=np.bool_)
    answers[[0, 4, 7, 8]] = True
    found = judge(forked, answers, over)
    assert (found.bad, found.visible, found.found, found.refused, found.refused_good) == (20, 3, 2, 4, 1)


@pytest.mark.parametrize(
    ("over", "answers", "expected"),
    [
        ([0, 3], [6], (1, 1, 1, [6])),
        ([0, 3], [7], (1, 1, 0, [7])),
        ([0, 3], [50], (1, 0, 0, [])),
        ([0, 9], [0], (0, 0, 0, [])),
        ([0, 3], [], (1, 0, 0, [])),
    ],
)
def test_damage_is_visible_in_two_of_five_steps_and_found_within_fifty(
    over: list[int], answers: list[int], expected: tuple[int, int, int, list[int]]
) -> None:
    flags = [np.isin(np.arange(60), which) for which in (answers, over)]
    forked = Forked(FAULT["head zeroed"], 0, applied=True, losses=np.zeros((60, 1)), norms=np.zeros((60, 1)))
    found = judge(forked, *flags)
    assert (found.visible, found.found, found.soon, found.lags) == expected


def test_a_slow_fault_is_visible_in_two_of_any_five_steps() -> None:
    forked = Forked(FAULT["rate +2 %"], 0, applied=True, losses=np.zeros((200, 1)), norms=np.zeros((200, 1)))
    flags = [np.isin(np.arange(200), which) for which in ([150], [100, 103])]
    found = judge(forked, *flags)
    assert (found.visible, found.found, found.lags) == (1, 1, [150])


def test_every_detector_is_shown_the_same_and_goes_on_from_where_it_stood() -> None:
    recording = record(Batch8(2, 0, 300), faults=[FAULT["NaN"]])
    result, stood = score(lambda: Scripted([5, 9, 40, 135]), recording)
    assert (result.clean.steps, result.clean.refused, result.clean.episodes) == (600, 8, 6)
    assert result.clean.where == [(lane, step) for lane in (0, 1) for step in (5, 40, 135)]
    assert list(stood) == [135]
    found = result.faults["NaN", False]
    assert (found.runs, found.visible, found.found, found.refused_good) == (2, 2, 2, 0)


# --- in the loop ----------------------------------------------------------------------------------


def test_what_each_does_to_the_weights_after_one_nan() -> None:
    recording = record(Residual(1, 0, 300), faults=[])
    stood = {name: score(make, recording)[1][135] for name, make in detectors().items()}
    endings = govern(recording.fleets[135], stood, FAULT["NaN"], replicas=1, steps=25)
    ours, olmo, plain = endings["flyball"], endings["OLMo-core, 6 sigma"], endings["non-finite only"]
    assert (ours.refused_bad, ours.refused_good, ours.untouched, ours.dead, ours.poisoned) == (1, 0, 1, 0, 0)
    assert (olmo.refused_bad, olmo.refused_good, olmo.untouched, olmo.dead) == (1, 24, 0, 1)
    assert (plain.refused_bad, plain.untouched, plain.dead, plain.poisoned) == (1, 1, 0, 1)
    assert endings["Lightning SpikeDetection"].stopped == 1
    assert endings["ZClip"].dead == endings[UNGUARDED].dead == 1
    assert abs(ours.excess[0]) < 0.5
    assert endings[UNGUARDED].excess == [INF]


def test_nobody_and_nothing_wrong_is_the_clean_run() -> None:
    recording = record(Batch8(1, 0, 300), faults=[])
    stood = {"flyball": score(Flyball, recording)[1][135]}
    endings = govern(recording.fleets[135], stood, Fault(), replicas=1, steps=30)
    # A product of stacked matrices may round differently where there are more of them.
    assert endings[UNGUARDED].excess == pytest.approx([0.0], abs=1e-5)
    assert endings["flyball"].excess == endings[UNGUARDED].excess
    assert endings["flyball"].refused_good == 0


# --- all of it ------------------------------------------------------------------------------------


def test_the_families_and_faults_are_as_many_as_promised() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES) == 17
    assert sum(family.held_out for family in FAMILIES) == 6
    assert sum(family.length for family in FAMILIES) * Settings().replicas >= 300_000
    assert len(FAULT) == len(FAULTS) == 14


def test_a_quick_run_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "faults.json"
    assert main(["--quick", "--out", str(path)]) == 0
    result = json.loads(path.read_text())
    text = capsys.readouterr().out
    assert text == report.tables(result)
    assert all(f"| {name} |" in text for name in detectors())
    assert "0 / 0 / 0 % / 100 % / infinite" in text, "nobody outlives a NaN"
    assert set(result["families"]) == {family.name for family in QUICK.families}
    for totals in result["totals"].values():
        nan = totals["flyball"]["faults"]["NaN, refused"]
        assert nan["found"] == nan["visible"] == nan["runs"]


def test_a_run_repeats() -> None:
    small = replace(QUICK, families=(Batch8,), replicas=1, governed_steps=20)
    contestants = {"flyball": Flyball}
    first, again = (run(small, contestants, lambda _: None) for _ in range(2))
    assert report.summary(first) == report.summary(again)
