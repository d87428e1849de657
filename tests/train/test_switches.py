"""What a trainer sets and puts back, how images lie in memory, and what a compiled model must not change."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flyball.errors import ConfigError, InputError
from flyball.objective import Task
from flyball.train import Callback, Step, Trainer
from flyball.train.learn import channels_last
from flyball.train.switches import switched

Switches = tuple[bool, bool, bool, bool]

BATCHES = [
    (torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(number)), torch.arange(6) % 4)
    for number in range(5)
]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )


def now() -> Switches:
    backends = torch.backends
    return (
        backends.cuda.matmul.allow_tf32,
        backends.cudnn.allow_tf32,
        backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
    )


class Looks(Callback):
    def __init__(self, look: Callable[[], Any]) -> None:
        self.look = look
        self.seen: list[Any] = []
        self.losses: list[float] = []

    def step_ends(self, trainer: Trainer, step: Step) -> None:  # noqa: ARG002
        self.seen.append(self.look())
        self.losses.append(float(step.loss))


def fit(looks: Looks, **more: Any) -> nn.Module:
    model = network()
    trainer = Trainer(model, Task(), torch.optim.SGD(model.parameters(), lr=0.1), callbacks=[looks], **more)
    trainer.fit(BATCHES, BATCHES, epochs=2)
    return model


@pytest.mark.parametrize("tf32", [None, True, False])
@pytest.mark.parametrize("deterministic", [False, True])
def test_switches_change_on_request_alone_and_are_put_back(tf32: bool | None, deterministic: bool) -> None:  # noqa: FBT001
    """Property C46."""
    before = now()
    looks = Looks(now)
    fit(looks, tf32=tf32, deterministic=deterministic)
    products, convolutions = (before[:2]) if tf32 is None else (tf32, tf32)
    assert set(looks.seen) == {(products, convolutions, before[2] and not deterministic, deterministic)}
    assert now() == before


def test_switches_are_put_back_after_an_error() -> None:
    before = now()

    def broken_off() -> None:
        with switched(tf32=not before[0], deterministic=True):
            assert now() != before
            raise InputError("broken off")

    with pytest.raises(InputError):
        broken_off()
    assert now() == before


def test_with_channels_last_the_losses_are_the_same_and_images_lie_as_was_asked() -> None:
    plain, last = Looks(lambda: None), Looks(lambda: None)
    laid: list[bool] = []
    fit(plain)

    class Watched(Looks):
        def fit_begins(self, trainer: Trainer) -> None:
            def look(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
                laid.append(inputs[0].is_contiguous(memory_format=torch.channels_last))

            next(trainer.model.children()).register_forward_pre_hook(look)

    last = Watched(lambda: None)
    model = fit(last, channels_last=True)
    assert last.losses == pytest.approx(plain.losses, rel=1e-4)
    assert laid[:5] == [True] * 5
    assert next(model.parameters()).is_contiguous(memory_format=torch.channels_last)


def test_a_run_with_channels_last_is_resumed_to_the_bit(tmp_path: Path) -> None:
    losses: list[list[float]] = []
    for folder, parts in (("whole", (3,)), ("parts", (1, 3))):
        seen: list[float] = []
        for epochs in parts:
            model = network()
            looks = Looks(lambda: None)
            trainer = Trainer(
                model,
                Task(),
                torch.optim.AdamW(model.parameters(), lr=0.01),
                channels_last=True,
                run=tmp_path / folder,
                callbacks=[looks],
            )
            trainer.fit(BATCHES, epochs=epochs, resume="auto")
            assert next(model.parameters()).is_contiguous(memory_format=torch.channels_last)
            seen += looks.losses
        losses.append(seen)
    assert losses[0] == losses[1]


def test_what_has_no_channels_is_left_alone() -> None:
    image, row = torch.randn(2, 3, 4, 4), torch.randn(2, 3)
    found = channels_last({"image": image, "more": (row, "text")})
    assert torch.equal(found["image"], image)
    assert found["image"].stride() == (48, 1, 12, 3)
    assert found["more"][0] is row and found["more"][1] == "text"


def test_a_model_under_ddp_is_laid_out_before(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(network())
        with pytest.raises(ConfigError, match="wrapped already: lay it out before"):
            Trainer(model, Task(), torch.optim.SGD(model.parameters(), lr=0.1), channels_last=True)
    finally:
        torch.distributed.destroy_process_group()


def test_a_compiled_model_has_the_losses_and_the_names_of_the_plain_one() -> None:
    """Property C45: traced and differentiated as inductor has it, with the kernels of eager."""
    plain, compiled = Looks(lambda: None), Looks(lambda: None)
    one = fit(plain)
    other = fit(compiled, compile={"backend": "aot_eager"})
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-5)
    assert list(one.state_dict()) == list(other.state_dict())
    other.load_state_dict(one.state_dict())
    one.load_state_dict(other.state_dict())


@pytest.mark.skipif("FLYBALL_INDUCTOR" not in os.environ, reason="takes a minute: set FLYBALL_INDUCTOR=1")
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler, and there is no `g++`")
def test_a_model_compiled_to_kernels_of_its_own_has_the_losses_of_the_plain_one() -> None:
    """Property C45, of inductor."""
    plain, compiled = Looks(lambda: None), Looks(lambda: None)
    fit(plain)
    fit(compiled, compile=True)
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-4)
