"""Every kind of input becomes one manifest: arrays, archives, data sets by name; and what each of them refuses."""

from __future__ import annotations

import importlib.util
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from handful.data.audit import audit, in_short
from handful.data.images import open_store
from handful.data.manifest import LABELLED, TEST, UNLABELLED, VALIDATION, Manifest
from handful.data.sources import Arrays, label_words, pixels, read_data
from handful.types import UsageError

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (6, 9, 9, 3), dtype=np.uint8)


def words(m: Manifest) -> list[str]:
    return [m.classes[k] if k >= 0 else "" for k in m.labels]


@pytest.mark.parametrize(
    ("y", "expected", "classes"),
    [
        ([10, 2, -1, 2, 10, -1], ["10", "2", "", "2", "10", ""], ("2", "10")),
        ([1.0, 0.0, float("nan"), 1, 0, -1], ["1", "0", "", "1", "0", ""], ("0", "1")),
        (["b", "a", None, "", "b", " a "], ["b", "a", "", "", "b", "a"], ("a", "b")),
        (np.array([3, 1, -1, 1, 3, 3], np.int8), ["3", "1", "", "1", "3", "3"], ("1", "3")),
        (np.array([[1], [0], [-1], [0], [1], [1]]), ["1", "0", "", "0", "1", "1"], ("0", "1")),
        (torch.tensor([1, 0, -1, 0, 1, 1]), ["1", "0", "", "0", "1", "1"], ("0", "1")),
        (np.array(["b", "a", "", "a", "b", "b"]), ["b", "a", "", "a", "b", "b"], ("a", "b")),
        ([True, False, None, True, False, True], ["1", "0", "", "1", "0", "1"], ("0", "1")),
    ],
)
def test_labels_of_every_kind(y: Any, expected: list[str], classes: tuple[str, ...]) -> None:
    m = read_data((X, y))
    assert words(m) == expected
    assert m.classes == classes
    assert [str(s) for s in m.splits] == [LABELLED if w else UNLABELLED for w in expected]


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((6, 9, 7), "uint8"), ((6, 9, 7, 3), "uint8"), ((6, 3, 9, 7), "uint8"), ((6, 1, 9, 7), "float"),
     ((6, 9, 7, 1), "int"), ((6, 9, 7, 4), "uint8"), ((6, 3, 9, 7), "tensor")],
)  # fmt: skip
def test_pictures_of_every_shape(shape: tuple[int, ...], kind: str, tmp_path: Path) -> None:
    x = RNG.integers(0, 256, shape, dtype=np.uint8)
    if len(shape) == 4 and shape[3] == 4:
        x[..., 3] = 255  # not transparent
    given_x = {
        "uint8": x, "float": x / np.float32(255), "int": x.astype(np.int64), "tensor": torch.from_numpy(x) / 255,
    }[kind]  # fmt: skip
    m = read_data((given_x, [0, 1, 0, 1, -1, -1]))
    store, kept, problems = open_store(m, tmp_path, side=7)
    assert not problems and len(kept) == 6
    plain = x if x.ndim == 3 or x.shape[3] in (1, 3, 4) else x.transpose(0, 2, 3, 1)
    plain = plain[..., :3] if plain.ndim == 4 else plain[..., None]
    expected = plain[:, 1:8].transpose(0, 3, 1, 2)  # the middle 7 of 9 rows
    assert np.abs(store.data.numpy().astype(int) - expected[:, : store.channels]).max() <= 1
    assert store.channels == expected.shape[1]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X[0], [0], "9 pictures have 1 labels"),
        (X[0, 0], [0], "pictures must be numbers"),
        (np.zeros((0, 4, 4), np.uint8), [], "pictures must be numbers"),
        (np.array(["a"] * 6), [0] * 6, "pictures must be numbers"),
        ([[[1, 2], [3]]], [0], "do not form one array"),
        (np.zeros((6, 9, 9, 5), np.uint8), [0] * 6, "no axis of 1, 3 or 4 channels"),
        (X / 100.0, [0] * 6, "must be fractions from 0 to 1, got 0 to 2.55"),
        (X.astype(np.float32) * np.nan, [0] * 6, "must be fractions"),
        (X.astype(np.int32) - 5, [0] * 6, "must be whole numbers from 0 to 255, got -5"),
        (X, [0, 1], "6 pictures have 2 labels"),
        (X, [[0, 1]] * 6, "labels must be one a picture"),
        (X, [0, 1, 0.5, 0, 1, 0], "label 0.5 is neither"),
        (X, [0, 1, -2, 0, 1, 0], "label -2 is not a class"),
        (X, [0, 1, object(), 0, 1, 0], "is neither a whole number nor a word"),
        (X, [-1] * 6, "nothing is labelled"),
        (X, [3, 3, 3, -1, -1, -1], r"has only one class \(3\)"),
        (Arrays(X, [0, 1, 0, 1, 0, 1], splits=["train"] * 5), None, "6 pictures have 5 splits"),
        (Arrays(X, [0, 1, 0, 1, 0, 1], names=["a"] * 6), None, "two pictures are called 'a'"),
        (Arrays(X, [0, 1, 0, 1, 0, 1], splits=["trian"] * 6), None, "'trian' is not a split"),
        (Arrays(X, [0, 1, 0, 1, 2, 1], splits=["train"] * 4 + ["val"] * 2), None, "class '2' of '000004' is not among"),
        (Arrays(X, [0, 1, 0, 1, -1, 1], splits=["train"] * 4 + ["test"] * 2), None, "picture without a label"),
        (Arrays(X, [0, 1, 5, 0, 0, 0], classes=["a", "b"]), None, "label 5 is not a class"),
        (object(), None, "data of type object cannot be read"),
    ],
)  # fmt: skip
def test_what_arrays_are_refused(x: Any, y: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_data(x if y is None else (x, y))
    assert caught.value.fix


def test_splits_and_class_names_travel() -> None:
    splits = ["train", "Training", "valid", "test", "unlabelled", ""]
    m = read_data(Arrays(X, [1, 0, 1, 0, 1, -1], splits, list("abcdef"), ["zebra", "ant"], "animals"))
    assert (m.classes, m.paths, m.name) == (("zebra", "ant"), tuple("abcdef"), "animals")
    assert [str(s) for s in m.splits] == [LABELLED, LABELLED, VALIDATION, TEST, UNLABELLED, UNLABELLED]
    assert m.labels.tolist() == [1, 0, 1, 0, -1, -1], "the label of an unlabelled picture is forgotten"
    only = read_data(Arrays(X, [2, 0, 2, 0, 2, 0], classes=["a", "b", "c"]))
    assert only.classes == ("a", "c"), "a class without training pictures is none"


def test_the_fingerprint_tells_pixels_labels_and_names_apart() -> None:
    y = [0, 1, 0, 1, -1, -1]
    seen = [
        read_data(d).fingerprint
        for d in ((X, y), (X[::-1], y), (X, [1, 0, 1, 0, -1, -1]), Arrays(X, y, names=list("abcdef")))
    ]
    assert len(set(seen)) == 4
    assert read_data((X.copy(), y)).fingerprint == seen[0]


@pytest.mark.parametrize("per_class", [1, 2, 5])
def test_labels_per_class_keeps_so_many_and_forgets_the_others(per_class: int) -> None:
    y = [0, 1, 0, 1, 0, 1]
    whole, few = read_data((X, y)), read_data((X, y), labels_per_class=per_class, seed=3)
    counts = np.bincount(few.labels[few.ids(LABELLED)])
    assert counts.tolist() == [min(per_class, 3)] * 2
    assert (few.labels[few.ids(UNLABELLED)] == -1).all()
    assert (few.labels[few.ids(LABELLED)] == whole.labels[few.ids(LABELLED)]).all()
    again = read_data((X, y), labels_per_class=per_class, seed=3)
    assert again.labels.tolist() == few.labels.tolist() and again.fingerprint == few.fingerprint
    assert few.fingerprint != read_data((X, y), labels_per_class=per_class, seed=4).fingerprint


@pytest.mark.parametrize("door", ["folder", "table", "arrays", "archive"])
def test_a_class_with_fewer_labels_than_were_asked_for_is_said(tmp_path: Path, door: str) -> None:
    y = ["rose"] * 2 + ["tulip"] * 3 + ["aster"]
    for number, (word, picture) in enumerate(zip(y, X)):
        (tmp_path / "photos" / word).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "photos" / word / f"{number}.png")
    rows = [f"photos/{word}/{number}.png,{word}" for number, word in enumerate(y)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    np.savez(tmp_path / "pictures.npz", x=X, y=y)
    doors = {"folder": "photos", "table": "labels.csv", "archive": "pictures.npz"}
    spec = (X, y) if door == "arrays" else tmp_path / doors[door]
    found = read_data(spec, labels_per_class=3)
    assert [(note.file, note.reason) for note in found.notes] == [
        ("aster", "has 1 of the 3 labels that were asked for"),
        ("rose", "has 2 of the 3 labels that were asked for"),
    ]
    store, kept, unreadable = open_store(found, tmp_path / "cache")
    told = in_short([issue for issue in audit(kept, store, unreadable) if issue.kind == "few"])
    assert told == (
        "2 classes with fewer labels than were asked for (aster has 1 of the 3 labels that were asked for; "
        "rose has 2 of the 3 labels that were asked for)"
    )
    assert not read_data(spec, labels_per_class=1).notes and not read_data(spec).notes


def test_labels_per_class_below_zero() -> None:
    with pytest.raises(UsageError, match="cannot be kept"):
        read_data((X, [0, 1, 0, 1, 0, 1]), labels_per_class=-1)


@pytest.mark.parametrize(
    ("content", "splits", "expected"),
    [
        ({"x": X, "y": [0, 1, 0, 1, -1, -1]}, [LABELLED] * 4 + [UNLABELLED] * 2, ["0", "1", "0", "1", "", ""]),
        (
            {"x": X, "y": list("babaab"), "splits": ["train"] * 4 + ["test"] * 2, "names": list("uvwxyz")},
            [LABELLED] * 4 + [TEST] * 2,
            list("babaab"),
        ),
        (
            {"x_test": X[:1], "y_test": [1], "x_train": X[1:4], "y_train": [10, 1, 10], "x_unlabeled": X[4:]},
            [LABELLED] * 3 + [UNLABELLED] * 2 + [TEST],
            ["10", "1", "10", "", "", "1"],
        ),
        (
            {"train_images": X[:4], "train_labels": np.array([[0], [1], [1], [0]]), "val_images": X[4:],
             "val_labels": [0, 1], "classes": ["cat", "dog"]},
            [LABELLED] * 4 + [VALIDATION] * 2,
            ["cat", "dog", "dog", "cat", "cat", "dog"],
        ),
    ],
)  # fmt: skip
def test_archives_of_arrays(
    tmp_path: Path, content: dict[str, Any], splits: list[str], expected: list[str]
) -> None:
    np.savez(tmp_path / "set.npz", **content)
    m = read_data(tmp_path / "set.npz")
    assert [str(s) for s in m.splits] == splits
    assert words(m) == expected
    assert m.name == "set"
    assert sorted(m.classes, key=lambda c: int(c) if c.isdigit() else 0) == list(m.classes)
    if "names" in content:
        assert m.paths == tuple(content["names"])
    store, _, _ = open_store(m, tmp_path / "cache", side=9)
    first = content.get("x", content.get("x_train", content.get("train_images")))
    assert np.array_equal(store.data[0].numpy(), first[0].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": X}, "holds a, and no pictures"),
        ({"x_train": X}, "has x_train but no labels for it"),
        ({"x": X, "y": [0, 1]}, "6 pictures have 2 labels"),
        ({"x": X, "y": [0, 1, 0, 1, 0, 1], "splits": ["train"] * 3}, "6 pictures have 3 splits"),
        ({"x_train": X, "y_train": [0, 1] * 3, "x_test": X[:, :5], "y_test": [0] * 6}, "different sizes"),
        ({"x": X, "y": np.array([0, 1, None, 0, 1, 0], object)}, "cannot be read"),
    ],
)
def test_archives_that_are_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "set.npz", **content)
    with pytest.raises(UsageError, match=message) as caught:
        read_data(tmp_path / "set.npz")
    assert caught.value.file == tmp_path / "set.npz" and caught.value.fix


def archive() -> bytes:
    out = io.BytesIO()
    np.savez(out, x=X[:, :3, :3], y=np.array([0, 1, 0, 1, -1, -1]), names=np.array(list("abcdef")))
    return out.getvalue()


ARCHIVE = archive()


def read_or_refuse(path: Path) -> Manifest | UsageError:
    try:
        return read_data(path)
    except UsageError as error:
        return error


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_archive_is_read_or_refused_with_a_reason(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(ARCHIVE)
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(content)
    found = read_or_refuse(path)
    if isinstance(found, UsageError):
        assert found.file == path and found.reason and found.fix
    else:
        assert len(found) == len(X)


def test_nothing_in_an_archive_is_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (Path.touch, (tmp_path / "touched",))  # type: ignore[return-value]

    np.savez(tmp_path / "evil.npz", x=X, y=np.array([Evil()] * 6, dtype=object))
    with pytest.raises(UsageError, match="cannot be read"):
        read_data(tmp_path / "evil.npz")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(("name", "fix"), [("photos.zip", "unpack it"), ("notes.txt", "give a folder")])
def test_files_of_another_kind(tmp_path: Path, name: str, fix: str) -> None:
    with zipfile.ZipFile(tmp_path / name, "w") as file:
        file.writestr("a/1.jpg", "x")
    with pytest.raises(UsageError, match="is not a kind of data that is read") as caught:
        read_data(tmp_path / name)
    assert fix in caught.value.fix


@pytest.mark.parametrize("name", ["nowhere", "nowhere.csv", "n" * 300, "a\0b"])
def test_names_of_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        read_data(str(tmp_path / name))


def test_bool_labels_and_half_numbers() -> None:
    assert label_words([True, False]) == (["1", "0"], ["0", "1"])
    assert pixels(np.full((1, 2, 2), 0.5)).tolist() == [[[128, 128], [128, 128]]]


def write_idx(folder: Path, prefix: str, x: np.ndarray, y: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    head = struct.pack(">IIII", 0x803, *x.shape)
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(head + x.tobytes())
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, len(y)) + y.tobytes())


def test_a_data_set_of_torchvision(tmp_path: Path) -> None:
    """Ten training and four test pictures in the files that torchvision would have downloaded."""
    x = RNG.integers(0, 256, (14, 28, 28), dtype=np.uint8)
    y = np.array([3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 1, 3, 1, 3], np.uint8)
    raw = tmp_path / "FashionMNIST" / "raw"
    write_idx(raw, "train", x[:10], y[:10])
    write_idx(raw, "t10k", x[10:], y[10:])
    m = read_data("torchvision:FashionMNIST", labels_per_class=2, downloads=tmp_path)
    assert m.classes == ("Trouser", "Dress"), (
        "names in the order of their numbers, those of the training part"
    )
    assert {s: len(m.ids(s)) for s in (LABELLED, UNLABELLED, TEST)} == {LABELLED: 4, UNLABELLED: 6, TEST: 4}
    assert words(m)[10:] == ["Trouser", "Dress", "Trouser", "Dress"]
    store, _, _ = open_store(m, tmp_path / "cache")
    assert np.array_equal(store.data[:, 0].numpy(), x)
    assert m.name == "FashionMNIST"


@pytest.mark.parametrize(
    ("spec", "message", "fix"),
    [
        ("torchvision:CIFAR01", "no data set 'CIFAR01'", "torchvision:CIFAR10"),
        ("torchvision:wrong words", "no data set", "torchvision.datasets"),
    ],
)
def test_names_that_torchvision_does_not_know(tmp_path: Path, spec: str, message: str, fix: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_data(spec, downloads=tmp_path)
    assert fix in caught.value.fix


def test_a_data_set_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    def refuse(self: object) -> None:
        raise RuntimeError("no network\nhere")

    monkeypatch.setattr(datasets.MNIST, "download", refuse)
    with pytest.raises(UsageError, match=r"cannot give 'MNIST' \(no network") as caught:
        read_data("torchvision:MNIST", downloads=tmp_path)
    assert str(tmp_path) in caught.value.fix
    assert "\n" not in caught.value.reason


HAS_DATASETS = importlib.util.find_spec("datasets") is not None


@pytest.mark.skipif(not HAS_DATASETS, reason="needs handful[hf]")
def test_a_hugging_face_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that the library reads as it reads the hub's data sets of the same shape."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    root = tmp_path / "pets"
    for part, n in (("train", 3), ("test", 2)):
        for name in ("dog", "cat"):
            (root / part / name).mkdir(parents=True)
            for i in range(n):
                Image.fromarray(X[i]).save(root / part / name / f"{i}.png")
    m = read_data(f"hf:{root}", downloads=tmp_path / "down")
    assert (m.name, m.classes) == ("pets", ("cat", "dog"))
    assert {s: len(m.ids(s)) for s in (LABELLED, TEST)} == {LABELLED: 6, TEST: 4}
    store, kept, problems = open_store(m, tmp_path / "cache")
    assert problems == [] and len(kept) == 10
    assert np.array_equal(store.data[0].numpy(), X[0].transpose(2, 0, 1))
    with pytest.raises(UsageError, match="cannot be loaded") as caught:
        read_data(f"hf:{tmp_path / 'nowhere'}", downloads=tmp_path / "down")
    assert caught.value.fix


def test_hugging_face_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(UsageError, match="not installed") as caught:
        read_data("hf:someone/pets")
    assert "handful[hf]" in caught.value.fix


def test_a_library_that_gives_broken_pictures_lists_them(tmp_path: Path) -> None:
    class Lazy(list):  # type: ignore[type-arg]
        def __getitem__(self, i: Any) -> Any:
            if i == 2:
                raise OSError("image file is truncated")
            return list.__getitem__(self, i)

    m = read_data((X, [0, 1, 0, 1, -1, -1]))
    broken = Manifest(**{**m.__dict__, "pictures": Lazy(X)})
    store, kept, problems = open_store(broken, tmp_path)
    assert len(store) == len(kept) == 5
    assert [name for name, _ in problems] == ["000002"] and "truncated" in problems[0][1]


def test_numbers_of_numpy_and_tensors_in_a_list_are_labels() -> None:
    for y in (
        list(np.array([0, 1, -1])),
        list(torch.tensor([0, 1, -1])),
        [np.float32(0), np.int8(1), np.nan],
    ):
        assert label_words(y)[0] == ["0", "1", ""]
    with pytest.raises(UsageError, match="inf is neither a whole number nor a word"):
        label_words([0.0, float("inf")])
