"""Layouts, names, messages: what a folder becomes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handful.data.manifest import FOLDER_NAMES, LABELLED, TEST, UNLABELLED, VALIDATION, read_folder
from handful.types import UsageError


def plant(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_class_folders_beside_the_unlabelled_pile(tmp_path: Path) -> None:
    m = read_folder(plant(tmp_path, "tulip/2.jpg", "rose/1.png", "rose/deep/3.JPG", "unlabeled/9.webp"))
    assert m.classes == ("rose", "tulip")
    assert dict(zip(m.paths, m.labels.tolist())) == {
        "rose/1.png": 0, "rose/deep/3.JPG": 0, "tulip/2.jpg": 1, "unlabeled/9.webp": -1,
    }  # fmt: skip
    assert [m.paths[i] for i in m.ids(UNLABELLED)] == ["unlabeled/9.webp"]
    assert m.counts()["rose"] == {"labelled": 2, "unlabelled": 0, "validation": 0, "test": 0}
    assert m.counts()[""]["unlabelled"] == 1


def test_parts_with_class_folders(tmp_path: Path) -> None:
    m = read_folder(
        plant(tmp_path, "train/b/1.jpg", "train/a/1.jpg", "val/a/2.jpg", "test/b/3.jpg", "unlabeled/4.jpg")
    )
    assert m.classes == ("a", "b")
    table = {path: (int(k), str(split)) for path, k, split in zip(m.paths, m.labels, m.splits)}
    assert table == {
        "train/a/1.jpg": (0, LABELLED), "train/b/1.jpg": (1, LABELLED), "val/a/2.jpg": (0, VALIDATION),
        "test/b/3.jpg": (1, TEST), "unlabeled/4.jpg": (-1, UNLABELLED),
    }  # fmt: skip


@pytest.mark.parametrize("name", [*FOLDER_NAMES, "Unlabeled", "TEST"])
def test_other_names_of_parts(tmp_path: Path, name: str) -> None:
    split = FOLDER_NAMES[name.lower()]
    base = ("a/1.jpg", "b/1.jpg") if split != LABELLED else (f"{name}/b/1.jpg",)
    m = read_folder(plant(tmp_path, *base, f"{name}/a/2.jpg"))
    assert next(m.paths[i] for i in m.ids(split)) == f"{name}/a/2.jpg"


def test_what_is_not_a_picture_is_not_read(tmp_path: Path) -> None:
    m = read_folder(plant(tmp_path, "a/1.jpg", "b/1.jpg", "a/notes.txt", "a/.hidden.jpg", ".git/x/1.jpg"))
    assert m.paths == ("a/1.jpg", "b/1.jpg")


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.jpg", "b/1.jpg")
    os.symlink(tmp_path / "a", tmp_path / "a" / "again")
    assert read_folder(tmp_path).paths == ("a/1.jpg", "b/1.jpg")


@pytest.mark.parametrize(
    ("names", "message", "fix"),
    [
        ((), "holds no pictures", "DIR/<class>/picture.jpg"),
        (("a/x.txt",), "holds no pictures", "DIR/<class>/picture.jpg"),
        (("unlabeled/1.jpg",), "nothing is labelled", "DIR/<class>/picture.jpg"),
        (("a/1.jpg", "unlabeled/1.jpg"), "has only one class (a)", "a second class"),
        (
            ("train/a/1.jpg", "train/b/1.jpg", "c/1.jpg"),
            "both train/ and class folders beside it (c)",
            "move",
        ),
        (
            ("rose/1.jpg", "tulip/1.jpg", "val/roses/1.jpg"),
            "class 'roses' is not among",
            "did you mean 'rose'?",
        ),
        (
            ("rose/1.jpg", "tulip/1.jpg", "test/zzz/1.jpg"),
            "class 'zzz' is not among",
            "add labelled pictures",
        ),
    ],
)
def test_each_mistake_has_its_message(tmp_path: Path, names: tuple[str, ...], message: str, fix: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_folder(plant(tmp_path, *names))
    assert message in caught.value.reason
    assert fix in caught.value.fix
    assert str(tmp_path) in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["missing", "file.jpg"])
def test_no_folder(tmp_path: Path, name: str) -> None:
    plant(tmp_path, "file.jpg")
    with pytest.raises(UsageError, match="there is no such folder") as caught:
        read_folder(tmp_path / name)
    assert caught.value.exit_code == 2


def test_the_fingerprint_changes_with_the_data_and_only_with_them(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.jpg", "b/1.jpg", "unlabeled/1.jpg")
    seen = [read_folder(tmp_path).fingerprint]
    assert read_folder(tmp_path).fingerprint == seen[0]
    plant(tmp_path, "a/notes.txt")
    assert read_folder(tmp_path).fingerprint == seen[0]
    (tmp_path / "a/1.jpg").write_bytes(b"longer")
    seen.append(read_folder(tmp_path).fingerprint)
    os.utime(tmp_path / "a/1.jpg", ns=(1, 1))
    seen.append(read_folder(tmp_path).fingerprint)
    (tmp_path / "b/1.jpg").rename(tmp_path / "b/2.jpg")
    seen.append(read_folder(tmp_path).fingerprint)
    (tmp_path / "unlabeled/1.jpg").rename(tmp_path / "a/3.jpg")
    seen.append(read_folder(tmp_path).fingerprint)
    assert len(set(seen)) == len(seen) == 5


def test_keep_leaves_classes_as_they_are(tmp_path: Path) -> None:
    m = read_folder(plant(tmp_path, "a/1.jpg", "b/1.jpg", "c/1.jpg"))
    kept = m.keep(np.array([True, False, True]))
    assert (kept.classes, kept.paths, kept.labels.tolist()) == (m.classes, ("a/1.jpg", "c/1.jpg"), [0, 2])
    assert len(kept) == 2


words = st.text("abcXYZé ß0", min_size=1, max_size=5).filter(
    lambda s: s.strip() == s and s.lower() not in FOLDER_NAMES
)


@settings(max_examples=30, deadline=None)
@given(classes=st.sets(words, min_size=2, max_size=5), n=st.integers(1, 3))
def test_any_class_names_come_back_sorted_and_numbered(
    tmp_path_factory: pytest.TempPathFactory, classes: set[str], n: int
) -> None:
    root = tmp_path_factory.mktemp("names")
    plant(root, *(f"{name}/{i}.jpg" for name in classes for i in range(n)))
    m = read_folder(root)
    assert m.classes == tuple(sorted(classes))
    assert [path.split("/")[0] for path in m.paths] == [m.classes[k] for k in m.labels]
    assert len(m) == n * len(classes)
