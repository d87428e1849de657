"""A device is chosen once, and refused by name when it cannot train."""

from __future__ import annotations

import pytest
import torch

from flyball.device import choose_device, choose_dtype
from flyball.errors import DeviceError

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")


def test_auto_is_a_device_that_trains() -> None:
    device = choose_device()
    weight = torch.ones(2, device=device, requires_grad=True)
    weight.sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert weight.grad.tolist() == [1.0, 1.0]


def test_a_device_that_is_named_is_the_one_that_is_used() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["meta", "xla", "vulkan"])
def test_a_device_that_does_not_train_is_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=f"`device` is '{name}', which does not train here: use 'auto' or one of"):
        choose_device(name)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cpu:-1"])
def test_a_device_that_torch_does_not_know_is_refused(name: str) -> None:
    with pytest.raises(DeviceError, match="which torch does not know: use 'auto' or one of 'cuda'"):
        choose_device(name)


@no_cuda
@pytest.mark.parametrize("name", ["cuda", "cuda:3"])
def test_a_device_that_is_absent_is_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=f"`device` is '{name}', but this machine has no cuda devices: use 'auto'"):
        choose_device(name)


def test_a_second_cpu_is_refused() -> None:
    with pytest.raises(DeviceError, match="this machine has 1 cpu device: use 'auto' or one of 'cpu'"):
        choose_device("cpu:1")


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("auto", torch.float32)]
)
def test_precision_on_the_cpu(name: str, dtype: torch.dtype) -> None:
    assert choose_dtype(name, torch.device("cpu")) is dtype


def test_float16_on_the_cpu_is_refused() -> None:
    with pytest.raises(
        DeviceError,
        match="`precision` is 'fp16' on 'cpu', where it is slow and overflows: use 'bf16'",
    ):
        choose_dtype("fp16", torch.device("cpu"))


def test_a_precision_that_does_not_exist_is_refused() -> None:
    with pytest.raises(DeviceError, match="`precision` is 'float8', which is not a precision: use 'auto' or one of"):
        choose_dtype("float8")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_auto_takes_the_gpu_and_float16_is_allowed_on_it() -> None:
    device = choose_device()
    assert device.type == "cuda"
    assert choose_dtype("fp16", device) is torch.float16
