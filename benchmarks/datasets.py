"""The public data sets of the benchmarks, from the folder ``--data-root``: pictures, labels, test part."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from handful.data.images import Images, from_array


class Dataset(NamedTuple):
    """A pool to draw labels from, and a test part."""

    images: Images
    y: np.ndarray  # int64 [N]
    pool: np.ndarray  # row numbers
    test: np.ndarray
    classes: tuple[str, ...]


def digits(root: Path | None = None) -> Dataset:
    """scikit-learn's handwritten digits, 8 x 8; a fixed quarter is the test part."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    pictures = np.round(x * 255 / 16).astype(np.uint8).reshape(-1, 8, 8)
    order = np.random.RandomState(0).permutation(len(y))
    return Dataset(
        from_array(pictures),
        y.astype(np.int64),
        np.sort(order[450:]),
        np.sort(order[:450]),
        tuple("0123456789"),
    )


def tf_flowers(root: Path) -> Dataset:
    """Flowers, 128 px: its train part is the pool, its val part the test."""
    return _zipped(root / "tf_flowers" / "tf_flowers.zip", "train", "val")


def caltech101(root: Path) -> Dataset:
    """Caltech-101 without Faces_easy (the same photos as Faces), 128 px."""
    return _zipped(root / "caltech101" / "caltech101.zip", "train", "test", drop=("Faces_easy",))


def cifar10(root: Path) -> Dataset:
    """CIFAR-10 from JPEG files, 32 px."""
    z = np.load(root / "cifar10" / "cifar10_jpeg.npz")
    header = z["header"].tobytes()

    def part(name: str) -> np.ndarray:
        offsets, body = z[f"offset_{name}"], z[f"body_{name}"].tobytes()
        files = (header + body[offsets[i] : offsets[i + 1]] for i in range(len(offsets) - 1))
        return np.stack(
            [np.asarray(Image.open(io.BytesIO(f)).convert("RGB")).transpose(2, 0, 1) for f in files]
        )

    x = np.concatenate([part("train"), part("test")])
    y = np.concatenate([z["y_train"], z["y_test"]]).astype(np.int64)
    n = len(z["y_train"])
    return Dataset(from_array(x), y, np.arange(n), np.arange(n, len(y)), tuple(str(c) for c in z["classes"]))


def mnist(root: Path) -> Dataset:
    """MNIST, 28 px."""
    return _npz(root / "mnist" / "mnist.npz", tuple("0123456789"))


def usps(root: Path) -> Dataset:
    """USPS digits, 16 px."""
    return _npz(root / "usps" / "usps.npz", tuple("0123456789"))


def fashion_mnist(root: Path) -> Dataset:
    """Fashion-MNIST, 28 px."""

    def idx(name: str, offset: int) -> np.ndarray:
        with gzip.open(root / "fashion_mnist" / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)

    x = np.concatenate([idx(f"{p}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28) for p in ("train", "t10k")])
    y = np.concatenate([idx(f"{p}-labels-idx1-ubyte.gz", 8) for p in ("train", "t10k")]).astype(np.int64)
    names = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot"]
    return Dataset(from_array(x), y, np.arange(60000), np.arange(60000, 70000), tuple(names))


def office(root: Path, domain: str) -> Dataset:
    """One domain of Office-Caltech-10; every third picture is test."""
    with zipfile.ZipFile(root / "office_caltech10" / "office_caltech10.zip") as archive:
        names = sorted(
            n for n in archive.namelist() if f"/{domain}/" in f"/{n}" and n.lower().endswith("jpg")
        )
        x = np.stack([_square(archive.read(n)) for n in names])
    labels = [n.split("/")[-2] for n in names]
    classes = tuple(sorted(set(labels)))
    rows = np.arange(len(names))
    y = np.array([classes.index(name) for name in labels])
    return Dataset(from_array(x), y, rows[rows % 3 != 0], rows[rows % 3 == 0], classes)


DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "digits": digits,
    "tf_flowers": tf_flowers,
    "caltech101": caltech101,
    "cifar10": cifar10,
    "mnist": mnist,
    "usps": usps,
    "fashion_mnist": fashion_mnist,
    "office-amazon": lambda root: office(root, "amazon"),
    "office-caltech": lambda root: office(root, "caltech10"),
    "office-webcam": lambda root: office(root, "webcam"),
}


def _square(content: bytes, side: int = 128) -> np.ndarray:
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    return np.asarray(ImageOps.fit(picture, (side, side), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


def _zipped(path: Path, pool: str, test: str, drop: tuple[str, ...] = ()) -> Dataset:
    with zipfile.ZipFile(path) as archive:
        names = sorted(n for n in archive.namelist() if n.lower().endswith((".jpg", ".png", ".jpeg")))
        names = [n for n in names if n.split("/")[-2] not in drop]
        x = np.stack([_square(archive.read(n)) for n in names])
    labels = [n.split("/")[-2] for n in names]
    part = np.array([n.split("/")[-3] for n in names])
    classes = tuple(sorted(set(labels)))
    y = np.array([classes.index(name) for name in labels])
    return Dataset(from_array(x), y, np.flatnonzero(part == pool), np.flatnonzero(part == test), classes)


def _npz(path: Path, classes: tuple[str, ...]) -> Dataset:
    z = np.load(path)
    x = np.concatenate([z["x_train"], z["x_test"]])
    y = np.concatenate([z["y_train"], z["y_test"]]).astype(np.int64)
    n = len(z["y_train"])
    return Dataset(from_array(x), y, np.arange(n), np.arange(n, len(y)), classes)
