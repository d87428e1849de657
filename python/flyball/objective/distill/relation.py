"""How things lie to each other: relations that student and teacher see alike, whatever numbers each writes them in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.nn import functional

from flyball.errors import ConfigError, InputError
from flyball.measure.similarity import Kernel, cka
from flyball.objective.distill.tokens import LayerTerm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from flyball.batch import Batch
    from flyball.objective.context import StepContext
    from flyball.objective.distill.teacher import TeacherSpec


class Relation(LayerTerm):
    """How differently student and teacher see what is like what.

    Rows of cosines between samples, or between the patches of each sample, become probabilities by a softmax, and the
    Kullback-Leibler divergence of the student's from the teacher's is averaged over the rows; or their difference in
    the Frobenius norm, by the number of entries.

    Args:
        teacher: A trained model, or a `TeacherSpec`.
        layers: Layers of the student; each is compared with the teacher's at the same share of its depth.
        tau: The temperature of the softmax.
        pooled: Whether the mean of each sample's patches is related to those of the other samples; else patches within
            a sample are related to each other.
        kind: "kl" or "frobenius".
        pace: What every term takes: `weight`, `warmup`, `delay`, `every`, `phase`, `compensate`, `name`.

    Raises:
        ConfigError: An argument is unknown or out of its range.
    """

    def __init__(
        self,
        teacher: TeacherSpec | nn.Module,
        layers: Sequence[int] = (-1,),
        *,
        tau: float = 0.1,
        pooled: bool = True,
        kind: Literal["kl", "frobenius"] = "kl",
        **pace: Any,
    ) -> None:
        super().__init__(teacher, layers, **pace)
        if kind not in {"kl", "frobenius"}:
            raise ConfigError(f"`kind` of `Relation` is {kind!r}: use 'kl' or 'frobenius'")
        if not tau > 0:
            raise ConfigError(f"`tau` of `Relation` is {tau!r}: pass a number above 0")
        self.tau, self.pooled, self.kind = float(tau), pooled, kind

    def forward(self, model: Any, batch: Batch, step: StepContext) -> torch.Tensor:  # noqa: ARG002
        """Return the mean over layers and rows."""
        return _over_layers(self, step, self._differ)

    def _differ(self, own: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        found, wanted = self._rows(own), self._rows(theirs)
        if self.kind == "frobenius":
            return _frobenius(found.exp() - wanted.exp())
        return functional.kl_div(found, wanted, reduction="none", log_target=True).sum(-1).mean()

    def _rows(self, tokens: torch.Tensor) -> torch.Tensor:
        points = functional.normalize(tokens.mean(1) if self.pooled else tokens, dim=-1)
        return (points @ points.transpose(-2, -1) / self.tau).log_softmax(-1)


class CKA(LayerTerm):
    """1 - the centred kernel alignment of the patches of each sample, or of the samples where each has one.

    Args:
        teacher: A trained model, or a `TeacherSpec`.
        layers: Layers of the student; each is compared with the teacher's at the same share of its depth.
        kernel: "linear" or "rbf".
        debiased: Whether the alignment of unrelated tokens is 0 in the mean, and not above.
        pace: What every term takes: `weight`, `warmup`, `delay`, `every`, `phase`, `compensate`, `name`.
    """

    def __init__(
        self,
        teacher: TeacherSpec | nn.Module,
        layers: Sequence[int] = (-1,),
        *,
        kernel: Kernel = "linear",
        debiased: bool = False,
        **pace: Any,
    ) -> None:
        super().__init__(teacher, layers, **pace)
        if kernel not in {"linear", "rbf"}:
            raise ConfigError(f"`kernel` of `CKA` is {kernel!r}: use 'linear' or 'rbf'")
        self.kernel, self.debiased = kernel, debiased

    def forward(self, model: Any, batch: Batch, step: StepContext) -> torch.Tensor:  # noqa: ARG002
        """Return the mean over layers and samples."""
        return _over_layers(self, step, self._differ)

    def _differ(self, own: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        own, theirs = _across_if_single(own), _across_if_single(theirs)
        own, theirs = functional.normalize(own, dim=-1), functional.normalize(theirs, dim=-1)
        return 1.0 - cka(own, theirs, kernel=self.kernel, debiased=self.debiased).mean()


class Gram(LayerTerm):
    """How far apart the cosines between the patches of each sample are: the Frobenius norm, by their number.

    Args:
        teacher: A trained model, or a `TeacherSpec`.
        layers: Layers of the student; each is compared with the teacher's at the same share of its depth.
        pace: What every term takes: `weight`, `warmup`, `delay`, `every`, `phase`, `compensate`, `name`.
    """

    def forward(self, model: Any, batch: Batch, step: StepContext) -> torch.Tensor:  # noqa: ARG002
        """Return the mean over layers and samples."""
        return _over_layers(self, step, self._differ)

    @staticmethod
    def _differ(own: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        own, theirs = _across_if_single(own), _across_if_single(theirs)
        one, other = (functional.normalize(tokens, dim=-1) for tokens in (own, theirs))
        return _frobenius(one @ one.transpose(-2, -1) - other @ other.transpose(-2, -1))


class CrossCorrelation(LayerTerm):
    """How far the correlations between the student's and the teacher's dimensions are from the identity.

    Means over patches, standardised over the batch; sum of (1 - c_ii)^2, and of c_ij^2 times `off_diagonal`, by the
    number of dimensions (Zbontar et al., 2021). Student and teacher are equally wide.

    Args:
        teacher: A trained model, or a `TeacherSpec`.
        layers: Layers of the student; each is compared with the teacher's at the same share of its depth.
        off_diagonal: How much correlations between different dimensions count.
        pace: What every term takes: `weight`, `warmup`, `delay`, `every`, `phase`, `compensate`, `name`.
    """

    def __init__(
        self,
        teacher: TeacherSpec | nn.Module,
        layers: Sequence[int] = (-1,),
        *,
        off_diagonal: float = 0.01,
        **pace: Any,
    ) -> None:
        super().__init__(teacher, layers, **pace)
        if not off_diagonal >= 0:
            raise ConfigError(f"`off_diagonal` of `CrossCorrelation` is {off_diagonal!r}: pass 0 or more")
        self.off_diagonal = float(off_diagonal)

    def forward(self, model: Any, batch: Batch, step: StepContext) -> torch.Tensor:  # noqa: ARG002
        """Return the mean over layers.

        Raises:
            InputError: Student and teacher are not equally wide, or the batch is a single sample.
        """
        return _over_layers(self, step, self._differ)

    def _differ(self, own: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        if own.shape[-1] != theirs.shape[-1] or len(own) < 2:
            raise InputError(
                f"tokens of {len(own)} samples are {own.shape[-1]} wide and the teacher's {theirs.shape[-1]}: "
                "`CrossCorrelation` needs two samples and equal widths"
            )
        one, other = _standardised(own.mean(1)), _standardised(theirs.mean(1))
        apart = (one.T @ other / len(one) - torch.eye(one.shape[1], device=one.device)).square()
        diagonal = apart.diagonal().sum()
        return (diagonal + self.off_diagonal * (apart.sum() - diagonal)) / one.shape[1]


def _over_layers(
    term: LayerTerm, step: StepContext, differ: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    losses = []
    for _, own, theirs in term.tokens(step):
        with torch.autocast(own.device.type, enabled=False):
            losses.append(differ(own, theirs))
    return torch.stack(losses).mean()


def _frobenius(apart: torch.Tensor) -> torch.Tensor:
    """Return the mean norm of the matrices, by the number of their entries."""
    # Not `matrix_norm`, whose gradient at equal matrices is not a number.
    squares = apart.square().sum((-2, -1))
    norm = torch.where(squares > 0, squares.clamp_min(1e-30).sqrt(), 0.0)
    return norm.mean() / (apart.shape[-1] * apart.shape[-2])


def _across_if_single(tokens: torch.Tensor) -> torch.Tensor:
    """Return samples as the tokens of one, where each has a single token."""
    return tokens.transpose(0, 1) if tokens.shape[1] == 1 else tokens


def _standardised(rows: torch.Tensor) -> torch.Tensor:
    centred = rows - rows.mean(0)
    spread = centred.square().mean(0).sqrt()
    return centred / spread.clamp_min(torch.finfo(rows.dtype).eps * centred.detach().abs().max().clamp_min(1e-30))
