"""Data sets of which there is a local copy, in the formats that they are published in. Nothing is ever downloaded.

Inputs are float32 in [0, 1] with shape (samples, channels, height, width), targets int64. What was published as the
test set is the test set; validation is cut out of the rest.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball.data import _pickled
from flyball.data.splits import Splits, held_out, stratified
from flyball.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Folder = str | os.PathLike[str]
    Part = tuple[NDArray[np.float32], NDArray[np.int64]]

_PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def mnist(folder: Folder, *, validation: float = 0.1, seed: int = 0) -> Splits:
    """Read MNIST, or what is published in its form, such as Fashion-MNIST: four idx files, plain or gzipped.

    Args:
        folder: Where `train-images-idx3-ubyte` and the other three are.
        validation: The share of the training images for validation.
        seed: Decides which image goes where.

    Raises:
        InputError: A file is missing, or is not what its name says.
    """
    parts = []
    for name in ("train", "t10k"):
        images = _idx(_there(folder, f"{name}-images-idx3-ubyte", f"{name}-images.idx3-ubyte"), 3)
        labels = _idx(_there(folder, f"{name}-labels-idx1-ubyte", f"{name}-labels.idx1-ubyte"), 1)
        parts.append(_part(folder, images[:, None], labels))
    return held_out(*parts, validation=validation, seed=seed)


def cifar10(folder: Folder, *, validation: float = 0.1, seed: int = 0) -> Splits:
    """Read CIFAR-10: `data_batch_1` to `5` and `test_batch`, as pickles or with the ending `.bin`.

    Args:
        folder: Where they are.
        validation: The share of the training images for validation.
        seed: Decides which image goes where.

    Raises:
        InputError: A file is missing, or is not what its name says.
    """
    train = [_cifar(_there(folder, f"data_batch_{n}", f"data_batch_{n}.bin"), b"labels", 1) for n in range(1, 6)]
    test = _cifar(_there(folder, "test_batch", "test_batch.bin"), b"labels", 1)
    images, labels = (np.concatenate(part) for part in zip(*train, strict=True))
    return held_out(_part(folder, images, labels), _part(folder, *test), validation=validation, seed=seed)


def cifar100(folder: Folder, *, validation: float = 0.1, seed: int = 0) -> Splits:
    """Read CIFAR-100 with its fine labels: `train` and `test`, as pickles or with the ending `.bin`.

    Args:
        folder: Where they are.
        validation: The share of the training images for validation.
        seed: Decides which image goes where.

    Raises:
        InputError: A file is missing, or is not what its name says.
    """
    train, test = (_cifar(_there(folder, name, f"{name}.bin"), b"fine_labels", 2) for name in ("train", "test"))
    return held_out(_part(folder, *train), _part(folder, *test), validation=validation, seed=seed)


def svhn(folder: Folder, *, validation: float = 0.1, seed: int = 0) -> Splits:
    """Read the house numbers of SVHN: `train_32x32.mat` and `test_32x32.mat`; their class 10 is the digit 0.

    Args:
        folder: Where they are.
        validation: The share of the training images for validation.
        seed: Decides which image goes where.

    Raises:
        InputError: A file is missing, or is not what its name says.
        MissingExtraError: SciPy is not installed.
    """
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise MissingExtraError("scipy", extra="data", purpose="reading SVHN") from error
    parts = []
    for name in ("train_32x32.mat", "test_32x32.mat"):
        path = _there(folder, name)
        try:
            held = loadmat(path)
            images, labels = held["X"].transpose(3, 2, 0, 1), held["y"].reshape(-1) % 10
        except (KeyError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
            raise InputError(f"`{path}` is not a file of SVHN: it holds no images `X` and labels `y`") from error
        parts.append(_part(folder, images, labels))
    return held_out(*parts, validation=validation, seed=seed)


def npz(path: Folder, *, validation: float = 0.2, test: float = 0.2, seed: int = 0) -> Splits:
    """Read arrays `inputs` and `targets` of an `.npz` file, or `x_train`, `y_train`, `x_test` and `y_test`.

    Bytes become numbers in [0, 1]; images without a channel get one.

    Args:
        path: The file.
        validation: The share of the samples for validation.
        test: The share for the test, where the file has no test set of its own.
        seed: Decides which sample goes where.

    Raises:
        InputError: The file is missing, or holds neither of these.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"`{path}` is no file: pass an `.npz` file with the arrays `inputs` and `targets`")
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"`{path}` cannot be read as an `.npz` file without pickles: {error}") from error
    if {"inputs", "targets"} <= arrays.keys():
        inputs, targets = _part(path, _with_channel(arrays["inputs"]), arrays["targets"])
        return stratified(inputs, targets, validation=validation, test=test, seed=seed)
    if {"x_train", "y_train", "x_test", "y_test"} <= arrays.keys():
        parts = [_part(path, _with_channel(arrays[f"x_{n}"]), arrays[f"y_{n}"]) for n in ("train", "test")]
        return held_out(*parts, validation=validation, seed=seed)
    raise InputError(
        f"`{path}` holds {', '.join(f'`{name}`' for name in arrays) or 'nothing'}: "
        "it needs `inputs` and `targets`, or `x_train`, `y_train`, `x_test` and `y_test`"
    )


def image_folder(
    folder: Folder, size: int | tuple[int, int], *, channels: int = 3, validation: float = 0.1, seed: int = 0
) -> tuple[Splits, tuple[str, ...]]:
    """Read images from `train/CLASS/*` and `test/CLASS/*`, resized to one size; also return the names of the classes.

    Args:
        folder: Where `train` and `test` are.
        size: Height and width, or both.
        channels: 3, or 1 for grey.
        validation: The share of the training images for validation.
        seed: Decides which image goes where.

    Raises:
        InputError: A folder is missing, a class has no images, or an image cannot be read.
        MissingExtraError: Pillow is not installed.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise MissingExtraError("pillow", extra="data", purpose="reading images") from error
    if channels not in {1, 3}:
        raise InputError(f"`channels` is {channels}: pass 3, or 1 for grey")
    height, width = (size, size) if isinstance(size, int) else size

    def pixels(path: Path) -> NDArray[np.uint8]:
        try:
            with Image.open(path) as image:
                resized = image.convert("RGB" if channels == 3 else "L").resize(
                    (width, height), Image.Resampling.BICUBIC
                )
                return np.asarray(resized, dtype=np.uint8).reshape(height, width, channels).transpose(2, 0, 1)
        except (UnidentifiedImageError, OSError) as error:
            raise InputError(f"`{path}` cannot be read as an image: {error}") from error

    root = Path(folder)
    names = tuple(sorted(path.name for path in _directory(root / "train").iterdir() if path.is_dir()))
    if len(names) < 2:
        raise InputError(f"`{root / 'train'}` has {len(names)} folders: it needs one for each class, at least 2")
    parts = [_classes(_directory(root / part), names, pixels) for part in ("train", "test")]
    return held_out(*(_part(root, *part) for part in parts), validation=validation, seed=seed), names


def _classes(
    folder: Path, names: Sequence[str], pixels: Callable[[Path], NDArray[np.uint8]]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    unknown = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name not in names)
    if unknown:
        raise InputError(f"`{folder / unknown[0]}` is a class that the training images do not have")
    images, labels = [], []
    for label, name in enumerate(names):
        paths = sorted(p for p in _directory(folder / name).iterdir() if p.suffix.lower() in _PICTURES)
        if not paths:
            raise InputError(f"`{folder / name}` holds no images: they end in {', '.join(_PICTURES)}")
        images += [pixels(path) for path in paths]
        labels += [label] * len(paths)
    return np.stack(images), np.array(labels, dtype=np.int64)


def _directory(path: Path) -> Path:
    if not path.is_dir():
        raise InputError(f"`{path}` is no folder: images lie in `train/CLASS/` and `test/CLASS/`")
    return path


def _there(folder: Folder, *names: str) -> Path:
    """Return the first of some files that is there, plain or gzipped."""
    root = Path(folder)
    for name in names:
        for path in (root / name, root / f"{name}.gz"):
            if path.is_file():
                return path
    raise InputError(f"`{root}` has no file `{names[0]}`: put a copy of the data set there; nothing is downloaded")


def _bytes(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise InputError(f"`{path}` cannot be read: {error}") from error


def _idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    held = _bytes(path)
    head = 4 + 4 * dimensions
    if len(held) < head or held[:4] != bytes((0, 0, 8, dimensions)):
        raise InputError(
            f"`{path}` is not an idx file of bytes in {dimensions} dimensions: it begins with {held[:4]!r}"
        )
    shape = struct.unpack(f">{dimensions}I", held[4:head])
    if len(held) - head != int(np.prod(shape, dtype=object)):
        raise InputError(
            f"`{path}` says that its shape is {shape}, and holds {len(held) - head} bytes: it is cut short"
        )
    return np.frombuffer(held, dtype=np.uint8, offset=head).reshape(shape)


def _cifar(path: Path, labels: bytes, label_bytes: int) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Read one file of CIFAR; in the binary form the last of the label's bytes is the fine label."""
    held = _bytes(path)
    if ".bin" in path.suffixes:
        size = label_bytes + 3072
        if not held or len(held) % size:
            raise InputError(f"`{path}` holds {len(held)} bytes, which is no number of images of {size} bytes")
        rows = np.frombuffer(held, dtype=np.uint8).reshape(-1, size)
        return rows[:, label_bytes:].reshape(-1, 3, 32, 32), rows[:, label_bytes - 1]
    found = _pickled.load(held, path)
    if not isinstance(found, dict) or b"data" not in found or labels not in found:
        raise InputError(f"`{path}` is not a file of CIFAR: it holds no `data` and `{labels.decode()}`")
    data = np.asarray(found[b"data"], dtype=np.uint8)
    if data.ndim != 2 or data.shape[1] != 3072:
        raise InputError(f"`{path}` holds images of shape {data.shape[1:]}, and those of CIFAR have 3072 bytes")
    return data.reshape(-1, 3, 32, 32), np.asarray(found[labels])


def _with_channel(images: NDArray[Any]) -> NDArray[Any]:
    return images[:, None] if images.ndim == 3 else images


def _part(where: Folder, images: NDArray[Any], labels: NDArray[Any]) -> Part:
    if len(images) != len(labels) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"`{where}` holds {len(images)} inputs and {len(labels)} labels of {labels.dtype}: "
            "it needs a whole number for each input"
        )
    scaled = images.astype(np.float32) / 255.0 if images.dtype == np.uint8 else images.astype(np.float32)
    return np.ascontiguousarray(scaled, dtype=np.float32), labels.astype(np.int64)
