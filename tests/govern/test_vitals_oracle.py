"""The compiled detector and its naive twin agree to the last bit (property 11)."""

from __future__ import annotations

import copy
import json
import math
import os
import random
import struct
from decimal import Decimal, localcontext
from typing import Any

import pytest

from flyball.govern import Policy, Verdict, Vitals
from govern.naive_vitals import Judgement, NaiveVitals, exp, ln
from govern.regimes import POLICIES, stream

# `FLYBALL_ORACLE=1000000` runs the long comparison; the suite runs the short one.
COUNT = int(os.environ.get("FLYBALL_ORACLE", "20000"))


def bits(value: object) -> object:
    return struct.pack("<d", value) if isinstance(value, float) and not math.isnan(value) else repr(value)


def shown(judgement: Judgement) -> tuple[object, ...]:
    evidence = [tuple(map(bits, parts)) for parts in judgement.evidence]
    return judgement.level, judgement.apply, judgement.reasons(), bits(judgement.rho), evidence


def as_shown(verdict: Verdict) -> tuple[object, ...]:
    evidence = [tuple(bits(getattr(one, name)) for name in one.__slots__) for one in verdict.evidence]
    applied = verdict.action.value == "apply"
    return int(verdict.level), applied, verdict.reasons, bits(verdict.rho), evidence


def compare(seed: int, policy: dict[str, Any], count: int) -> dict[str, int]:
    rng = random.Random(seed)
    compiled, naive = Vitals(Policy(**policy)), NaiveVitals(**policy)
    saved = json.dumps(compiled.state_dict()), copy.deepcopy(naive)
    seen: dict[str, int] = {}
    for number, step in enumerate(stream(rng, count)):
        match step.command:
            case "":
                options = step.more or {}
                verdict = compiled.observe(step.loss, step.norm, **options)
                judgement = naive.observe(step.loss, step.norm, **options)
                assert as_shown(verdict) == shown(judgement), (seed, number, step)
                if number % 7 == 0:
                    state = compiled.state_dict()["streams"]["train"]
                    assert naive.state() | {"observed": state["observed"]} == state, (seed, number)
                for reason in (verdict.level.name, *verdict.reasons):
                    seen[reason] = seen.get(reason, 0) + 1
            case "expect_shift":
                compiled.expect_shift(step.steps)
                naive.expect_shift(step.steps)
            case "rebaseline":
                compiled.rebaseline()
                naive.rebaseline()
            case "rolled_back":
                compiled.rolled_back()
                naive.rolled_back()
            case "save":
                saved = json.dumps(compiled.state_dict(), allow_nan=False), copy.deepcopy(naive)
                compiled.load_state_dict(json.loads(saved[0]))
            case "go back":
                compiled.load_state_dict(json.loads(saved[0]))
                naive = copy.deepcopy(saved[1])
    return seen


def test_property_11_python_and_rust_agree_bit_for_bit() -> None:
    seen: dict[str, int] = {}
    share = 2000
    for seed in range(COUNT // share):
        policy = POLICIES[seed % len(POLICIES)]
        for reason, times in compare(seed, policy, share).items():
            seen[reason] = seen.get(reason, 0) + times
    missing = {
        "OK", "WATCH", "ANOMALY", "PANIC", "loss", "norm", "joint", "run", "loss-hot", "nonfinite",
        "sustained", "too-many", "pending", "adopted", "learning", "expected", "sign", "drawdown", "collapse",
        "update-ratio", "dead-group", "amp-skip", "amp-skips", "amp-scale", "nonfinite-parameters",
    } - seen.keys()  # fmt: skip
    assert not missing, "the streams no longer reach these"


@pytest.mark.parametrize("low", [1e-300, 1e-3, 0.7, 1.0, 1e10])
def test_the_twin_of_ln_is_right_to_one_unit(low: float) -> None:
    rng = random.Random(1)
    with localcontext() as context:
        context.prec = 50
        for _ in range(200):
            x = low * rng.uniform(1.0, 2.1)
            right = Decimal(x).ln()
            assert abs(Decimal(ln(x)) - right) < Decimal(math.ulp(float(right)))


def test_the_twin_of_exp_is_right_to_one_unit() -> None:
    rng = random.Random(1)
    with localcontext() as context:
        context.prec = 50
        for _ in range(1000):
            x = rng.choice([1.0, 10.0, 700.0]) * rng.uniform(-1.0, 1.0)
            right = Decimal(x).exp()
            assert abs(Decimal(exp(x)) - right) < Decimal(math.ulp(float(right)))
