"""Data that comes with the package: real digits and seeded synthetic sets, as NumPy arrays.

Nothing here downloads anything or imports torch. A `Split` is a map-style dataset, so
``torch.utils.data.DataLoader(split, batch_size=64, shuffle=True)`` takes it as it is.
"""

from flyball.data.digits import digits as digits
from flyball.data.splits import Split as Split
from flyball.data.splits import Splits as Splits
from flyball.data.splits import stratified as stratified
from flyball.data.synthetic import images as images
from flyball.data.synthetic import tokens as tokens

__all__ = ["Split", "Splits", "digits", "images", "stratified", "tokens"]
