"""The norm that is taken of gradients in one read, beside torch's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from flyball import Governor, _native
from flyball.errors import InputError
from flyball.govern.before import BeforeForward
from flyball.govern.gradients import Norm, clip, fetched, number

if TYPE_CHECKING:
    from collections.abc import Callable

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def parameters(*gradients: torch.Tensor | None) -> list[nn.Parameter]:
    found = []
    for gradient in gradients:
        shape = (2,) if gradient is None else gradient.shape
        dtype = torch.float32 if gradient is None else gradient.dtype
        found.append(nn.Parameter(torch.zeros(shape, dtype=dtype)))
        found[-1].grad = gradient
    return found


def exact(gradients: list[torch.Tensor]) -> float:
    """The norm as anybody would write it, in double precision."""
    dense = (one.to_dense() if one.is_sparse else one for one in gradients)
    return math.sqrt(math.fsum(float(value) ** 2 for one in dense for value in one.double().flatten().tolist()))


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 3000), max_size=5),
    scale=st.integers(-35, 35),
    double=st.booleans(),
    threads=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_native_norm_is_the_naive_one(
    sizes: list[int],
    scale: int,
    double: bool,  # noqa: FBT001
    threads: int,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.float64 if double else torch.float32
    gradients = [torch.randn(size, generator=generator, dtype=dtype) * 10.0**scale for size in sizes]
    found = _native.Norm(torch.Tensor).of(gradients, threads)
    assert found == pytest.approx(exact(gradients), rel=2e-6)


KINDS: dict[str, Callable[[], list[torch.Tensor]]] = {
    "single": lambda: [torch.randn(300, 7), torch.randn(5)],
    "double": lambda: [torch.randn(300, dtype=torch.float64)],
    "both": lambda: [torch.randn(30), torch.randn(3, dtype=torch.float64)],
    "a scalar": lambda: [torch.tensor(-3.0)],
    "channels last": lambda: [torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last)],
    "transposed": lambda: [torch.randn(4, 9).t()],
    "with gaps": lambda: [torch.randn(9, 8)[:, :3]],
    "one value many times": lambda: [torch.randn(1).expand(40)],
    "half": lambda: [torch.randn(50).half(), torch.randn(4)],
    "brain": lambda: [torch.randn(50).bfloat16()],
    "sparse": lambda: [torch.eye(5).to_sparse(), torch.randn(3)],
    "empty": lambda: [torch.zeros(0), torch.zeros(3, 0)],
    "behind its storage's beginning": lambda: [torch.randn(40)[7:]],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_gradient_has_its_norm(kind: str) -> None:
    torch.manual_seed(0)
    gradients = KINDS[kind]()
    (found,) = fetched(Norm().of_gradients(parameters(*gradients, None)))
    assert found == pytest.approx(exact(gradients), rel=2e-3 if kind in {"half", "brain"} else 2e-6)


@pytest.mark.parametrize("kind", ["single", "double", "both", "a scalar", "channels last", "transposed", "empty"])
def test_dense_gradients_are_read_natively_where_torch_lends_its_tensors(kind: str) -> None:
    if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        pytest.skip("this torch does not lend its tensors in C")
    found = _native.Norm(torch.Tensor).of_gradients(parameters(*KINDS[kind]()), 1)
    assert found is not None


def test_a_torch_that_does_not_lend_its_tensors_is_asked_itself() -> None:
    native = _native.Norm(nn.Parameter)  # of which no gradient is one
    assert native.of_gradients(parameters(torch.randn(3)), 1) is None
    norm = Norm()
    norm._native = _native.Norm(np.ndarray)
    (found,) = fetched(norm.of_gradients(parameters(torch.tensor([3.0, 4.0]))))
    assert found == pytest.approx(5.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["single", "both", "half", "sparse"])
def test_a_value_that_is_not_finite_makes_the_norm_so(kind: str, bad: float) -> None:
    gradients = KINDS[kind]()
    values = gradients[0].coalesce().values() if gradients[0].is_sparse else gradients[0]
    values.view(-1)[-1] = bad
    (found,) = fetched(Norm().of_gradients(parameters(*gradients)))
    assert found is not None
    assert math.isnan(found) if math.isnan(bad) else math.isinf(found)


def test_without_gradients_there_is_no_norm() -> None:
    assert Norm().of_gradients(parameters(None, None)) is None
    assert Norm().of([]) is None


@pytest.mark.parametrize("kind", ["single", "both", "channels last", "half", "sparse"])
@pytest.mark.parametrize("most", [1e-3, 1e3])
def test_clipping_by_a_known_norm_is_clipping(kind: str, most: float) -> None:
    torch.manual_seed(0)
    ours, theirs = parameters(*KINDS[kind]()), parameters(*KINDS[kind]())
    for one, other in zip(ours, theirs, strict=True):
        assert one.grad is not None
        other.grad = one.grad.clone()
    (norm,) = fetched(Norm().of_gradients(ours))
    assert norm is not None
    clip(ours, norm, most)
    if kind == "sparse":
        for parameter in theirs:
            assert parameter.grad is not None
            parameter.grad *= min(1.0, most / (norm + 1e-6))
    else:
        torch.nn.utils.clip_grad_norm_(theirs, most)
    for one, other in zip(ours, theirs, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad.to_dense(), other.grad.to_dense())
        assert most < norm or torch.equal(one.grad.to_dense(), other.grad.to_dense())


@pytest.mark.parametrize("loss", ["much", None, torch.zeros(2), torch.tensor(1j), [1.0]])
def test_a_loss_that_is_no_number_is_refused_by_its_name(loss: object) -> None:
    with pytest.raises(InputError, match="`loss` is"):
        number(loss)


class Norms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm1d(4), nn.BatchNorm1d(4)])
        self.register_buffer("count", torch.tensor(0))


def test_buffers_are_remembered_also_when_they_come_go_and_are_bound_anew() -> None:
    model = Norms()
    before = BeforeForward([model, model])

    def goes_back() -> bool:
        before.remember(chance=False, everything=False)
        was = {name: buffer.clone() for name, buffer in model.named_buffers()}
        for buffer in model.buffers():
            buffer.add_(1)
        before.put_back()
        return all(torch.equal(was[name], buffer) for name, buffer in model.named_buffers()) and len(was) > 0

    assert goes_back()
    model.register_buffer("late", torch.ones(3))
    assert goes_back()
    model.norms[0] = nn.BatchNorm1d(7)
    assert goes_back()
    model.norms.append(nn.BatchNorm1d(2))
    assert goes_back()
    model.norms[1].running_mean = torch.full((4,), 5.0)
    assert goes_back()
    del model.norms[0]
    assert goes_back()


def test_what_is_not_finite_in_a_buffer_is_seen_and_named() -> None:
    model = Norms()
    model.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    before = BeforeForward([model])
    before.remember(chance=False, everything=False)
    (norm,) = fetched(before.norm())
    assert norm is not None
    assert math.isfinite(norm)
    dict(model.norms[1].named_buffers())["running_var"][2] = math.nan
    (norm,) = fetched(before.norm())
    assert norm is not None
    assert not math.isfinite(norm)
    assert [(buffer.module, buffer.name) for buffer in before.broken()] == [(model.norms[1], "running_var")]


@pytest.mark.gpu
@needs_gpu
def test_a_step_on_a_gpu_waits_for_it_once(recwarn: pytest.WarningsRecorder) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 2)).cuda()
    governor = Governor(model, torch.optim.SGD(model.parameters(), lr=1e-3))
    batch = torch.randn(32, 8, device="cuda")

    def step() -> None:
        loss = model(batch).square().mean()
        loss.backward()
        governor.step(loss)

    for _ in range(3):
        step()
    recwarn.clear()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        for _ in range(10):
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in recwarn if "synchroniz" in str(warning.message)]
    assert len(waits) == 10
