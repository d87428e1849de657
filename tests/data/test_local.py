"""Local copies in the formats they are published in: read as they are, or refused by name; nothing in them runs."""

from __future__ import annotations

import gzip
import pickle
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from flyball.data import Splits, cifar10, cifar100, held_out, image_folder, mnist, npz, svhn
from flyball.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LABELS = np.arange(40, dtype=np.uint8) % 4


def drawn(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx(array: np.ndarray[Any, Any]) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder: Path) -> None:
    for seed, name in enumerate(("train", "t10k")):
        (folder / f"{name}-images-idx3-ubyte").write_bytes(idx(drawn(40, 28, 28, seed=seed)))
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS)))


def write_cifar10(folder: Path) -> None:
    for n in range(1, 6):
        held = {b"data": drawn(40, 3072, seed=n), b"labels": LABELS.tolist()}
        (folder / f"data_batch_{n}").write_bytes(pickle.dumps(held, protocol=2))
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": drawn(40, 3072), b"labels": LABELS.tolist()}))


def write_cifar100(folder: Path) -> None:
    for seed, name in enumerate(("train", "test")):
        rows = np.concatenate([np.zeros((40, 1), np.uint8), LABELS[:, None], drawn(40, 3072, seed=seed)], axis=1)
        (folder / f"{name}.bin").write_bytes(rows.tobytes())


def write_svhn(folder: Path) -> None:
    for seed, name in enumerate(("train", "test")):
        labels = np.where(LABELS == 0, 10, LABELS).reshape(-1, 1)
        savemat(folder / f"{name}_32x32.mat", {"X": drawn(32, 32, 3, 40, seed=seed), "y": labels})


def write_npz(folder: Path) -> None:
    np.savez(folder / "own.npz", x_train=drawn(40, 8, 8, seed=1), y_train=LABELS, x_test=drawn(40, 8, 8), y_test=LABELS)


def write_folder(folder: Path) -> None:
    for seed, part in enumerate(("train", "test")):
        for label, name in enumerate(("cat", "dog")):
            (folder / part / name).mkdir(parents=True)
            for n in range(5):
                pixels = drawn(6, 9, 3, seed=100 * seed + 10 * label + n)
                Image.fromarray(pixels).save(folder / part / name / f"{n}.png")


FORMATS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Splits], tuple[int, ...]]] = {
    "mnist": (write_mnist, mnist, (1, 28, 28)),
    "cifar10": (write_cifar10, cifar10, (3, 32, 32)),
    "cifar100": (write_cifar100, cifar100, (3, 32, 32)),
    "svhn": (write_svhn, svhn, (3, 32, 32)),
    "npz": (write_npz, lambda folder: npz(folder / "own.npz"), (1, 8, 8)),
    "folder": (write_folder, lambda folder: image_folder(folder, (6, 9))[0], (3, 6, 9)),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_copy_is_read_as_it_was_written_and_the_test_set_is_not_cut(name: str, tmp_path: Path) -> None:
    """X7: training, validation and test have no sample in common; all classes are in each."""
    write, read, shape = FORMATS[name]
    write(tmp_path)
    splits = read(tmp_path)
    for part in splits:
        assert part.inputs.dtype == np.float32
        assert part.inputs.shape[1:] == shape
        assert 0 <= part.inputs.min() <= part.inputs.max() <= 1
        assert set(part.targets) == set(splits.test.targets)
    seen = [one.tobytes() for part in splits for one in part.inputs]
    assert len(seen) == len(set(seen))
    again = read(tmp_path)
    assert all(np.array_equal(one.inputs, other.inputs) for one, other in zip(splits, again, strict=True))


def test_pixels_and_labels_stand_where_they_stood(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    np.testing.assert_array_equal(mnist(tmp_path).test.inputs[:, 0] * 255, drawn(40, 28, 28, seed=1))
    np.testing.assert_array_equal(mnist(tmp_path).test.targets, LABELS)
    write_cifar10(tmp_path)
    np.testing.assert_array_equal(cifar10(tmp_path).test.inputs.reshape(40, -1) * 255, drawn(40, 3072))
    write_svhn(tmp_path)
    found = svhn(tmp_path).test
    np.testing.assert_array_equal(found.targets, LABELS)  # their class 10 is the digit 0
    np.testing.assert_allclose(found.inputs[3, 1] * 255, drawn(32, 32, 3, 40, seed=1)[:, :, 1, 3], rtol=1e-6)
    write_folder(tmp_path)
    splits, names = image_folder(tmp_path, (6, 9))
    assert names == ("cat", "dog")
    np.testing.assert_array_equal(splits.test.inputs[0] * 255, drawn(6, 9, 3, seed=100).transpose(2, 0, 1))
    assert image_folder(tmp_path, 4, channels=1)[0].test.inputs.shape == (10, 1, 4, 4)


@pytest.mark.parametrize("read", [mnist, cifar10, cifar100, svhn])
def test_a_missing_copy_is_told_with_the_file_that_is_expected_and_nothing_is_downloaded(
    read: Callable[[Path], Splits], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"has no file `.*`: put a copy of the data set there; nothing is downloaded"):
        read(tmp_path)


class Runs:
    """What a hostile pickle asks for."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return eval, ("1 + 1",)


def test_a_pickle_that_asks_for_anything_but_arrays_is_refused(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Runs()}))
    with pytest.raises(InputError, match=r"asks for `builtins\.eval`"):
        cifar10(tmp_path)


@pytest.mark.parametrize(
    ("name", "held", "says"),
    [
        ("train-images-idx3-ubyte", b"\x00\x00\x08\x01" + bytes(12), "not an idx file of bytes in 3 dimensions"),
        ("train-images-idx3-ubyte", idx(drawn(4, 2, 2))[:-1], "it is cut short"),
        ("train-images-idx3-ubyte", idx(drawn(39, 28, 28)), "39 inputs and 40 labels"),
        ("train-labels-idx1-ubyte", b"", "not an idx file"),
        ("train-labels-idx1-ubyte.gz", b"\x1f\x8b", "cannot be read"),
    ],
)
def test_a_broken_idx_file_is_named(name: str, held: bytes, says: str, tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / name).write_bytes(held)
    with pytest.raises(InputError, match=says):
        mnist(tmp_path)


@pytest.mark.parametrize(
    ("held", "says"),
    [
        (b"", "refused as a pickle"),
        (pickle.dumps([1]), "is not a file of CIFAR"),
        (pickle.dumps({b"data": np.zeros((2, 5)), b"labels": [0, 1]}), "have 3072 bytes"),
        (pickle.dumps({b"data": np.zeros((2, 3072)), b"labels": [0]}), "2 inputs and 1 labels"),
    ],
)
def test_a_broken_file_of_cifar_is_named(held: bytes, says: str, tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "test_batch").write_bytes(held)
    with pytest.raises(InputError, match=says):
        cifar10(tmp_path)


def test_other_broken_copies_are_named(tmp_path: Path) -> None:
    (tmp_path / "train.bin").write_bytes(bytes(10))
    with pytest.raises(InputError, match="no number of images of 3074 bytes"):
        cifar100(tmp_path)
    (tmp_path / "train_32x32.mat").write_bytes(bytes(200))
    with pytest.raises(InputError, match="is not a file of SVHN"):
        svhn(tmp_path)
    with pytest.raises(InputError, match="is no file"):
        npz(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(InputError, match="holds `a`"):
        npz(tmp_path / "other.npz")
    np.savez(tmp_path / "soft.npz", inputs=np.zeros((9, 2)), targets=np.zeros(9))
    with pytest.raises(InputError, match="labels of float64"):
        npz(tmp_path / "soft.npz")
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(InputError, match="cannot be read"):
        npz(tmp_path / "text.npz")


def test_a_broken_folder_of_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train` is no folder"):
        image_folder(tmp_path, 8)
    write_folder(tmp_path)
    (tmp_path / "test" / "cow").mkdir()
    with pytest.raises(InputError, match="cow` is a class that the training images do not have"):
        image_folder(tmp_path, 8)
    (tmp_path / "test" / "cow").rmdir()
    (tmp_path / "train" / "cat" / "0.png").write_text("no picture")
    with pytest.raises(InputError, match=r"0\.png` cannot be read as an image"):
        image_folder(tmp_path, 8)
    for picture in (tmp_path / "train" / "cat").iterdir():
        picture.unlink()
    with pytest.raises(InputError, match="cat` holds no images"):
        image_folder(tmp_path, 8)


def test_a_validation_part_keeps_the_proportions_and_the_seed_decides() -> None:
    inputs, labels = np.arange(100.0), np.repeat(np.arange(2), (80, 20))
    splits = held_out((inputs, labels), (inputs[:3], labels[:3]), validation=0.25, seed=3)
    assert np.bincount(splits.validation.targets).tolist() == [20, 5]
    assert sorted([*splits.train.inputs, *splits.validation.inputs]) == inputs.tolist()
    other = held_out((inputs, labels), (inputs[:3], labels[:3]), validation=0.25, seed=4)
    assert not np.array_equal(splits.validation.inputs, other.validation.inputs)
    for share in (0.0, 1.0):
        with pytest.raises(InputError, match="above 0 and below 1"):
            held_out((inputs, labels), (inputs, labels), validation=share)
    with pytest.raises(InputError, match="class 0 has 1 sample"):
        held_out((inputs[:1], labels[:1]), (inputs, labels))
