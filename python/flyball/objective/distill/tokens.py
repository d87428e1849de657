"""How the teacher sees: its tokens, patch by patch, matched by the student's behind the same share of its depth.

Only the student's side is learnt. Were both sides projected by trained heads, the heads could meet at a constant, and
the loss would vanish without the student having learnt anything; the teacher's side is a fixed rotation here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.nn import functional

from flyball.errors import ConfigError, InputError
from flyball.objective.algebra import Term
from flyball.objective.distill.teacher import TeacherSpec, relative_layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flyball.batch import Batch
    from flyball.objective.context import StepContext

    Grid = tuple[int, int]


class ProjectionHead(nn.Sequential):
    """Linear, norm, GELU, linear, norm: from the width of the student's tokens to that of the comparison.

    Args:
        width: What comes in.
        out: What goes out; twice as much lies between.
    """

    def __init__(self, width: int, out: int = 256) -> None:
        super().__init__(
            nn.Linear(width, 2 * out), nn.LayerNorm(2 * out), nn.GELU(), nn.Linear(2 * out, out), nn.LayerNorm(out)
        )


class LayerTerm(Term):
    """A term that compares layers of the student with layers of the teacher.

    Args:
        teacher: A trained model, or a `TeacherSpec`.
        layers: Layers of the student; each is compared with the teacher's at the same share of its depth.
        pace: What every term takes.

    Raises:
        ConfigError: There are no layers.
    """

    def __init__(self, teacher: TeacherSpec | nn.Module, layers: Sequence[int] = (-1,), **pace: Any) -> None:
        super().__init__(**pace)
        if not layers:
            raise ConfigError(f"`layers` of `{type(self).__name__}` is empty: name at least one layer of the student")
        self.teacher = TeacherSpec.of(teacher)
        self.layers = tuple(layers)

    def prepare(self, step: StepContext) -> None:
        """Have student and teacher tell what stands behind these layers, in the forwards that they do anyway."""
        step.need(self.layers)
        self.teacher.need(step, self._pairs(step).values())

    def tokens(self, step: StepContext) -> list[tuple[int, torch.Tensor, torch.Tensor]]:
        """Return for each layer the student's and the teacher's tokens, (batch, patches, width), on one grid."""
        seen, taught = step.layers, self.teacher.ask(step).layers
        found = []
        for layer, other in self._pairs(step).items():
            own, grid = as_tokens(seen[layer], step.model)
            theirs, source = as_tokens(taught[other], self.teacher.model)
            found.append((layer, own.float(), resample_tokens(theirs.float(), grid, source=source)))
        return found

    def _pairs(self, step: StepContext) -> dict[int, int]:
        depth = getattr(step.model, "depth", None)
        if not isinstance(depth, int):
            raise InputError(
                f"the model is a {type(step.model).__name__}, which has no `depth`: "
                "the layers of the teacher are found by the share of it"
            )
        return relative_layers(self.layers, depth, self.teacher.depth)

    def extra_repr(self) -> str:
        """Return the teacher and the layers."""
        return f"{self.teacher!r}, layers={self.layers}"


class TokenMatch(LayerTerm):
    """How far the student's tokens point from the teacher's: the mean of 1 - cosine, or of squares, over all patches.

    Both sides are normalised alike, token by token. The student's go through a `ProjectionHead` of each layer, which
    is trained with the student; the teacher's through a fixed random rotation.

    Args:
        teacher: A trained model, or a `TeacherSpec`.
        layers: Layers of the student; each is compared with the teacher's at the same share of its depth.
        width: Of the student's tokens.
        projection: In how many dimensions they are compared.
        kind: "cosine" or "mse".
        seed: Of the rotation; the same seed is the same rotation.
        pace: What every term takes: `weight`, `warmup`, `delay`, `every`, `phase`, `compensate`, `name`.

    Raises:
        ConfigError: An argument is unknown or out of its range.
    """

    def __init__(
        self,
        teacher: TeacherSpec | nn.Module,
        layers: Sequence[int] = (6, 11),
        *,
        width: int,
        projection: int = 256,
        kind: Literal["cosine", "mse"] = "cosine",
        seed: int = 0,
        **pace: Any,
    ) -> None:
        super().__init__(teacher, layers, **pace)
        if kind not in {"cosine", "mse"}:
            raise ConfigError(f"`kind` of `TokenMatch` is {kind!r}: use 'cosine' or 'mse'")
        if width < 1 or projection < 1:
            raise ConfigError(f"`width` is {width} and `projection` is {projection}: both must be at least 1")
        self.width, self.projection, self.kind, self.seed = width, projection, kind, seed
        self.heads = nn.ModuleDict({str(layer): ProjectionHead(width, projection) for layer in self.layers})
        self._rotations: dict[tuple[int, torch.device], torch.Tensor] = {}

    def forward(self, model: Any, batch: Batch, step: StepContext) -> torch.Tensor:  # noqa: ARG002
        """Return the mean over layers, samples and patches.

        Raises:
            InputError: The student's tokens are not as wide as was said.
        """
        losses = []
        for layer, own, theirs in self.tokens(step):
            if own.shape[-1] != self.width:
                raise InputError(f"`width` of `TokenMatch` is {self.width}, and layer {layer} is {own.shape[-1]} wide")
            with torch.autocast(own.device.type, enabled=False):
                found = self.heads[str(layer)](_level(own))
                wanted = _level(theirs) @ self._rotation(theirs)
                losses.append(_apart(found, wanted, self.kind))
        return torch.stack(losses).mean()

    def _rotation(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return a fixed matrix with orthonormal columns, or rows where there are fewer of these."""
        key = (tokens.shape[-1], tokens.device)
        if key not in self._rotations:
            generator = torch.Generator().manual_seed(self.seed)
            shape = (max(key[0], self.projection), min(key[0], self.projection))
            made, _ = torch.linalg.qr(torch.randn(*shape, generator=generator))
            self._rotations[key] = (made if key[0] >= self.projection else made.T).contiguous().to(tokens.device)
        return self._rotations[key]

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{super().extra_repr()}, width={self.width}" + ("" if self.kind == "cosine" else ", kind='mse'")


def as_tokens(found: torch.Tensor, model: Any) -> tuple[torch.Tensor, Grid]:
    """Return maps or tokens as tokens (batch, patches, width), and the grid that the patches lie on.

    Raises:
        InputError: They are tokens, and neither the model's `grid` nor a square fits their number.
    """
    if found.dim() == 4:
        return found.flatten(2).transpose(1, 2), (found.shape[2], found.shape[3])
    grid = getattr(model, "grid", None)
    if isinstance(grid, tuple) and grid[0] * grid[1] == found.shape[1]:
        return found, (grid[0], grid[1])
    side = math.isqrt(found.shape[1])
    if side * side != found.shape[1]:
        raise InputError(
            f"a {type(model).__name__} gives {found.shape[1]} tokens, which is no square, and its `grid` is {grid!r}: "
            "give it a `grid` of rows and columns"
        )
    return found, (side, side)


def resample_tokens(tokens: torch.Tensor, grid: Grid, *, source: Grid) -> torch.Tensor:
    """Return tokens of one grid on another, in both directions of the image; those of an equal grid as they are.

    Args:
        tokens: (batch, patches, width).
        grid: Rows and columns wanted.
        source: Rows and columns that there are.

    Raises:
        InputError: There are not as many tokens as `source` has places.
    """
    if source[0] * source[1] != tokens.shape[1]:
        raise InputError(f"`source` is {source}, and there are {tokens.shape[1]} tokens: name the grid they lie on")
    if source == tuple(grid):
        return tokens
    maps = tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *source)
    return functional.interpolate(maps, grid, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)


def _level(tokens: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(tokens, tokens.shape[-1:])


def _apart(found: torch.Tensor, wanted: torch.Tensor, kind: str) -> torch.Tensor:
    if kind == "mse":
        return functional.mse_loss(found, wanted)
    return 1.0 - functional.cosine_similarity(found, wanted, dim=-1).mean()
