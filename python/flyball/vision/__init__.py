"""Small vision models, each readable beside its paper, and what is theirs alone."""

from __future__ import annotations

from flyball.vision import models as models

__all__ = ["models"]
