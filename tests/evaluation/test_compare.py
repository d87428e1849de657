"""Two models on the same samples, and what declining to answer is worth."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from flyball.errors import InputError
from flyball.evaluation import evaluate
from flyball.evaluation.comparison import compared
from flyball.measure import selective
from flyball.measure.statistics import mcnemar_counts
from flyball.objective import Task

SEED = torch.Generator().manual_seed(0)
TARGETS = torch.randint(4, (200,), generator=SEED)
CLEAN = nn.functional.one_hot(TARGETS, 4).float()
INPUTS = CLEAN + torch.randn(200, 4, generator=SEED)
NOISE = torch.randn(200, 4, generator=SEED)


def batches(size: int = 33) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(INPUTS[at : at + size], TARGETS[at : at + size]) for at in range(0, 200, size)]


class Worse(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs + 0.5 * torch.sin(100.0 * inputs)


def test_a_comparison_is_of_the_samples_one_by_one() -> None:
    first, second = evaluate(nn.Identity(), batches()), evaluate(Worse(), batches(50))
    found = first.compare(second, margin=0.1)
    right, other = first.correct, second.correct
    assert right is not None
    assert other is not None
    assert (found.gained, found.lost) == ((right & ~other).sum(), (~right & other).sum())
    assert found.difference.value == pytest.approx(right.mean() - other.mean())
    assert found.mcnemar == mcnemar_counts(found.gained, found.lost, 200)
    assert found.equivalence is not None
    assert found.difference.low <= found.difference.value <= found.difference.high
    backwards = second.compare(first)
    assert backwards.difference.value == -found.difference.value
    assert backwards.mcnemar.p_value == found.mcnemar.p_value
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["samples"] == 200
    assert "only the first is right on" in str(found)


def test_the_interval_of_a_difference_covers_as_often_as_it_says() -> None:
    """Of two models that fail together on most samples, also where few samples tell them apart."""
    rng = np.random.default_rng(0)
    for n, gain, loss in ((40, 0.3, 0.1), (200, 0.02, 0.01), (30, 0.9, 0.0)):
        held = 0
        for _ in range(1000):
            gained, lost, _ = rng.multinomial(n, [gain, loss, 1.0 - gain - loss])
            first = np.arange(n) < gained
            second = (np.arange(n) >= gained) & (np.arange(n) < gained + lost)
            found = compared(first, second, confidence=0.95, margin=None).difference
            held += found.low <= gain - loss <= found.high
        assert 0.93 <= held / 1000 <= 0.99
    alike = compared(np.ones(5, bool), np.ones(5, bool), confidence=0.95, margin=None).difference
    assert alike.low < 0.0 < alike.high


def test_a_model_beside_itself_shows_nothing() -> None:
    evaluation = evaluate(nn.Identity(), batches())
    assert evaluation.compare(evaluation).mcnemar.p_value == 1.0


def test_other_samples_another_order_or_no_classifier_are_refused() -> None:
    evaluation = evaluate(nn.Identity(), batches())
    with pytest.raises(InputError, match="not of the same samples in the same order"):
        evaluation.compare(evaluate(nn.Identity(), batches()[::-1]))
    with pytest.raises(InputError, match="not of the same samples"):
        evaluation.compare(evaluate(nn.Identity(), batches()[:-1]))
    regression = evaluate(nn.Identity(), [(INPUTS, CLEAN)], objective=Task("mse"))
    with pytest.raises(InputError, match="not of a classifier"):
        evaluation.compare(regression)


@pytest.mark.parametrize("score", ["probability", "margin", "certainty", selective.largest_probability])
def test_declining_to_answer_is_measured_in_the_same_pass(score: object) -> None:
    evaluation = evaluate(nn.Identity(), batches(), selective=score)
    compute = {"margin": selective.margin, "certainty": selective.certainty}.get(
        str(score), selective.largest_probability
    )
    assert evaluation.correct is not None
    curve = selective.risk_coverage(compute(INPUTS.numpy()), evaluation.correct)
    assert evaluation.risk_coverage is not None
    assert evaluation.selective is not None
    assert evaluation.risk_coverage.aurc == pytest.approx(curve.aurc, abs=1e-12)
    assert evaluation.selective.risk.value == pytest.approx(1.0 - evaluation.correct.mean())
    assert evaluation.to_dict()["selective"]["samples"] == 200
    assert "risk at coverage" in str(evaluation)


def test_a_sample_without_a_finite_score_is_declined_first() -> None:
    broken = INPUTS.clone()
    broken[7] = torch.nan
    evaluation = evaluate(nn.Identity(), [(broken, TARGETS)], selective="probability")
    assert evaluation.risk_coverage is not None
    assert evaluation.risk_coverage.thresholds[-1] == -np.inf
    assert evaluation.risk_coverage.answered[-2] == 199


def test_a_confidence_that_is_not_known_or_not_one_a_row_is_named() -> None:
    with pytest.raises(InputError, match=r"`selective` is 0\.9: it is one of 'probability'"):
        evaluate(nn.Identity(), batches(), selective=0.9)
    with pytest.raises(InputError, match="one number for each"):
        evaluate(nn.Identity(), batches(), selective=lambda logits: logits)


def test_agreeing_on_five_samples_is_no_proof_that_two_models_are_alike() -> None:
    five = [(INPUTS[:5], TARGETS[:5])]
    evaluation = evaluate(nn.Identity(), five)
    found = evaluation.compare(evaluation, margin=0.01).equivalence
    assert found is not None
    assert found.p_value > 0.9
    assert "not shown to be alike" in str(found)
