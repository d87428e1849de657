"""Data that comes with the package, and data sets of which there is a local copy, as NumPy arrays.

Nothing here downloads anything or imports torch. A `Split` is a map-style dataset, so
``torch.utils.data.DataLoader(split, batch_size=64, shuffle=True)`` takes it as it is.
"""

from flyball.data.digits import digits as digits
from flyball.data.local import cifar10 as cifar10
from flyball.data.local import cifar100 as cifar100
from flyball.data.local import image_folder as image_folder
from flyball.data.local import mnist as mnist
from flyball.data.local import npz as npz
from flyball.data.local import svhn as svhn
from flyball.data.splits import Split as Split
from flyball.data.splits import Splits as Splits
from flyball.data.splits import held_out as held_out
from flyball.data.splits import stratified as stratified
from flyball.data.synthetic import images as images
from flyball.data.synthetic import tokens as tokens

__all__ = [
    "Split",
    "Splits",
    "cifar10",
    "cifar100",
    "digits",
    "held_out",
    "image_folder",
    "images",
    "mnist",
    "npz",
    "stratified",
    "svhn",
    "tokens",
]
